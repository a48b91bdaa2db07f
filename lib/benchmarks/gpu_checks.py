"""All checks that need a GPU: right numbers, batches, too little memory, and what a prompt costs stage by stage.

`gpu.sh` starts it. Without a GPU it runs on the CPU at reduced shapes, and its result says so.
"""

import argparse
import contextlib
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import gpu
import numpy as np
import torch
import xarray as xr
from common import (
    Stopwatch,
    at_least,
    default_output,
    describe_shape,
    make_result,
    run_command,
    stage_seconds,
    write_json,
)

from token_geometry.base import store
from token_geometry.base.errors import InputError
from token_geometry.base.resources import is_gpu, peak_gpu_memory, peak_memory, status
from token_geometry.extraction import batching, pipeline, shards
from token_geometry.extraction.plan import ShardKey
from token_geometry.models import devices, sources
from token_geometry.observables import catalog, transfer
from token_geometry.requests.extraction import Extraction
from token_geometry.states.model import LanguageModel

BOUNDS = {
    "geometry": {"distance": 1e-4, "dimension": 1e-4, "cosine": 1e-6, "overlap": 1e-3},
    "passes": {"distance": 2e-3, "dimension": 2e-2, "cosine": 1e-4, "overlap": 1e-2, "loss": 1e-3},
}
"""Largest differences that a GPU may make: of the geometry of the same states, and of passes in float32."""

N_WARM_UP = 2

ROOMS = (4.5, 2.5, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1)
"""Memory left in the check of too little memory, in prompts."""


class Bench:
    """A model with random weights and prompts for it."""

    def __init__(self, shape: str, *, dtype: str, device: str, n_prompts: int, n_tokens: int):
        self.model = gpu.make_model(shape, dtype=dtype, device=device)
        self.request = Extraction(
            model=shape, corpus="", output="-", n_tokens=n_tokens, dtype=dtype, device=device
        )
        chosen = gpu.random_prompts(n_prompts, n_tokens, n_vocabulary=gpu.SHAPES[shape]["vocab_size"])
        self.keys = [ShardKey(prompt, 0) for prompt in chosen]

    def tables(self, keys: Sequence[ShardKey]) -> list[transfer.Tables]:
        """One pass of some prompts, and the tables of each."""
        return list(shards.make_tables(self.model, keys, self.request, {}))

    def wait(self) -> None:
        """Wait for the device."""
        if is_gpu(self.model.device):
            torch.cuda.synchronize(self.model.device)


# Right numbers


def correctness(device: str, *, n_prompts: int, n_tokens: int, shape: str) -> dict:
    """The same prompts on this device and on the CPU, in float32.

    By SmolLM2 where its weights can be had, else by random weights of the same configuration.
    """
    here, there, ids, weights = _two_models(device, shape, n_prompts, n_tokens)
    request = Extraction(model="-", corpus="-", output="-", n_tokens=n_tokens)
    found: dict[str, list[dict]] = {"geometry": [], "passes": []}
    for prompt in ids:
        keys = [ShardKey(prompt, 0)]
        expected, passed = (shards.make_shard(model, keys[0], request, {}) for model in (there, here))
        found["passes"].append(_differences(passed, expected))
        states = there.forward_batch(np.stack([prompt.token_ids]), logits=True)
        moved = _with_states_of(here, states)
        found["geometry"].append(_differences(shards.make_shard(moved, keys[0], request, {}), expected))
    largest = {name: {k: max(one[k] for one in each) for k in each[0]} for name, each in found.items()}
    exceeded = [
        f"{name} {k}: {largest[name][k]:.2g} over {bound:.2g}"
        for name, bounds in BOUNDS.items()
        for k, bound in bounds.items()
        if not largest[name][k] <= bound
    ]
    return {"weights": weights, "n_prompts": n_prompts, "n_tokens": n_tokens, "largest_differences": largest,
            "exceeded": exceeded, "passed": not exceeded}  # fmt: skip


def _two_models(device, shape, n_prompts, n_tokens):
    if shape == "smollm2-135m":
        try:
            source = sources.resolve(shape)
            here, there = (LanguageModel(source, device=one) for one in (device, "cpu"))
            n_vocabulary = here.model.config.vocab_size
            return here, there, gpu.random_prompts(n_prompts, n_tokens, n_vocabulary=n_vocabulary), "SmolLM2-135M"
        except (InputError, OSError, ImportError) as error:
            print(f"the weights of SmolLM2 cannot be had here, random ones of its shape are taken: {error}")
    here, there = (gpu.make_model(shape, dtype="float32", device=one) for one in (device, "cpu"))
    here.model.load_state_dict(there.model.state_dict())
    n_vocabulary = gpu.SHAPES[shape]["vocab_size"]
    return here, there, gpu.random_prompts(n_prompts, n_tokens, n_vocabulary=n_vocabulary), f"random, {shape}"


def _with_states_of(model: LanguageModel, states: list):
    """The model, with passes that give these states of another device."""
    import copy
    import dataclasses

    moved = copy.copy(model)
    on_device = [
        dataclasses.replace(one, hidden=one.hidden.to(model.device), logits=one.logits.to(model.device))
        for one in states
    ]
    moved.forward_batch = lambda *_, **__: on_device
    return moved


def _differences(found: xr.Dataset, expected: xr.Dataset) -> dict[str, float]:
    ours, theirs = catalog.observables(found), catalog.observables(expected)

    def largest(values) -> float:
        values = np.abs(np.asarray(values))
        return float(np.nanmax(values)) if np.isfinite(values).any() else 0.0

    with np.errstate(invalid="ignore"):
        distance = found["neighbor_distance"] / expected["neighbor_distance"] - 1
        dimension = ours["intrinsic_dimension"] / theirs["intrinsic_dimension"] - 1
    return {
        "distance": largest(distance.where(expected["neighbor_distance"] > 0)),
        "dimension": largest(dimension),
        "cosine": largest(ours["cosine_similarity"] - theirs["cosine_similarity"]),
        "overlap": largest(ours["neighborhood_overlap"] - theirs["neighborhood_overlap"]),
        "loss": largest(ours["loss"] - theirs["loss"]),
        "neighbors_that_differ": float((found["neighbor_index"] != expected["neighbor_index"]).mean()),
    }


# Batches


def batches(bench: Bench, sizes: Sequence[int]) -> dict:
    """Passes and geometry at some batch sizes: prompts per second, and losses beside those of one at a time."""
    single = [float(bench.tables([key])[0].arrays["loss"]) for key in bench.keys]
    rows = []
    for size in sizes:
        bench.wait()
        start = time.perf_counter()
        made = [one for chunk in _chunks(bench.keys, size) for one in bench.tables(chunk)]
        bench.wait()
        seconds = time.perf_counter() - start
        losses = [float(one.arrays["loss"]) for one in made]
        difference = max(abs(a - b) for a, b in zip(losses, single, strict=True))
        rows.append({"batch_size": size, "prompts_per_second": len(made) / seconds, "loss_difference": difference})
    bound = 1e-4 if bench.request.dtype == "float32" else 5e-2
    return {"rows": rows, "passed": all(row["loss_difference"] <= bound for row in rows)}


def _chunks(keys: Sequence, size: int) -> list[Sequence]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


# Too little memory


def halving(bench: Bench, *, size: int) -> dict:
    """A batch that does not fit into the memory left, which is made small for it: what is made of it all the same.

    How much an allocator has kept from before is not known; so the memory is made smaller until it is too small.
    """
    keys = bench.keys[:size]
    for room in ROOMS:
        work = batching.Halving(size, what="one prompt")
        try:
            with _little_memory(bench, room):
                made = work(bench.tables, keys)
        except InputError as error:
            return {"batch_size": size, "room_in_prompts": room, "refused": str(error), "passed": False}
        if work.size < size:
            break
    sound = [one.attrs["prompt"] for one in made] == [key.prompt.id for key in keys]
    return {
        "batch_size": size,
        "room_in_prompts": room,
        "ended_at": work.size,
        "passed": sound and work.size < size,
    }


@contextlib.contextmanager
def _little_memory(bench: Bench, room: float) -> Iterator[None]:
    """Leave room for so many prompts beside the weights: to this process on a GPU, of addresses on a CPU."""
    config, device = bench.model.model.config, bench.model.device
    item = next(bench.model.model.parameters()).element_size()
    n_tokens = bench.request.n_tokens
    prompt = batching.bytes_of_prompt(
        layers=bench.model.n_layers + 1, n_tokens=n_tokens, width=config.hidden_size, item=item
    )
    left = int(room * prompt) + batching.bytes_of_geometry(n_tokens)
    if is_gpu(device):
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        index = torch.device(device).index or 0
        share = (torch.cuda.memory_allocated(device) + left) / total
        torch.cuda.set_per_process_memory_fraction(min(share, 1.0), index)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, index)
        return
    before, n_threads = resource.getrlimit(resource.RLIMIT_AS), torch.get_num_threads()
    torch.set_num_threads(1)  # a new thread would need addresses too
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        torch.set_num_threads(n_threads)


# Time


def stages(bench: Bench, folder: Path) -> dict:
    """Seconds of each stage of one prompt at a time, the device waited for at every change of stage."""
    watches = []
    for key in bench.keys:
        watch = Stopwatch(bench.model.device)
        with (
            watch.around(type(bench.model), "forward_batch", "forward"),
            watch.around(transfer, "leave", "transfer"),
            watch.stage("geometry"),
        ):
            (made,) = bench.tables([key])
        with watch.stage("write"):
            shard = made.label()
            store.write(shard, folder / key.file_name())
        with watch.stage("reduce"):
            catalog.observables(shard)
        watches.append(watch)
    return stage_seconds(watches[N_WARM_UP:] or watches)


def rates(bench: Bench, folder: Path, size: int) -> dict:
    """Prompts per second over all prompts: of passes, of passes and geometry, and with what comes behind them."""
    chunks = _chunks(bench.keys, size)

    def timed(step) -> float:
        bench.wait()
        start = time.perf_counter()
        step()
        bench.wait()
        return len(bench.keys) / (time.perf_counter() - start)

    def forward():
        for chunk in chunks:
            bench.model.forward_batch(np.stack([key.prompt.token_ids for key in chunk]), logits=True)

    def with_geometry():
        for chunk in chunks:
            bench.tables(chunk)

    def whole(keep_neighbors):
        made = ((one, folder / k.file_name()) for c in chunks for k, one in zip(c, bench.tables(c), strict=True))
        for _ in pipeline.behind(made, keep_neighbors=keep_neighbors, batch_size=size):
            pass

    return {
        "forward": timed(forward),
        "with_geometry": timed(with_geometry),
        "written": timed(lambda: whole(True)),
        "reduced_and_written": timed(lambda: whole(False)),
    }


def benchmark(options: argparse.Namespace) -> None:
    """Run all checks, print and write; refused where one fails."""
    start = time.perf_counter()
    device = devices.choose_device(options.device)
    on_gpu = is_gpu(device)
    at_least("--n-prompts", options.n_prompts or 4, 4)
    at_least("--n-tokens", options.n_tokens or 64, 64)
    shape = options.shape or ("llama-3-8b" if on_gpu else "reduced")
    n_prompts, n_tokens = options.n_prompts or (64 if on_gpu else 8), options.n_tokens or (1024 if on_gpu else 128)
    dtype = "bfloat16" if on_gpu else "float32"
    if not on_gpu:
        print(f"no GPU is used: {shape} shapes in {dtype} on the CPU, {n_prompts} prompts of {n_tokens} tokens")
    small = "tiny" if shape == "tiny" else "smollm2-135m"
    results: dict = {"reduced": not on_gpu}
    results["correctness"] = correctness(device, n_prompts=2, n_tokens=min(n_tokens, 256), shape=small)
    bench = Bench(shape, dtype=dtype, device=device, n_prompts=n_prompts, n_tokens=n_tokens)
    for key in bench.keys[:N_WARM_UP]:
        bench.tables([key])
    size, _ = batching.fitting(bench.model, n_tokens)
    if shape != "tiny":  # whose batches an allocator has room for at any time
        # before larger batches leave an allocator with memory of its own
        results["halving"] = halving(bench, size=min(8, n_prompts))
    with tempfile.TemporaryDirectory() as folder:
        results["seconds"] = stages(bench, Path(folder))
        results["prompts_per_second"] = rates(bench, Path(folder), size)
    results["batches"] = batches(bench, [1, 2, 4, 8] if on_gpu else [1, min(8, n_prompts)])
    results |= {
        "batch_size": size,
        "peak_gpu_memory_bytes": peak_gpu_memory([device]) or None,
        "peak_memory_bytes": peak_memory(),
        "model": describe_shape(bench.model),
        "seconds_of_all_checks": time.perf_counter() - start,
    }
    parameters = {"shape": shape, "dtype": dtype, "n_prompts": n_prompts, "n_tokens": n_tokens}
    report(results)
    output = options.output or default_output("gpu" if on_gpu else "gpu-reduced")
    write_json(make_result("gpu", parameters, results, device=device), output)
    failed = [
        name for name in ("correctness", "batches", "halving") if not results.get(name, {"passed": True})["passed"]
    ]
    if failed:
        raise InputError(f"checks that failed on {device}: {', '.join(failed)}; {output} says by how much")


def report(results: dict) -> None:
    """Print what was found."""
    found = results["correctness"]
    print(f"against the CPU ({found['weights']}): {'; '.join(found['exceeded']) or 'within bounds'}")
    for what, differences in found["largest_differences"].items():
        print(f"  {what}: " + ", ".join(f"{name.replace('_', ' ')} {v:.2g}" for name, v in differences.items()))
    for row in results["batches"]["rows"]:
        rate, difference = row["prompts_per_second"], row["loss_difference"]
        print(f"batches of {row['batch_size']}: {rate:.3g} prompts per second, loss within {difference:.2g}")
    if halved := results.get("halving"):
        ended = halved.get("refused") or f"went on with {halved['ended_at']}"
        print(f"too little memory: a batch of {halved['batch_size']} {ended}")
    for stage, seconds in results["seconds"].items():
        print(f"seconds per prompt, {stage}: {seconds['median']:.4f}")
    for name, rate in results["prompts_per_second"].items():
        print(f"prompts per second, {name.replace('_', ' ')}: {rate:.3g}")
    print(f"all checks took {results['seconds_of_all_checks']:.0f} s")


def parse() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=gpu.SHAPES, help="default: llama-3-8b on a GPU, reduced on a CPU")
    parser.add_argument("--n-prompts", type=int, help="default: 64 on a GPU, 8 on a CPU")
    parser.add_argument("--n-tokens", type=int, help="default: 1024 on a GPU, 128 on a CPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="default: data/benchmarks/gpu.json, gpu-reduced.json on a CPU")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(parse(), benchmark))
