"""Extraction: prompts through a model, one shard of neighbor tables per prompt and shuffle level."""

import contextlib
from pathlib import Path

import torch

from token_geometry.base import processes
from token_geometry.extraction import engine, plan
from token_geometry.extraction.work import Work, begin
from token_geometry.requests.extraction import Extraction


def extract(request: Extraction) -> Path:
    """Run an extraction, or what is missing of it; returns its directory.

    Shards that are whole and of this recipe are kept; so an interrupted extraction goes on at the shards it had
    reached. Raises `InputError` if the request cannot be carried out, the directory holds another extraction and
    `overwrite` is not set, another run is working on it, or one of several processes is killed."""
    job, n_processes = request.resolve(), request.num_processes
    directory = plan.prepare(job)
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        # a process's threads are prompts that it works on at a time (see engine.make)
        torch.set_num_threads(max(1, torch.get_num_threads() // n_processes))
        work = stack.enter_context(begin(job, directory, n_processes=n_processes))
        if n_processes == 1:
            engine.make(job, work)
        else:
            print(f"{n_processes} processes", flush=True)
            way_out = f"with fewer than num_processes = {n_processes}, a smaller model, or another dtype"
            some = {"what": "makes shards", "way_out": way_out, "n_threads": torch.get_num_threads()}
            with processes.pool(n_processes, **some) as pool:
                processes.all_of(pool, take_part, [(request, work, place) for place in range(n_processes)])
    return directory


def take_part(request: Extraction, work: Work, place: int) -> None:
    """Make the shards that are those of one process of this machine, by its number among `num_processes`."""
    job = request.resolve(n_models=request.num_processes, place=place)
    engine.make(job, work, place=place, n_processes=request.num_processes)
