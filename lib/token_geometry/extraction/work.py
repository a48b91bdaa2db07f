"""The work of an extraction: which of its shards are missing, and what they will take."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from token_geometry.base import store
from token_geometry.extraction import estimates, locks, plan
from token_geometry.models import loading
from token_geometry.models.source import ModelSource
from token_geometry.requests.extraction import Job
from token_geometry.texts import prompts


@dataclass(frozen=True)
class Work:
    """What is to be done of an extraction, as the process that leads it found out.

    `source` is the model, a revision of the hub by its commit, `recipe` what decides the numbers of every
    shard, and `missing` what is to be made."""

    source: ModelSource
    recipe: dict
    missing: list[plan.ShardKey]


@contextlib.contextmanager
def begin(job: Job, directory: Path, *, n_processes: int = 1) -> Iterator[Work]:
    """Find out what is missing of an extraction, say what it will take, and keep others off its directory.

    `job` and `directory` are of `Extraction.resolve` and `plan.prepare`; `n_processes` share the work. Raises
    `InputError` if the prompts cannot be had, or another run is working on the directory."""
    request, plan_digest = job.request, store.digest(job.plan_recipe)
    with locks.held(directory, part=request.part, n_parts=request.n_parts, plan_digest=plan_digest):
        source = job.source.at_commit()
        tokenizers = [loading.load_tokenizer(one) for one in (source, *job.filters)]
        drawn = {name: getattr(request, name) for name in ("n_prompts", "n_tokens", "seed")}
        selection = prompts.select_prompts(job.corpus, tokenizers, prompt_ids=request.ids, **drawn)
        short = f"of {selection.n_examined} texts that were read {selection.n_too_short} have fewer"
        print(f"{len(selection.prompts)} prompts of {job.corpus.title}, {request.n_tokens} tokens each; {short}")
        keys = [plan.ShardKey(p, *order) for p in selection.prompts for order in request.orders]
        request.check_number_of_processes(n_processes, len(keys))
        dropped = plan.write_plan(directory, job, source, selection, keys)
        mine = keys[request.part :: request.n_parts]
        # what a killed process left half written of these shards, and of the plan if no parts share it
        names = {key.file_name() for key in mine} | ({plan.PLAN} if request.n_parts == 1 else set())
        for partial in directory.glob(".*.partial"):
            if partial.name[1:].rsplit(".", 2)[0] in names:
                partial.unlink(missing_ok=True)
        missing = plan.missing(directory, job, mine)
        if request.n_parts > 1:
            print(f"part {request.part} of {request.n_parts}: {len(mine)} of {len(keys)} shards")
        if len(missing) < len(mine):
            print(f"{len(mine) - len(missing)} of {len(mine)} shards are there already")
        if missing:
            print(estimates.describe(job, missing, n_processes=n_processes), flush=True)
        yield Work(source, job.recipe, missing)
        for name in dropped if request.overwrite else ():
            (directory / name).unlink(missing_ok=True)
