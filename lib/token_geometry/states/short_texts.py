"""Many short texts through a model: their states at the last token, and the loss of each token."""

import inspect
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from token_geometry.states import prefix_trees
from token_geometry.states.heads import Head
from token_geometry.states.stream import Stream

BATCH_TOKENS = 768  # tokens that are read at a time; more are no faster on a CPU, whose caches they leave
TREE_TOKENS = 192  # tokens of texts with shared beginnings, which see one another: attention grows with the square
TREES_AT_ONCE = 6  # how many such groups are read at a time

_padded = partial(pad_sequence, batch_first=True)


def read(
    stream: Stream, rows: list[list[int]], *, shared: bool, head: Head | None = None
) -> tuple[torch.Tensor, list[np.ndarray]]:
    """States of texts at their last token, float32, on the CPU, shape (layer, text, width); with a head, losses.

    `rows` are the tokens of each text, BOS included where it is fed. If `shared`, what texts have in common at
    their beginning is read once. Else they are sorted by length and read in batches; a shorter one is filled up
    behind its last token, which cannot see it. Losses are those of each token in nats, NaN for the first."""
    states, losses = {}, {}
    for texts, layers, some in (_read_trees if shared else _read_batches)(stream, rows, head):
        states |= dict(zip(texts, layers.float().cpu(), strict=True))
        losses |= dict(zip(texts, some, strict=False))
    return torch.stack([states[i] for i in range(len(rows))], dim=1), [losses[i] for i in range(len(losses))]


def can_share(stream: Stream, rows: list[list[int]]) -> bool:
    """Whether the model reads texts right that share their beginnings."""
    # Families differ in what they make of a mask and of positions that are given. Like the heads,
    # they are found by comparison: here of a few texts, the longest and one that begins like it.
    if "position_ids" not in inspect.signature(stream.trunk.forward).parameters:
        return False
    longest = max(rows, key=len)
    few = [longest, longest[:-1] + [longest[0]], min(rows, key=len)]
    plain, _ = read(stream, few, shared=False)
    try:
        shared, _ = read(stream, few, shared=True)
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError):
        return False
    # far from round-off, which some channels of large models magnify, and far from another context
    limit = 1e-3 if stream.model.dtype == torch.float32 else 1e-2
    return all(float((shared[:, i] - plain[:, i]).norm() / plain[:, i].norm()) < limit for i in range(len(few)))


def _read_batches(stream: Stream, rows: list[list[int]], head: Head | None) -> Iterator[tuple]:
    """Texts by index, their states at the last token, shape (text, layer, width), and their losses."""
    for batch in _batches([len(row) for row in rows]):
        ids = [torch.tensor(rows[i]) for i in batch]
        layers, last = stream.read(_padded(ids))
        place = torch.arange(len(batch)), torch.tensor([len(row) - 1 for row in ids])
        losses = []
        for row, states in zip(ids, last, strict=True):
            if head:
                losses.append(np.append(np.nan, head.predicted(states[: len(row) - 1], row[1:])[0]))
        yield batch, torch.stack([layer[place] for layer in layers], dim=1), losses


def _read_trees(stream: Stream, rows: list[list[int]], head: Head | None) -> Iterator[tuple]:
    """The same with shared beginnings."""
    trees = list(prefix_trees.trees(rows, n_nodes=TREE_TOKENS))
    for start in range(0, len(trees), TREES_AT_ONCE):
        batch = trees[start : start + TREES_AT_ONCE]
        layers, last = read_trees(stream, batch)
        for row, tree in enumerate(batch):
            losses, follows = np.full(len(tree.token_ids), np.nan), tree.parent >= 0
            if head:
                losses[follows] = head.predicted(last[row, tree.parent[follows]], tree.token_ids[follows])[0]
            by_text = [losses[seen] for seen in tree.sees[tree.last].numpy()] if head else []
            yield tree.texts, torch.stack([layer[row, tree.last] for layer in layers], dim=1), by_text


def read_trees(stream: Stream, batch: list[prefix_trees.Tree]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """`Stream.read` of trees, one a text and its nodes the tokens."""
    ids = _padded([tree.token_ids for tree in batch])
    # what fills up a smaller tree sees itself, since a softmax needs something to see
    sees = torch.eye(ids.shape[1], dtype=torch.bool).repeat(len(batch), 1, 1)
    for row, tree in enumerate(batch):
        sees[row, : len(tree.sees), : len(tree.sees)] = tree.sees
    mask = torch.zeros(sees.shape, dtype=stream.model.dtype)
    mask = mask.masked_fill(~sees, torch.finfo(mask.dtype).min)
    return stream.read(ids, position_ids=_padded([tree.depth for tree in batch]), attention_mask=mask[:, None])


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Texts by length that have `BATCH_TOKENS` tokens at most when they are filled up to their longest."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    yield batch
