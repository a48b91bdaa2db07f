"""Passes: the prompts of one process through its model, each shard written as soon as it is made."""

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from token_geometry.base import processes
from token_geometry.base.progress import Progress
from token_geometry.extraction import batching, pipeline, shards
from token_geometry.extraction.work import Work
from token_geometry.observables.transfer import Tables
from token_geometry.requests.extraction import Job
from token_geometry.states.model import LanguageModel


def make(job: Job, work: Work, *, place: int = 0, n_processes: int = 1) -> None:
    """Make missing shards and write them.

    `job` is of `Extraction.resolve`, `work` of `work.begin`, and `place` the number of this process among
    `n_processes`, which share `work.missing` evenly; the first shows the progress of all. Raises `InputError`
    if the model cannot be loaded, a prompt does not fit into memory, or a shard cannot be written.

    On a CPU every prompt is computed on one core from beginning to end, as many at a time as torch has threads, or
    fewer where the memory has no room for them. A team of threads inside a matrix product would be no faster, and
    shares the sums out by their number: measured for SmolLM2-135M and Gemma 3 270M at 64 to 100 tokens, one and
    two threads differ in the states by up to 1e-5 of their norm. So no number depends on cores, processes or
    parts. Behind a GPU other processes reduce and write, while it works on the prompts that follow."""
    request, source, keys = job.request, work.source, work.missing[place::n_processes]
    kept = {"keep_neighbors": request.keep_neighbors}
    if not keys:
        return
    model = LanguageModel(source, dtype=request.dtype, devices=job.devices, tuned_lens=request.tuned_lens)
    size, n_threads = batching.fitting(model, request.n_tokens, size=request.batch_size, n_processes=n_processes)
    chunks = [keys[start : start + size] for start in range(0, len(keys), size)]
    halving = batching.Halving(size, what=f"one prompt of {request.n_tokens} tokens through {source.name!r}")

    def pass_through(chunk) -> list[tuple[Tables, Path]]:
        made = halving(lambda part: list(shards.make_tables(model, part, request, work.recipe)), chunk)
        return [(one, Path(request.output) / key.file_name()) for key, one in zip(chunk, made, strict=True)]

    def on_one_core(chunk) -> int:
        for made in pass_through(chunk):
            pipeline.finish(made, **kept)
        return len(chunk)

    with contextlib.ExitStack() as stack:
        if n_threads:
            # the number of threads belongs to the thread that sets it, and is the default of later ones
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            pool = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))
            written = processes.in_order(stack.enter_context(pool), on_one_core, chunks, ahead=n_threads + 1)
        else:
            made = itertools.chain.from_iterable(map(pass_through, chunks))
            written = pipeline.behind(made, **kept, batch_size=size, n_processes=n_processes)
        stack.enter_context(contextlib.closing(written))
        title = f"Extract {source.name} to {Path(request.output).name}"
        progress = Progress(len(work.missing), title, unit="passes") if place == 0 else None
        stack.enter_context(progress or contextlib.nullcontext())
        for n_written in written:
            if progress:
                progress.advance(n_written * n_processes)
