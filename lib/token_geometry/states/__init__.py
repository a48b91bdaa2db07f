"""States: a model's pass over prompts and statements."""
