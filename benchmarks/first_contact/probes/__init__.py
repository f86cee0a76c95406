"""What each step measures: a module with ``measure(record)`` per step, which `__main__` runs in its own process."""
