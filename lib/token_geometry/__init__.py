"""Geometry of the hidden states of language models, from text to figures."""

import importlib
import sys

__version__ = "0.2.0"

# jsonschema, which Altair and nbformat import, would compile a grammar for a check of internationalized
# addresses that nothing here asks for. That takes three seconds of every process; jsonschema does without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def __getattr__(name: str):
    # at first use, since it takes torch, which takes seconds to import
    if name == "measure":
        return importlib.import_module("token_geometry.observables.tables").measure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
