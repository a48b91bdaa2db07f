"""What of the book follows its run: its pages and parts, its line under the title, and what could be added."""

import re

from token_geometry.requests.run import Run
from token_geometry.texts import statements

ADDED = {
    "shuffled": "shuffled prompts: levels above 0 in `shuffle_levels` of `extractions`",
    "several": "a second model to compare with, in `models`",
    "genres": "texts of other kinds: `genres`",
    "controls": "an untrained or permuted model to compare with: `controls`",
    "truth": "true and false statements at a layer: `truth`",
    "classes": "labelled texts of more than two classes, as `maths`, in `datasets` of `truth`",
    "sets": "further data sets of true and false statements, in `datasets` of `truth`",
    "truth_controls": "what could stand behind a probe of truth, as likelihood: `truth_controls`",
    "steered": "directions that are added to states: `steered: true` for a model of `truth_controls`",
    "calibration": "the estimators held against what is known: `calibration`",
}
"""What a run can do without, by the name that the sources of the book have for it, and how it is added."""


def lacks(run: Run) -> list[str]:
    """What of `ADDED` a run does not declare; if it declares all of it, it lacks what is `lacking`."""
    levels = [level for one in run.sections.get("extractions", {}).values() for level in one["shuffle_levels"]]
    has = {*run.sections, *["shuffled"] * any(levels), *["several"] * (len(run.models) > 1)}
    sections = [run.sections.get(key, {}) for key in ("truth", "truth_controls")]
    # the chapters are about the first
    for named in (section["datasets"] for section in sections if section.get("datasets")):
        _, *others = statements.draw_all(named, None, seed=0)[0]
        has |= {"classes" if len(other.classes) > 2 else "sets" for other in others}
    has |= {*["steered"] * any(one.get("steered") for one in sections[1].get("models", {}).values())}
    return [name for name in ADDED if name not in has] or ["lacking"]


def of_run(config: dict, run: Run) -> dict:
    """The configuration of a run's book in addition to that of `_quarto.yml`: chapters, head, what it `lacks`.

    The entries of `pages` in `config` are paths, or map a path to names, one of which the run must have.
    """
    chosen, lacking = [], lacks(run)
    for page in config.get("pages", []):
        [[path, needs]] = page.items() if isinstance(page, dict) else [(page, "")]
        chosen += [path] * (not needs or not set(needs.split()) <= set(lacking))
    return {"book": {"chapters": chosen, "description": head(run)}, "lacks": " ".join(lacking)}


def head(run: Run) -> str:
    """Which run the book is of, in Markdown: a line under the title of the book."""
    title = f": {run.title}" * (run.title not in ("", run.name))
    return re.sub(r"([\\`*_{}\[\]<>#~^$@|&'\"])", r"\\\1", f"Run {run.name}{title}")


def addable(run: Run) -> str:
    """What can be added to a run, as a list in Markdown."""
    return "".join(f"- {ADDED[name]}\n" for name in lacks(run) if name in ADDED) or "- nothing\n"
