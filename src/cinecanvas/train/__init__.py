"""The workshop: rendering, training and exporting our own family."""
