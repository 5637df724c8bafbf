"""Text: from a name or a path to bytes, alphabets, splits, streams and n-gram levels."""
