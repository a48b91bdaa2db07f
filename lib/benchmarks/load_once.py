"""Time and memory of loading models, on standard output as JSON.

A command of its own, because a peak belongs to a process: `loading.py` starts it for every load.
"""

import argparse
import gc
import itertools
import json
import sys
import tempfile
import time
from contextlib import redirect_stdout

import torch
import transformers
from common import added_memory, run_command

from token_geometry.models import loading, sources
from token_geometry.models.gguf import dequantized
from token_geometry.states.model import LanguageModel


def measure(model: str, n_layers: int | None, dtype: str, *, tokenizer: bool) -> dict:
    """Load a model and use each of its weights once.

    Weights of the type that the file has stay in the file, which is mapped into memory, until they are used: what
    counts is not the load alone but the load and one use of each weight, the embeddings included. The pages
    of the file that were touched by then are part of the resident size.
    """
    source = sources.resolve(model)
    dequantized.read_tokenizer.cache_clear()  # a second load is that of a new process
    with added_memory() as added:
        started = time.perf_counter()
        if tokenizer:
            network = LanguageModel(source, dtype=dtype, device="cpu", n_layers=n_layers).model
        else:
            network = loading.load_model(source, dtype=dtype, device="cpu", n_layers=n_layers)
        loaded = time.perf_counter()
        with torch.inference_mode():
            for weights in network.parameters():
                weights.sum()
        used = time.perf_counter()
    return {
        "n_layers": n_layers,
        "title": source.title,
        "weight_bytes": sum(weights.numel() * weights.element_size() for weights in network.parameters()),
        "added_memory_bytes": added[0] if added else None,
        "seconds_load": loaded - started,
        "seconds_first_use": used - loaded,
    }


def warm_up() -> None:
    """Load a model of a few bytes, so that nothing is left to be imported."""
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    with tempfile.TemporaryDirectory() as folder:
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        measure(folder, None, "float32", tokenizer=False)


def benchmark(options: argparse.Namespace) -> None:
    """Measure every load and print the list."""
    with redirect_stdout(sys.stderr):
        warm_up()
        results = []
        for model, n_layers in itertools.product(options.model, options.n_layers):
            results.append(measure(model, n_layers, options.dtype, tokenizer=options.tokenizer))
            gc.collect()
    print(json.dumps(results))


def number_of_layers(text: str) -> int | None:
    """A number, or None for `all`."""
    return None if text == "all" else int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument(
        "--n-layers", type=number_of_layers, nargs="+", default=[None], help="numbers of blocks, or all"
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokenizer", action="store_true", help="load the tokenizer as well")
    sys.exit(run_command(parser, benchmark))
