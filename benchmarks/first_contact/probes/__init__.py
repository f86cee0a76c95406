"""What each step measures: a module with ``measure(record)`` per step, run by `python -m` this package in its process."""
