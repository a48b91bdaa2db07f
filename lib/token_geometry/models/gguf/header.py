"""Headers of GGUF files: what a file holds, and whether all of it is there, without reading weights."""

import contextlib
import functools
import struct
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path

import gguf
import numpy as np

from token_geometry.base import InputError

_SHORT = 1024  # entries of an array that is kept: one per block at most
_STRING, _ARRAY = gguf.GGUFValueType.STRING, gguf.GGUFValueType.ARRAY


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of its model."""

    metadata: dict  # metadata by key; of arrays the short ones of numbers, None for the others
    tensors: dict[str, tuple[int, ...]]  # by name: their shapes as GGUF has them, fastest dimension first

    def shape(self) -> dict[str, int]:
        """`layers`, `width`, `vocabulary` and `parameters` of the model."""
        try:
            architecture = self.metadata["general.architecture"]
            keys = {"layers": f"{architecture}.block_count", "width": f"{architecture}.embedding_length"}
            found = {name: self.metadata[key] for name, key in keys.items()}
            n = sum(map(prod, self.tensors.values()))
            return found | {"vocabulary": self.tensors["token_embd.weight"][1], "parameters": n}
        except KeyError as error:
            raise ValueError(f"it lacks {error}") from None


@contextlib.contextmanager
def readable_errors(path: Path, head: Header | None = None) -> Iterator[None]:
    """Turn whatever the readers of a GGUF file stumble over into one line; `head` where the header was read."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = textwrap.shorten(reason, 160, placeholder=" …")
        if head:  # then the file is whole
            problem = f"GGUF file {path} is of architecture {head.metadata.get('general.architecture')!r}, and"
            problem += f" transformers {version('transformers')} makes no model of it ({reason})"
            raise InputError(f"{problem}: take the model in transformers' format") from None
        way_out = "it is cut short, damaged or of another format; take the whole file, or transformers' format"
        raise InputError(f"GGUF file {path} could not be read ({reason}): {way_out}") from None


def read(path: Path) -> Header:
    """Read the header of a GGUF file and check that every tensor it names lies inside the file; `InputError` if
    it is no GGUF, is cut short or a part of a model, or its header makes no sense."""
    stat = path.stat()
    return _read(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _read(path: Path, size: int, changed: int) -> Header:
    with readable_errors(path):
        reader = Reader(path)
        metadata = {key: _value(field) for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        n_parts, number = metadata.get("split.count", 1), metadata.get("split.no", 0) + 1
        if n_parts > 1:
            first = path.name.replace(f"{number:05d}-of", "00001-of")
            way_out = f"merge them with llama.cpp's 'llama-gguf-split --merge {first} merged.gguf' and give that"
            raise InputError(f"GGUF file {path} is part {number} of {n_parts} of a model: {way_out}")
    return Header(metadata, {tensor.name: tuple(tensor.shape.tolist()) for tensor in reader.tensors})


def _value(field):
    if field.types[0] != _ARRAY or len(field.types) == 2 and field.types[1] != _STRING and field.data:
        return field.contents()
    return None if field.types[1:] else []


class Reader(gguf.GGUFReader):
    """The reader of the package `gguf`, which makes no array of a vocabulary, and sees a file that is cut short.

    Arrays of every entry of the vocabulary take 4 to 14 s; here they are stepped over, in the layout of the GGUF
    specification (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

    def _get(self, offset, dtype, count=1, override_order=None):
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):  # where the package goes on with what there is
            raise ValueError(f"it has {len(self.data)} of {end} bytes or more")
        if offset == 0 and bytes(self.data[:4]) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        return super()._get(offset, dtype, count, override_order)

    def _get_field_parts(self, orig_offs, raw_type):
        if self.byte_order != "I":
            raise ValueError("its numbers are big-endian")
        if raw_type != _ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        content, place = self.data.data, orig_offs + 12
        kind, length = struct.unpack_from("<IQ", content, orig_offs)
        if length <= _SHORT or kind == _ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        if kind == _STRING:
            for _ in range(length):
                place += 8 + struct.unpack_from("<Q", content, place)[0]
        else:
            place += length * np.dtype(self.gguf_scalar_to_np[gguf.GGUFValueType(kind)]).itemsize
        # transformers takes the number of tokens for the size of the vocabulary; nobody asks for that of scores
        n_kept = length if kind == _STRING else 0
        return place - orig_offs, [np.zeros(1, np.uint8)], [0] * n_kept, [_ARRAY, gguf.GGUFValueType(kind)]

    def _build_tensors(self, start_offs, fields):
        needed = 0
        for *_, shape, kind, offset in (field.parts for field in fields):
            n_weights, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind[0])]
            needed = max(needed, start_offs + int(offset[0]) + prod(shape.tolist()) // n_weights * n_bytes)
        if needed > len(self.data):
            raise ValueError(f"it has {len(self.data)} of {needed} bytes")
        super()._build_tensors(start_offs, fields)
