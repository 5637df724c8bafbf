"""Scores of a text under a model: as it is, at a temperature, or learning on from the text."""
