"""Texts that begin alike as a tree of tokens, which a causal model reads as one sequence.

A token sees those before it in its own text and nothing else, so that a beginning that texts share has to be
read once. Miao et al., arXiv:2305.09781, verify drafts of a text so.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tree:
    """Tokens of several texts, every shared beginning once.

    `token_ids` and `depth` are the token of each node and its position in its texts, shape (node,); `sees` says
    whether a node (row) is to see another one, shape (node, node). `texts` are the indices of the texts, and
    `last` the node of the last token of each, shape (text,).
    """

    token_ids: torch.Tensor
    depth: torch.Tensor
    sees: torch.Tensor
    texts: list[int]
    last: torch.Tensor


def trees(token_ids: Sequence[Sequence[int]], *, n_nodes: int) -> Iterator[Tree]:
    """Sort texts, none of them empty, by their tokens and cut them into trees of up to `n_nodes` nodes.

    A single text that has more is a tree of its own.
    """
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
    paths = []
    for i in group:
        node, path = -1, []
        for token in token_ids[i]:
            node = nodes.setdefault((node, int(token)), len(nodes))
            path.append(node)
        paths.append(torch.tensor(path))
    sees = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
    for path in paths:
        sees[path[:, None], path] = torch.ones(len(path), len(path), dtype=torch.bool).tril()
    tokens, last = torch.tensor([token for _, token in nodes]), torch.stack([path[-1] for path in paths])
    return Tree(token_ids=tokens, depth=sees.sum(1) - 1, sees=sees, texts=group, last=last)
