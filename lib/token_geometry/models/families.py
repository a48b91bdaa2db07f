"""Families: what the configuration of a model says of it."""

from token_geometry.base.errors import InputError

_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")
"""Names of the longest sequence, family by family."""


def refuse_other_kinds(config, name: str) -> None:
    """Refuse a model that is no causal language model.

    Parameters
    ----------
    config
        A transformers `PreTrainedConfig`.
    name
        Name of the model.

    Raises
    ------
    InputError
        Saying what it is.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if config.is_encoder_decoder:
        kind = "an encoder-decoder"
    elif getattr(config, "attn_type", "") == "bi":
        kind = "a model that sees the tokens behind each one, too"
    elif type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return
    else:
        reads_images = hasattr(config, "image_size") and not hasattr(config, "vocab_size")
        kind = "a model of images" if reads_images else "no language model that predicts the next token"
    raise InputError(
        f"model {name!r} is {kind} ({config.model_type}): its states are not those of a text read from left to "
        "right; take a causal language model"
    )


def context_length(config) -> int | None:
    """Tokens that a model can read at once; None, if its configuration sets no limit."""
    text = config.get_text_config()
    found = [getattr(text, name, None) for name in _CONTEXT]
    return min((length for length in found if isinstance(length, int) and length > 0), default=None)


def needs_bos(model_type: str) -> bool:
    """Whether a family was trained with BOS before every document, and is another model without it."""
    return "gemma" in model_type
