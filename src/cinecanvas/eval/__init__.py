"""Exams: what a clip shows, read from its pixels, and how sure we are of it."""
