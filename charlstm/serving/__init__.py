"""A server of completions: requests share the batch, and join and leave it between chunks."""
