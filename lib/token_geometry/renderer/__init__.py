"""Renderer: the book by pandoc, where Quarto cannot be had."""
