"""Extraction: prompts through a model, one shard of neighbor tables per prompt and shuffle level."""
