"""Where the geometry of a prompt spends its time on one core, and how near its products come to the peak rate."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from common import Stopwatch

from token_geometry.geometry import cosine, local_dimension, neighbors, selection

N_REPEATS = 5
"""Passes over the layers; of each stage the fastest counts."""

PRODUCTS = {torch.float32: "product", torch.float64: "product_float64"}
"""Stages of the products of matrices by their type."""

PEAK_SIZE = 2048
"""Rows of the square matrices whose product gives the peak."""


def geometry(hidden: torch.Tensor) -> dict:
    """Core-seconds of the stages of one prompt's geometry, and billions of operations a second of its products.

    An operation is one multiplication or addition; of the Gram matrix one half is taken, and counted.

    Parameters
    ----------
    hidden
        Hidden states on a CPU, shape (layer, token, width).
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        passes = [_one_pass(hidden) for _ in range(N_REPEATS)]
        peak = {name: _peak(dtype) for dtype, name in PRODUCTS.items()}
    finally:
        torch.set_num_threads(n_threads)
    seconds = {name: min(watch.seconds[name] for watch, _ in passes) for name in passes[0][0].seconds}
    operations = passes[0][1]
    return {
        "core_seconds": seconds,
        "gigaflops": {name: operations[name] / seconds[name] / 1e9 for name in operations},
        "peak_gigaflops": peak,
    }


def _one_pass(hidden: torch.Tensor) -> tuple[Stopwatch, Counter]:
    watch, operations = Stopwatch(clock=time.process_time), Counter()
    with ExitStack() as stack:
        stack.enter_context(watch.around(neighbors, "part_distances", "parts"))
        stack.enter_context(watch.around(selection, "smallest", "selection", but_in="parts"))
        stack.enter_context(watch.around(selection, "_columns", "lookup"))
        stack.enter_context(watch.around(neighbors, "_angles", "angles"))
        stack.enter_context(watch.around(local_dimension, "local_dimensions", "local_dimensions"))
        stack.enter_context(watch.around(cosine.FromGram, "add", "cosine"))
        stack.enter_context(_counted_products(watch, operations))
        stack.enter_context(watch.stage("rest"))
        neighbors.neighbor_table(hidden)
    return watch, operations


@contextmanager
def _counted_products(watch: Stopwatch, operations: Counter) -> Iterator[None]:
    multiply = torch.mm

    def counted(left: torch.Tensor, right: torch.Tensor, **more) -> torch.Tensor:
        name = PRODUCTS[left.dtype]
        operations[name] += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        with watch.stage(name):
            return multiply(left, right, **more)

    with mock.patch.object(torch, "mm", counted):
        yield


def _peak(dtype: torch.dtype) -> float:
    matrix, seconds = torch.ones(PEAK_SIZE, PEAK_SIZE, dtype=dtype), []
    for _ in range(N_REPEATS):
        started = time.process_time()
        matrix @ matrix
        seconds.append(time.process_time() - started)
    return 2 * PEAK_SIZE**3 / min(seconds) / 1e9
