"""Texts: corpora, prompts, block shuffles, true and false statements."""
