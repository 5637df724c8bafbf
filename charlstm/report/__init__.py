"""Shows one run or several on an HTML page."""
