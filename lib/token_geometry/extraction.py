"""Extraction: prompts through a model, one shard of neighbor tables a prompt and shuffle level."""

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from . import models, prompts, ranks, store
from .errors import InputError

if TYPE_CHECKING:  # chapters that only read results come by here, and torch takes seconds to import
    from .states import LanguageModel

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
    """Processes that share the prompts."""

    overwrite: bool = False
    """Replace shards of another recipe that the directory holds."""

    filter_models: Sequence[str] = field(default=())
    """Further models under whose tokenizers a prompt must be long enough."""

    prompt_ids: Sequence[str | int] = field(default=())
    """Ids of the texts to read, in this order; empty: `n_prompts` are drawn. With ids `n_prompts` and the
    draw play no part."""

    final_norm: bool = True
    """Whether the last layer is the state after the final norm, as transformers has it; else the one before."""

    def check(self) -> None:
        """Refuse what cannot work, before anything is loaded.

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
        if self.num_processes != 1:
            raise InputError(f"num_processes is {self.num_processes}; accepted: 1")
        models.choose_device(self.device)
        twice = [key for key in self._prompt_ids() if self._prompt_ids().count(key) > 1]
        if twice:
            raise InputError(f"prompt_ids holds {twice[0]!r} twice; accepted: different ids of the corpus")
        for name in (self.model, *self.filter_models):
            models.check_files(models.resolve(name))

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


def extract(request: Extraction) -> Path:
    """Run an extraction, or what is missing of it.

    Shards that are whole and of this recipe are kept; so an interrupted extraction goes on at the
    shard it had reached.

    Returns
    -------
    pathlib.Path
        The directory.

    Raises
    ------
    InputError
        If the request cannot be carried out, or the directory holds another extraction and
        `overwrite` is not set.
    """
    request.check()
    source = models.at_commit(models.resolve(request.model))
    corpus = prompts.load_corpus(request.corpus)
    filters = [models.resolve(name) for name in request.filter_models if name != request.model]
    recipe = request.recipe()
    for one in (source, *filters):
        models.check_length(one, models.load_config(one), request.n_tokens)
    directory = Path(request.output)
    _refuse_other_recipe(directory, recipe, overwrite=request.overwrite)
    previous = _planned_files(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {directory} cannot be made: {error.strerror}") from None
    if not os.access(directory, os.W_OK):
        raise InputError(f"output {directory} cannot be written: change its permissions")

    tokenizers = [models.load_tokenizer(one) for one in (source, *filters)]
    selection = prompts.select_prompts(
        corpus,
        tokenizers,
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
    _write_plan(directory, request, source, recipe, selection, keys)
    digest = store.digest(recipe)
    missing = [k for k in keys if not store.is_fresh(directory / k.file_name(), digest)]
    if len(missing) < len(keys):
        print(f"{len(keys) - len(missing)} of {len(keys)} shards are there already")
    if missing:
        from .states import LanguageModel

        model = LanguageModel(source, dtype=request.dtype, device=request.device)
        # without a terminal every refresh of the bar would be a line of the log
        every = 0.5 if sys.stderr.isatty() else 10.0
        for key in tqdm(missing, desc=f"Extract {source.name}", unit="prompt", mininterval=every):
            store.write(make_shard(model, key, request, recipe), directory / key.file_name())
    for name in previous - {key.file_name() for key in keys} if request.overwrite else ():
        (directory / name).unlink(missing_ok=True)
    return directory


def make_shard(model: "LanguageModel", key: ShardKey, request: Extraction, recipe: dict) -> xr.Dataset:
    """One forward pass and what is kept of it."""
    from . import neighbors
    from .geometry import similarity

    started = time.perf_counter()
    permutation = prompts.block_permutation(
        key.shuffle_level, seed=request.seed, text_sha256=key.prompt.text_sha256
    )
    token_ids = prompts.shuffle_blocks(key.prompt.token_ids, permutation)
    states = model.forward(token_ids, final_norm=request.final_norm, logits=True)
    forward_done = time.perf_counter()
    try:
        table = neighbors.neighbor_table(states.hidden)
        of_logits = neighbors.neighbor_table(states.logits[None])
    except InputError as error:
        raise InputError(f"prompt {key.prompt.id!r}: {error}") from None
    mean, deviation = similarity.cosine_similarity(states.hidden)
    measured = time.perf_counter()
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
                mean.cpu().numpy(),
                {"long_name": "mean cosine similarity of all pairs of tokens", **units},
            ),
            "cosine_similarity_std": (
                "layer",
                deviation.cpu().numpy(),
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
            "rank": np.array(ranks.RANKS),
        },
        attrs=store.make_attrs(
            f"Neighbor tables of one prompt, {model.source.title}",
            recipe,
            prompt=key.prompt.id,
            text_sha256=key.prompt.text_sha256,
            shuffle_level=key.shuffle_level,
            bos_prepended=int(model.prepend_bos),
            device=model.device,
            seconds_forward=forward_done - started,
            seconds_geometry=measured - forward_done,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
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
    """Device, seconds of the forward pass and of the geometry, and peak memory (GB) of each shard."""
    rows = []
    for shard in read_shards(directory):
        attrs = shard.attrs
        rows.append(
            {
                "prompt": attrs["prompt"],
                "shuffle level": int(attrs["shuffle_level"]),
                "device": attrs["device"],
                "forward (s)": round(float(attrs["seconds_forward"]), 2),
                "geometry (s)": round(float(attrs["seconds_geometry"]), 2),
                "peak memory (GB)": round(int(attrs["peak_memory_bytes"]) / 1e9, 2),
            }
        )
    return pd.DataFrame(rows)


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
