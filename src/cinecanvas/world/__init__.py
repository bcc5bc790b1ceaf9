"""The miniature world that our model learns and is examined in."""
