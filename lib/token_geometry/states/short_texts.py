"""Many short texts through a model, each read at its last token."""

import inspect
from collections.abc import Iterator
from functools import partial

import torch
from torch.nn.utils.rnn import pad_sequence

from token_geometry.states import prefix_trees
from token_geometry.states.stream import Stream

BATCH_TOKENS = 768  # tokens that are read at a time; more are no faster on a CPU, whose caches they leave
TREE_TOKENS = 192  # tokens of texts with shared beginnings, which see one another: attention grows with the square
TREES_AT_ONCE = 6  # how many such groups are read at a time

_padded = partial(pad_sequence, batch_first=True)


def last_token(stream: Stream, rows: list[list[int]], *, shared: bool) -> torch.Tensor:
    """States of texts at their last token, float32 and on the CPU, shape (layer, text, width).

    `rows` are the tokens of each text, BOS included where it is fed. If `shared`, what texts have in common at
    their beginning is read once. Else they are sorted by length and read in batches; a shorter one is filled up
    behind its last token, which cannot see it.
    """
    return torch.stack(_by_text((_read_trees if shared else _read_batches)(stream, rows)), dim=1)


def can_share(stream: Stream, rows: list[list[int]]) -> bool:
    """Whether the model reads texts right that share their beginnings."""
    # Families differ in what they make of a mask and of positions that are given. Like the heads,
    # they are found by comparison: here of a few texts, the longest and one that begins like it.
    if "position_ids" not in inspect.signature(stream.trunk.forward).parameters:
        return False
    longest = max(rows, key=len)
    few = [longest, longest[:-1] + [longest[0]], min(rows, key=len)]
    plain = _by_text(_read_batches(stream, few))
    try:
        shared = _by_text(_read_trees(stream, few))
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError):
        return False
    # far from round-off, which some channels of large models magnify, and far from another context
    limit = 1e-3 if stream.model.dtype == torch.float32 else 1e-2
    return all(float((a - b).norm() / b.norm()) < limit for a, b in zip(shared, plain, strict=True))


def _read_batches(stream: Stream, rows: list[list[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Texts by index, and their states at the last token, shape (text, layer, width)."""
    for batch in _batches([len(row) for row in rows]):
        layers, _ = stream.read(_padded([torch.tensor(rows[i]) for i in batch]))
        place = torch.arange(len(batch)), torch.tensor([len(rows[i]) - 1 for i in batch])
        yield batch, torch.stack([layer[place] for layer in layers], dim=1)


def _read_trees(stream: Stream, rows: list[list[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """The same with shared beginnings."""
    trees = list(prefix_trees.trees(rows, n_nodes=TREE_TOKENS))
    for start in range(0, len(trees), TREES_AT_ONCE):
        batch = trees[start : start + TREES_AT_ONCE]
        ids = _padded([tree.token_ids for tree in batch])
        # what fills up a smaller tree sees itself, since a softmax needs something to see
        sees = torch.eye(ids.shape[1], dtype=torch.bool).repeat(len(batch), 1, 1)
        for row, tree in enumerate(batch):
            sees[row, : len(tree.sees), : len(tree.sees)] = tree.sees
        mask = torch.zeros(sees.shape, dtype=stream.model.dtype)
        mask = mask.masked_fill(~sees, torch.finfo(mask.dtype).min)
        depths = _padded([tree.depth for tree in batch])
        layers, _ = stream.read(ids, position_ids=depths, attention_mask=mask[:, None])
        for row, tree in enumerate(batch):
            yield tree.texts, torch.stack([layer[row, tree.last] for layer in layers], dim=1)


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Texts by length that have `BATCH_TOKENS` tokens at most when they are filled up to their longest."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    yield batch


def _by_text(batches: Iterator[tuple[list[int], torch.Tensor]]) -> list[torch.Tensor]:
    """States of each text, float32 and on the CPU, in the order of the texts."""
    found = {i: one for texts, states in batches for i, one in zip(texts, states.float().cpu(), strict=True)}
    return [found[i] for i in range(len(found))]
