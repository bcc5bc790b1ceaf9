"""The machine that a model works on."""
