"""The directory of an extraction: which shards it is to hold, and the reading of them, which needs no torch."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import xarray as xr

from token_geometry.base import InputError, files, store
from token_geometry.models.source import ModelSource
from token_geometry.observables import catalog
from token_geometry.requests.extraction import Job
from token_geometry.requests.reduction import OBSERVABLES
from token_geometry.texts import prompts

PLAN = "extraction.json"  # file of an extraction's directory that says what it is to hold
_COSTS = files.table(__file__)["costs"]


@dataclass(frozen=True)
class ShardKey:
    """One prompt at one shuffle level S, in one of its permutations, by the number of that."""

    prompt: prompts.Prompt
    shuffle_level: int
    permutation: int = 0

    def file_name(self) -> str:
        """Name of the shard, which no other prompt's has."""
        more = f"-p{self.permutation}" if self.permutation else ""
        return f"{self.prompt.file_stem()}-s{self.shuffle_level}{more}.nc"


def prepare(job: Job) -> Path:
    """The directory of an extraction, made where it is missing; `InputError` if it cannot be written, or it
    holds another extraction and `overwrite` is not set."""
    directory, recipe = Path(job.request.output), job.recipe
    if (directory / PLAN).exists() and not job.request.overwrite:
        found, held = (read_plan(directory)[key] for key in ("recipe", "request"))
        if different := [name for name in recipe | found if found.get(name) != recipe.get(name)]:
            name = different[0]
            there, here = held.get(name), job.request.parameters().get(name)
            what = f"{there!r}, not {here!r}" if there != here else f"{here!r} is not what it was then"
            problem = f"output {str(directory)!r} holds an extraction with another {name} ({what})"
            raise InputError(f"{problem}: set overwrite, or choose another output")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {directory} cannot be made ({error.strerror}): choose another one") from None
    return directory


def write_plan(
    directory: Path, job: Job, source: ModelSource, selection: prompts.Selection, keys: Sequence[ShardKey]
) -> set[str]:
    """Say what a directory is to hold; returns the files of what it was last meant to hold and is no more: no
    other file in it is ours."""
    shards = [{"prompt": k.prompt.id, "shuffle_level": k.shuffle_level, "file": k.file_name()} for k in keys]
    plan: dict = {"recipe": job.recipe, "recipe_digest": store.digest(job.recipe)}
    plan |= {"plan_digest": store.digest(job.plan_recipe), "request": job.request.parameters()}
    plan |= {"model_title": source.title, "model_commit": source.revision or "", "shards": shards}
    plan |= {"n_examined": selection.n_examined, "n_too_short": selection.n_too_short}
    try:
        previous = {shard["file"] for shard in read_plan(directory)["shards"]}
    except InputError:
        previous = set()
    save_plan(directory, plan)
    return previous - {key.file_name() for key in keys}


def save_plan(directory: Path, plan: dict) -> None:
    """Write a plan with its checksum, so that it is either whole or as before."""
    whole = plan | {"checksum": store.digest(plan)}
    files.write(json.dumps(whole, indent=1, ensure_ascii=False), directory / PLAN)


def read_plan(directory: Path) -> dict:
    """What an extraction's directory is to hold; `InputError` if it holds no extraction."""
    if not (path := directory / PLAN).exists():
        raise InputError(f"extraction {str(directory)!r} holds no {PLAN}: token-geometry extract makes one")
    way_out = "delete it and extract again, which keeps the shards that are whole"
    with files.door(str(path), f"; it is damaged, or older than version 0.2: {way_out}"):
        plan = json.loads(files.decode(path, str(path)))
        if plan.pop("checksum") != store.digest(plan):
            raise ValueError("its checksum differs")
        # which everybody can make: what is read of a plan must be there, and its shards beside it
        request, shards = plan["request"], plan["shards"]
        texts = [plan[name] for name in ("recipe_digest", "plan_digest", "model_title")]
        texts += [request["model"], *request["filter_models"], *plan["recipe"]["model"].keys()]
        texts += [shard[name] for shard in shards for name in ("prompt", "file")]
        numbers = [plan["n_examined"], plan["n_too_short"], request["n_tokens"], *request["shuffle_levels"]]
        are_beside = all(re.fullmatch(r"[^/\\\0]+\.nc", shard["file"]) for shard in shards)
        if not (shards and {*map(type, texts)} == {str} and {*map(type, numbers)} == {int} and are_beside):
            raise ValueError("it is not as an extraction writes it")
        return plan


def shard_files(directory: Path, plan: dict) -> list[Path]:
    """Files of an extraction's shards, in the order of its plan; `InputError` if one is missing."""
    paths = [directory / entry["file"] for entry in plan["shards"]]
    if missing := [path for path in paths if not path.is_file()]:
        problem = f"extraction {str(directory)!r} is incomplete: {len(missing)} of {len(paths)} shards are missing"
        raise InputError(f"{problem}; extract again, it goes on where it stopped")
    return paths


def read_shard(path: Path, recipe_digest: str) -> xr.Dataset:
    """A shard; `InputError` if it is damaged or of another recipe than the one with this digest."""
    if (shard := store.read(path)).attrs["recipe_digest"] != recipe_digest:
        raise InputError(f"{path} is of another recipe: extract again")
    return shard


def missing(directory: Path, job: Job, keys: Sequence[ShardKey]) -> list[ShardKey]:
    """The shards that are not there whole, of this recipe, and with what is asked for."""
    recipe_digest = store.digest(job.recipe)

    def is_done(key: ShardKey) -> bool:
        try:
            kept = held_observables(read_shard(directory / key.file_name(), recipe_digest))
        except InputError:
            return False
        # from a table the observables follow
        return kept is None or (kept == OBSERVABLES and not job.request.keep_neighbors)

    return [key for key in keys if not is_done(key)]


def held_observables(shard: xr.Dataset) -> list[str] | None:
    """Names of the observables that a shard holds in place of neighbor tables; None where it holds the tables."""
    return json.loads(shard.attrs["observables"]) if "observables" in shard.attrs else None


def reduced(shard: xr.Dataset) -> xr.Dataset:
    """The observables of a shard, which take its place where neighbor tables are not kept."""
    return catalog.observables(shard).assign_attrs(shard.attrs | {"observables": json.dumps(OBSERVABLES)})


def cost_table(directory: Path) -> pd.DataFrame:
    """What each shard that is there cost: device, batch, seconds of the stages for a prompt, and the peak
    memory (GB) of the process up to then."""
    paths = [directory / entry["file"] for entry in read_plan(directory)["shards"]]
    # others are of another part, or not reached yet
    made = pd.DataFrame(map(store.read_attrs, filter(Path.is_file, paths))).reindex(columns=[*_COSTS])
    made[(sizes := ["peak_memory_bytes", "peak_gpu_memory_bytes"])] /= 1e9
    return made.drop(columns=[] if made[sizes[1]].any() else sizes[1]).rename(columns=_COSTS).round(2)
