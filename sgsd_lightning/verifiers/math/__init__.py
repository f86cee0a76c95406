"""Mathematical answers: extraction from a completion, and equivalence with the published one."""
