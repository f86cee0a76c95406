"""Evaluation on samples that are kept in files: collecting, scoring, comparing."""
