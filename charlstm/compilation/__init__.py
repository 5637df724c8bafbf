"""Compiles the program of a configuration for devices that need not be there, and reads it."""
