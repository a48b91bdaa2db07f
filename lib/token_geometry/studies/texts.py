"""Texts through a model to observables, in one call and without files of one's own."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from token_geometry.base import InputError
from token_geometry.extraction import extraction
from token_geometry.models import loading, sources
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.reduction import Reduction
from token_geometry.studies import reduction
from token_geometry.texts import tokens


def measure_texts(
    model: str, texts: Sequence[str], *, n_tokens: int | None = None, shuffle_levels: Sequence[int] = (0,),
    seed: int = 0, device: str = "auto", dtype: str = "float32",
) -> xr.Dataset:  # fmt: skip
    """All observables of texts in a model: an extraction and its reduction, of which only the data set stays.

    Parameters
    ----------
    model
        Alias of `data/models.yml`, id of the hub, directory or `.gguf` file; with `@random` its control.
    texts
        The texts, each of which becomes a prompt.
    n_tokens
        Tokens at the beginning of each text that are read, special tokens not counted; None: as many as the
        shortest has, at most 1024, and a multiple of what `shuffle_levels` need.
    shuffle_levels, seed
        Levels S of the block shuffle: 4^S blocks of equal length; 0 leaves the text as it is.
    device, dtype
        Torch device, and type of the forward pass: float32, bfloat16 or float16.

    Returns
    -------
    xarray.Dataset
        Variables over model, shuffle level, prompt ("0" is the first text) and mostly layer, with `long_name` and
        `units`: those of `measure`, and of the model loss and entropy (nats), BLEU, and the ID of the logits.

    Raises
    ------
    InputError
        If the texts are no list of strings, or one is shorter than `n_tokens`, or the model cannot be had.

    Examples
    --------
    >>> found = token_geometry.measure_texts("smollm2-135m", texts, n_tokens=256)
    >>> found["intrinsic_dimension"].sel(scale=2).mean("prompt").squeeze().to_series()
    """
    if not isinstance(model, str):
        way_out = "its name; give the states of one in memory to token_geometry.measure, or use save_pretrained"
        raise InputError(f"model is a {type(model).__name__}; accepted: {way_out}")
    if isinstance(texts, str) or not texts:
        raise InputError(f"texts is {str(texts)[:40]!r}; accepted: a list of strings, at least one")
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"texts[{place}] is {text!r}, of type {type(text).__name__}; accepted: strings")
    tokenizer, most = loading.load_tokenizer(sources.resolve(model)), 1024 if n_tokens is None else n_tokens
    lengths = [len(tokens.beginning(tokenizer, text.strip(), most)) for text in texts]
    blocks, short = 4 ** max(0, *shuffle_levels), lengths.index(min(lengths))
    if lengths[short] < (least := max(4, blocks) if n_tokens is None else n_tokens):
        raise InputError(f"texts[{short}] has {lengths[short]} tokens; accepted: {least} or more")
    n_tokens = lengths[short] // blocks * blocks if n_tokens is None else n_tokens
    with tempfile.TemporaryDirectory() as folder:
        corpus, shards = Path(folder, "texts.jsonl"), Path(folder, "shards")
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        request = Extraction(
            model=model, corpus=str(corpus), prompt_ids=[str(place) for place in range(len(texts))],
            n_tokens=n_tokens, shuffle_levels=list(shuffle_levels), seed=seed, device=device, dtype=dtype,
            output=str(shards), keep_neighbors=False,
        )  # fmt: skip
        extraction.extract(request)
        found = reduction.compute(Reduction(extraction=str(shards), output=str(Path(folder, "observables.nc"))))
    return found.assign_attrs(corpus=f"{len(texts)} texts")
