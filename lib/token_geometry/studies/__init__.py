"""Studies: what notebooks compute beside or after an extraction."""
