"""The network: its parameters, how they are computed with, and the model that binds both."""
