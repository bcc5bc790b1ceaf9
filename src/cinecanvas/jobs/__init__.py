"""Durable jobs: what was accepted is made, whoever is killed when."""
