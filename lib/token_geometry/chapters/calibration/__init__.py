"""The chapter on how far the estimates can be trusted."""
