"""What the cells of a trained model do while it reads a text."""
