"""A run, or several, as a page to look at."""
