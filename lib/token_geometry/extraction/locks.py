"""Locks: two runs on one directory exclude each other, slices of one run do not.

A run holds the lock of its slice (a whole run is slice 0 of 1) as long as it works; the system gives it
free when the process ends, however it ends.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from token_geometry.base.errors import InputError

FOLDER = ".locks"
"""Folder of the locks inside an extraction's directory."""

_GATE_SECONDS = 60.0


@contextlib.contextmanager
def held(directory: Path, *, shard: int, n_shards: int, plan_digest: str) -> Iterator[None]:
    """Hold the lock of slice `shard` of `n_shards` of a directory while the context lasts.

    Parameters
    ----------
    directory
        Directory of an extraction.
    shard, n_shards
        The slice.
    plan_digest
        Digest of what the directory is to hold when all slices are there; slices of another plan are
        another run.

    Raises
    ------
    InputError
        If another run works on the directory, or another process on this slice of it.
    """
    folder = directory / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        gate = FileLock(folder / "gate", timeout=_GATE_SECONDS)
        own = FileLock(folder / f"{shard}-of-{n_shards}", timeout=0)
        with gate:
            for other in folder.glob("*-of-*"):
                if _is_held(other):
                    _refuse_unless_slices_of_one(directory, other, own, n_shards, plan_digest)
            own.acquire()
            note = {"process": os.getpid(), "host": socket.gethostname(), "plan_digest": plan_digest}
            Path(own.lock_file).write_text(json.dumps(note))
    except Timeout as error:
        raise InputError(
            f"output {str(directory)!r}: {error.lock_file} is held by another process: try again later"
        ) from None
    except OSError as error:
        raise InputError(f"output {directory} cannot be written ({error.strerror}): choose another one") from None
    try:
        yield
    finally:
        own.release()


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _refuse_unless_slices_of_one(directory, other: Path, own: FileLock, n_shards: int, plan_digest: str) -> None:
    try:
        note = json.loads(other.read_text())
    except (OSError, ValueError):
        note = {}
    same_run = note.get("plan_digest") == plan_digest and other.name.endswith(f"-of-{n_shards}")
    if same_run and other != Path(own.lock_file):
        return
    what = f"slice {other.name} of this run" if same_run else "another run"
    raise InputError(
        f"output {str(directory)!r} is being filled by {what} (process {note.get('process', 'unknown')} on "
        f"{note.get('host', 'an unknown host')}): wait for it, stop it, or choose another output"
    )
