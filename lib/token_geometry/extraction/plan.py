"""The plan of an extraction: which shards its directory is to hold, and which of them are missing."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from token_geometry.base import store
from token_geometry.base.errors import InputError
from token_geometry.extraction import estimates, locks, reading
from token_geometry.extraction.reading import PLAN
from token_geometry.models import models
from token_geometry.requests.extraction import Job
from token_geometry.texts import prompts


@dataclass(frozen=True)
class ShardKey:
    """One prompt at one shuffle level."""

    prompt: prompts.Prompt
    """The prompt."""

    shuffle_level: int
    """Shuffle level S."""

    def file_name(self) -> str:
        """Name of the shard; the checksum keeps ids apart that differ in odd characters only."""
        plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.prompt.id)[:80]
        return f"{plain}-{self.prompt.text_sha256[:8]}-s{self.shuffle_level}.nc"


@dataclass(frozen=True)
class Work:
    """What is to be done of an extraction, as the process that leads it found out."""

    source: models.ModelSource
    """The model, a revision of the hub by its commit."""

    recipe: dict
    """What decides the numbers of every shard."""

    missing: list[ShardKey]
    """What is to be made."""


def prepare(job: Job) -> None:
    """Refuse what cannot work before any process is started, and make the directory.

    Raises
    ------
    InputError
        If a prompt is longer than a model reads, the directory cannot be written, or it holds another
        extraction and `overwrite` is not set.
    """
    directory = Path(job.request.output)
    job.check_length()
    _refuse_other_recipe(directory, job)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {directory} cannot be made ({error.strerror}): choose another one") from None
    if not os.access(directory, os.W_OK):
        raise InputError(f"output {directory} cannot be written: change its permissions")


@contextlib.contextmanager
def begin(job: Job, *, n_processes: int = 1) -> Iterator[Work]:
    """Find out what is missing of an extraction, say what it will take, and keep others off its directory.

    Parameters
    ----------
    job
        From `Extraction.resolve`.
    n_processes
        How many processes share the work.

    Raises
    ------
    InputError
        As `prepare`; if the prompts cannot be had, or another run is working on the directory.
    """
    prepare(job)
    request, directory = job.request, Path(job.request.output)
    with locks.held(directory, part=request.part, n_parts=request.n_parts, plan_digest=job.plan_digest):
        previous = _refuse_other_recipe(directory, job)
        source = models.at_commit(job.source)
        selection = _select(job, source)
        keys = [ShardKey(p, s) for p in selection.prompts for s in request.shuffle_levels]
        request.check_number_of_processes(n_processes, len(keys))
        _write_plan(directory, job, source, selection, keys)
        mine = keys[request.part :: request.n_parts]
        _remove_partial(directory, {key.file_name() for key in mine}, alone=request.n_parts == 1)
        missing = [key for key in mine if not _is_done(directory / key.file_name(), job)]
        if request.n_parts > 1:
            print(f"part {request.part} of {request.n_parts}: {len(mine)} of {len(keys)} shards")
        if len(missing) < len(mine):
            print(f"{len(mine) - len(missing)} of {len(mine)} shards are there already")
        if missing:
            n_prompts = len({key.prompt.id for key in missing})
            print(estimates.describe(job, n_prompts, len(missing), n_processes=n_processes), flush=True)
        yield Work(source, job.recipe, missing)
        for name in previous - {key.file_name() for key in keys} if request.overwrite else ():
            (directory / name).unlink(missing_ok=True)


def _refuse_other_recipe(directory: Path, job: Job) -> set[str]:
    """Files of the shards that the directory was last meant to hold; no other file in it is ours."""
    if not (directory / PLAN).exists():
        return set()
    try:
        plan = reading.read_plan(directory)
    except InputError:
        if job.request.overwrite:
            return set()
        raise
    found, recipe = plan["recipe"], job.recipe
    different = [name for name in recipe | found if found.get(name) != recipe.get(name)]
    if different and not job.request.overwrite:
        name = different[0]
        raise InputError(
            f"output {str(directory)!r} holds an extraction with another {name} "
            f"({found.get(name)!r}, not {recipe.get(name)!r}): set overwrite, or choose another output"
        )
    return {shard["file"] for shard in plan["shards"]}


def _select(job: Job, source: models.ModelSource) -> prompts.Selection:
    request = job.request
    selection = prompts.select_prompts(
        job.corpus,
        [models.load_tokenizer(one) for one in (source, *job.filters)],
        n_prompts=request.n_prompts,
        n_tokens=request.n_tokens,
        seed=request.seed,
        prompt_ids=request.ids,
    )
    print(
        f"{len(selection.prompts)} prompts of {job.corpus.title}; {selection.n_too_short} of "
        f"{selection.n_examined} texts passed over, shorter than {request.n_tokens} tokens"
    )
    return selection


def _write_plan(
    directory: Path,
    job: Job,
    source: models.ModelSource,
    selection: prompts.Selection,
    keys: Sequence[ShardKey],
) -> None:
    plan = {
        "recipe": job.recipe,
        "recipe_digest": job.recipe_digest,
        "plan_digest": job.plan_digest,
        "request": job.request.parameters(),
        "model_title": source.title,
        "model_commit": source.revision or "",
        "n_examined": selection.n_examined,
        "n_too_short": selection.n_too_short,
        "shards": [{"prompt": k.prompt.id, "shuffle_level": k.shuffle_level, "file": k.file_name()} for k in keys],
    }
    partial = directory / f".{PLAN}.{os.getpid()}.partial"
    partial.write_text(json.dumps(plan, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(directory / PLAN)


def _remove_partial(directory: Path, names: set[str], *, alone: bool) -> None:
    """Remove what a killed process left half written of these files, and of the plan if no parts share it."""
    for partial in directory.glob(".*.partial"):
        if partial.name[1:].rsplit(".", 2)[0] in (names | {PLAN} if alone else names):
            partial.unlink(missing_ok=True)


def _is_done(path: Path, job: Job) -> bool:
    """Whether a shard is whole, of this recipe, and holds what is asked for."""
    try:
        shard = store.read(path)
    except InputError:
        return False
    if shard.attrs["recipe_digest"] != job.recipe_digest:
        return False
    # from a table the observables follow
    return not reading.is_reduced(shard) or (not job.request.keep_neighbors and reading.has_all_observables(shard))
