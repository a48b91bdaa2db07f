"""GGUF files as transformers' own format: dequantized once, kept in the cache."""

import contextlib
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from token_geometry.base import project
from token_geometry.base.lazy import torch, transformers
from token_geometry.models import families
from token_geometry.models.gguf import configuration, header, tokenizers

CONVERSION = 3
"""Version of the dequantized copies in the cache; a new one makes them anew."""

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def place(sha256: str) -> Path:
    """Where the copy of the GGUF file with this checksum is kept, whether it is there or not."""
    return project.cache() / "models" / f"{sha256[:16]}-{CONVERSION}"


def folder(sha256: str, fetch: Callable[[Path], Path]) -> Path:
    """Directory in transformers' format of the GGUF file with this checksum, made where it is missing.

    `fetch` returns the path of the file; it may put the file into the folder that it is given. Raises
    `InputError` if the file is cut short, damaged or of an architecture that transformers does not read.
    """
    kept = place(sha256)
    if kept.is_dir():
        return kept
    kept.parent.mkdir(exist_ok=True)
    with project.cache_lock(kept.name):
        if kept.is_dir():  # another process was first
            return kept
        partial = Path(tempfile.mkdtemp(dir=kept.parent, prefix=f"{kept.name}-partial-"))
        try:
            _dequantize(fetch(partial), partial)
            (partial / "model.gguf").unlink(missing_ok=True)
            os.replace(partial, kept)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return kept


@functools.lru_cache(maxsize=4)
def read_tokenizer(kept: Path):
    """The tokenizer of a directory that `folder` made, a transformers `PreTrainedTokenizerFast`.

    `AutoTokenizer` takes `tokenizer.json` apart and builds the tokenizer of the model's family from
    its vocabulary, which takes 4 s for Gemma's 262,144 entries. The file was written from such a
    tokenizer, so it holds all that decides a token id: it is read as it is.
    """
    settings = json.loads((kept / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {name: token for name, token in settings.items() if name in _SPECIAL}
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(kept / "tokenizer.json"), **special)


def read_config(gguf: Path):
    """The configuration of a GGUF file, without dequantizing it; raises as `folder`."""
    head = header.read(gguf)
    with header.readable_errors(gguf, head), _header_read_once():
        return configuration.read(gguf, head)


def _dequantize(gguf: Path, target: Path) -> None:
    head = header.read(gguf)
    with header.readable_errors(gguf, head), _header_read_once():
        tokenizers.check(gguf, head)
        config = configuration.read(gguf, head)
        tokenizer = tokenizers.read(gguf, head)
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, config=config, dtype=torch.float32, output_loading_info=True
        )
    families.refuse_other_weights(report, model, gguf.name)
    tokenizer.save_pretrained(target)
    # transformers refuses to save a model that came from GGUF, although its
    # weights are plain float32 by now: so the two files are written here.
    described = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    (target / "config.json").write_text(json.dumps(described, indent=1, default=str))
    weights = model.state_dict()
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    _save(weights, target / "model.safetensors")


def _save(weights: dict, path: Path) -> None:
    """Write float32 tensors as safetensors, in the order of the network.

    `safetensors` itself sorts them by name, so that block 10 lies before block 2: then a part of the model is
    scattered over the file, and what a disk reads ahead is of other blocks.
    """
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in weights.items():
        start, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in weights.values():
            file.write(tensor.float().numpy().astype("<f4", order="C", copy=False).data)


@contextlib.contextmanager
def _header_read_once() -> Iterator[None]:
    """Keep what `header.Reader` finds between the calls that ask for it.

    transformers opens the file anew for the tokenizer, the configuration and the weights, and each time has `gguf`
    make an array of every entry of the vocabulary, which takes tens of seconds for the 262,144 of Gemma. It needs
    their number only. It also builds the map of the tensors' names once for every module of the model.
    """
    import gguf

    originals = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(header.Reader), functools.cache(originals[1])
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = originals
