"""Sizes: the shape of a model, and the bytes that states, tables and shards of such a shape take."""

import math

from token_geometry.base.lazy import torch, transformers
from token_geometry.geometry import table_format
from token_geometry.models import blocks, loading
from token_geometry.models.source import ModelSource

PROCESS_BYTES = 500_000_000  # what Python, torch and transformers take before any weights


def shape_of(source: ModelSource) -> dict[str, int]:
    """`layers`, `width`, `vocabulary`, `parameters` of a model, weights unread; else an `InputError` says why."""
    if known := source.known_shape():
        return known
    config = loading.load_config(source)
    with source.readable_errors("check its configuration"), torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    text, n = config.get_text_config(), sum(weights.numel() for weights in model.parameters())
    shape = {"layers": blocks.depth(config), "width": text.hidden_size}
    return shape | {"vocabulary": text.vocab_size, "parameters": n}


def last_layer(source: ModelSource) -> int:
    """Index of a model's last hidden state, which is its number of blocks; nothing is dequantized for it."""
    return source.known_shape().get("layers") or blocks.depth(loading.load_config(source))


def bytes_of_prompt(*, layers: int, n_tokens: int, width: int, item: int) -> int:
    """Bytes of the states of a prompt: as the model gives them, `item` bytes a number, stacked, and in float32."""
    # `layers` counts blocks and embeddings; a state has the shape (n_tokens, width);
    # blocks hold about ten states' worth while they work: queries, keys, values and the wider inside
    return n_tokens * width * (layers * (2 * item + 4) + 10 * item)


def bytes_of_geometry(n_tokens: int) -> int:
    """Bytes of the geometry of one layer at its worst: squared distances in float64, sums, a sorted copy."""
    return 3 * 8 * n_tokens**2


def bytes_of_shard(layers: int, n_tokens: int, *, keep_neighbors: bool) -> int:
    """Bytes of a shard on disk."""
    if not keep_neighbors:
        # observables over scales, sizes of neighborhoods and layers, in float64, and the frame of the file
        return layers * 8 * (3 * 8 + 2 * 31 + layers + 70) + 40_000
    index_bytes = 2 if n_tokens < 2**16 else 4
    # per point: distances in float32, indices, angle, two local dimensions and a flag
    return layers * n_tokens * (4 * len(table_format.RANKS) + index_bytes * table_format.N_NEIGHBORS + 13)


def spelled(n_bytes: float) -> str:
    """Bytes with the unit that suits them."""
    unit = min(int(math.log(max(n_bytes, 1), 1000)), 4)
    return f"{n_bytes / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"


def duration(seconds: float) -> str:
    """Seconds in words of one unit."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{max(seconds, 1):.0f} s"
