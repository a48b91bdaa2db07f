"""One map between the ways of counting layers: printed in the chapter on methods, kept in every dataset."""

import json

from token_geometry.base import files

_TABLE = files.table(__file__)
COLUMNS, ROWS = _TABLE["columns"], _TABLE["rows"]


def as_json(*, final_norm: bool = True) -> str:
    """The map as an attribute of a dataset whose dimension `layer` counts as `hidden_states` does; with
    `final_norm`, its layer L is the state after the final norm, else the one before."""
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    described = {"layer": COLUMNS[0], "layer L": (ROWS[-1] if final_norm else ROWS[-2])[1], "map": rows}
    return json.dumps(described, ensure_ascii=False)
