"""Passes: the prompts of one process through its model, each shard written as soon as it is made."""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from token_geometry.base import resources, store
from token_geometry.base.progress import Progress
from token_geometry.extraction import batching, extraction


def make(
    request: extraction.Extraction,
    work: extraction.Work,
    keys: Sequence[extraction.ShardKey],
    *,
    devices: Sequence[str],
    n_processes: int = 1,
    shows_progress: bool = True,
) -> None:
    """Make shards and write them.

    On a CPU every prompt is computed on one core from beginning to end, as many at a time as torch has
    threads, or fewer where the memory has no room for them. A team of threads inside a matrix product would
    be no faster, and shares the sums out by their number: measured for SmolLM2-135M and Gemma 3 270M at 64
    to 100 tokens, one and two threads differ in the states by up to 1e-5 of their norm. So no number
    depends on cores, processes or slices.

    Parameters
    ----------
    request
        The extraction.
    work
        From `extraction.begin`.
    keys
        Those of `work.missing` that this process makes.
    devices
        From `placement.devices`.
    n_processes
        How many processes share `work.missing` evenly; progress counts for all of them.
    shows_progress
        Whether this process shows it.

    Raises
    ------
    InputError
        If the model cannot be loaded, a prompt does not fit into memory, or a shard cannot be written.
    """
    if not keys:
        return
    import torch

    from token_geometry.states.model import LanguageModel

    source = work.source
    directory = Path(request.output)
    model = LanguageModel(source, dtype=request.dtype, devices=devices)
    size = request.batch_size or batching.fitting(model, request.n_tokens)
    chunks = [keys[start : start + size] for start in range(0, len(keys), size)]
    what = f"one prompt of {request.n_tokens} tokens through {source.name!r}"
    halving = batching.Halving(size, what=what)

    def pass_through(chunk) -> list:
        return halving(lambda part: list(extraction.make_shards(model, part, request, work.recipe)), chunk)

    n_threads = torch.get_num_threads()
    n_workers = 1
    if not resources.is_gpu(model.device):
        n_workers = batching.side_by_side(model, request.n_tokens, size, n_processes=n_processes)
    progress = Progress(len(work.missing), f"Extract {source.name}", unit="prompt") if shows_progress else None
    try:
        # the number of threads belongs to the thread that sets it, and is the default of later ones
        pool = ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))
        with pool, progress or contextlib.nullcontext():
            for chunk, shards in zip(chunks, pool.map(pass_through, chunks), strict=True):
                for key, shard in zip(chunk, shards, strict=True):
                    store.write(shard, directory / key.file_name())
                if progress:
                    progress.advance(len(chunk) * n_processes)
    finally:
        torch.set_num_threads(n_threads)
