"""Named experiments: one file each, its docstring giving the exact command and the result."""
