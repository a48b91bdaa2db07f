"""NetCDF files that know what made them: the one place that writes and checks them."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xarray as xr

from token_geometry import __version__
from token_geometry.base import InputError, files, processes, resources

FORMAT = 4  # version of what the files hold; a new one makes all results stale

_CHECKSUM = "checksum"
# HDF5 reads no further than its own end; behind that stands a hash of the bytes, in hexadecimal digits
_SEAL, _SEALED = b"\nsha256 ", len("\nsha256 ") + 65
_MOST_UNPACKED = 1 << 30  # bytes of a compressed file's variables
# what a process of its own tries, which ends after so many seconds
_TRIAL = """import netCDF4, signal, sys
signal.alarm(int(sys.argv[2]))
for variable in netCDF4.Dataset(sys.argv[1]).variables.values(): variable.size < 1 << 27 and variable[...]"""

# the libraries below are not made for threads, and xarray's own lock leaves a part of the work out
_NETCDF = threading.Lock()

# A file system that knows no locks would make HDF5 refuse whole files. Nobody needs its locks: a file is written
# under another name and renamed when it is whole. It must be set before HDF5 is loaded.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

_RECORDED = ("torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "numpy", "xarray")


def digest(recipe: dict) -> str:
    """Hash of a recipe, 16 hexadecimal digits; device, number of processes and batch size have no place in it."""
    text = json.dumps({"format": FORMAT, "recipe": recipe}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_attrs(title: str, recipe: dict, **more) -> dict:
    """Global attributes of a result file: recipe, its digest, versions, device, time, and `more`."""
    text, now = json.dumps(recipe, sort_keys=True, ensure_ascii=False), datetime.now(UTC)
    attrs = {"Conventions": "CF-1.11", "title": title, "recipe": text, "recipe_digest": digest(recipe)}
    attrs |= {"versions": json.dumps(_versions(), sort_keys=True), "created": now.isoformat(timespec="seconds")}
    return attrs | {"computed_on": resources.processor()} | more


def check_writable(path: Path) -> None:
    """Refuse an output that `write` could not write; removes what a killed process left of it."""
    try:
        folder = next(part for part in path.absolute().parents if part.exists())
        if path.is_dir() or not folder.is_dir():
            raise OSError(None, "it is a directory" if path.is_dir() else f"{folder.name} is a file")
        for name in (str(path).encode(), folder / files.partial(path).name):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.stat(name)  # which finds a NUL and a name that is too long
        with tempfile.TemporaryFile(dir=folder):
            processes.remove_left(folder, f".{path.name}.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "a character of it can be in no name of a file"
        raise InputError(f"output {str(path)!r} cannot be written ({reason}): choose another one") from None


def write(dataset: xr.Dataset, path: Path, *, compressed: bool = False) -> None:
    """Write a dataset so that the file is either whole or not there, perhaps compressed.

    It is written to a temporary name, flushed to the disk and renamed. It carries a checksum, so that damage is
    noticed on reading. An `InputError` says if the folder cannot be written or the disk is full."""
    partial, whole = files.partial(path), dataset.assign_attrs({_CHECKSUM: _checksum(dataset)})
    # strings as characters: others stand each by itself, and are not compressed
    kinds = {kind: {"zlib": True, "dtype": "S1"} for kind in "OU"}
    arrays = {name: one for name, one in dataset.variables.items() if compressed and one.ndim}
    packed = {name: kinds.get(one.dtype.kind, {"zlib": True}) for name, one in arrays.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _NETCDF:
            whole.to_netcdf(partial, engine="netcdf4", encoding=packed)
        with partial.open("rb+") as file:
            file.write(_seal(file, partial.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} could not be written ({error}): check disk space and permissions") from None
    finally:
        with contextlib.suppress(OSError):  # it is not there, or nothing can be
            partial.unlink()


def read(path: Path) -> xr.Dataset:
    """Read a whole dataset into memory; an `InputError` says if the file is missing, cut short or damaged."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: make it first, or give the path of one that does")
    with _door(path):
        sealed = _is_sealed(path)
        with _NETCDF, _opened(path) as dataset:
            loaded = dataset.load()
        if "recipe_digest" not in loaded.attrs:
            raise InputError(f"{path} is no result of this project: it carries no recipe")
        found = loaded.attrs.pop(_CHECKSUM, "")
        # files of before seals, and of before the attributes of variables were counted, are as good as they were
        if not sealed and found not in (_checksum(loaded), _checksum(loaded, with_attrs=False)):
            raise ValueError("its checksum differs")
        return loaded


def _seal(file: BinaryIO, size: int) -> bytes:
    sha256 = hashlib.sha256()
    while part := file.read(min(size - file.tell(), 1 << 20)):
        sha256.update(part)
    return _SEAL + f"{sha256.hexdigest()}\n".encode()


def _is_sealed(path: Path) -> bool:
    """Whether a file has a seal, which is right; without one it is tried whether HDF5 reads the file at all."""
    with path.open("rb") as file:
        size = file.seek(max(path.stat().st_size - _SEALED, 0))
        sealed = (found := file.read()).startswith(_SEAL)
        file.seek(0)
        if sealed and _seal(file, size) != found:
            raise ValueError("its bytes are not those that were written")
    if not sealed:  # of a byte that changed HDF5 may make no end
        words = [sys.executable, "-c", _TRIAL, str(path), str(15 + size // 10**7)]
        if subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL).returncode < 0:
            raise ValueError("HDF5 makes no end of it, or finds its own")
    return sealed


def _opened(path: Path) -> xr.Dataset:
    import netCDF4

    # Once, and xarray gets what is open. A program may hold the file open as well; of several openings HDF5 2.2
    # frees what they share when one that read values and one that did not are closed, and the next is its end.
    raw = netCDF4.Dataset(path)
    variables = raw.variables.values()  # xarray would read coordinates, were they larger than the memory
    claimed = sum(part.size * getattr(part.dtype, "itemsize", 8) for part in variables)
    is_packed = any((part.filters() or {}).get("zlib") for part in variables)
    if claimed > (_MOST_UNPACKED if is_packed else path.stat().st_size):
        raw.close()
        raise ValueError(f"it has {path.stat().st_size} bytes and claims {claimed}")
    return xr.open_dataset(xr.backends.NetCDF4DataStore(raw))


def _door(path: Path) -> AbstractContextManager[None]:
    return files.door(str(path), "; it is cut short or damaged: delete it and run the notebook that makes it")


def read_attrs(path: Path) -> dict:
    """Global attributes of a file, its variables unread; `InputError` if it is missing, changed or no NetCDF."""
    with _door(path):
        _is_sealed(path)
        with _NETCDF, _opened(path) as dataset:
            return dict(dataset.attrs)


def is_fresh(path: Path, expected_digest: str) -> bool:
    """Whether a file is whole and was made from the recipe with this digest."""
    try:
        return read(path).attrs["recipe_digest"] == expected_digest
    except InputError:
        return False


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"token_geometry": __version__, "python": sys.version.split()[0]}
    for name in _RECORDED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _checksum(dataset: xr.Dataset, *, with_attrs: bool = True) -> str:
    """Hash of names, values and attributes; the same before a file is written and after it is read."""
    sha256 = hashlib.sha256()
    for name in sorted(dataset.variables):
        variable = dataset.variables[name]
        values = np.ascontiguousarray(variable.values)
        sha256.update(f"{name}\0{variable.dims}\0{variable.shape}".encode())
        for key in sorted(variable.attrs) if with_attrs else ():
            sha256.update(f"\0{key}\0{variable.attrs[key]}".encode())
        if values.dtype.kind in "OUT":  # strings
            sha256.update("\0".join(map(str, values.ravel())).encode())
        else:
            sha256.update(values.astype(values.dtype.newbyteorder("<"), copy=False).data)
    for name in sorted(dataset.attrs):
        sha256.update(f"{name}\0{dataset.attrs[name]}".encode())
    return sha256.hexdigest()
