"""One map between the ways of counting layers: printed in the chapter on methods, kept in every dataset."""

import json

COLUMNS = ("hidden_states", "content", "output of block", "resid_pre of block", "Marks & Tegmark", "call_upto")
"""Ways of counting: transformers, blocks from zero, TransformerLens, Marks & Tegmark, and 0xekez's LLaMA."""

ROWS = (
    ("0", "embeddings", "none", "0", "none", "0"),
    ("l, with 1 ≤ l < L", "residual stream after l blocks", "l − 1", "l", "l − 1", "l"),
    ("none", "residual stream after L blocks, before the norm", "L − 1", "none", "L − 1", "none"),
    ("L", "the same, after the final norm", "none", "none", "none", "none"),
)
"""The same state by each of them, in a model of L blocks; "none": it has no index there."""


def as_json(*, final_norm: bool = True) -> str:
    """The map as an attribute of a dataset whose dimension `layer` counts as `hidden_states` does.

    With `final_norm`, layer L of the dataset is the state after the final norm; else it is the one before.
    """
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    described = {"layer": COLUMNS[0], "layer L": (ROWS[-1] if final_norm else ROWS[-2])[1], "map": rows}
    return json.dumps(described, ensure_ascii=False)
