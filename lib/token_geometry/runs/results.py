"""Results: the files of a run, whether they are fresh, and the requests that make them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import xarray as xr

from token_geometry.base import InputError, one_of, store
from token_geometry.requests.protocol import Request, Step, kinds
from token_geometry.runs import declaration

Kind = TypeVar("Kind", bound=Request)


def results(run: declaration.Run) -> dict[str, Step]:
    """The files of a run by name, each as the step that makes it."""
    return {step.name: step for kind in kinds() for step in kind.declared(run)}


def steps(run: declaration.Run) -> list[Step]:
    """Every notebook of a run with its parameters, each after those whose output it reads."""
    return in_order(results(run).values())


def in_order(chosen: Iterable[Step]) -> list[Step]:
    """The steps that make some results, each once and after those whose output it reads."""
    found = {}
    for step in chosen:
        found |= {one.name: one for one in (*in_order(step.reads), step)}
    return list(found.values())


def requests(run: declaration.Run, kind: type[Kind]) -> list[Kind]:
    """The requests of one kind, and of none that is derived from it, that a run makes."""
    return [step.request for step in steps(run) if type(step.request) is kind]


def read(run: declaration.Run, name: str) -> xr.Dataset | None:
    """A result of a run, None where it declares none; an `InputError` says if it is missing, damaged or stale."""
    if (result := results(run).get(name)) is None:
        return None
    if path := result.found():
        return store.read(path)
    state = "stale or damaged" if result.path.is_file() else "missing"
    way_out = f"python -m token_geometry run {run.name}"
    raise InputError(f"the result {name!r} of run {run.name!r} is {state}: {way_out}")


def publish(run: declaration.Run) -> list[Path]:
    """Write the results of a run, which have to be there, to `data/published`, in float32 and compressed."""
    written = []
    for name, step in results(run).items():
        dataset = read(run, name)
        if dataset is not None and step.found() == step.path:
            halves = {key: v.astype(np.float32) for key, v in dataset.data_vars.items() if v.dtype == np.float64}
            store.write(dataset.assign(halves), step.shipped, compressed=True)
            written.append(step.shipped)
    return written


def open_results(run: str = "", name: str = "observables") -> xr.Dataset:
    """A result of a declared run, or what a command has written, as a labelled data set.

    Parameters
    ----------
    run
        Name of a file of `data/runs`, or path of a `.nc` file; empty: the run of the Quarto profile, or the demo.
    name
        `observables`, `control` (of control models), `longer`, `calibration`, or `truth-` and a model's name.

    Raises
    ------
    InputError
        If there is no such run or result, or it is not made yet, stale or damaged.

    Examples
    --------
    >>> found = token_geometry.open_results("demo")
    >>> found["intrinsic_dimension"].sel(model="smollm2-135m", shuffle_level=0, scale=2).mean("prompt")
    """
    if run.endswith(".nc"):
        return store.read(Path(run))
    declared = declaration.load(run)
    if (found := read(declared, name)) is None:
        raise InputError(f"run {declared.name!r}: {one_of('result', name, results(declared))}")
    return found
