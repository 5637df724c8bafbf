"""Measures charlstm and its competitors; each benchmark runs as `python -m benchmarks.NAME`."""
