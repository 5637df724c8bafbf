"""Holds persistent LSTM kernels for Hopper GPUs, candidates that wait for a measurement."""
