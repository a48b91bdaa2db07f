"""Libraries that take seconds to import, imported when first used: who only reads results does without."""

import importlib
from typing import Any


class _Library:
    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


accelerate, datasets, huggingface_hub = map(_Library, ("accelerate", "datasets", "huggingface_hub"))
torch, transformers = map(_Library, ("torch", "transformers"))
