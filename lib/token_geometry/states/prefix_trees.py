"""Texts that begin alike as a tree of tokens, which a causal model reads as one sequence.

A token sees those before it in its own text and nothing else, so that a beginning that texts share has to be
read once. Miao et al., arXiv:2305.09781, verify drafts of a text so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tree:
    """Tokens of several texts, every shared beginning once."""

    token_ids: torch.Tensor
    """Token of each node, shape (node,)."""

    depth: torch.Tensor
    """Position of each node in its texts, shape (node,)."""

    sees: torch.Tensor
    """Whether a node (row) is to see another one, shape (node, node)."""

    texts: list[int]
    """Index of each text."""

    last: torch.Tensor
    """Node of the last token of each text, shape (text,)."""


def trees(token_ids: Sequence[Sequence[int]], *, n_nodes: int) -> Iterator[Tree]:
    """Sort texts by their tokens and cut them into trees of about so many nodes.

    Parameters
    ----------
    token_ids
        Token ids of each text; none is empty.
    n_nodes
        Nodes of a tree, unless a single text has more.
    """
    order = sorted(range(len(token_ids)), key=lambda i: list(token_ids[i]))
    group: list[int] = []
    size = 0
    for i in order:
        new = len(token_ids[i]) - (_shared(token_ids[group[-1]], token_ids[i]) if group else 0)
        if group and size + new > n_nodes:
            yield _tree(token_ids, group)
            group, size, new = [], 0, len(token_ids[i])
        group.append(i)
        size += new
    yield _tree(token_ids, group)


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning of two texts."""
    for n, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return n
    return min(len(first), len(second))


def _tree(token_ids: Sequence[Sequence[int]], group: list[int]) -> Tree:
    nodes: dict[tuple[int, int], int] = {}  # (parent, token) → node
    paths, last = [], []
    for i in group:
        node, path = -1, []
        for token in token_ids[i]:
            node = nodes.setdefault((node, int(token)), len(nodes))
            path.append(node)
        paths.append(path)
        last.append(node)
    depth = torch.zeros(len(nodes), dtype=torch.int64)
    sees = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
    for path in paths:
        places = torch.tensor(path)
        depth[places] = torch.arange(len(path))
        sees[places[:, None], places] = torch.ones(len(path), len(path), dtype=torch.bool).tril()
    return Tree(
        token_ids=torch.tensor([token for _, token in nodes]),
        depth=depth,
        sees=sees,
        texts=group,
        last=torch.tensor(last),
    )
