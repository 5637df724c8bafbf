"""Checkpoints: written, read, and found again. Using a model needs no trainer.

A checkpoint is a folder `checkpoints/STEP` with three items: `params`, `progress` (the rest of the
train state) and `metadata` (JSON: format version, configuration, alphabet, corpus, versions); where
parameters are averaged, with a fourth, `average`. It stands alone: a model is sampled from that
folder and nothing else, whatever devices it was trained on. Orbax writes and reads the arrays; no
other part of charlstm uses it.
"""
