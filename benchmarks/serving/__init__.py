"""Benchmarks of `charlstm serve`, against the real process."""
