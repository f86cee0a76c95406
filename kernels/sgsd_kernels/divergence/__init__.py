"""Divergence of teacher and student over the vocabulary, from hidden states."""
