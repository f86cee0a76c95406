"""The teacher's top-k tokens plus the sampled one, and the student on them."""
