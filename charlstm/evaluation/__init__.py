"""How well a model predicts a text: static, at a temperature, or going on learning."""
