"""What the benchmarks share: a stopwatch, memory, the machine's description, and files that are whole."""

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import joblib
import numpy as np
import torch
import xarray as xr

from token_geometry.base import project, store
from token_geometry.base.errors import InputError
from token_geometry.base.resources import processor, status
from token_geometry.extraction import shards
from token_geometry.extraction.plan import ShardKey
from token_geometry.geometry import local_dimension, neighbors, subsets
from token_geometry.observables import catalog
from token_geometry.requests.extraction import Extraction
from token_geometry.states.heads import Head
from token_geometry.states.model import LanguageModel, States

FORWARD = ("forward", "head")
"""Stages of the forward pass: the blocks, and the loss from the logits."""

OBSERVABLES = ("neighbors", "writing", "observables")
"""Stages of this library after the forward pass, but for what the reference has nothing beside."""

LOCAL = "local_dimensions"
"""Stage of ESS and TLE, which the reference procedure does not estimate."""

BESIDE = {LOCAL: (LOCAL,), "parts": ("part_distances", "part_estimates"), "lens": ("lens",)}
"""What the reference has nothing beside, by name: local dimensions, parts of the cloud, latent predictions."""


class Stopwatch:
    """Seconds of named stages.

    A stage inside another counts for itself only, so the stages always add up to the time between the
    first start and the last end.

    Parameters
    ----------
    device
        Torch device; work that was queued on a GPU is waited for at every change of stage.
    clock
        Tells the seconds: the wall's, or this process's on all cores, which other programs hardly touch.
    """

    def __init__(self, device: str = "cpu", *, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self.seconds: dict[str, float] = {}
        self._device = torch.device(device)
        self._open: list[str] = []
        self._last = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block for stage `name`."""
        self._change()
        self._open.append(name)
        try:
            yield
        finally:
            self._change()
            self._open.pop()

    @contextmanager
    def around(
        self, owner: object, function: str, name: str, *, but_in: str = "", needed: bool = True
    ) -> Iterator[list]:
        """Count every call of a function for stage `name`; gives a list that holds its last result.

        Calls in stage `but_in` count for that one. What is not `needed` need not be called.
        So the pipeline is measured as it runs, not a copy of it that could fall behind.
        """
        original, last = getattr(owner, function), []

        @functools.wraps(original)
        def timed(*args, **kwargs):
            with self.stage(but_in if but_in and but_in in self._open else name):
                last[:] = [original(*args, **kwargs)]
            return last[0]

        with mock.patch.object(owner, function, timed):
            yield last
        if not last and needed:
            raise RuntimeError(f"{function} was not called: the pipeline calls another function by now")

    @contextmanager
    def inside(self, name: str, owner: object, function: str, part: str) -> Iterator[None]:
        """Count the calls of a function for stage `part`, which threads make at once in stage `name`.

        They are taken to share out their time evenly, as they do where each has many calls.
        """
        original, spent = getattr(owner, function), []

        @functools.wraps(original)
        def timed(*args, **kwargs):
            begin = self._clock()
            result = original(*args, **kwargs)
            spent.append(self._clock() - begin)
            return result

        with mock.patch.object(owner, function, timed):
            yield
        self.seconds[part] = sum(spent) / torch.get_num_threads()
        self.seconds[name] -= self.seconds[part]

    def total(self, stages: Iterable[str] = ()) -> float:
        """Seconds of some stages together, by default of all."""
        return sum(self.seconds.get(name, 0.0) for name in stages or self.seconds)

    def _change(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = self._clock()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._last
        self._last = now


@dataclass(frozen=True)
class Passed:
    """What one prompt leaves on its way through the library."""

    states: States
    shard: xr.Dataset
    observed: xr.Dataset
    n_bytes: int
    """Size of the shard on disk."""


def run_library(
    model: LanguageModel,
    key: ShardKey,
    request: Extraction,
    recipe: dict,
    *,
    path: Path,
    watch: Stopwatch,
) -> Passed:
    """Take one prompt through forward pass, tables, shard and observables.

    Parameters
    ----------
    model, key, request, recipe
        As for `shards.make_shard`.
    path
        File of the shard.
    watch
        Counts the stages of `FORWARD` and `OBSERVABLES`; "writing" holds all that the shard costs:
        its assembly, the file, and reading it back.
    """
    with ExitStack() as stack:
        passed = stack.enter_context(watch.around(LanguageModel, "forward_batch", "forward"))
        stack.enter_context(watch.around(Head, "predictions", "head"))
        stack.enter_context(watch.around(Head, "lens", "lens"))
        stack.enter_context(watch.inside("neighbors", local_dimension, "local_dimensions", LOCAL))
        stack.enter_context(watch.inside("neighbors", neighbors, "part_distances", "part_distances"))
        # short prompts have no parts
        stack.enter_context(watch.around(subsets, "estimates", "part_estimates", needed=False))
        stack.enter_context(watch.around(neighbors, "neighbor_tensors", "neighbors"))
        stack.enter_context(watch.stage("writing"))
        shard = shards.make_shard(model, key, request, recipe)
        store.write(shard, path)
        shard = store.read(path)
    with watch.stage("observables"):
        observed = catalog.observables(shard)
    (states,) = passed[0]
    return Passed(states, shard, observed, path.stat().st_size)


def spread(values: Iterable[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    values = list(values)
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def stage_seconds(watches: Iterable[Stopwatch]) -> dict[str, dict[str, float]]:
    """Spread of every stage over measurements, in the order in which the stages ran."""
    watches = list(watches)
    return {name: spread(watch.seconds[name] for watch in watches) for name in watches[0].seconds}


@contextmanager
def added_memory() -> Iterator[list[int]]:
    """Gives a list that holds what the block's peak adds to the resident size, bytes.

    The list stays empty where the system cannot reset a peak (it takes Linux).
    """
    added: list[int] = []
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
    except OSError:
        before = None
    yield added
    if before is not None:
        added.append(max(status("VmHWM") - before, 0))


def vector_instructions() -> dict[str, str]:
    """The widest that NumPy and torch use here, by their own names."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]
    widest = (found.get("found") or found["baseline"])[-1]
    return {"numpy": widest, "torch": torch.backends.cpu.get_cpu_capability()}


def describe_machine(device: str = "cpu") -> dict:
    """Processor, the vector instructions that are used of it, cores, threads, GPU."""
    gpu = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None
    return {
        "processor": processor(),
        "vector_instructions": vector_instructions(),
        "cores": joblib.cpu_count(only_physical_cores=True),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "system": platform.system(),
    }


def describe_shape(model: LanguageModel) -> dict:
    """What decides how long a forward pass takes; `block_parameters` leaves out the embeddings."""
    config = model.model.config.get_text_config()
    embeddings = model.model.get_input_embeddings().weight.numel()
    return {
        "title": model.source.title,
        "layers": model.n_layers,
        "width": config.hidden_size,
        "attention_width": config.num_attention_heads
        * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads),
        "vocabulary": config.vocab_size,
        "block_parameters": sum(p.numel() for p in model.model.base_model.parameters()) - embeddings,
    }


def make_result(
    benchmark: str,
    parameters: dict,
    results: dict,
    *,
    device: str = "cpu",
    more_versions: Iterable[str] = (),
) -> dict:
    """What a benchmark's file holds: device, versions, date, parameters, and the results."""
    attrs = store.make_attrs(benchmark, parameters)
    more = {name: importlib.metadata.version(name) for name in more_versions}
    return {
        "benchmark": benchmark,
        "created": attrs["created"],
        "device": describe_machine(device),
        "versions": json.loads(attrs["versions"]) | more,
        "parameters": parameters,
        **results,
    }


def write_json(result: dict, path: Path) -> None:
    """Write a result so that the file is either whole or not there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(_rounded(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"output {path} cannot be written ({error.strerror}): choose another one") from None
    finally:
        partial.unlink(missing_ok=True)
    print(f"written: {path}")


def _rounded(value):
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def default_output(name: str) -> Path:
    """File of a benchmark's result under the project's `data/benchmarks`."""
    return project.root() / "data" / "benchmarks" / f"{name}.json"


def at_least(option: str, value: int, bound: int) -> None:
    """Refuse an option below its bound."""
    if value < bound:
        raise InputError(f"{option} is {value}; accepted: {bound} or more")


def run_command(parser: argparse.ArgumentParser, benchmark: Callable[[argparse.Namespace], None]) -> int:
    """Parse the command line and run a benchmark; what it refuses is one line and exit status 1."""
    options = parser.parse_args()
    try:
        benchmark(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
