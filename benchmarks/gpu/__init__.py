"""Measures everything on a machine whose GPU can be had for minutes only, in order of worth."""
