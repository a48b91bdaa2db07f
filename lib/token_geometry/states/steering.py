"""Steering: vectors that are added to hidden states while texts pass through a model."""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence

import torch

from token_geometry.models import blocks
from token_geometry.states import prefix_trees, short_texts
from token_geometry.states.model import LanguageModel
from token_geometry.states.stream import first_tensor

NODES = 768  # tokens that are read at a time


@torch.inference_mode()
def last_states(
    model: LanguageModel, rows: Sequence[list[int]], n_behind: int, shifts: Mapping[int, torch.Tensor]
) -> torch.Tensor:
    """What the head is applied to at the end of texts, each steered at the token before the last `n_behind`.

    `rows` are the token ids of each text, BOS included where it is fed. `shifts` has what is added to states, by
    layer, an index of `hidden_states`, 1 or more, shape (text, width); the blocks above go on with the sums.
    `LanguageModel.shares_prefixes` must have said that the model can do it. Shape (text, width)."""
    n_tokens, found = blocks.vocabulary(model.model.config), {}
    # the same text with another vector is another text from the steered token on
    told_apart = [[*row] for row in rows]
    for number, row in enumerate(told_apart):
        row[-1 - n_behind] += number * n_tokens
    for tree in prefix_trees.trees(told_apart, n_nodes=NODES):
        tree, place = dataclasses.replace(tree, token_ids=tree.token_ids % n_tokens), tree.last
        for _ in range(n_behind):
            place = tree.parent[place]

        def add(block, arguments, output, *, layer: int, tree=tree, place=place) -> None:
            first_tensor(output)[0, place] += shifts[layer][tree.texts].to(first_tensor(output))

        with contextlib.ExitStack() as stack:
            for layer in shifts:
                # before the stream's own hooks, which record what goes on
                hook = functools.partial(add, layer=layer)
                stack.callback(model.stream.blocks[layer - 1].register_forward_hook(hook, prepend=True).remove)
            _, last = short_texts.read_trees(model.stream, [tree])
        found |= dict(zip(tree.texts, last[0, tree.last], strict=True))
    return torch.stack([found[i] for i in range(len(rows))])
