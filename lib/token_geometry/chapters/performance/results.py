"""Results of the benchmarks as the performance chapter reads them.

The files of `data/benchmarks` are written by the commands of `lib/benchmarks`; a chapter only reads them,
and says which command makes what is missing.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from token_geometry.base import project
from token_geometry.base.errors import InputError
from token_geometry.runs import declaration

COMMANDS = {
    "observables-cpu": "python lib/benchmarks/observables.py",
    "observables-gpu": "python lib/benchmarks/gpu.py",
    "observables-reduced": "python lib/benchmarks/gpu.py --device cpu",
}
"""File of `data/benchmarks`, without suffix → the command that makes it."""

PROCEDURES = {"library": "this library", "reference": "reference procedure"}

STAGES = {
    "forward": "forward pass: blocks",
    "head": "forward pass: logits, loss",
    "neighbors": "distances and neighbors",
    "cosine": "cosine similarity",
    "writing": "shard: writing, reading",
    "observables": "observables",
}
"""Stages of this library, in the order of the charts, with the names that a reader sees."""

REFERENCE_STAGES = {
    "forward": STAGES["forward"],
    "head": STAGES["head"],
    "distances": "distance matrices to disk",
    "dimension": "duplicates and GRIDE",
    "overlap": "neighborhood overlap",
    "cosine": "cosine matrices",
}
"""The same for the reference procedure."""

FORWARD = ("forward", "head")
"""Stages of the forward pass."""


@dataclass(frozen=True)
class Benchmarks:
    """The benchmark results that are there."""

    run: declaration.Run
    """Run whose cost is estimated from them."""

    cpu: dict | None
    """Both procedures side by side on the CPU."""

    others: tuple[dict, ...]
    """The same for other models."""

    shapes: dict | None
    """The shapes of Llama-3-8B on a GPU or, where there is no such result, reduced ones on a CPU."""

    missing: tuple[str, ...]
    """Keys of `COMMANDS` of the results that this chapter lacks."""


def open_benchmarks(run: str = "", *, folder: Path | None = None) -> Benchmarks:
    """Read the results of the benchmarks.

    Parameters
    ----------
    run
        Name of a run; empty for that of the active Quarto profile.
    folder
        Where the files are; by default `data/benchmarks`.

    Raises
    ------
    InputError
        If there is no such run, or a file is damaged.
    """
    folder = folder or project.root() / "data" / "benchmarks"
    cpu, gpu, reduced = (_read(name, command, folder) for name, command in COMMANDS.items())
    missing = [name for name, found in zip(COMMANDS, (cpu, gpu), strict=False) if found is None]
    paths = sorted(folder.glob("observables-cpu-*.json"))
    others = tuple(_read(path.stem, f"{COMMANDS['observables-cpu']} --model", folder) for path in paths)
    declared = declaration.load(run)
    return Benchmarks(run=declared, cpu=cpu, others=others, shapes=gpu or reduced, missing=tuple(missing))


def _read(name: str, command: str, folder: Path) -> dict | None:
    return read_benchmark(name, command, lambda result: median(result, "library"), folder=folder)


def read_benchmark(
    name: str, command: str, check: Callable[[dict], object], *, folder: Path | None = None
) -> dict | None:
    """Read the result of one benchmark.

    Parameters
    ----------
    name
        Name of the file, without suffix.
    command
        Command that makes it.
    check
        Function that uses what a chapter needs of it, and fails if that is not there.
    folder
        Where the file is; by default `data/benchmarks`.

    Returns
    -------
    dict or None
        None where there is no such file.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    path = (folder or project.root() / "data" / "benchmarks") / f"{name}.json"
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        check(result)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no whole result of a benchmark: make it again with {command}") from None
    return result


def stage_seconds(result: dict, procedure: str) -> dict[str, dict[str, float]]:
    """Seconds per prompt of each stage: minimum, median, maximum; the forward pass comes first.

    The reference procedure has no forward pass of its own: it gets that of the library.
    """
    ours = result["seconds"]["library"]
    if procedure == "library":
        return {stage: ours[stage] for stage in STAGES if stage in ours}
    theirs = result["seconds"][procedure]
    return {stage: (ours if stage in FORWARD else theirs)[stage] for stage in REFERENCE_STAGES}


def median(result: dict, procedure: str, *, forward: bool | None = None) -> float:
    """Sum of the medians of the stages: of the forward pass, of all else, or (None) of all."""
    stages = stage_seconds(result, procedure)
    return sum(s["median"] for name, s in stages.items() if forward is None or forward == (name in FORWARD))
