"""Geometry of the hidden states of language models, from text to figures."""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from token_geometry.observables.tables import measure as measure
    from token_geometry.runs.results import open_results as open_results
    from token_geometry.studies.texts import measure_texts as measure_texts

__all__ = ["measure", "measure_texts", "open_results"]
__version__ = "0.2.0"

# jsonschema, which Altair and nbformat import, would compile a grammar for a check of internationalized
# addresses that nothing here asks for. That takes three seconds of every process; jsonschema does without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


_PLACES = {"measure": "observables.tables", "measure_texts": "studies.texts", "open_results": "runs.results"}


def __getattr__(name: str):
    # at first use, since they take torch, which takes seconds to import
    if name in _PLACES:
        return getattr(importlib.import_module(f"token_geometry.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
