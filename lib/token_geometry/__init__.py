"""Geometry of the hidden states of language models, from text to figures."""

import sys

__version__ = "0.1.0"

# jsonschema, which Altair and nbformat import, would compile a grammar for a check of internationalized
# addresses that nothing here asks for. That takes three seconds of every process; jsonschema does without.
sys.modules.setdefault("rfc3987_syntax", None)
