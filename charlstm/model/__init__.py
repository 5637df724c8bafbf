"""The network: parameters, initialisation, and pure functions of them."""
