"""The chapter on geometry and loss."""
