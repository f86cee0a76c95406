"""A dozen word problems and a small bank, so that a run on problems of one's own can be tried anywhere.

``package://sgsd_lightning.starter/word_problems.jsonl`` and ``…/word_bank.json`` name them.
"""
