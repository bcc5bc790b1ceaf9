"""Tiny checkpoints in the true layout of the public ones: their real classes, small and with random weights."""
