"""The appendix on families of models: what `lib/benchmarks/families.py` found, as Markdown."""

import json
import re
import string
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from token_geometry.base import project
from token_geometry.chapters import markup


def as_page() -> str:
    """Counts, the families that are read, by how, and those that are refused, by the line that says why."""
    found = json.loads((project.root() / "data" / "families.json").read_text(encoding="utf-8"))
    rows, counts = found["families"], {"failed": 0} | found["counts"]
    equal = [row for row in rows if row["outcome"] == "equal"]
    counts |= {"n_encoders": sum(bool(row["setting"]) for row in rows), "n_models": len(rows)}
    counts |= {"n_equal": len({row["class"] for row in equal})}
    read_with = _rows((row["statements"], _name(row)) for row in equal)
    said = _rows((_line(row), _name(row)) for row in rows if row["outcome"] != "equal")
    form = string.Template(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    text = form.substitute(found | counts, read_with=read_with, said=said)
    kinds = {"whole": "dtypes", "a part": "parts"}
    parts = [(_name(row), what, row[key]) for row in equal for what, key in kinds.items()]
    told = [(name, f"{what} in {dtype}", line) for name, what, lines in parts for dtype, line in lines.items()]
    other = [(f"{name}: {line}".replace("model 'tiny'", "…"), at) for name, at, line in told if line != "equal"]
    lines = [f"- {markup.escaped(f'{line} ({where})')}" for line, where in _grouped(other)]
    return "\n".join([text, "Exceptions among those that are equal:", "", *lines, ""]) if lines else text


def _name(row: dict) -> str:
    return row["model_type"] + " (as a decoder)" * bool(row["setting"])


def _line(row: dict) -> str:
    """What was said, so that families of which the same is said have the same line."""
    return re.sub(r"\(\d+(, \d+)+\)|model 'tiny(@random)?'", "…", row["line"].replace(row["class"], "…"))


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Keys with their values as a list in words, those with most values first."""
    found = pd.DataFrame(pairs, columns=["key", "value"]).groupby("key", sort=False)["value"].agg(list)
    return [(key, ", ".join(found[key])) for key in sorted(found.index, key=lambda key: -len(found[key]))]


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    """Rows of a table, one per key."""
    return "\n".join(f"| {markup.escaped(key)} | {markup.escaped(names)} |" for key, names in _grouped(pairs))
