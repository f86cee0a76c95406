"""Texts from outside: read strictly, searched for damage, shown without giving orders to a terminal."""
