"""First contact with a GPU: ten steps in ten minutes, each with a verdict in one sentence.

`plan` has the steps in their order, `contact` goes through them, `attempts` runs one in a process of its own. A step is
a module of `probes`, which measures, and one of `verdicts`, a pure function of what was measured. Nothing outside of
`probes` imports torch, so that an installation that is broken ends a step and not the plan.
"""
