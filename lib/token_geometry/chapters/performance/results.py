"""What the commands of `lib/benchmarks` left in `data/benchmarks`, as chapters read it."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from token_geometry.base import InputError, files, project

_TABLE = files.table(__file__)
COMMANDS, NAMES = _TABLE["commands"], _TABLE["names"]
FORWARD = ("forward", "head")  # stages of the forward pass


def folder() -> Path:
    """Where the benchmarks write their results."""
    return project.root() / "data" / "benchmarks"


def read_benchmark(name: str, check: Callable[[dict], object]) -> dict | None:
    """Read a result, by name of its file; None without one, an `InputError` where `check` or JSON fails."""
    path = folder() / f"{name}.json"
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        check(result)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        command = COMMANDS.get(name, f"{COMMANDS['observables-cpu']} --model")
        raise InputError(f"{path} is no whole result of a benchmark: make it again with {command}") from None
    return result


def times(result: dict) -> pd.DataFrame:
    """Seconds per prompt of each stage, as a tidy frame; the reference has the forward pass of the library."""
    rows = []
    for procedure, own in result.get("seconds", {}).items():
        stages = {stage: result["seconds"]["library"][stage] for stage in FORWARD} | own
        total = sum(s["median"] for s in stages.values())
        for stage, s in stages.items():
            part = "forward pass" if stage in FORWARD else "observables"
            rows.append([procedure, stage, part, s["min"], s["median"], s["median"] / total])
    frame = pd.DataFrame(rows, columns=["procedure", "stage", "part", "minimum", "median", "share"])
    return frame.replace({"procedure": NAMES, "stage": NAMES})
