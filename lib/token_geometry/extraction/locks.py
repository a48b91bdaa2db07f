"""Locks: two runs on one directory exclude each other, parts of one run do not.

A run holds the lock of its part (a whole run is part 0 of 1) as long as it works; the system gives it
free when the process ends, however it ends."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

from token_geometry.base import InputError, locks

FOLDER = ".locks"  # folder of the locks inside an extraction's directory


@contextlib.contextmanager
def held(directory: Path, *, part: int, n_parts: int, plan_digest: str) -> Iterator[None]:
    """Hold the lock of part `part` of `n_parts` of an extraction's directory while the context lasts.

    Where a file system knows no locks nothing is held, and a line says so. Parts of another plan are another
    run. Raises `InputError` if another run works on the directory, or another process on this part of it."""
    try:
        own = _lock(directory, f"{part}-of-{n_parts}", plan_digest)
    except Timeout as error:
        raise InputError(f"output {directory}: {error.lock_file} is held by another process: try later") from None
    except OSError as error:
        raise InputError(f"output {directory} cannot be written ({error.strerror}): choose another one") from None
    with own or contextlib.nullcontext():
        yield


def _lock(directory: Path, name: str, plan_digest: str) -> contextlib.AbstractContextManager | None:
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    if (gate := locks.acquire(folder / "gate", seconds=60)) is None:
        return None
    with gate:
        for other in filter(locks.is_held, folder.glob("*-of-*")):
            note: dict = {}
            with contextlib.suppress(OSError, ValueError):
                note = json.loads(other.read_text())
            is_same_run = note.get("plan_digest") == plan_digest and other.name.split("-")[2] == name.split("-")[2]
            if is_same_run and other.name != name:
                continue
            what = f"part {other.name} of this run" if is_same_run else "another run"
            what += f" (process {note.get('process', 'unknown')} on {note.get('host', 'an unknown host')})"
            way_out = "wait for it, stop it, or choose another output"
            raise InputError(f"output {str(directory)!r} is being filled by {what}: {way_out}")
        own = locks.acquire(folder / name, seconds=0)
        note = {"process": os.getpid(), "host": socket.gethostname(), "plan_digest": plan_digest}
        (folder / name).write_text(json.dumps(note))
        return own
