"""Where things are: the project's root, its data, the cache."""

import functools
import os
from contextlib import AbstractContextManager
from pathlib import Path

from platformdirs import user_cache_path

from token_geometry.base import InputError, files, locks


def find() -> Path | None:
    """The project's root: the nearest folder that holds `_quarto.yml`, upwards from the working directory, else
    from the checkout that this package lies in; None where there is none."""
    starts, marks = (Path.cwd(), Path(__file__).resolve()), ("_quarto.yml", "data/models.yml")
    folders = (folder for start in starts for folder in (start, *start.parents))
    return next((folder for folder in folders if all((folder / mark).is_file() for mark in marks)), None)


def root() -> Path:
    """`find`, or an `InputError` where there is no project."""
    if found := find():
        return found
    raise InputError(f"no project found from {Path.cwd()} upwards: change into the folder that holds _quarto.yml")


def entries(name: str) -> dict:
    """Entries of a file of `data`; none outside of a project, where there are no aliases."""
    return files.read_yaml(root() / "data" / name, f"data/{name}") if find() else {}


def cache() -> Path:
    """Folder of downloads and dequantized weights: `TOKEN_GEOMETRY_CACHE`, else `data/cache`, else the user's."""
    if chosen := os.environ.get("TOKEN_GEOMETRY_CACHE"):
        folder = Path(chosen).expanduser()
    elif not (folder := (find() or Path()) / "data" / "cache").is_dir():
        folder = user_cache_path("token-geometry")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        way_out = "set TOKEN_GEOMETRY_CACHE to one that can"
        raise InputError(f"the cache {folder} cannot be written ({error.strerror}): {way_out}") from None
    _say_who_writes(folder)
    return folder


@functools.cache
def _say_who_writes(folder: Path) -> None:
    """Say of a cache into which others can put files that what lies in it may be theirs."""
    for part in (folder, folder / "models", folder / "checksums"):
        if part.is_dir() and ((stat := part.stat()).st_mode & 0o002 or stat.st_uid not in (0, os.getuid())):
            problem = f"the folder {part} of the cache can be written by other users, who could change weights"
            way_out = "take away their permission, or set TOKEN_GEOMETRY_CACHE to a folder of your own"
            print(f"{problem}: {way_out}", flush=True)


def results(run: str) -> Path:
    """Folder of the results of a run."""
    return root() / "data" / "results" / run


def cache_lock(name: str) -> AbstractContextManager[None]:
    """Lock of one thing in the cache, so that processes that need it at the same time make it once."""
    folder = cache() / "locks"
    folder.mkdir(exist_ok=True)
    return locks.waiting(folder / f"{name}.lock")
