"""The same short runs by two commits, compared bit for bit."""
