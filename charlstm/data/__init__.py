"""Turns a name or a path into text: bytes, alphabet, splits, streams and n-gram levels."""
