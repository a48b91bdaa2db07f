"""Extraction: prompts through a model, one shard of neighbor tables a prompt and shuffle level."""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.base import resources, store
from token_geometry.base.errors import InputError
from token_geometry.extraction import estimates, locks
from token_geometry.geometry import table_format
from token_geometry.models import models, placement
from token_geometry.observables import labelled
from token_geometry.texts import prompts

if TYPE_CHECKING:  # chapters that only read results come by here, and torch takes seconds to import
    from token_geometry.states.model import LanguageModel

PLAN = "extraction.json"
"""File of an extraction's directory that says what it is to hold."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What to extract. Field names are the parameters of `notebooks/extraction.ipynb`."""

    model: str
    """Alias, hub id, directory or GGUF file; with `@random` or `@permuted` its control."""

    corpus: str
    """Alias, or path of a `.jsonl` or `.parquet` file or of a directory of `.txt` files."""

    output: str
    """Directory of the shards."""

    n_prompts: int | None = 16
    """How many prompts to draw; None for all that are long enough."""

    n_tokens: int = 1024
    """Tokens of each prompt, special tokens not counted."""

    shuffle_levels: Sequence[int] = (0,)
    """Levels S of the block shuffle; 0 leaves the text as it is."""

    seed: int = 0
    """Seed of the draw of prompts and of the shuffles."""

    dtype: str = "float32"
    """Type of the forward pass."""

    device: str = "auto"
    """Torch device."""

    num_processes: int = 1
    """Processes that share the prompts: on GPUs each has its own, on a CPU its part of the cores."""

    gpus_per_model: int = 1
    """GPUs that the model of one process is spread over, where it is too large for one."""

    batch_size: int | None = None
    """Prompts of one forward pass; None: one on a CPU, on a GPU as many as its memory holds."""

    keep_neighbors: bool = True
    """Whether shards hold the neighbor tables; else only the observables of the prompt, a hundredth of them."""

    shard: int = 0
    """Which slice of the prompts this job takes, from 0; its `output` is that of the other slices."""

    n_shards: int = 1
    """How many slices independent jobs share the prompts in."""

    overwrite: bool = False
    """Replace shards of another recipe that the directory holds."""

    filter_models: Sequence[str] = field(default=())
    """Further models under whose tokenizers a prompt must be long enough."""

    prompt_ids: Sequence[str | int] = field(default=())
    """Ids of the texts to read, in this order; empty: `n_prompts` are drawn. With ids `n_prompts` and the
    draw play no part."""

    final_norm: bool = True
    """Whether the last layer is the state after the final norm, as transformers has it; else the one before."""

    def check(self, *, n_models: int | None = None) -> None:
        """Refuse what cannot work, before anything is loaded.

        Parameters
        ----------
        n_models
            How many of the processes are on this machine; None: all.

        Raises
        ------
        InputError
            Naming the parameter, its value and what is accepted.
        """
        if not self.output:
            raise InputError("output is empty: give the directory that the shards go into")
        if self.n_prompts is not None and self.n_prompts < 1:
            raise InputError(f"n_prompts is {self.n_prompts}; accepted: 1 or more, or None for all")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; accepted: 0 or more")
        if self.n_tokens < 4:
            raise InputError(f"n_tokens is {self.n_tokens}; accepted: 4 or more")
        if not self.shuffle_levels or len(set(self.shuffle_levels)) < len(self.shuffle_levels):
            raise InputError(
                f"shuffle_levels is {list(self.shuffle_levels)}; accepted: different levels, at least one"
            )
        prompts.check_shuffle_levels(self.shuffle_levels, self.n_tokens)
        if self.dtype not in models.DTYPES:
            raise InputError(f"dtype is {self.dtype!r}; accepted: {', '.join(models.DTYPES)}")
        self._check_shares()
        n_models = self.num_processes if n_models is None else n_models
        placement.devices(self.device, gpus_per_model=self.gpus_per_model, n_models=n_models)
        twice = [key for key in self._prompt_ids() if self._prompt_ids().count(key) > 1]
        if twice:
            raise InputError(f"prompt_ids holds {twice[0]!r} twice; accepted: different ids of the corpus")
        for name in (self.model, *self.filter_models):
            models.check_files(models.resolve(name))

    def check_length(self) -> None:
        """Refuse prompts that are longer than a model reads; needs the models' configurations.

        Raises
        ------
        InputError
            Naming the model and its longest prompt.
        """
        for name in dict.fromkeys((self.model, *self.filter_models)):
            source = models.resolve(name)
            models.check_length(source, models.load_config(source), self.n_tokens)

    def _check_shares(self) -> None:
        for name in ("num_processes", "gpus_per_model", "n_shards"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; accepted: 1 or more")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}; accepted: 1 or more, or None for what fits")
        if not 0 <= self.shard < self.n_shards:
            raise InputError(
                f"shard is {self.shard} and n_shards {self.n_shards}; accepted: 0 to {self.n_shards - 1}"
            )
        if self.n_passes is not None:
            self.check_number_of_processes(self.num_processes, self.n_passes)

    @property
    def n_passes(self) -> int | None:
        """Prompts times shuffle levels; None where the corpus decides how many prompts there are."""
        n_prompts = len(self.prompt_ids) or self.n_prompts
        return None if n_prompts is None else n_prompts * len(self.shuffle_levels)

    def check_number_of_processes(self, num_processes: int, n_passes: int) -> None:
        """Refuse more processes or slices than there are prompts to share.

        Raises
        ------
        InputError
            Naming both numbers.
        """
        n_here = len(range(self.shard, n_passes, self.n_shards))
        if num_processes > n_here:
            slices = f" in slice {self.shard} of {self.n_shards}" if self.n_shards > 1 else ""
            raise InputError(
                f"num_processes is {num_processes} and there are {n_here} prompts (shuffle levels counted) "
                f"to share{slices}; accepted: 1 to {n_here}"
                if n_here
                else f"n_shards is {self.n_shards} and there are {n_passes} prompts (shuffle levels counted) to "
                f"share; accepted: 1 to {n_passes}"
            )

    def recipe(self) -> dict:
        """What decides the numbers of every shard."""
        recipe = {
            "model": models.resolve(self.model).identity(),
            "corpus": prompts.corpus_identity(self.corpus),
            "n_tokens": self.n_tokens,
            "seed": self.seed,
            "dtype": self.dtype,
        }
        return recipe if self.final_norm else recipe | {"final_norm": False}

    def plan_recipe(self) -> dict:
        """What decides which shards there are, and their numbers."""
        # ids given take the place of the number
        ids = self._prompt_ids()
        drawn = {"n_prompts": self.n_prompts} if not ids else {"prompt_ids": ids}
        return (
            self.recipe()
            | drawn
            | {
                "shuffle_levels": list(self.shuffle_levels),
                "filter_models": list(self.filter_models),
            }
        )

    def _prompt_ids(self) -> list[str]:
        return [str(key) for key in self.prompt_ids]


@dataclass(frozen=True)
class ShardKey:
    """One prompt at one shuffle level."""

    prompt: prompts.Prompt
    shuffle_level: int

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


def extract(request: Extraction) -> Path:
    """Run an extraction, or what is missing of it.

    Shards that are whole and of this recipe are kept; so an interrupted extraction goes on at the
    shards it had reached. With several processes `torch.distributed`'s launcher starts `worker` in each.

    Returns
    -------
    pathlib.Path
        The directory.

    Raises
    ------
    InputError
        If the request cannot be carried out, the directory holds another extraction and
        `overwrite` is not set, or another run is working on it.
    """
    request.check()
    recipe = request.recipe()
    request.check_length()
    directory = Path(request.output)
    _refuse_other_recipe(directory, recipe, overwrite=request.overwrite)
    _make_writable(directory)
    if request.num_processes > 1:
        from token_geometry.extraction import launcher

        launcher.run(request)
    else:
        from token_geometry.extraction import engine

        with begin(request) as work:
            devices = placement.devices(request.device, gpus_per_model=request.gpus_per_model)
            engine.make(request, work, work.missing, devices=devices)
    return directory


@contextlib.contextmanager
def begin(request: Extraction, *, n_processes: int = 1) -> Iterator[Work]:
    """Find out what is missing of an extraction, say what it will take, and keep others off its directory.

    Parameters
    ----------
    request
        A request that was checked.
    n_processes
        How many processes share the work.

    Raises
    ------
    InputError
        As `extract`.
    """
    source = models.at_commit(models.resolve(request.model))
    filters = [models.resolve(name) for name in request.filter_models if name != request.model]
    recipe, plan_digest = request.recipe(), store.digest(request.plan_recipe())
    directory = Path(request.output)
    _make_writable(directory)
    with locks.held(directory, shard=request.shard, n_shards=request.n_shards, plan_digest=plan_digest):
        _refuse_other_recipe(directory, recipe, overwrite=request.overwrite)
        previous = _planned_files(directory)
        corpus = prompts.load_corpus(request.corpus)
        selection = prompts.select_prompts(
            corpus,
            [models.load_tokenizer(one) for one in (source, *filters)],
            n_prompts=request.n_prompts,
            n_tokens=request.n_tokens,
            seed=request.seed,
            prompt_ids=[str(key) for key in request.prompt_ids],
        )
        print(
            f"{len(selection.prompts)} prompts of {corpus.title}; {selection.n_too_short} of "
            f"{selection.n_examined} texts passed over, shorter than {request.n_tokens} tokens"
        )
        keys = [ShardKey(p, s) for p in selection.prompts for s in request.shuffle_levels]
        request.check_number_of_processes(n_processes, len(keys))
        _write_plan(directory, request, source, recipe, selection, keys)
        mine = keys[request.shard :: request.n_shards]
        _remove_partial(directory, {key.file_name() for key in mine}, alone=request.n_shards == 1)
        missing = [k for k in mine if not _is_done(directory / k.file_name(), request, recipe)]
        if request.n_shards > 1:
            print(f"slice {request.shard} of {request.n_shards}: {len(mine)} of {len(keys)} shards")
        if len(missing) < len(mine):
            print(f"{len(mine) - len(missing)} of {len(mine)} shards are there already")
        if missing:
            n_prompts = len({key.prompt.id for key in missing})
            print(estimates.describe(request, n_prompts, len(missing), n_processes=n_processes), flush=True)
        yield Work(source, recipe, missing)
        for name in previous - {key.file_name() for key in keys} if request.overwrite else ():
            (directory / name).unlink(missing_ok=True)


def make_shards(
    model: "LanguageModel", keys: Sequence[ShardKey], request: Extraction, recipe: dict
) -> Iterator[xr.Dataset]:
    """One forward pass of prompts, all of `n_tokens` tokens, and what is kept of each."""
    started = time.perf_counter()
    permutations = [
        prompts.block_permutation(key.shuffle_level, seed=request.seed, text_sha256=key.prompt.text_sha256)
        for key in keys
    ]
    token_ids = [prompts.shuffle_blocks(k.prompt.token_ids, p) for k, p in zip(keys, permutations, strict=True)]
    passed = model.forward_batch(np.stack(token_ids), final_norm=request.final_norm, logits=True)
    seconds = (time.perf_counter() - started) / len(keys)
    for key, permutation, ids, states in zip(keys, permutations, token_ids, passed, strict=True):
        shard = _shard(model, key, permutation, ids, states, recipe)
        shard = shard.assign_attrs(seconds_forward=seconds, batch_size=len(keys))
        yield shard if request.keep_neighbors else reduced(shard)


def make_shard(model: "LanguageModel", key: ShardKey, request: Extraction, recipe: dict) -> xr.Dataset:
    """One forward pass of one prompt and what is kept of it."""
    (shard,) = make_shards(model, [key], request, recipe)
    return shard


def reduced(shard: xr.Dataset) -> xr.Dataset:
    """The observables of a shard, which take its place where neighbor tables are not kept."""
    return labelled.observables(shard).assign_attrs(shard.attrs | {"observables": _names_of_observables()})


def is_reduced(shard: xr.Dataset) -> bool:
    """Whether a shard holds observables in place of neighbor tables."""
    return "observables" in shard.attrs


def has_all_observables(shard: xr.Dataset) -> bool:
    """Whether a reduced shard holds every observable that there is by now."""
    return shard.attrs["observables"] == _names_of_observables()


def _names_of_observables() -> str:
    return json.dumps([observable.__name__ for observable in labelled.OBSERVABLES])


def _shard(model, key: ShardKey, permutation, token_ids, states, recipe: dict) -> xr.Dataset:
    from token_geometry.geometry import cosine, neighbors

    started = time.perf_counter()
    try:
        table = neighbors.neighbor_table(states.hidden)
        of_logits = neighbors.neighbor_table(states.logits[None])
    except InputError as error:
        raise InputError(f"prompt {key.prompt.id!r}: {error}") from None
    mean, deviation = cosine.cosine_similarity(states.hidden)
    mean, deviation = mean.cpu().numpy(), deviation.cpu().numpy()
    seconds_geometry = time.perf_counter() - started
    index_type = np.uint16 if len(token_ids) < 2**16 - 1 else np.uint32
    if (table.index < 0).any():
        index_type = np.int32
    per_token = ("layer", "token")
    units = {"units": "1"}
    return xr.Dataset(
        {
            "neighbor_distance": (
                (*per_token, "rank"),
                table.distance.astype(np.float32),
                {"long_name": "distance to the neighbor of this rank, distinct points", **units},
            ),
            "neighbor_index": (
                (*per_token, "neighbor"),
                table.index.astype(index_type),
                {"long_name": "index of the nearest points, nearest first", **units},
            ),
            "distinct": (
                per_token,
                table.distinct.astype(np.int8),
                {"long_name": "1 where a point is the first of its value", **units},
            ),
            "n_float64": (
                "layer",
                table.redone.astype(np.int32),
                {"long_name": "number of points whose neighbors float32 could not decide", **units},
            ),
            "neighbor_angle": (
                per_token,
                table.angle.astype(np.float32),
                {"long_name": "angle between first and second neighbor", "units": "degree"},
            ),
            "cosine_similarity": (
                "layer",
                mean,
                {"long_name": "mean cosine similarity of all pairs of tokens", **units},
            ),
            "cosine_similarity_std": (
                "layer",
                deviation,
                {"long_name": "standard deviation of the cosine similarity", **units},
            ),
            "loss": (
                (),
                states.loss,
                {"long_name": "mean cross-entropy of the next token", "units": "nat"},
            ),
            "token_loss": (
                "token",
                states.token_loss.astype(np.float32),
                {"long_name": "cross-entropy of this token given those before", "units": "nat"},
            ),
            "entropy": (
                (),
                states.entropy,
                {"long_name": "mean entropy of the next token", "units": "nat"},
            ),
            "token_entropy": (
                "token",
                states.token_entropy.astype(np.float32),
                {"long_name": "entropy of the prediction of this token", "units": "nat"},
            ),
            "logit_neighbor_distance": (
                ("token", "rank"),
                of_logits.distance[0].astype(np.float32),
                {"long_name": "distance to the neighbor of this rank in the cloud of the logits", **units},
            ),
            "token_id": ("token", token_ids, {"long_name": "token id", **units}),
            "block_permutation": (
                "block",
                permutation,
                {"long_name": "order of the blocks of the shuffle", **units},
            ),
        },
        coords={
            "layer": np.arange(model.n_layers + 1),
            "rank": np.array(table_format.RANKS),
        },
        attrs=store.make_attrs(
            f"Neighbor tables of one prompt, {model.source.title}",
            recipe,
            prompt=key.prompt.id,
            text_sha256=key.prompt.text_sha256,
            shuffle_level=key.shuffle_level,
            bos_prepended=int(model.prepend_bos),
            device=model.device,
            device_name=resources.device_name(model.device),
            n_gpus=len(model.devices) if resources.is_gpu(model.device) else 0,
            seconds_geometry=seconds_geometry,
            peak_memory_bytes=resources.peak_memory(),
            peak_gpu_memory_bytes=resources.peak_gpu_memory(model.devices),
        ),
    )


def read_plan(directory: Path) -> dict:
    """What an extraction's directory is to hold.

    Raises
    ------
    InputError
        If the directory holds no extraction.
    """
    path = directory / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        if not {"recipe", "recipe_digest", "plan_digest", "request", "shards"} <= set(plan):
            raise ValueError("keys are missing")
        return plan
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"extraction {str(directory)!r} holds no {PLAN}: run notebooks/extraction.ipynb with this output"
        ) from None
    except ValueError:
        raise InputError(f"{path} is damaged: delete it and run notebooks/extraction.ipynb again") from None


def read_shards(directory: Path):
    """Iterate over the shards of a complete extraction, as xarray datasets.

    Raises
    ------
    InputError
        If a shard is missing, damaged or of another recipe.
    """
    plan = read_plan(directory)
    paths = [directory / entry["file"] for entry in plan["shards"]]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"extraction {str(directory)!r} is incomplete: {len(missing)} of {len(paths)} shards are missing; "
            "run notebooks/extraction.ipynb again, it goes on where it stopped"
        )
    for path in paths:
        shard = store.read(path)
        if shard.attrs["recipe_digest"] != plan["recipe_digest"]:
            raise InputError(f"{path} is of another recipe: run notebooks/extraction.ipynb again")
        yield shard


def cost_table(directory: Path) -> pd.DataFrame:
    """What each shard cost that is there: device, batch, seconds of the stages a prompt, peak memory (GB).

    The time is that of a prompt; the peak that of the process, up to then.
    """
    rows = []
    for entry in read_plan(directory)["shards"]:
        path = directory / entry["file"]
        if not path.is_file():
            continue  # of another slice, or not reached yet
        attrs = store.read_attrs(path)
        row = {
            "prompt": attrs["prompt"],
            "shuffle level": int(attrs["shuffle_level"]),
            "device": attrs["device_name"],
            "batch": int(attrs["batch_size"]),
            "forward (s)": round(float(attrs["seconds_forward"]), 2),
            "geometry (s)": round(float(attrs["seconds_geometry"]), 2),
            "peak memory (GB)": round(int(attrs["peak_memory_bytes"]) / 1e9, 2),
        }
        if int(attrs["n_gpus"]):
            row["peak GPU memory (GB)"] = round(int(attrs["peak_gpu_memory_bytes"]) / 1e9, 2)
        rows.append(row)
    return pd.DataFrame(rows)


def _is_done(path: Path, request: Extraction, recipe: dict) -> bool:
    """Whether a shard is whole, of this recipe, and holds what is asked for."""
    try:
        shard = store.read(path)
    except InputError:
        return False
    if shard.attrs["recipe_digest"] != store.digest(recipe):
        return False
    # from a table the observables follow
    return not is_reduced(shard) or (not request.keep_neighbors and has_all_observables(shard))


def _remove_partial(directory: Path, names: set[str], *, alone: bool) -> None:
    """Remove what a killed process left half written of these files, and of the plan if no slices share it."""
    for partial in directory.glob(".*.partial"):
        if partial.name[1:].rsplit(".", 2)[0] in (names | {PLAN} if alone else names):
            partial.unlink(missing_ok=True)


def _make_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {directory} cannot be made ({error.strerror}): choose another one") from None
    if not os.access(directory, os.W_OK):
        raise InputError(f"output {directory} cannot be written: change its permissions")


def _refuse_other_recipe(directory: Path, recipe: dict, *, overwrite: bool) -> None:
    if overwrite or not (directory / PLAN).exists():
        return
    found = read_plan(directory)["recipe"]
    different = [name for name in recipe | found if found.get(name) != recipe.get(name)]
    if different:
        name = different[0]
        raise InputError(
            f"output {str(directory)!r} holds an extraction with another {name} "
            f"({found.get(name)!r}, not {recipe.get(name)!r}): set overwrite, or choose another output"
        )


def _planned_files(directory: Path) -> set[str]:
    """Files of the shards that the directory was last meant to hold; no other file in it is ours."""
    try:
        return {shard["file"] for shard in read_plan(directory)["shards"]}
    except InputError:
        return set()


def _write_plan(directory, request, source, recipe, selection, keys) -> None:
    plan = {
        "recipe": recipe,
        "recipe_digest": store.digest(recipe),
        "plan_digest": store.digest(request.plan_recipe()),
        "request": asdict(request)
        | {"shuffle_levels": list(request.shuffle_levels), "prompt_ids": list(request.prompt_ids)},
        "model_title": source.title,
        "model_commit": source.revision or "",
        "n_examined": selection.n_examined,
        "n_too_short": selection.n_too_short,
        "shards": [{"prompt": k.prompt.id, "shuffle_level": k.shuffle_level, "file": k.file_name()} for k in keys],
    }
    partial = directory / f".{PLAN}.{os.getpid()}.partial"
    partial.write_text(json.dumps(plan, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(directory / PLAN)
