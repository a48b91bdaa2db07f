"""The appendix on families of models: what `lib/benchmarks/families.py` found, as Markdown."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable

from token_geometry.base import project
from token_geometry.chapters import markup


def as_page() -> str:
    """Counts, the families that are read, by how, and those that are refused, by the line that says why."""
    found = json.loads((project.root() / "data" / "families.json").read_text(encoding="utf-8"))
    rows, counts = found["families"], {"failed": 0} | found["counts"]
    equal = [row for row in rows if row["outcome"] == "equal"]
    text = (
        f"transformers {found['transformers']} registers {found['n_model_types']} families, of "
        f"{found['n_classes']} classes. With {sum(bool(row['setting']) for row in rows)} encoders among them that "
        f"were examined as decoders, too, these are {len(rows)} models: {counts['equal']} were equal to "
        f"transformers (@tbl-families-equal), {counts['refused']} refused (@tbl-families-refused), "
        f"{counts['failed']} failed. Of the classes, {len({row['class'] for row in equal})} have a model that was "
        "equal.\n"
    )
    text += _table("statements are read with", _grouped((row["statements"], _name(row)) for row in equal))
    text += ": Families whose models were equal to transformers'. {#tbl-families-equal}\n"
    others = _grouped((_line(row), _name(row)) for row in rows if row["outcome"] != "equal")
    text += _table("what is said", others)
    text += ": Families that were refused, by the line that says why, without names and shapes. "
    text += "{#tbl-families-refused}\n"
    exceptions = _grouped(
        (f"{_name(row)}: {line}".replace("model 'tiny'", "…"), f"{what} in {dtype}")
        for row in equal
        for what, of_dtype in (("whole", row["dtypes"]), ("a part", row["parts"]))
        for dtype, line in of_dtype.items()
        if line != "equal"
    )
    lines = [f"- {markup.escaped(f'{line} ({where})')}" for line, where in exceptions]
    return "\n".join([text, "Exceptions among those that are equal:", "", *lines, ""]) if lines else text


def _name(row: dict) -> str:
    return row["model_type"] + " (as a decoder)" * bool(row["setting"])


def _line(row: dict) -> str:
    """What was said, so that families of which the same is said have the same line."""
    return re.sub(r"\(\d+(, \d+)+\)|model 'tiny(@random)?'", "…", row["line"].replace(row["class"], "…"))


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Keys with their values as a list in words, those with most values first."""
    found = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return [(key, ", ".join(found[key])) for key in sorted(found, key=lambda key: -len(found[key]))]


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"| {markup.escaped(key)} | {markup.escaped(names)} |" for key, names in rows]
    return "\n".join(["", f"| {title} | families |", "|:----|:------|", *lines, "", ""])
