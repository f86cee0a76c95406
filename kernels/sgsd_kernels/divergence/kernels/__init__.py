"""Triton device code: each module has its kernels, what launches them, and the `specimens` compiled ahead of time."""
