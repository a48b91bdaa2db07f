"""Steering: vectors added to hidden states, against blocks that are run by hand."""

import pytest
import torch
import transformers

from token_geometry.models import sources
from token_geometry.states import steering
from token_geometry.states.model import LanguageModel

START, END = [3, 4, 5], [9, 10]
MIDDLES = [[6, 7, 8], [6, 7, 11], [12], [6, 7, 8]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, save_tiny):
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.4,
    )  # fmt: skip
    return LanguageModel(sources.resolve(save_tiny(config, tmp_path_factory.mktemp("tiny"))), device="cpu")


@torch.inference_mode()
def by_hand(trunk, row, place, shifts):
    """Final state of a text whose states at a place are edited between the blocks, which are run one by one."""
    ids = torch.tensor([row])
    state, positions = trunk.embed_tokens(ids), torch.arange(len(row))[None]
    mask = torch.full((len(row), len(row)), float("-inf")).triu(1)[None, None]
    angles = trunk.rotary_emb(state, positions)
    for layer, block in enumerate(trunk.layers, start=1):
        state = block(state, attention_mask=mask, position_ids=positions, position_embeddings=angles)
        if layer in shifts:
            state[0, place] = state[0, place] + shifts[layer]
    return trunk.norm(state)[0, -1]


@pytest.mark.parametrize("nodes", [768, 12], ids=["one tree", "several trees"])
def test_a_vector_that_is_added_goes_on_through_the_blocks_above_as_if_they_were_run_by_hand(
    tiny, nodes, monkeypatch
):
    monkeypatch.setattr(steering, "NODES", nodes)
    rows = [[*START, *middle, *END] for middle in MIDDLES]
    assert tiny.shares_prefixes(rows)
    random = torch.Generator().manual_seed(0)
    shifts = {layer: torch.randn(len(rows), 32, generator=random) for layer in (1, 3, 4)}
    shifts[1][0] = shifts[3][0] = shifts[4][0] = 0  # unsteered; the last has the same tokens
    found = steering.last_states(tiny, rows, len(END), shifts)
    for i, (row, state) in enumerate(zip(rows, found, strict=True)):
        own = {layer: shift[i] for layer, shift in shifts.items()}
        torch.testing.assert_close(state, by_hand(tiny.stream.trunk, row, len(row) - 3, own), rtol=1e-4, atol=1e-4)
    assert float((found[0] - found[3]).norm()) > 0.1
    # and nothing of it stays
    _, last = tiny.stream.read(torch.tensor(rows[:1]))
    torch.testing.assert_close(last[0, -1], found[0], rtol=1e-4, atol=1e-4)
