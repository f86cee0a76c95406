"""A dozen word problems and two small banks, so that a run on problems of one's own can be tried anywhere.

``package://sgsd_lightning.starter/word_problems.jsonl`` and ``…/word_bank.json`` name them. ``…/sums_bank.json`` is
about sums and differences; its metadata, which no prompt shows, names the third of its items that are wrong on purpose.
"""
