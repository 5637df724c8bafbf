"""Training: the update, the loop around it with its hooks, and everything that a run owns."""
