"""Guards against items that give an answer away."""
