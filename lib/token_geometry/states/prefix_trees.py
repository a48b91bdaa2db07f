"""Texts that begin alike as a tree of tokens, which a causal model reads as one sequence.

A token sees those before it in its own text and nothing else, so that a beginning that texts share has to be
read once. Miao et al., arXiv:2305.09781, verify drafts of a text so."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tree:
    """Tokens of several texts, every shared beginning once.

    `token_ids` and `parent` are the token of each node and the node before it, -1 for none, shape (node,); `texts`
    are the indices of the texts, and `last` the node of the last token of each, shape (text,)."""

    token_ids: torch.Tensor
    parent: torch.Tensor
    texts: list[int]
    last: torch.Tensor

    @functools.cached_property
    def sees(self) -> torch.Tensor:
        """Whether a node (row) is to see another one, which stands before it in its texts, shape (node, node)."""
        found = torch.eye(len(self.parent), dtype=torch.bool)
        for node, parent in enumerate(self.parent.tolist()):
            if parent >= 0:
                found[node] |= found[parent]
        return found

    @property
    def depth(self) -> torch.Tensor:
        """Position of each node in its texts, shape (node,)."""
        return self.sees.sum(1) - 1


def trees(token_ids: Sequence[Sequence[int]], *, n_nodes: int) -> Iterator[Tree]:
    """Sort texts, none of them empty, by their tokens and cut them into trees of up to `n_nodes` nodes.

    A single text that has more is a tree of its own."""
    group, size = [], 0
    for i in sorted(range(len(token_ids)), key=lambda i: list(token_ids[i])):
        pairs = zip(token_ids[group[-1]] if group else (), token_ids[i], strict=False)
        new = len(token_ids[i]) - sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        if group and size + new > n_nodes:
            yield _tree(token_ids, group)
            group, size, new = [], 0, len(token_ids[i])
        group.append(i)
        size += new
    yield _tree(token_ids, group)


def _tree(token_ids: Sequence[Sequence[int]], group: list[int]) -> Tree:
    nodes: dict[tuple[int, int], int] = {}  # (parent, token) → node
    last = []
    for i in group:
        node = -1
        for token in token_ids[i]:
            node = nodes.setdefault((node, int(token)), len(nodes))
        last.append(node)
    parent, tokens = torch.tensor(list(nodes)).T
    return Tree(tokens, parent, group, torch.tensor(last))
