"""Measurements of charlstm and of its peers; each is run as `python -m benchmarks.NAME`."""
