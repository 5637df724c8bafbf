"""Records and scores the activations of a model's cells on a text."""
