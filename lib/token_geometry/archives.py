"""Files taken out of wheels: downloaded by pip, checked, never imported or installed."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from . import project
from .errors import InputError


@dataclass(frozen=True)
class Archive:
    """One wheel of the package index."""

    package: str
    """Name of the package."""

    version: str
    """Exact version."""

    sha256: str
    """Checksum of the wheel."""

    member: str = ""
    """Path inside the wheel of the one file that is wanted; empty: all of it."""


def sha256(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache by its path, size and time of change."""
    stat = path.stat()
    key = hashlib.sha256(json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns]).encode()).hexdigest()
    memo = project.cache() / "checksums" / key
    if memo.is_file():
        return memo.read_text()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    memo.parent.mkdir(exist_ok=True)
    partial = memo.with_name(f"{key}.{os.getpid()}")
    partial.write_text(digest)
    partial.replace(memo)
    return digest


def download(archive: Archive) -> Path:
    """Path of a wheel in the cache, fetched from the package index where it is missing.

    Raises
    ------
    InputError
        If the index cannot be reached or the checksum differs.
    """
    folder = project.cache() / "archives"
    folder.mkdir(exist_ok=True)
    name = f"{archive.package}=={archive.version}"
    kept = _kept(archive, folder)
    if kept is None:
        with project.cache_lock(name):
            # another process may have been first
            kept = _kept(archive, folder) or _fetch(name, archive, folder)
    return kept


def _kept(archive: Archive, folder: Path) -> Path | None:
    for wheel in folder.glob(f"{archive.package.replace('-', '_')}-{archive.version}-*.whl"):
        _check(wheel, archive)
        return wheel
    return None


def _fetch(name: str, archive: Archive, folder: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--quiet", "--disable-pip-version-check", "--dest", temporary, name]
        failed, errors = _run_watched(command, Path(temporary), title=f"Download {archive.package}")
        wheels = list(Path(temporary).glob("*.whl"))
        if failed or not wheels:
            reason = next((line for line in errors.splitlines() if line.startswith("ERROR")), "no file came")
            raise InputError(
                f"{name} could not be downloaded from the package index ({reason}): "
                f"connect to a network once, or put its wheel into {folder}"
            )
        _check(wheels[0], archive)
        target = folder / wheels[0].name
        os.replace(wheels[0], target)
    return target


