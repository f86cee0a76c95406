"""Checkpoints: their files and folders, how they are read, and the identity of the run that wrote them."""
