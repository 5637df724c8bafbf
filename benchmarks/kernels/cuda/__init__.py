"""The kernel in CUDA C++, called through XLA's FFI."""
