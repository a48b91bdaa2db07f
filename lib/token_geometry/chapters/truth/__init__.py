"""The chapter on true and false statements."""
