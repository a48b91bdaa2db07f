"""Shards: what is kept of one prompt at one shuffle level, from one forward pass."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from token_geometry.base import resources, store
from token_geometry.base.errors import InputError
from token_geometry.extraction.plan import ShardKey, names_of_observables
from token_geometry.geometry import cosine, neighbors, table_format
from token_geometry.observables import labelled
from token_geometry.requests.extraction import Extraction
from token_geometry.states.states import LanguageModel, States
from token_geometry.texts import prompts


def make_shards(
    model: LanguageModel, keys: Sequence[ShardKey], request: Extraction, recipe: dict
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


def make_shard(model: LanguageModel, key: ShardKey, request: Extraction, recipe: dict) -> xr.Dataset:
    """One forward pass of one prompt and what is kept of it."""
    (shard,) = make_shards(model, [key], request, recipe)
    return shard


def reduced(shard: xr.Dataset) -> xr.Dataset:
    """The observables of a shard, which take its place where neighbor tables are not kept."""
    return labelled.observables(shard).assign_attrs(shard.attrs | {"observables": names_of_observables()})


def _shard(
    model: LanguageModel,
    key: ShardKey,
    permutation: np.ndarray,
    token_ids: np.ndarray,
    states: States,
    recipe: dict,
) -> xr.Dataset:
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
