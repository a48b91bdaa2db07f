"""This library behind a model of Llama-3-8B's shapes with random weights, on a GPU.

How long a forward pass and its tables take does not depend on the values of the weights; so nothing
is downloaded. Without a GPU the benchmark runs on the CPU at reduced shapes, and its result says so.
"""

import argparse
import hashlib
import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import (
    FORWARD,
    OBSERVABLES,
    Stopwatch,
    at_least,
    default_output,
    describe_shape,
    make_result,
    run_command,
    run_library,
    spread,
    stage_seconds,
    write_json,
)

from token_geometry.base import store
from token_geometry.base.errors import InputError
from token_geometry.base.resources import peak_memory
from token_geometry.extraction import batching, shards
from token_geometry.extraction.plan import ShardKey
from token_geometry.models import devices, loading
from token_geometry.models.source import ModelSource
from token_geometry.observables import catalog
from token_geometry.requests.extraction import Extraction
from token_geometry.states.model import LanguageModel
from token_geometry.texts import prompts

SHAPES = {
    "llama-3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "reduced": {
        "hidden_size": 1024,
        "intermediate_size": 3584,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": 32000,
    },
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 224,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "vocab_size": 1000,
    },
}
"""Settings of transformers' `LlamaConfig`."""

PAPER_PROMPTS = 2244
"""Prompts of the paper, to which the measured rate is extrapolated."""

N_WARM_UP = 3


def random_model(shape: str, *, dtype: str, device: str) -> LanguageModel:
    """A model with random weights, made on the device; it needs no files and no tokenizer.

    Parameters
    ----------
    shape
        Key of `SHAPES`.
    dtype
        Type of the weights and of the forward pass.
    device
        A torch device.
    """
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=8192, rope_theta=5e5)
    title = f"Random weights, shapes {shape}"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
    source = ModelSource(shape, title)
    return LanguageModel(source, device=device, loaded=(model, None))


def random_prompts(n_prompts: int, n_tokens: int, *, n_vocabulary: int) -> list[prompts.Prompt]:
    """Prompts of random token ids."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, n_vocabulary, size=(n_prompts, n_tokens))
    return [
        prompts.Prompt(f"random-{number}", hashlib.sha256(ids.tobytes()).hexdigest(), ids)
        for number, ids in enumerate(drawn)
    ]


class Pipeline:
    """Prompts through one model, in a temporary folder."""

    def __init__(self, model: LanguageModel, request: Extraction, folder: Path):
        self.model, self.request, self.folder = model, request, folder

    def by_stage(self, prompt: prompts.Prompt) -> Stopwatch:
        """One prompt with a wait for the device at every change of stage."""
        watch, key = Stopwatch(self.model.device), ShardKey(prompt, 0)
        run_library(self.model, key, self.request, {}, path=self.folder / key.file_name(), watch=watch)
        return watch

    def forward(self, batch: list[prompts.Prompt]) -> None:
        """The forward pass with the loss, and nothing else."""
        self.model.forward_batch(np.stack([prompt.token_ids for prompt in batch]))

    def whole(self, batch: list[prompts.Prompt]) -> None:
        """As an extraction and the reduction to observables run it, without a stopwatch."""
        keys = [ShardKey(prompt, 0) for prompt in batch]
        for key, made in zip(keys, shards.make_tables(self.model, keys, self.request, {}), strict=True):
            path = self.folder / key.file_name()
            store.write(made.label(), path)
            catalog.observables(store.read(path))

    def seconds(self, step, chosen: list[prompts.Prompt]) -> float:
        """Seconds a prompt of a step over many prompts, the device waited for at both ends."""
        size = self.request.batch_size
        self._wait()
        start = time.perf_counter()
        for first in range(0, len(chosen), size):
            step(chosen[first : first + size])
        self._wait()
        return (time.perf_counter() - start) / len(chosen)

    def _wait(self) -> None:
        if torch.device(self.model.device).type == "cuda":
            torch.cuda.synchronize(self.model.device)


def measure(pipeline: Pipeline, chosen: list[prompts.Prompt]) -> dict:
    """Seconds a prompt: by stage, of the forward pass alone, and of the whole."""
    for prompt in itertools.islice(itertools.cycle(chosen), N_WARM_UP):
        pipeline.whole([prompt])
    watches = [pipeline.by_stage(prompt) for prompt in chosen]
    forward = pipeline.seconds(pipeline.forward, chosen)
    whole = pipeline.seconds(pipeline.whole, chosen)
    by_stage = spread(watch.total(OBSERVABLES) / watch.total(FORWARD) for watch in watches)
    return {
        "seconds": {"library": stage_seconds(watches)},
        "seconds_per_prompt": {"forward": forward, "whole": whole},
        "prompts_per_second": {"forward": 1 / forward, "whole": 1 / whole},
        "share_outside_forward": 1 - forward / whole,
        "ratios": {
            "library_to_forward": by_stage,
            "library_to_forward_unsynchronised": whole / forward - 1,
        },
        "extrapolation": {"n_prompts": PAPER_PROMPTS, "seconds": PAPER_PROMPTS * whole},
    }


def benchmark(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    device = devices.choose_device(options.device)
    on_gpu = torch.device(device).type == "cuda"
    shape = options.shape or ("llama-3-8b" if on_gpu else "reduced")
    dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    n_prompts = options.n_prompts or (64 if on_gpu else 4)
    at_least("--n-prompts", n_prompts, 1)
    at_least("--n-tokens", options.n_tokens, 4)
    at_least("--batch-size", options.batch_size or 1, 1)
    output = options.output or default_output("observables-gpu" if on_gpu else "observables-reduced")
    if not on_gpu:
        print(f"no GPU is used: {shape} shapes on the CPU")
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(shape, dtype=dtype, device=device)
        batch_size = batching.fitting(model, options.n_tokens, size=options.batch_size)[0]
        request = Extraction(
            model=shape,
            corpus="",
            output=folder,
            n_tokens=options.n_tokens,
            dtype=dtype,
            device=device,
            batch_size=batch_size,
        )
        chosen = random_prompts(n_prompts, options.n_tokens, n_vocabulary=SHAPES[shape]["vocab_size"])
        results = measure(Pipeline(model, request, Path(folder)), chosen)
    results |= {
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device) if on_gpu else None,
        "peak_memory_bytes": peak_memory(),
        "model": describe_shape(model),
    }
    parameters = {"shape": shape, "dtype": dtype, "n_prompts": n_prompts, "n_tokens": options.n_tokens}
    parameters["batch_size"] = batch_size
    report(results)
    write_json(make_result("observables-gpu", parameters, results, device=device), output)


def make_model(shape: str, *, dtype: str, device: str) -> LanguageModel:
    """A model of these shapes with random weights, the same ones on every CPU."""
    try:
        return random_model(shape, dtype=dtype, device=device)
    except torch.OutOfMemoryError:
        raise InputError(
            f"device {device!r} has too little memory for the shapes {shape!r} in {dtype}: choose --shape reduced"
        ) from None


def report(results: dict) -> None:
    """Print what was measured."""
    print("seconds a prompt (minimum, median)")
    for stage, seconds in results["seconds"]["library"].items():
        print(f"  {stage:<12} {seconds['min']:8.4f} {seconds['median']:8.4f}")
    for name, rate in results["prompts_per_second"].items():
        print(f"prompts per second, {name}: {rate:.3g}")
    print(f"share of time outside the forward pass: {results['share_outside_forward']:.1%}")
    print(f"library to forward: {results['ratios']['library_to_forward_unsynchronised']:.3g}")
    extrapolation = results["extrapolation"]
    print(f"{extrapolation['n_prompts']} prompts: {extrapolation['seconds'] / 60:.1f} minutes")
    if results["peak_gpu_memory_bytes"] is not None:
        print(f"peak memory of the GPU: {results['peak_gpu_memory_bytes'] / 1e9:.1f} GB")


def parse() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, help="default: llama-3-8b on a GPU, reduced on a CPU")
    parser.add_argument("--dtype", choices=loading.DTYPES, help="default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--n-prompts", type=int, help="default: 64 on a GPU, 4 on a CPU")
    parser.add_argument("--n-tokens", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, help="prompts of a pass; default: what an extraction chooses")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="default: data/benchmarks/observables-gpu.json")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(parse(), benchmark))
