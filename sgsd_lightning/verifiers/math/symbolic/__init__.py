"""Expressions read, evaluated and compared in the worker process; imports neither the package's own roots nor torch."""
