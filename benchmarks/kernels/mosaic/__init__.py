"""The kernel in Pallas Mosaic GPU."""
