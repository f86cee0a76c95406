"""Benchmarks and reports, run as modules from a checkout: ``python -m benchmarks.NAME``."""
