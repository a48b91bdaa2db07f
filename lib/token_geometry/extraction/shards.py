"""Shards: what is kept of one prompt at one shuffle level, from one forward pass."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from token_geometry.base import InputError, resources, store
from token_geometry.extraction.plan import ShardKey
from token_geometry.geometry import neighbors
from token_geometry.observables import tables, transfer
from token_geometry.requests.extraction import Extraction
from token_geometry.states.model import LanguageModel, States
from token_geometry.texts import shuffling


def make_tables(
    model: LanguageModel, keys: Sequence[ShardKey], request: Extraction, recipe: dict
) -> Iterator[transfer.Tables]:
    """One forward pass of prompts, all of `n_tokens` tokens, and the tables of each."""
    started, seed, order = time.perf_counter(), request.seed, shuffling.block_permutation
    permutations = [
        order(key.shuffle_level, seed=seed, text_sha256=key.prompt.text_sha256, number=key.permutation)
        for key in keys
    ]
    token_ids = [shuffling.shuffle_blocks(k.prompt.token_ids, p) for k, p in zip(keys, permutations, strict=True)]
    passed = model.forward_batch(np.stack(token_ids), final_norm=request.final_norm, logits=True)
    seconds = (time.perf_counter() - started) / len(keys)
    for key, permutation, ids, states in zip(keys, permutations, token_ids, passed, strict=True):
        started = time.perf_counter()
        arrays = {"token_id": ids, "block_permutation": permutation} | _measure(key, states)
        attrs = store.make_attrs(
            f"Neighbor tables of one prompt, {model.source.title}", recipe,
            prompt=key.prompt.id, text_sha256=key.prompt.text_sha256, shuffle_level=key.shuffle_level,
            permutation=key.permutation, bos_prepended=int(model.prepend_bos),
            device=model.device, device_name=resources.device_name(model.device),
            n_gpus=len(model.devices) if resources.is_gpu(model.device) else 0, batch_size=len(keys),
            peak_memory_bytes=resources.peak_memory(), seconds_forward=seconds,
            peak_gpu_memory_bytes=resources.peak_gpu_memory(model.devices),
            seconds_geometry=time.perf_counter() - started,
        )  # fmt: skip
        yield transfer.leave(arrays, attrs, device=model.device)


def make_shard(model: LanguageModel, key: ShardKey, request: Extraction, recipe: dict) -> xr.Dataset:
    """One forward pass of one prompt, and its shard with the neighbor tables."""
    (made,) = make_tables(model, [key], request, recipe)
    return made.label()


def _measure(key: ShardKey, states: States) -> dict:
    """Arrays of a shard by name, the geometry's on the device of the states."""
    try:
        of_states = tables.arrays(states.hidden)
        of_logits = neighbors.neighbor_tensors(states.logits[None])  # type: ignore[index]
    except InputError as error:
        raise InputError(f"prompt {key.prompt.id!r}: {error}") from None
    return of_states | {
        "mean_state": states.hidden[len(states.hidden) // 2].mean(0),
        "loss": states.loss, "token_loss": states.token_loss, "entropy": states.entropy,
        "lens_loss": states.lens[0], "lens_entropy": states.lens[1],  # type: ignore[index]
        "token_entropy": states.token_entropy, "logit_neighbor_distance": of_logits["distance"][0],
    }  # fmt: skip
