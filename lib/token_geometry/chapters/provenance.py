"""The appendix on provenance: which file each number of the book comes from, and what made it, where and when."""

import datetime
import json
import shutil
import subprocess

import pandas as pd
from IPython.display import Markdown

from token_geometry.base import files, project, store
from token_geometry.chapters import markup
from token_geometry.runs import declaration, results

LIBRARIES = ("torch", "transformers", "numpy")


def frame(run: str = "") -> pd.DataFrame:
    """One row per result of a run that is there: its name, place, device, time, versions, and recipe's digest."""
    declared, rows = declaration.load(run), []
    for name, step in results.results(declared).items():
        if path := step.found():
            attrs = store.read(path).attrs
            versions = json.loads(attrs["versions"])
            came = "with the project" if path == step.shipped else "of this build"
            row = {"result": name, "came": came, "computed on": attrs.get("computed_on", "not recorded")}
            row["at (UTC)"] = attrs["created"][:16].replace("T", " ")
            row["with"] = ", ".join(f"{key} {versions[key]}" for key in LIBRARIES if key in versions)
            rows.append(row | {"digest": attrs["recipe_digest"]})
    return pd.DataFrame(rows)


def table(run: str = "") -> Markdown:
    """`frame` as a table."""
    made = frame(run)
    text = markup.table(made.map(markup.escaped)).data.replace("--:", ":--")  # words, no numbers
    return Markdown(text if len(made) else "This run has no results yet.")


def colophon() -> Markdown:
    """How to cite the report: authors, title, version, commit, licence, and address, as CITATION.cff has them."""
    cited = files.read_yaml(project.root() / "CITATION.cff", "CITATION.cff")
    names = (one.get("name") or f"{one['given-names']} {one['family-names']}" for one in cited["authors"])
    words = ["git", "-C", str(project.root()), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True).stdout.strip() if shutil.which("git") else ""
    state = f"version {cited['version']}" + f", commit {commit}" * bool(commit)
    address = f", <{cited['repository-code']}>" if "repository-code" in cited else ""
    made = f"{markup.escaped(', '.join(names))} ({datetime.date.today().year}): *{markup.escaped(cited['title'])}*"
    return Markdown(f"{made}, {state}, {cited['license']}{address}.")


def where(run: str = "") -> Markdown:
    """Where the results were computed: by this build, or before they came with the project."""
    made = frame(run)
    shipped = made[made["came"] == "with the project"] if len(made) else made
    if not len(shipped):
        here = "Its results were computed where this book was built"
        return Markdown(f"{here}; the appendix on provenance has versions.")
    days = sorted({time[:10] for time in shipped["at (UTC)"]})
    there = f"{len(shipped)} of {len(made)} results of this run came with the project, and were computed on "
    return Markdown(f"{there}{' and '.join(days)} on the devices that the appendix on provenance names.")
