"""Pixels, sound and files: in and out of the house."""
