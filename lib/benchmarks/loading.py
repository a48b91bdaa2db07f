"""What loading costs: the first blocks of a model against all of it, and the second load of GGUF files.

The weights are copied first, so that no other process has them in memory: the pages of the copy that are
in memory after a load are then those that it brought in from the disk, what the system reads ahead included.
"""

import argparse
import ctypes
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import at_least, default_output, make_result, run_command, spread, write_json

from token_geometry.base import project
from token_geometry.base.errors import InputError
from token_geometry.models import loading, sources


def load_once(names: list[str], *options: object) -> list[dict]:
    """Loads in a process of their own, one after another."""
    script = str(Path(__file__).with_name("load_once.py"))
    command = [sys.executable, script, "--model", *names, *map(str, options)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise InputError(f"load_once.py with model {names[0]} failed: {reason.removeprefix('error: ')}")
    return json.loads(done.stdout)


def load_from_disk(folder: Path, n_layers: int | None, dtype: str) -> dict:
    """One load of a directory of which nothing is in memory, with the bytes that were read from its weights."""
    weights = sorted(folder.glob("*.safetensors"))
    for path in weights:
        evict(path)
    before = [in_memory(path) for path in weights]
    (result,) = load_once([str(folder)], "--dtype", dtype, "--n-layers", "all" if n_layers is None else n_layers)
    after = [in_memory(path) for path in weights]
    # None: the system cannot tell, or would not let go of the file
    known = all(n_bytes == 0 for n_bytes in before) and None not in after
    return result | {"read_bytes": sum(after) if known else None}


def evict(path: Path) -> None:
    """Ask the system to forget what it holds of a file in memory."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # only pages that are on the disk can be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_memory(path: Path) -> int | None:
    """Bytes of a file that are in memory, whoever brought them there; None where it cannot be known."""
    system = ctypes.CDLL(None)
    if not hasattr(system, "mincore"):
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as content:
        pages = (ctypes.c_ubyte * -(-len(content) // mmap.PAGESIZE))()
        first = ctypes.c_char.from_buffer(content)
        failed = system.mincore(ctypes.byref(first), ctypes.c_size_t(len(content)), pages)
        del first  # else the map cannot be closed
    return None if failed else sum(page & 1 for page in pages) * mmap.PAGESIZE


def benchmark(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    at_least("--n-layers", options.n_layers, 1)
    at_least("--n-repeats", options.n_repeats, 1)
    source = sources.resolve(options.model)
    loading.is_whole(source, loading.load_config(source), options.n_layers)  # refuses too many layers
    with tempfile.TemporaryDirectory(dir=project.cache()) as temporary:
        folder = Path(temporary) / "model"
        shutil.copytree(source.directory(), folder)
        whole, part = (load_from_disk(folder, n_layers, options.dtype) for n_layers in (None, options.n_layers))
    ratios = {
        name: part[f"{name}_bytes"] / whole[f"{name}_bytes"] if part[f"{name}_bytes"] else None
        for name in ("weight", "read", "added_memory")
    }
    results = {
        "title": source.title,
        "whole": whole,
        "part": part,
        "ratios": ratios,
        "second_loads": [second_load(model, options.n_repeats) for model in options.second_loads],
    }
    report(results)
    parameters = {name: value for name, value in vars(options).items() if name != "output"}
    write_json(make_result("loading", parameters, results), options.output)


def second_load(model: str, n_repeats: int) -> dict:
    """Seconds of loading a model and its tokenizer whose files have been made and read before."""
    loads = load_once([model] * (1 + n_repeats), "--tokenizer")[1:]  # the first may have to make or read the files
    seconds = {name: spread(load[f"seconds_{name}"] for load in loads) for name in ("load", "first_use")}
    return {"model": model, "title": loads[0]["title"], "seconds": seconds}


def report(results: dict) -> None:
    """Print what was measured."""
    for name in ("whole", "part"):
        print(f"{name}: {json.dumps(results[name])}")
    print(f"part to whole: {json.dumps(results['ratios'])}")
    for load in results["second_loads"]:
        print(f"second load of {load['model']}: {json.dumps(load['seconds'])}")


def parse() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--n-layers", type=int, default=12, help="blocks of the partial load")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--second-loads", nargs="*", default=["smollm2-135m", "gemma3-270m"], help="GGUF models")
    parser.add_argument("--n-repeats", type=int, default=3, help="second loads of each")
    parser.add_argument("--output", type=Path, default=default_output("loading"))
    return parser


if __name__ == "__main__":
    sys.exit(run_command(parse(), benchmark))
