"""Diagnoses: statistics of a run, checks on them, and a memory of what was reported."""
