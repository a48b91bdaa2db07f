"""Headers of GGUF files: what a file holds, and whether all of it is there, without reading weights.

The reader of the package `gguf` makes an array of every entry of the vocabulary, which takes 4 to 14 s;
here the vocabulary is stepped over. The layout is that of the GGUF specification, versions 2 and 3
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

import functools
import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

from token_geometry.base.errors import InputError

VERSIONS = (2, 3)
"""Versions of the format whose headers are laid out as read here."""

_ALIGNMENT = 32  # of the tensors, where the file names no other
_STRING, _ARRAY = 8, 9
_SHORT = 1024  # entries of an array that is kept: one per block at most
# Type of a value → format of `struct`, little-endian
_SCALARS: dict[int, str] = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of its model."""

    metadata: dict
    """Metadata by key; of arrays the short ones of numbers, None for those that were stepped over."""

    tensors: dict[str, tuple[int, ...]]
    """Tensors by name: their shapes as GGUF has them, fastest dimension first."""

    def shape(self) -> dict[str, int]:
        """`layers`, `width`, `vocabulary` and `parameters` of the model."""
        architecture = self.metadata["general.architecture"]
        return {
            "layers": self.metadata[f"{architecture}.block_count"],
            "width": self.metadata[f"{architecture}.embedding_length"],
            "vocabulary": self.tensors["token_embd.weight"][1],
            "parameters": sum(map(prod, self.tensors.values())),
        }


def read(path: Path) -> Header:
    """Read the header of a GGUF file and check that every tensor it names lies inside the file.

    Raises
    ------
    InputError
        If the file is no GGUF, is cut short or a part of a model, or its header makes no sense.
    """
    stat = path.stat()
    return _read(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _read(path: Path, size: int, changed: int) -> Header:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            head = _Cursor(content).header()
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise InputError(
            f"GGUF file {path} could not be read ({str(error) or type(error).__name__}): it is cut short, damaged "
            "or of another format; take the whole file"
        ) from None
    n_parts, number = head.metadata.get("split.count", 1), head.metadata.get("split.no", 0) + 1
    if n_parts > 1:
        first = path.name.replace(f"{number:05d}-of", "00001-of")
        raise InputError(
            f"GGUF file {path} is part {number} of {n_parts} of a model: merge them with llama.cpp's "
            f"'llama-gguf-split --merge {first} merged.gguf' and give merged.gguf"
        )
    return head


def array(content, place: int) -> tuple[int, int, int]:
    """Type of the entries, number of entries and bytes of the array at a place of a little-endian file."""
    cursor = _Cursor(content, place)
    kind, length = cursor.number("I"), cursor.number("Q")
    cursor.place = place
    cursor.value(_ARRAY)
    return kind, length, cursor.place - place


class _Cursor:
    """A place in a file that moves on with what is read."""

    def __init__(self, content, place: int = 0):
        self.content = content
        self.place = place

    def header(self) -> Header:
        if self.content[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self.place = 4
        version = self.number("I")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}, not {' or '.join(map(str, VERSIONS))}")
        n_tensors, n_entries = self.number("Q"), self.number("Q")
        metadata = {}
        for _ in range(n_entries):
            key = self.string()
            metadata[key] = self.value(self.number("I"))
        tensors, ends = {}, [0]
        for _ in range(n_tensors):
            name = self.string()
            tensors[name] = tuple(self.number("Q") for _ in range(self.number("I")))
            kind, offset = self.number("I"), self.number("Q")
            ends.append(offset + _n_bytes(tensors[name], kind))
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        needed = -(-self.place // alignment) * alignment + max(ends)
        if needed > len(self.content):
            raise ValueError(f"it has {len(self.content)} of {needed} bytes")
        return Header(metadata, tensors)

    def number(self, kind: str):
        (value,) = struct.unpack_from(f"<{kind}", self.content, self.place)
        self.place += struct.calcsize(f"<{kind}")
        return value

    def string(self) -> str:
        length = self.number("Q")
        self.place += length
        return self.content[self.place - length : self.place].decode("utf-8")

    def value(self, kind: int):
        """A scalar, a string or a short array of scalars; None for another array, which is stepped over."""
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(_SCALARS[kind])
        kind, length = self.number("I"), self.number("Q")
        if kind in _SCALARS and length <= _SHORT:
            return [self.number(_SCALARS[kind]) for _ in range(length)]
        if kind in _SCALARS:
            self.place += length * struct.calcsize(f"<{_SCALARS[kind]}")
            return None
        for _ in range(length):  # strings, or arrays, each of its own length
            if kind == _STRING:
                n_bytes = self.number("Q")
                self.place += n_bytes
            else:
                self.value(kind)
        return None


def _n_bytes(shape: tuple[int, ...], kind: int) -> int:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    n_weights, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    return prod(shape) // n_weights * n_bytes
