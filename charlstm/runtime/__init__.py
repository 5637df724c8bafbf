"""Processes and devices: joining, signals, shardings, targets, settings of the compiler."""
