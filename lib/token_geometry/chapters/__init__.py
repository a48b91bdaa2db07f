"""Chapters: from results to frames, charts and prose."""
