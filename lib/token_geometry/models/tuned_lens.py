"""Tuned lenses: an affine map per layer, trained so that final norm and head predict from its states.

The files are those of the package tuned-lens 0.2 [Belrose et al., arXiv:2303.08112]: `config.json` names the
model (`base_model_name_or_path`), its width (`d_model`) and blocks (`num_hidden_layers`), `params.pt` holds
`l.weight`, shape (width, width), and `l.bias`, (width,), of every state l from the embeddings to the last but
one. They are read without the package, which knows few families and copies the head."""

import contextlib
import json
import os
import re
from pathlib import Path

from token_geometry.base import InputError, files
from token_geometry.base.lazy import huggingface_hub, torch
from token_geometry.models import blocks
from token_geometry.models.source import ModelSource

SPACE = "AlignmentResearch/tuned-lens"
"""Space of the hub that holds the lenses of its authors, in folders `lens/ID`."""


def is_of_hub(lens: str) -> bool:
    """Whether a name stands for a lens of the hub: it is like that of a model, and no path that there is."""
    return bool(re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", lens, re.ASCII)) and not os.path.exists(lens)


def find(lens: str) -> list[Path]:
    """`config.json` and `params.pt` of a lens by directory or hub id; `InputError` where it has them not."""
    names, accepted = ("config.json", "params.pt"), f"a directory with both, or an id of the hub's {SPACE}"
    with files.door(f"tuned_lens {lens!r}", f"; accepted: {accepted}"):
        if is_of_hub(lens):
            place = {"repo_type": "space", "subfolder": f"lens/{lens}"}
            return [Path(huggingface_hub.hf_hub_download(SPACE, name, **place)) for name in names]
        for name in names:
            files.check_file(Path(lens).expanduser() / name, f"tuned_lens {lens!r}: {name}")
        return [Path(lens).expanduser() / name for name in names]


def read(lens: str, source: ModelSource, config) -> list[tuple]:
    """Weight and bias of the translator of each state but the last: it makes h + W h + b of h.

    `config` is the configuration of the model. An `InputError` says if there is no such lens, a file of it is
    damaged or holds something else, or it is of another model: by name, width, or number of blocks."""
    of_config, of_weights = find(lens)
    with files.door(what := f"tuned_lens {lens!r}: its config.json"):
        told = json.loads(files.decode(of_config, what))
        base, *size = (told[key] for key in ("base_model_name_or_path", "d_model", "num_hidden_layers"))
    width, n_layers = expected = [config.get_text_config().hidden_size, blocks.depth(config)]
    names = {Path(one).name.casefold() for one in (source.name.split("@")[0], source.location, source.title)}
    parts = (("weight", (width, width)), ("bias", (width,)))
    shapes = {f"{n}.{part}": shape for n in range(n_layers) for part, shape in parts}
    state: dict = {}
    with contextlib.suppress(Exception):  # objects that torch refuses to open, a file cut short, none of torch's
        found = torch.load(of_weights, map_location="cpu", mmap=True, weights_only=True)
        state = {key: one for key, one in found.items() if one.is_floating_point() and one.isfinite().all()}
    if Path(str(base)).name.casefold() not in names - {""}:
        wrong = f"is of model {base!r}: where only names differ, change base_model_name_or_path in its config.json"
    elif size != expected:
        wrong = f"is of width {size[0]} and {size[1]} blocks, and the model of width {width} and {n_layers}"
    elif {key: one.shape for key, one in state.items()} != shapes:
        wrong = f"holds no params.pt of {n_layers} finite weights and biases that are read without running code"
    else:
        return [(state[f"{n}.weight"], state[f"{n}.bias"]) for n in range(n_layers)]
    raise InputError(f"tuned_lens {lens!r} {wrong}; accepted: a lens that tuned-lens wrote of {source.name!r}")
