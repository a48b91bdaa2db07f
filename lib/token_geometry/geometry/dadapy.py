"""DADApy's own GRIDE, for comparison, in an environment made at first use (why so: `lib/dadapy_gride.py`)."""

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from token_geometry.base import InputError, project


def estimate(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dimension, error and mean distance of many clouds by DADApy, each of shape (n_clouds, n_ranks - 1).

    `distance` holds the distances to the neighbors of rank 1, 2, 4 …, shape (n_clouds, n_points, n_ranks);
    points with NaN in the first column are left out, and scales beyond the first rank that is missing are NaN.
    Raises `InputError` if the environment of DADApy cannot be made here."""
    with tempfile.TemporaryDirectory() as folder:
        tables, found = Path(folder) / "tables.npy", Path(folder) / "found.npy"
        np.save(tables, distance.astype(np.float64))
        ask({"tables": str(tables), "found": str(found)})
        return tuple(np.load(found))


def ask(request: dict) -> dict:
    """Answer of `lib/dadapy_gride.py` to a request, which is described there."""
    process, _ = _start(os.getpid())
    with contextlib.suppress(BrokenPipeError):  # it has ended, which its answer shows
        print(json.dumps(request), file=process.stdin, flush=True)
    return _read(process)


def versions() -> dict[str, str]:
    """Versions of DADApy and of the NumPy below it; raises `InputError` as `estimate` does."""
    return _start(os.getpid())[1]


@functools.cache  # importing DADApy takes seconds, so the process stays; a forked one cannot share it
def _start(process_id: int) -> tuple[subprocess.Popen, dict[str, str]]:
    python = (folder := _environment()) / "bin" / "python"
    with project.cache_lock("dadapy"):
        if not python.exists():
            print("Making the environment of DADApy (once; 250 MB and a minute) …", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)  # its Python is gone
            command: list = [sys.executable, project.root() / "lib" / "install.py", "--dadapy", folder]
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True)
            if done.returncode:
                reason = (done.stderr.strip() or "no reason given").splitlines()[-1].removeprefix("error: ")
                raise InputError(f"DADApy cannot be had here: {reason}")
    pipes: dict = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([python, _script()], **pipes, text=True)
    atexit.register(process.communicate)  # which closes its input, and so ends it
    return process, _read(process)


def _read(process: subprocess.Popen) -> dict:
    line = process.stdout.readline()  # type: ignore[union-attr]
    answer = json.loads(line) if line else {"error": f"it ended with exit status {process.wait()}"}
    if "error" in answer:
        way_out = f"if it is broken, delete {_environment()}: it is made anew"
        raise InputError(f"DADApy has no answer ({answer['error']}); {way_out}")
    return answer


def _environment() -> Path:
    """Folder in the cache, whether it is made or not; other requirements have another one."""
    declared = _script().read_text(encoding="utf-8").split("# ///")[1]
    return project.cache() / f"dadapy-{hashlib.sha256(declared.encode()).hexdigest()[:16]}"


def _script() -> Path:
    return project.root() / "lib" / "dadapy_gride.py"
