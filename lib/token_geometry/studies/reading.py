"""Reading: statements through the first blocks of a model, to the hidden states at their last tokens."""

from collections.abc import Sequence

import torch

from token_geometry.models.source import ModelSource
from token_geometry.states.model import LanguageModel


def read(
    source: ModelSource, texts: Sequence[str], *, n_layers: int, device: str = "auto"
) -> tuple[torch.Tensor, list[str], bool]:
    """Pass statements through the first blocks of a model, which are the only ones that are loaded.

    BOS is fed first where the model's tokenizer or Meta's own code does so, or its family needs it. `n_layers`
    is the index of the last hidden state, as in transformers' `hidden_states`. Returns the hidden states at the
    last tokens, float32, of shape (layer, statement, width), those tokens, and whether BOS was fed first."""
    model = LanguageModel(source, device=device, n_layers=n_layers)
    ids, bos = model.tokenizer(list(texts), add_special_tokens=False)["input_ids"], reads_bos(model)
    states, _ = model.read_texts(ids, bos=bos, losses=False)
    return states, [model.tokenizer.decode([row[-1]]) for row in ids], bos


def reads_bos(model: LanguageModel) -> bool:
    """Whether BOS is fed before a statement."""
    tokenizer = model.tokenizer
    if model.prepend_bos or model.source.prepend_bos is not None or tokenizer.bos_token_id is None:
        return model.prepend_bos
    return model.source.kind == "meta" or tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
