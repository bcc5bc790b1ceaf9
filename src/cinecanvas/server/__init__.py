"""The front of the house: what a stranger's program says over HTTP becomes a Request, and never anything worse."""
