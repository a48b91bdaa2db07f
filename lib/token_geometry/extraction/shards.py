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

_LAYER, _TOKEN = ("layer",), ("token",)

VARIABLES = {
    "neighbor_distance": (
        ("layer", "token", "rank"),
        np.float32,
        "distance to the neighbor of this rank, distinct points",
        "1",
    ),
    "neighbor_index": (("layer", "token", "neighbor"), None, "index of the nearest points, nearest first", "1"),
    "distinct": (("layer", "token"), np.int8, "1 where a point is the first of its value", "1"),
    "n_float64": (_LAYER, np.int32, "number of points whose neighbors float32 could not decide", "1"),
    "neighbor_angle": (("layer", "token"), np.float32, "angle between first and second neighbor", "degree"),
    "cosine_similarity": (_LAYER, None, "mean cosine similarity of all pairs of tokens", "1"),
    "cosine_similarity_std": (_LAYER, None, "standard deviation of the cosine similarity", "1"),
    "loss": ((), None, "mean cross-entropy of the next token", "nat"),
    "token_loss": (_TOKEN, np.float32, "cross-entropy of this token given those before", "nat"),
    "entropy": ((), None, "mean entropy of the next token", "nat"),
    "token_entropy": (_TOKEN, np.float32, "entropy of the prediction of this token", "nat"),
    "logit_neighbor_distance": (
        ("token", "rank"),
        np.float32,
        "distance to the neighbor of this rank in the cloud of the logits",
        "1",
    ),
    "token_id": (_TOKEN, None, "token id", "1"),
    "block_permutation": (("block",), None, "order of the blocks of the shuffle", "1"),
}
"""Variables of a shard: dimensions, type where it is not that of the values, `long_name`, `units`."""


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
    values = {
        "neighbor_distance": table.distance,
        "neighbor_index": table.index.astype(index_type),
        "distinct": table.distinct,
        "n_float64": table.redone,
        "neighbor_angle": table.angle,
        "cosine_similarity": mean,
        "cosine_similarity_std": deviation,
        "loss": states.loss,
        "token_loss": states.token_loss,
        "entropy": states.entropy,
        "token_entropy": states.token_entropy,
        "logit_neighbor_distance": of_logits.distance[0],
        "token_id": token_ids,
        "block_permutation": permutation,
    }
    return xr.Dataset(
        {
            name: (dims, np.asarray(values[name], dtype=dtype), {"long_name": long_name, "units": units})
            for name, (dims, dtype, long_name, units) in VARIABLES.items()
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
