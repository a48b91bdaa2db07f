"""Loading: from a source to configuration, tokenizer and weights in memory."""

import contextlib
import sys
from collections.abc import Sequence

from token_geometry.base import InputError, one_of
from token_geometry.base.lazy import accelerate, torch, transformers
from token_geometry.models import blocks, controls, families
from token_geometry.models import devices as placement
from token_geometry.models.source import ModelSource

DTYPES = ("float32", "bfloat16", "float16")

PADDING = 0.1
"""Largest share of a model's vocabulary that a tokenizer may lack. Embeddings are padded to a round
number of rows, by 2.3 % at most in the models that transformers reads; more is another tokenizer."""

BOS_GAIN = 0.5
"""Nats per token by which a sentence is predicted worse without BOS, where a model needs it.

Gemma 3 270M is worse without, by 1.42 (4.68 for 3.26); SmolLM2-135M and Qwen2.5-Coder-0.5B are worse with it, by
0.12 (2.67 for 2.55) and 2.18 (4.51 for 2.33)."""

_SENTENCE = "The city of Trieste lies in the north of Italy, and the river that flows through Paris is the Seine."


def load_config(source: ModelSource):
    """The model's configuration (a transformers `PreTrainedConfig`), weights unread; an `InputError` says if it
    cannot be had, or is not that of a causal language model."""
    with source.readable_errors():
        config = source.config()
    families.refuse_other_kinds(config, source.name)
    if not 1 <= (found := blocks.depth(config)) < 10_000:  # each is laid out
        raise InputError(f"model {source.name!r}: its configuration counts {found} blocks; accepted: 1 to 9999")
    families.refuse_uneven_heads(config, source.name)
    # whatever a file says: networks stumble over tuples of their own parts, and states are read at the blocks
    config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False
    return config


def load_tokenizer(source: ModelSource):
    """The model's tokenizer (a transformers `PreTrainedTokenizerBase`).

    Raises `InputError` if it cannot be had, or is not the tokenizer of this model: it has ids that the model
    has no embeddings for, or lacks more of the model's vocabulary than padding explains."""
    n_vocabulary = blocks.vocabulary(load_config(source))
    with source.readable_errors():
        tokenizer = source.tokenizer()
    # added tokens may lie beyond: Gemma 3's tokenizer has one for images, which text never yields
    if tokenizer.vocab_size > n_vocabulary:
        found = f" and its tokenizer one of {tokenizer.vocab_size}"
    elif len(tokenizer) < (1 - PADDING) * n_vocabulary:
        found = f", of which its tokenizer has only {len(tokenizer)}"
    else:
        return tokenizer
    way_out = "the tokenizer belongs to another model; take the files of one model"
    raise InputError(f"model {source.name!r} has a vocabulary of {n_vocabulary}{found}: {way_out}")


def load_model(
    source: ModelSource, *, dtype: str, device: str, n_layers: int | None = None, devices: Sequence[str] = ()
):
    """The model in evaluation mode, a transformers `PreTrainedModel`; `dtype` is one of `DTYPES`.

    Of its L blocks `n_layers` are built and read: so many as the index of the last hidden state that is wanted.
    Below L the model has no head, and of its files only what is left of it is read; for 0, which needs the
    embeddings only, one block is built, since there are no networks without. None, or L: the whole model.

    `device` is a torch device, as `choose_device` returns it, and the first of `devices`, the GPUs that the
    model is spread over, block by block, where one is too small; empty, or one: `device` alone.

    Raises `InputError` if the model cannot be had or has fewer layers; before any weights are read."""
    if not sys.stderr.isatty():  # in a log it is a line per per cent
        transformers.logging.disable_progress_bar()
    if dtype not in DTYPES:
        raise one_of("dtype", dtype, DTYPES)
    config = load_config(source)
    whole = is_whole(source, config, n_layers)
    with source.readable_errors(), contextlib.ExitStack() as stack:
        source.check_files()
        n_blocks = None if whole else n_layers or 1
        with source.readable_errors("check its configuration"):
            kind, config, sketch = blocks.network(config, n_blocks)
        if not whole or source.control == "random":
            # what transformers would report as left out was meant to be
            stack.callback(transformers.logging.set_verbosity, transformers.logging.get_verbosity())
            transformers.logging.set_verbosity_error()
        options, parts = {"config": config, "dtype": getattr(torch, dtype)}, {}
        if len(devices) > 1:
            parts = placement.device_map(sketch.to(options["dtype"]), devices, name=source.name)
        if source.control == "random":
            model = controls.untrained(kind, options, source.control_seed, sketch=sketch, name=source.name)
            if parts:  # drawn on the CPU, as everywhere: a GPU would draw other numbers
                model = accelerate.dispatch_model(model, parts)
        else:
            families.refuse_uneven_scales(config, sketch, source.name)
            # straight to the GPUs: several processes together need not have room for it beside them
            if (place := torch.device(device)).type == "cuda":
                options["device_map"] = parts or {"": place.index or 0}
            options |= source.weights(config, n_blocks)
            model, report = kind.from_pretrained(output_loading_info=True, **options)
            families.refuse_other_weights(report, model, source.name, n_blocks=n_blocks)
        if source.control == "permuted":
            controls.permute(model, source.control_seed)
        return (model if parts else model.to(device)).eval()


def is_whole(source: ModelSource, config, n_layers: int | None) -> bool:
    """Whether `n_layers` blocks, None for all, are all of the model's; `InputError` if there are fewer."""
    last = blocks.depth(config)
    if n_layers is not None and not 0 <= n_layers <= last:
        problem = f"layer {n_layers} is beyond the layers of model {source.name!r}, of which the last is {last}"
        raise InputError(f"{problem}; accepted: 0 to {last}")
    return n_layers in (None, last)


def check_length(source: ModelSource, config, n_tokens: int, *, bos: bool | None = None) -> None:
    """Refuse a prompt that is longer than what the model can read at once: the `InputError` names both lengths.

    Of the files that Meta publishes none says how long that is: there, any length passes. `n_tokens` counts no
    special tokens; `bos` says whether BOS is fed before them, None: as `needs_bos`."""
    context, bos = blocks.context(config), needs_bos(source, config.model_type) if bos is None else bos
    if source.kind != "meta" and context and n_tokens + bos > context:
        length = f"{context} tokens{' with BOS among them' if bos else ''}; accepted: up to {context - int(bos)}"
        raise InputError(f"n_tokens is {n_tokens}, and the context of model {source.name!r} is {length}")


def needs_bos(source: ModelSource, model_type: str, *, model=None, tokenizer=None) -> bool:
    """Whether BOS is fed before every prompt (and its position dropped from the cloud).

    As `data/models.yml` says; else as it is known of the family; else, where the tokenizer adds BOS by itself,
    if the model predicts a sentence worse without: by more than `BOS_GAIN` per token. Without `model`, the whole
    one, and `tokenizer` for that trial a family that is not known needs none."""
    known = families.needs_bos(model_type) if source.prepend_bos is None else source.prepend_bos
    if known is not None or model is None or tokenizer is None or tokenizer.bos_token_id is None:
        return bool(known)
    added = tokenizer(_SENTENCE)["input_ids"]
    if added[:1] != [tokenizer.bos_token_id] or model.get_output_embeddings() is None:
        return False
    return _loss(model, added[1:]) - _loss(model, added) > BOS_GAIN


def _loss(model, token_ids: list[int]) -> float:
    """Loss of all tokens of the sentence but the first, nats."""
    ids = torch.tensor([token_ids], device=model.get_input_embeddings().weight.device)
    with torch.inference_mode():
        logits = model(ids).logits[0].float()
    n_predicted = len(_SENTENCE.split()) - 1
    expected = ids[0, -n_predicted:].to(logits.device)
    return float(torch.nn.functional.cross_entropy(logits[-n_predicted - 1 : -1], expected))
