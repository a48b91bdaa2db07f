"""Estimates: what an extraction takes on this machine in time, disk and memory, before it starts."""

import functools
import shutil
import timeit
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from token_geometry.base import resources
from token_geometry.extraction import batching, plan
from token_geometry.geometry import neighbors
from token_geometry.requests import extraction, protocol, sizes
from token_geometry.states import heads


def describe(job: extraction.Job, missing: Sequence[plan.ShardKey], *, n_processes: int = 1) -> str:
    """One line on what shards, which so many processes share, take on this machine."""
    found, n_passes = take(job, len(missing), n_processes=n_processes), len(missing)
    free, n_prompts = shutil.disk_usage(Path(job.request.output)).free, len({key.prompt.id for key in missing})
    each = "" if n_processes == 1 else " in each process"
    took = f"about {sizes.duration(found.seconds)} on {job.devices[0]}, {sizes.spelled(found.disk)} of disk"
    room = f"({sizes.spelled(free)} free), {sizes.spelled(found.memory)} of memory{each}"
    return f"{n_prompts} prompts, {n_passes} forward passes: {took} {room}"


def take(job: extraction.Job, n_passes: int, *, n_processes: int = 1) -> protocol.Estimate:
    """What forward passes, which so many processes share, take on this machine; the time is from a probe."""
    request, device = job.request, job.devices[0]
    size_of_batch, n_at_once = request.batch_size or 1, 1
    if not resources.is_gpu(device):  # a core each, as `engine.make` has it
        without, one = (request.estimate_of(job.shape, n_passes, n_at_once=n).memory for n in (0, size_of_batch))
        free = psutil.virtual_memory().available // n_processes - without
        n_at_once = batching.as_many_as_fit(min(torch.get_num_threads(), n_passes), one - without, free=free)
    found = request.estimate_of(job.shape, n_passes, n_at_once=n_at_once * size_of_batch)
    once, each_pass = core_seconds(job)
    return replace(found, seconds=once + each_pass * n_passes / n_processes / n_at_once)


def core_seconds(job: extraction.Job) -> tuple[float, float]:
    """Seconds of what is done once and of each prompt, on one core or one GPU, from a short probe.

    A product of matrices gives the rate of the multiply-adds, a few rows of logits the time of loss and
    entropy, and the tables of one random cloud that of a layer's geometry."""
    return probed(job.devices[0], job.request.dtype, job.request.n_tokens, **job.shape)


@functools.cache
def probed(
    device: str, dtype_name: str, n_tokens: int, *, layers: int, width: int, vocabulary: int, parameters: float
) -> tuple[float, float]:
    """As `core_seconds`, of a prompt of so many tokens and a model of this shape."""
    on_gpu = resources.is_gpu(device)
    # an eighth of a feed-forward layer on a CPU: enough for the rate, and at once over
    rows, inner = (n_tokens, width) if on_gpu else (min(n_tokens, 256), min(width, 1024))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        product = _seconds_of_multiply_add(rows, inner, getattr(torch, dtype_name), device)
        product_float64 = _seconds_of_multiply_add(rows, min(inner, 512), torch.float64, device)
        some, columns = min(n_tokens, heads.CHUNK), vocabulary if on_gpu else heads.IN_CACHE
        logits, targets = torch.zeros(some, columns, device=device), torch.zeros(some, device=device).long()
        predictions = _seconds(lambda: heads.loss_and_entropy([logits], targets), device) / some
        predictions *= vocabulary / columns
        cloud = torch.randn(1, n_tokens, width, generator=torch.Generator().manual_seed(0)).to(device)
        layer = _seconds(lambda: neighbors.neighbor_table(cloud), device)
    finally:
        torch.set_num_threads(n_threads)
    # the embeddings are looked up, the head is a product as large; the logits are one more cloud
    multiply_adds = n_tokens * parameters + 2 * n_tokens**2 * width * layers
    each = multiply_adds * product + n_tokens * predictions + (layers + 2) * layer
    # the distances of logits rest on a product of the head with itself
    return vocabulary * width**2 * product_float64, each


def _seconds_of_multiply_add(rows: int, inner: int, dtype: torch.dtype, device: str) -> float:
    left, right = (torch.ones(size, device=device, dtype=dtype) for size in ((rows, inner), (inner, 4 * inner)))
    return _seconds(lambda: left @ right, device) / (rows * inner * 4 * inner)


def _seconds(work: Callable, device: str) -> float:
    def whole():
        work()
        if resources.is_gpu(device):
            torch.cuda.synchronize(device)

    return min(timeit.repeat(whole, number=1, repeat=3))  # the first pays for what is set up once
