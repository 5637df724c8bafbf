"""Measures training and sampling, for `charlstm benchmark` and for the comparisons in benchmarks/.

`shapes` says what is measured, `training`, `sampling` and `products` do the work, `windows` times
it, and `measuring` shares a budget of seconds out among all of it.
"""
