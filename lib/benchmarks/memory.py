"""Memory of an extraction of some prompts, on standard output as JSON: its peak, or how it grows.

A command of its own, because a peak belongs to a process: `observables.py` starts it for every
number of prompts. With `--growth` the memory is looked at while shards are written, and after the first 50 it is
to stay within 5 %:

    python lib/benchmarks/memory.py --growth --tiny --n-prompts 500
"""

import argparse
import json
import sys
import tempfile
import threading
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import tiny_models
from common import run_command

from token_geometry.base.errors import InputError
from token_geometry.base.resources import peak_memory, status
from token_geometry.extraction import extraction
from token_geometry.requests.extraction import Extraction

FIRST, SHARE = 50, 0.05  # prompts until everything is there that stays, and by how much more may be taken then


def benchmark(options: argparse.Namespace) -> None:
    """Extract into a temporary folder and print the peak."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as made,
        redirect_stdout(sys.stderr),
    ):
        model, corpus = _tiny(Path(made), options) if options.tiny else (options.model, options.corpus)
        request = Extraction(
            model=model,
            corpus=corpus,
            n_prompts=options.n_prompts,
            n_tokens=options.n_tokens,
            output=folder,
            device="cpu",
        )
        sizes: list[tuple[int, int]] = []
        done = threading.Event()
        watch = threading.Thread(target=_look, args=(Path(folder), sizes, done), daemon=True)
        if options.growth:
            watch.start()
        extraction.extract(request)
        done.set()
    found = {"n_prompts": options.n_prompts, "peak_memory_bytes": peak_memory()}
    if options.growth:
        watch.join()
        found |= growth(sizes)
    print(json.dumps(found))
    if found.get("growth", 0) > SHARE:
        raise InputError(f"memory grows by {found['growth']:.1%} after {FIRST} prompts: accepted: {SHARE:.0%}")


def growth(sizes: list[tuple[int, int]]) -> dict:
    """From numbers of shards and bytes: the bytes up to and after the first `FIRST`, and how much more these are.

    Each is the largest of its part, since what is freed is handed back to the system now and then only.
    """
    before = [size for n, size in sizes if FIRST // 2 < n <= FIRST]  # when the model has long been loaded
    after = [size for n, size in sizes if n > FIRST]
    if not before or not after:
        raise InputError(f"n_prompts gives too few shards to see anything: take more than {2 * FIRST}")
    return {
        "memory_of_first_bytes": max(before),
        "memory_of_others_bytes": max(after),
        "growth": round(max(after) / max(before) - 1, 4),
    }


def _tiny(folder: Path, options: argparse.Namespace) -> tuple[str, str]:
    """Paths of a tiny random model, and of texts of its words."""
    config = tiny_models.config_of("llama", max_position_embeddings=options.n_tokens)
    tiny_models.save(config, folder / "model")
    draw = np.random.default_rng(0).integers(3, tiny_models.VOCABULARY, (options.n_prompts, options.n_tokens))
    lines = [json.dumps({"text": " ".join(f"w{n}" for n in row)}) for row in draw.tolist()]
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "model"), str(folder / "texts.jsonl")


def _look(folder: Path, sizes: list[tuple[int, int]], done: threading.Event) -> None:
    while not done.wait(0.05):
        sizes.append((sum(1 for _ in folder.glob("*.nc")), status("VmRSS") or 0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--corpus", default="sotu")
    parser.add_argument("--n-prompts", type=int, default=4)
    parser.add_argument("--n-tokens", type=int, default=256)
    parser.add_argument("--tiny", action="store_true", help="take a tiny random model, and random texts")
    parser.add_argument("--growth", action="store_true", help="whether it grows from prompt to prompt")
    sys.exit(run_command(parser, benchmark))
