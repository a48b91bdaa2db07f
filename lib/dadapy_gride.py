# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["dadapy==0.3.4"]
# ///
"""GRIDE by DADApy itself, in the environment that `install.py --dadapy` makes for it.

DADApy 0.3.4 needs NumPy 1, is compiled when it is installed, and has no version for Python 3.13; so it is beside
the project and not under it, and arrays go to it as files. It takes seconds to start. So it starts once, says its
versions, and then answers each line with a line: a request in JSON, and what it took, in JSON.
"""

import json
import multiprocessing
import os
import resource
import sys
import time
import warnings
from importlib.metadata import version

import dadapy
import numpy as np


def estimate(tables: np.ndarray) -> np.ndarray:
    """Dimension, error and mean distance of many clouds, shape (3, n_clouds, n_ranks - 1).

    `tables` are the distances to the neighbors of rank 1, 2, 4 …, shape (n_clouds, n_points, n_ranks). Points
    with NaN in the first column are left out, and scales beyond the first rank that is missing are NaN.
    """
    return np.stack([_estimate(table) for table in tables], axis=1)


def _estimate(table: np.ndarray) -> np.ndarray:
    rows = table[np.isfinite(table[:, 0])]
    result = np.full((3, table.shape[1] - 1), np.nan)
    n_present = int(np.isfinite(rows).all(0).sum()) if len(rows) else 0
    if n_present >= 2:
        # DADApy reads the ranks 1, 2, 4 … off a table of all ranks: those between are never looked at
        largest = 2 ** (n_present - 1)
        place = np.zeros(largest + 2, dtype=int)
        place[1:] = np.minimum(np.log2(np.arange(1, largest + 2)).astype(int), n_present - 1)
        every = rows[:, place]
        every[:, 0] = 0
        data = dadapy.Data(distances=(every, np.zeros(every.shape, dtype=int)), maxk=largest + 1)
        result[:, : n_present - 1] = data.return_id_scaling_gride(range_max=largest)
    return result


def estimate_matrix(path: str, range_max: int) -> tuple[np.ndarray, int, int, int]:
    """Dimension and error of the distinct points of a whole matrix of distances, as published.

    Also their number, the process, and the bytes that its peak added.
    """
    before = _resident()
    distances = np.load(path)
    first = np.sort(np.unique(distances, axis=0, return_index=True)[1])
    distances = distances[np.ix_(first, first)].astype(np.float64)
    # DADApy's default of maxk would cap the range with a mere warning
    maxk = min(range_max + 1, len(first) - 1)
    data = dadapy.Data(distances=distances, maxk=maxk)
    found = data.return_id_scaling_gride(range_max=min(range_max, 2 ** int(np.log2(maxk))))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return np.stack(found[:2]), len(first), os.getpid(), max(peak - before, 0)


def _resident() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def answer(request: dict) -> dict:
    """Carry out a request: `tables` and `found` are files, or `matrices` files, `range_max` and `n_jobs`."""
    started = time.perf_counter()
    if "tables" in request:
        np.save(request["found"], estimate(np.load(request["tables"])))
        return {"seconds": time.perf_counter() - started}
    with multiprocessing.get_context("fork").Pool(request["n_jobs"]) as pool:
        started = time.perf_counter()  # the processes are no part of the procedure
        calls = [(path, request["range_max"]) for path in request["matrices"]]
        rows = pool.starmap(estimate_matrix, calls, chunksize=1)
        seconds = time.perf_counter() - started
    found, n_points, processes, added = zip(*rows, strict=True)
    memory: dict[int, int] = {}
    for process, n_bytes in zip(processes, added, strict=True):
        memory[process] = max(memory.get(process, 0), n_bytes)
    lists = [each.tolist() for each in found]
    return {"seconds": seconds, "found": lists, "n_points": n_points, "added_memory": memory}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what DADApy prints is no answer
    print(json.dumps({"dadapy": version("dadapy"), "numpy": np.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            result = answer(json.loads(line))
        except Exception as error:  # whatever it is, the next request may be another
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), file=answers, flush=True)
