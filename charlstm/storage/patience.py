"""Limits the seconds for which a request to a store is tried again."""

SECONDS_OF_PATIENCE = 10.0  # of a command that somebody waits for
SECONDS_OF_A_RUNS_PATIENCE = 900.0
