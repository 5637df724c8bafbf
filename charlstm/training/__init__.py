"""The optimizer, the update, the loop around it, and what it leaves behind."""
