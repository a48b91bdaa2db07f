"""The chapter on shuffled against structured text."""
