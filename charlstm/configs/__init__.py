"""Holds the named experiments, one in each file; its docstring has the command and the result."""
