"""Statistics of curves over layers, and linear probes."""
