"""Estimates: what an extraction takes in time, disk and memory, before it starts."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from token_geometry.base import resources
from token_geometry.extraction import batching
from token_geometry.geometry import table_format
from token_geometry.models import gguf_header, models

_PROCESS_BYTES = 500_000_000
"""What Python, torch and transformers take before any weights."""


@dataclass(frozen=True)
class Estimate:
    """What an extraction will take."""

    passes: int
    """Forward passes."""

    disk: int
    """Bytes of the shards."""

    memory: int
    """Bytes of one process's memory, weights included; on a GPU of the GPU's."""


def estimate(request, n_passes: int, *, n_at_once: int = 1) -> Estimate:
    """Disk and memory of an extraction.

    Parameters
    ----------
    request
        An `extraction.Extraction`.
    n_passes
        How many prompts there are, shuffle levels counted.
    n_at_once
        How many of them are in memory at a time.

    Raises
    ------
    InputError
        If the model's shape cannot be found out.
    """
    shape = shape_of(models.resolve(request.model))
    layers, n_tokens = shape["layers"] + 1, request.n_tokens
    item = 4 if request.dtype == "float32" else 2
    prompt = batching.bytes_of_prompt(layers=layers, n_tokens=n_tokens, width=shape["width"], item=item)
    return Estimate(
        passes=n_passes,
        disk=n_passes * _shard_bytes(layers, n_tokens, keep_neighbors=request.keep_neighbors),
        memory=_PROCESS_BYTES
        + shape["parameters"] * item
        + n_at_once * (prompt + batching.bytes_of_geometry(n_tokens)),
    )


def describe(request, n_prompts: int, n_passes: int, *, n_processes: int = 1) -> str:
    """One line on what an extraction takes on this machine; the time is from a probe of its device.

    Parameters
    ----------
    request
        An `extraction.Extraction`.
    n_prompts, n_passes
        How many prompts are to be run, and how many with every shuffle level counted.
    n_processes
        How many processes share them.
    """
    import shutil

    import psutil
    import torch

    device = models.choose_device(request.device)
    size_of_batch = request.batch_size or 1
    n_at_once = 1
    if not resources.is_gpu(device):  # a core each, as `passes.make` has it
        without, one = (estimate(request, n_passes, n_at_once=n).memory for n in (0, size_of_batch))
        free = psutil.virtual_memory().available // n_processes - without
        n_at_once = batching.as_many_as_fit(min(torch.get_num_threads(), n_passes), one - without, free=free)
    found = estimate(request, n_passes, n_at_once=n_at_once * size_of_batch)
    seconds = seconds_of_pass(request, device) * n_passes / n_processes / n_at_once
    free = shutil.disk_usage(Path(request.output)).free
    each = "" if n_processes == 1 else " in each process"
    return (
        f"{n_prompts} prompts, {n_passes} forward passes: about {duration(seconds)} on {device}, "
        f"{size(found.disk)} of disk ({size(free)} free), {size(found.memory)} of memory{each}"
    )


def seconds_of_pass(request, device: str) -> float:
    """Seconds of one prompt on one core, or on one GPU, from a probe of a fraction of a second.

    A product of matrices gives the rate of the multiply-adds of the forward pass; the tables of one random
    cloud the time of a layer's geometry.
    """
    import torch

    from token_geometry.geometry import neighbors

    shape = shape_of(models.resolve(request.model))
    n_tokens, width = request.n_tokens, shape["width"]
    on_gpu = torch.device(device).type == "cuda"
    # an eighth of a feed-forward layer on a CPU: enough for the rate, and at once over
    rows, inner = (n_tokens, width) if on_gpu else (min(n_tokens, 256), min(width, 1024))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generator = torch.Generator().manual_seed(0)
        dtype = getattr(torch, request.dtype)
        left = torch.randn(rows, inner, generator=generator).to(device, dtype)
        right = torch.randn(inner, 4 * inner, generator=generator).to(device, dtype)
        product = _seconds(lambda: left @ right, device)
        cloud = torch.randn(1, n_tokens, width, generator=generator).to(device)
        layer = _seconds(lambda: neighbors.neighbor_table(cloud), device)
    finally:
        torch.set_num_threads(n_threads)
    # the embeddings are looked up, the head is a product as large
    multiply_adds = n_tokens * shape["parameters"] + 2 * n_tokens**2 * width * shape["layers"]
    return multiply_adds * product / (rows * inner * 4 * inner) + (shape["layers"] + 1) * layer


def shape_of(source: models.ModelSource) -> dict[str, int]:
    """`layers`, `width`, `vocabulary` and `parameters` of a model, without reading its weights."""
    if source.shape:
        return source.shape
    if source.kind == "gguf":
        return gguf_header.read(Path(source.location)).shape()
    return _shape_from_config(source)


def _shard_bytes(layers: int, n_tokens: int, *, keep_neighbors: bool) -> int:
    if not keep_neighbors:
        # observables over scales, sizes of neighborhoods and layers, in float64, and the frame of the file
        return layers * 8 * (3 * 8 + 2 * 31 + layers + 70) + 40_000
    index_bytes = 2 if n_tokens < 2**16 else 4
    # per point: distances in float32, indices, angle and a flag
    return layers * n_tokens * (4 * len(table_format.RANKS) + index_bytes * table_format.N_NEIGHBORS + 5)


def _seconds(work, device: str) -> float:
    import torch

    def wait():
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    times = []
    for _ in range(3):  # the first pays for what is set up once
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def _shape_from_config(source: models.ModelSource) -> dict[str, int]:
    import torch
    import transformers

    config = models.load_config(source)
    with models.readable_errors(source), torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    return {
        "layers": text.num_hidden_layers,
        "width": text.hidden_size,
        "vocabulary": text.vocab_size,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def duration(seconds: float) -> str:
    """Seconds in words of one unit."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{max(seconds, 1):.0f} s"


def size(n_bytes: float) -> str:
    """Bytes with the unit that suits them."""
    unit = min(int(math.log(max(n_bytes, 1), 1000)), 4)
    return f"{n_bytes / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
