"""Models: where weights come from, how they are loaded, which device they go to."""
