"""Hidden states against a head: log-probability of the target, log-sum-exp, entropy."""
