"""Reading: what an extraction's directory is to hold, and its shards; no torch is needed for it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import xarray as xr

from token_geometry.base import store
from token_geometry.base.errors import InputError
from token_geometry.observables import labelled

PLAN = "extraction.json"
"""File of an extraction's directory that says what it is to hold."""


def read_plan(directory: Path) -> dict:
    """What an extraction's directory is to hold.

    Raises
    ------
    InputError
        If the directory holds no extraction.
    """
    path = directory / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        if not {"recipe", "recipe_digest", "plan_digest", "request", "shards"} <= set(plan):
            raise ValueError("keys are missing")
        return plan
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"extraction {str(directory)!r} holds no {PLAN}: run notebooks/extraction.ipynb with this output"
        ) from None
    except ValueError:
        raise InputError(f"{path} is damaged: delete it and run notebooks/extraction.ipynb again") from None


def read_shards(directory: Path) -> Iterator[xr.Dataset]:
    """Iterate over the shards of a complete extraction.

    Raises
    ------
    InputError
        If shards are missing, damaged or of another recipe.
    """
    plan = read_plan(directory)
    paths = [directory / entry["file"] for entry in plan["shards"]]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"extraction {str(directory)!r} is incomplete: {len(missing)} of {len(paths)} shards are missing; "
            "run notebooks/extraction.ipynb again, it goes on where it stopped"
        )
    for path in paths:
        shard = store.read(path)
        if shard.attrs["recipe_digest"] != plan["recipe_digest"]:
            raise InputError(f"{path} is of another recipe: run notebooks/extraction.ipynb again")
        yield shard


def is_reduced(shard: xr.Dataset) -> bool:
    """Whether a shard holds observables in place of neighbor tables."""
    return "observables" in shard.attrs


def has_all_observables(shard: xr.Dataset) -> bool:
    """Whether a reduced shard holds every observable that there is by now."""
    return shard.attrs["observables"] == names_of_observables()


def names_of_observables() -> str:
    """What a reduced shard that holds every observable says in its attribute `observables`."""
    return json.dumps([observable.__name__ for observable in labelled.OBSERVABLES])


def cost_table(directory: Path) -> pd.DataFrame:
    """What each shard cost that is there: device, batch, seconds of the stages per prompt, peak memory (GB).

    The time is that of a prompt; the peak that of the process, up to then.
    """
    rows = []
    for entry in read_plan(directory)["shards"]:
        path = directory / entry["file"]
        if not path.is_file():
            continue  # of another part, or not reached yet
        attrs = store.read_attrs(path)
        row = {
            "prompt": attrs["prompt"],
            "shuffle level": int(attrs["shuffle_level"]),
            "device": attrs["device_name"],
            "batch": int(attrs["batch_size"]),
            "forward (s)": round(float(attrs["seconds_forward"]), 2),
            "geometry (s)": round(float(attrs["seconds_geometry"]), 2),
            "peak memory (GB)": round(int(attrs["peak_memory_bytes"]) / 1e9, 2),
        }
        if int(attrs["n_gpus"]):
            row["peak GPU memory (GB)"] = round(int(attrs["peak_gpu_memory_bytes"]) / 1e9, 2)
        rows.append(row)
    return pd.DataFrame(rows)
