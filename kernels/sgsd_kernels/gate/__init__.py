"""From log-probabilities to stance, polarity and SGSD's loss."""
