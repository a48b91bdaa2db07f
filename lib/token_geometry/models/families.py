"""Families: what the configuration of a model says of it."""

import contextlib
import math
import re

from token_geometry.base import InputError
from token_geometry.base.lazy import torch, transformers


def refuse_other_kinds(config, name: str) -> None:
    """Refuse a model of this configuration and name that is no causal language model, saying what it is."""
    if config.is_encoder_decoder:
        kind = "an encoder-decoder"
    elif getattr(config, "attn_type", "") == "bi":
        kind = "a model that sees the tokens behind each one, too"
    elif type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return
    else:
        of_images = hasattr(config, "image_size") and not hasattr(config, "vocab_size")
        kind = "a model of images" if of_images else "no language model that predicts the next token"
    way_out = "its states are not those of a text read from left to right; take a causal language model"
    raise InputError(f"model {name!r} is {kind} ({config.model_type}): {way_out}")


def refuse_uneven_heads(config, name: str) -> None:
    """Refuse a model whose heads cannot share keys: transformers lays it out, and fails in the first pass."""
    text = config.get_text_config(decoder=True)
    heads, keys = (text.to_dict().get(f"num_{of}_heads") for of in ("attention", "key_value"))
    # of a family that has no such number, or makes keys of latent vectors, the entry is nobody's
    is_used = hasattr(type(text), "num_key_value_heads") and not hasattr(text, "kv_lora_rank")
    if isinstance(heads, int) and isinstance(keys, int) and is_used and (keys < 1 or heads % keys):
        found = f"num_key_value_heads is {keys}, which does not divide num_attention_heads, {heads}"
        raise InputError(f"model {name!r}: {found}: check its configuration")


def needs_bos(model_type: str) -> bool | None:
    """Whether BOS is fed before every prompt of a family; None, where that is not settled.

    Every Gemma was trained with BOS before each document and is another model without it. The papers that
    this project follows read LLaMA, Mistral and OPT without special tokens, though their tokenizers add BOS."""
    if "gemma" in model_type:
        return True
    return False if model_type in ("llama", "mistral", "opt") else None


def refuse_other_weights(report: dict, model, name: str, *, n_blocks: int | None = None) -> None:
    """Refuse a model that some of its weights were missing for, or that left some of its files' unread.

    transformers, whose `report` of the loading this is, fills what is missing with random numbers, leaves out what
    the network has no place for, and goes on. What belongs to parts that the model does not have, such as a head
    that was left out, is no matter, nor are blocks beyond the first `n_blocks` where this is given."""
    if missing := sorted(report["missing_keys"]):
        problem = f"model {name!r}: its files lack {len(missing)} of its weights, among them {missing[0]}"
        raise InputError(f"{problem}: the checkpoint is incomplete or of another architecture; take all its files")
    embeddings = None
    with contextlib.suppress(NotImplementedError):  # a few decoders of pairs do not say which they are
        embeddings = model.get_input_embeddings()
    for path, weights in model.named_parameters():
        if not weights.is_floating_point() or weights.itemsize < 2:  # quantized
            continue
        size = float(torch.linalg.vector_norm(weights.detach(), dtype=torch.float32))
        if not math.isfinite(size) or not size and weights is getattr(embeddings, "weight", None):
            what = "zeros only" if not size else "a number that is not finite"
            raise InputError(f"model {name!r}: {path} holds {what}: the files are damaged; take them anew")
    own = {path for path, part in model.named_modules() if any(True for _ in part.parameters(recurse=False))}
    for key in sorted(report["unexpected_keys"]):
        # of a whole model there are no blocks beyond those that its configuration counts
        like = re.sub(r"\.\d+\.", ".0.", key, count=1) if n_blocks is None else key
        if {like.rpartition(".")[0], like.removeprefix(f"{model.base_model_prefix}.").rpartition(".")[0]} & own:
            unused = f"its files hold {key}, which transformers does not use for this model"
            way_out = "give weights that are not quantized, and the config.json of these weights"
            raise InputError(f"model {name!r}: {unused}: its states would be wrong; {way_out}")


def refuse_uneven_scales(config, trunk, name: str) -> None:
    """Refuse a network of fp8 weights whose blocks of equal scale do not divide them: transformers errs there."""
    block: list[int] = (config.to_dict().get("quantization_config") or {}).get("weight_block_size") or []
    for path, weights in trunk.named_parameters() if block else ():
        sizes = zip(weights.shape[-2:], block, strict=False)
        if weights.ndim >= 2 and "layers." in path and any(size > n and size % n for size, n in sizes):
            scales = f"a scale for each {block[0]} x {block[1]} of them"
            problem = f"which do not divide {path} of shape {tuple(weights.shape)}"
            way_out = "transformers rescales it wrongly; give weights that are not quantized"
            raise InputError(f"model {name!r} has fp8 weights with {scales}, {problem}: {way_out}")
