"""The appendix on provenance: which file each number of the book comes from, and what made it, where and when."""

import json

import pandas as pd
from IPython.display import Markdown

from token_geometry.base import store
from token_geometry.chapters import markup
from token_geometry.chapters.markup import escaped
from token_geometry.runs import declaration, results

LIBRARIES = ("torch", "transformers", "numpy")


def files(run: str = "") -> pd.DataFrame:
    """One row per result of a run that is there: its name, place, device, time, versions, and recipe's digest."""
    declared, rows = declaration.load(run), []
    for name, step in results.results(declared).items():
        if path := step.found():
            attrs = store.read_attrs(path)
            versions = json.loads(attrs["versions"])
            rows.append(
                {
                    "result": name,
                    "came": "with the project" if path == step.shipped else "of this build",
                    "computed on": attrs.get("computed_on", "not recorded"),
                    "at (UTC)": attrs["created"][:16].replace("T", " "),
                    "with": ", ".join(f"{key} {versions[key]}" for key in LIBRARIES if key in versions),
                    "digest": attrs["recipe_digest"],
                }
            )
    return pd.DataFrame(rows)


def table(run: str = "") -> Markdown:
    """`files` as a table."""
    frame = files(run)
    return markup.table(frame.map(escaped)) if len(frame) else Markdown("This run has no results yet.")


def where(run: str = "") -> Markdown:
    """Where the results were computed that came with the project; empty where none did."""
    frame = files(run)
    shipped = frame[frame["came"] == "with the project"] if len(frame) else frame
    if not len(shipped):
        return Markdown("")
    days = sorted({time[:10] for time in shipped["at (UTC)"]})
    there = f"{len(shipped)} of {len(frame)} results of this run came with the project, and were computed on "
    return Markdown(f"{there}{' and '.join(days)} on the devices that @sec-provenance names.")
