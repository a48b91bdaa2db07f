"""The chapter on what computing costs."""
