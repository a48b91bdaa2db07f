"""Geometry of the hidden states of language models, from text to figures."""

__version__ = "0.1.0"
