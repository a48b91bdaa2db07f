"""The chapter that sets models side by side."""
