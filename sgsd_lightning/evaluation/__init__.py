"""Evaluation by many samples that are kept: collecting, scoring, comparing."""
