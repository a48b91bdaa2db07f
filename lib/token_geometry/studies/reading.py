"""Reading: statements through the first blocks of a model, to the hidden states at their last tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from token_geometry.models.source import ModelSource
from token_geometry.states.model import LanguageModel


@dataclass(frozen=True)
class Reading:
    """What a model made of statements."""

    states: torch.Tensor
    """Hidden states at the last token, float32, shape (layer, statement, width)."""

    tokens: list[str]
    """The token that was read, of each statement."""

    bos: bool
    """Whether BOS was fed first."""


def read(source: ModelSource, texts: Sequence[str], *, n_layers: int, device: str = "auto") -> Reading:
    """Pass statements through the first blocks of a model, which are the only ones that are loaded.

    BOS is fed first where the model's tokenizer or Meta's own code does so, or its family needs it.

    Parameters
    ----------
    source
        From `sources.resolve`.
    texts
        The statements.
    n_layers
        Index of the last hidden state, as in transformers' `hidden_states`.
    device
        Torch device.
    """
    language_model = LanguageModel(source, device=device, n_layers=n_layers)
    tokenizer = language_model.tokenizer
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    bos = reads_bos(language_model)
    states = language_model.last_token(ids, bos=bos)
    return Reading(states, [tokenizer.decode([row[-1]]) for row in ids], bos)


def reads_bos(model: LanguageModel) -> bool:
    """Whether BOS is fed before a statement."""
    tokenizer = model.tokenizer
    if model.prepend_bos or model.source.prepend_bos is not None or tokenizer.bos_token_id is None:
        return model.prepend_bos
    return model.source.kind == "meta" or tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
