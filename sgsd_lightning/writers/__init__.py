"""Skill writers and the language models behind them."""
