"""One module a command: it parses flags, calls the library, and prints; nothing else."""
