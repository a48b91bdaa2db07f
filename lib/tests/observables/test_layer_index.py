"""The map of layers: it is printed where it is kept, and it is true."""

import json
import re

import torch
import transformers

from token_geometry.base import project
from token_geometry.observables import layer_index

N_LAYERS = 3


def test_the_chapter_on_methods_prints_the_map():
    text = (project.root() / "book" / "methods.qmd").read_text(encoding="utf-8")
    table = text[: text.index("{#tbl-index}")].rsplit("\n\n", 2)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    del rows[1]  # the rule below the header
    plain = [
        [re.sub(r"\$(.*?)\$", r"\1", cell).replace("\\le", "≤").replace("-", "−") for cell in row] for row in rows
    ]
    assert plain == [list(row) for row in (layer_index.COLUMNS, *layer_index.ROWS)]


def test_the_attribute_says_what_the_last_layer_is():
    for final_norm, word in ((True, "after the final norm"), (False, "before the norm")):
        described = json.loads(layer_index.as_json(final_norm=final_norm))
        assert word in described["layer L"] and described["layer"] == "hidden_states"
        assert len(described["map"]) == len(layer_index.ROWS)


def test_the_map_is_true_of_a_network():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=N_LAYERS, num_attention_heads=2
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    into, out_of = {}, {}
    for number, block in enumerate(model.model.layers):
        block.register_forward_pre_hook(lambda _, given, number=number: into.update({number: given[0]}))
        block.register_forward_hook(lambda _, given, found, number=number: out_of.update({number: found}))
    with torch.inference_mode():
        states = model(torch.arange(8)[None], output_hidden_states=True).hidden_states
        normed = model.model.norm(out_of[N_LAYERS - 1])
    for index in range(N_LAYERS + 1):
        named = {"l": index, "l − 1": index - 1, "L − 1": N_LAYERS - 1, "0": 0}
        row = layer_index.ROWS[0 if index == 0 else 1 if index < N_LAYERS else -1]
        _, _, block, before, marks, upto = row
        if block != "none":
            assert torch.equal(states[index], out_of[named[block]])
        if before != "none":  # what goes into a block
            assert torch.equal(states[index], into[named[before]])
        if marks != "none":
            assert marks == block  # Marks & Tegmark read the output of the block of that number
        if upto != "none":  # the state that so many blocks have worked on
            assert named[upto] == index
    assert torch.equal(states[N_LAYERS], normed)
    assert not torch.equal(states[N_LAYERS], out_of[N_LAYERS - 1])
