"""Libraries that take seconds to import, and are imported when something of them is first asked for.

So whoever only reads results, or only names a model, does without them.
"""

import importlib
from typing import Any


class _Library:
    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


accelerate, datasets, torch, transformers = map(_Library, ("accelerate", "datasets", "torch", "transformers"))
