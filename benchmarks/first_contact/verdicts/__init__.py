"""What each step's measurements mean: a module with a pure ``judge(found)`` per probe, and what a crash means.

A measurement that was not made is absent, so that ``judge`` also says what is known of a probe that was ended; where
nothing is, the outcome is ``skipped``.
"""
