"""Text from a model: prefill, a jitted decode loop, and a stream of text."""
