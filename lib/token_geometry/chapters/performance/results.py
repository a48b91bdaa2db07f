"""Results of the benchmarks as the chapters read them.

The files of `data/benchmarks` are written by the commands of `lib/benchmarks`; a chapter only reads them,
and says which command makes what is missing.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from IPython.display import Markdown

from token_geometry.base import project
from token_geometry.base.errors import InputError
from token_geometry.chapters import markup
from token_geometry.runs import declaration

COMMANDS = {
    "observables-cpu": "python lib/benchmarks/observables.py",
    "observables-gpu": "python lib/benchmarks/gpu.py",
    "observables-reduced": "python lib/benchmarks/gpu.py --device cpu",
    "loading": "python lib/benchmarks/loading.py",
    "truth-cpu": "python lib/benchmarks/truth.py",
}
"""File of `data/benchmarks`, without suffix → the command that makes it."""

PROCEDURES = {"library": "this library", "reference": "reference procedure"}

_PASS = {"forward": "forward pass: blocks", "head": "forward pass: logits, loss"}

STAGES = {
    "library": _PASS
    | {
        "neighbors": "distances, neighbors, cosine",
        "cosine": "cosine similarity",
        "local_dimensions": "local dimensions: ESS, TLE",
        "writing": "shard: writing, reading",
        "observables": "observables",
    },
    "reference": _PASS
    | {
        "distances": "distance matrices to disk",
        "dimension": "duplicates and GRIDE",
        "overlap": "neighborhood overlap",
        "cosine": "cosine matrices",
    },
}
"""Stages of each procedure, in the order of the charts, with the names that a reader sees."""

FORWARD = tuple(_PASS)
"""Stages of the forward pass."""


@dataclass(frozen=True)
class Benchmarks:
    """The benchmark results that are there, and the run whose cost is estimated from them.

    `cpu` are both procedures side by side on the CPU, `others` the same for other models, and `shapes` the
    shapes of Llama-3-8B on a GPU or, where there is no such result, reduced ones on a CPU. `missing` are keys
    of `COMMANDS` of the results that this chapter lacks.
    """

    run: declaration.Run
    cpu: dict | None
    others: tuple[dict, ...]
    shapes: dict | None
    missing: tuple[str, ...]


def open_benchmarks(run: str = "") -> Benchmarks:
    """Read the results of the benchmarks; an `InputError` says if a file is damaged or there is no such run."""

    def read(name: str) -> dict | None:
        return read_benchmark(name, lambda result: median(result, "library"))

    cpu, gpu, reduced = map(read, ("observables-cpu", "observables-gpu", "observables-reduced"))
    missing = [name for name, found in (("observables-cpu", cpu), ("observables-gpu", gpu)) if found is None]
    others = [read(path.stem) for path in sorted(folder().glob("observables-cpu-*.json"))]
    return Benchmarks(declaration.load(run), cpu, tuple(others), shapes=gpu or reduced, missing=tuple(missing))


def read_benchmark(name: str, check: Callable[[dict], object]) -> dict | None:
    """Read the result of one benchmark by the name of its file without suffix; None where there is none.

    `check` uses what a chapter needs of it, and fails if that is not there; an `InputError` says so, or that
    the file is damaged.
    """
    path = folder() / f"{name}.json"
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        check(result)
    except (OSError, ValueError, KeyError, TypeError):
        command = COMMANDS.get(name, f"{COMMANDS['observables-cpu']} --model")
        raise InputError(f"{path} is no whole result of a benchmark: make it again with {command}") from None
    return result


def folder() -> Path:
    """Where the benchmarks write their results."""
    return project.root() / "data" / "benchmarks"


def measured(name: str) -> Callable[[Callable[..., Markdown]], Callable[..., Markdown]]:
    """Decorator of functions that say something of a result: where it is missing, how to make it."""
    missing = f"Not measured yet: `{COMMANDS[name]}` makes data/benchmarks/{name}.json."
    return markup.unless(lambda result: "" if result else missing)


def stage_seconds(result: dict, procedure: str) -> dict[str, dict[str, float]]:
    """Seconds per prompt of each stage: minimum, median, maximum; the forward pass comes first.

    The reference procedure has no forward pass of its own: it gets that of the library.
    """
    seconds = result["seconds"]
    known = {stage: seconds["library" if stage in FORWARD else procedure] for stage in STAGES[procedure]}
    return {stage: own[stage] for stage, own in known.items() if stage in own}


def median(result: dict, procedure: str, *, forward: bool | None = None) -> float:
    """Sum of the medians of the stages: of the forward pass, of all else, or (None) of all."""
    stages = stage_seconds(result, procedure)
    return sum(s["median"] for name, s in stages.items() if forward is None or forward == (name in FORWARD))
