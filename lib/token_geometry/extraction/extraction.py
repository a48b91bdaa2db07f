"""Extraction: prompts through a model, one shard of neighbor tables per prompt and shuffle level."""

from pathlib import Path

from token_geometry.extraction import engine, launcher, plan
from token_geometry.extraction.work import begin
from token_geometry.requests.extraction import Extraction


def extract(request: Extraction) -> Path:
    """Run an extraction, or what is missing of it; returns its directory.

    Shards that are whole and of this recipe are kept; so an interrupted extraction goes on at the shards it had
    reached. With several processes `torch.distributed`'s launcher starts `worker` in each. Raises `InputError`
    if the request cannot be carried out, the directory holds another extraction and `overwrite` is not set, or
    another run is working on it.
    """
    job = request.resolve()
    directory = plan.prepare(job)
    if request.num_processes > 1:
        launcher.run(request)
    else:
        with begin(job, directory) as work:
            engine.make(job, work)
    return directory
