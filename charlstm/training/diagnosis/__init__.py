"""What is wrong with a run, in a line: what is observed, what is a fault, what was said before."""
