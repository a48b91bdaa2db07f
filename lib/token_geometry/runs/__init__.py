"""Runs: what is declared in data/runs, its results, and how they are made."""
