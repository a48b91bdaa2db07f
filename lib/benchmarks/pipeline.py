"""Everything but the pass and the geometry: how many prompts per second are labelled, written and reduced.

Tables of the shapes of Llama-3-8B, made once from random points, go through what an extraction does with
them behind a GPU, and through the reduction of the observables notebook. Each number of cores is a process
of its own that is kept to so many, and so is whatever it starts.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psutil
from common import at_least, default_output, make_result, run_command, write_json

from token_geometry.base import store
from token_geometry.base.errors import InputError
from token_geometry.base.resources import peak_memory
from token_geometry.extraction import pipeline
from token_geometry.extraction.plan import PLAN
from token_geometry.observables import transfer
from token_geometry.requests.reduction import Reduction
from token_geometry.studies import reduction

N_LAYERS, N_TOKENS, WIDTH = 33, 1024, 64
"""Shape of the states: the embeddings and the 32 blocks of Llama-3-8B. Tables do not depend on the width."""

N_DIFFERENT = 4
"""How many tables are made, and then used in turn."""

RECIPE = {"model": {"random": "Llama-3-8B"}, "seed": 0}


def ready_made(n_layers: int, n_tokens: int) -> list[transfer.Tables]:
    """Tables of clouds that change a little from layer to layer, on the host in the types of a shard."""
    import numpy as np
    import torch

    from token_geometry.observables import tables

    torch.set_num_threads(1)
    made = []
    for number in range(N_DIFFERENT):
        generator = torch.Generator().manual_seed(number)
        steps = torch.randn(n_layers, n_tokens, WIDTH, generator=generator)
        steps[1:] *= 0.3
        hidden = steps.cumsum(0)
        of_states = tables.arrays(hidden)
        of_token = torch.rand(n_tokens, generator=generator, dtype=torch.float64).numpy()
        arrays = of_states | {
            "loss": of_token.mean(),
            "token_loss": of_token,
            "entropy": of_token.mean(),
            "mean_state": hidden[0, 0],
            "lens_loss": of_token[:n_layers],
            "lens_entropy": of_token[:n_layers],
            "token_entropy": of_token,
            "logit_neighbor_distance": of_states["neighbor_distance"][-1],
            "token_id": np.arange(n_tokens),
            "block_permutation": np.arange(1),
        }
        made.append(transfer.leave(arrays, store.make_attrs("Ready-made tables", RECIPE), device="cpu"))
    return made


class Clock:
    """Seconds by the wall, and of all cores together in this process and in those that it waited for."""

    def __init__(self):
        self._wall, self._cores = time.perf_counter(), _core_seconds()

    def read(self) -> dict[str, float]:
        """Seconds since the beginning."""
        return {"seconds": time.perf_counter() - self._wall, "core_seconds": _core_seconds() - self._cores}


def _core_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


class Run:
    """So many prompts on so many cores, in a folder."""

    def __init__(self, n_prompts: int, n_cores: int, folder: Path, *, n_layers: int, n_tokens: int):
        self.n_prompts, self.n_cores, self.folder, self.n_tokens = n_prompts, n_cores, folder, n_tokens
        self.tables = ready_made(n_layers, n_tokens)

    def finish(self, *, keep_neighbors: bool) -> dict:
        """Tables to files as an extraction does it: seconds, and peak memory after a quarter and after all."""
        memory, clock = {}, Clock()
        steps = pipeline.behind(
            self._made(), keep_neighbors=keep_neighbors, batch_size=1, n_writers=max(1, self.n_cores)
        )
        for n_done, _ in enumerate(steps, start=1):
            if n_done in (self.n_prompts // 4, self.n_prompts):
                memory[str(n_done)] = _peak_of_all()
        return clock.read() | {"peak_memory_bytes": memory}

    def reduce(self) -> dict:
        """Shards to observables, as the notebook does it."""
        self._write_plan()
        clock = Clock()
        found = reduction.compute(Reduction(extraction=str(self.folder), output="observables.nc"))
        result = clock.read()
        if found.sizes["prompt"] != self.n_prompts:
            raise RuntimeError("not all shards were reduced")
        return result

    def _made(self) -> Iterator[tuple[transfer.Tables, Path]]:
        for number in range(self.n_prompts):
            one = self.tables[number % len(self.tables)]
            attrs = one.attrs | {"prompt": str(number), "shuffle_level": 0}
            yield transfer.Tables(one.arrays, attrs), self.folder / f"{number}.nc"

    def _write_plan(self) -> None:
        names = [str(number) for number in range(self.n_prompts)]
        request = {"model": "random", "corpus": "", "n_tokens": self.n_tokens, "seed": 0, "dtype": "bfloat16"}
        plan = {
            "recipe": RECIPE,
            "recipe_digest": store.digest(RECIPE),
            "plan_digest": "",
            "request": request | {"shuffle_levels": [0], "filter_models": []},
            "model_title": "Random",
            "n_examined": self.n_prompts,
            "n_too_short": 0,
            "shards": [{"prompt": name, "shuffle_level": 0, "file": f"{name}.nc"} for name in names],
        }
        (self.folder / PLAN).write_text(json.dumps(plan), encoding="utf-8")


def _peak_of_all() -> dict[str, int]:
    """Peak memory of this process and of those that it started, summed over them, bytes."""
    peaks = []
    for child in psutil.Process().children(recursive=True):
        try:
            lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        except OSError:
            continue
        peaks += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return {"this": peak_memory(), "others": sum(peaks)}


def measure(options: argparse.Namespace) -> dict:
    """Seconds and memory of one number of cores, in this process."""
    n_cores = options.on
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_cores])
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, redirect_stderr(sys.stdout):
        run = Run(options.n_prompts, n_cores, Path(folder), n_layers=options.n_layers, n_tokens=options.n_tokens)
        written = run.finish(keep_neighbors=True)
        shard_bytes = max(path.stat().st_size for path in Path(folder).glob("*.nc"))
        stages = {"write": written, "reduce": run.reduce(), "reduce_behind": run.finish(keep_neighbors=False)}
    seconds = {name: stage["seconds"] for name, stage in stages.items()}
    n = options.n_prompts
    return {
        "cores": n_cores,
        "prompts_per_second": {
            "written": n / seconds["write"],
            "read_and_reduced": n / seconds["reduce"],
            "written_read_and_reduced": n / (seconds["write"] + seconds["reduce"]),
            "reduced_and_written": n / seconds["reduce_behind"],
        },
        "core_seconds_per_prompt": {name: stage["core_seconds"] / n for name, stage in stages.items()},
        "peak_memory_bytes": {
            name: stage["peak_memory_bytes"] for name, stage in stages.items() if "peak_memory_bytes" in stage
        },
        "shard_bytes": shard_bytes,
    }


def benchmark(options: argparse.Namespace) -> None:
    """Measure every number of cores, print and write."""
    for name in ("n_prompts", "n_layers", "n_tokens"):
        at_least("--" + name.replace("_", "-"), getattr(options, name), 4)
    if options.on:
        with redirect_stdout(sys.stderr):
            result = measure(options)
        print(json.dumps(result))
        return
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("this system cannot keep a process to some of its cores: measure on Linux")
    there = len(os.sched_getaffinity(0))
    results = [_in_a_process(options, n) for n in options.cores if n <= there]
    if not results:
        raise InputError(f"--cores is {options.cores}, and this process may use {there}")
    names = ("n_prompts", "n_layers", "n_tokens")
    parameters = {name: getattr(options, name) for name in names}
    for result in results:
        report(result)
    write_json(make_result("pipeline", parameters, {"by_cores": results}), options.output)


def _in_a_process(options: argparse.Namespace, n_cores: int) -> dict:
    command = [sys.executable, __file__, "--on", str(n_cores), "--n-prompts", str(options.n_prompts)]
    command += ["--n-layers", str(options.n_layers), "--n-tokens", str(options.n_tokens)]
    command += ["--folder", str(options.folder)] if options.folder else []
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        raise InputError(f"the measurement on {n_cores} cores failed with exit status {done.returncode}")
    return json.loads(done.stdout)


def report(result: dict) -> None:
    """Print what was measured on one number of cores."""
    print(f"cores: {result['cores']}")
    for name, rate in result["prompts_per_second"].items():
        print(f"  prompts per second, {name.replace('_', ' ')}: {rate:.3g}")
    for name, seconds in result["core_seconds_per_prompt"].items():
        print(f"  core-seconds per prompt, {name.replace('_', ' ')}: {seconds:.3f}")
    for stage, by_prompts in result["peak_memory_bytes"].items():
        for n_prompts, peak in by_prompts.items():
            sizes = f"{peak['this'] / 1e6:.0f} MB here, {peak['others'] / 1e6:.0f} MB in the others"
            print(f"  peak memory after {n_prompts} prompts, {stage.replace('_', ' ')}: {sizes}")


def parse() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-prompts", type=int, default=200)
    parser.add_argument("--n-layers", type=int, default=N_LAYERS)
    parser.add_argument("--n-tokens", type=int, default=N_TOKENS)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="numbers of cores to measure")
    parser.add_argument("--folder", type=Path, help="where shards are written for a while; default: temporary")
    parser.add_argument("--output", type=Path, default=default_output("pipeline"))
    parser.add_argument("--on", type=int, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(parse(), benchmark))
