"""GGUF files: their headers, and the copies in transformers' own format that are made of them."""
