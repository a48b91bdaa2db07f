"""The reference procedure: the steps of the code published with arXiv:2501.10573, written anew.

Matrices of distances and of cosines of whole layers go to disk; scikit-learn takes both, DADApy the
intrinsic dimension (in an environment of its own, whose start is not counted), a loop over the tokens the
neighborhood overlap; the layers are spread over the cores. The published loop marks neighbors in arrays whose
length it looks up in the whole matrix for every token, which is most of its time; so the loop is also timed with
sets in place of arrays.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from common import Stopwatch, added_memory
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances

from token_geometry.geometry import dadapy

N_NEIGHBORS = 32
RANGE_MAX = 256
K_MAX = 31


@dataclass(frozen=True)
class Measured:
    """Observables of one prompt by the reference procedure."""

    dimension: np.ndarray
    """Shape (layer, scale); as many scales as the number of tokens allows."""
    error: np.ndarray
    n_points: np.ndarray
    overlap: np.ndarray
    """Shape (layer - 1, k), between a layer and the next."""
    cosine: np.ndarray
    nearest: np.ndarray
    """Indices of the nearest tokens, shape (layer, token, N_NEIGHBORS)."""
    tied: np.ndarray
    """Whether equal distances leave the list of a token open, shape (layer, token)."""
    n_bytes: int
    """Size of the matrices on disk."""
    overlap_seconds_by_sets: float
    """Time of the overlap by the loop with sets."""
    added_memory: int | None
    """What all processes together held at their peaks beyond what they held before, bytes."""


def measure(hidden: np.ndarray, *, folder: Path, parallel: joblib.Parallel, watch: Stopwatch) -> Measured:
    """Run the reference procedure on the hidden states of one prompt.

    Parameters
    ----------
    hidden
        float32, shape (layer, token, width).
    folder
        Where the distance matrices go.
    parallel
        Spreads the layers over processes.
    watch
        Counts the stages "distances", "dimension", "overlap" and "cosine".
    """
    spread = _Spread(parallel)
    distances = [folder / f"distances-{layer}.npy" for layer in range(len(hidden))]
    cosines = [folder / f"cosines-{layer}.npy" for layer in range(len(hidden))]
    with watch.stage("distances"):
        n_bytes = spread(write_distances, hidden, distances)
    dadapys = {"matrices": [str(path) for path in distances], "range_max": RANGE_MAX, "n_jobs": parallel.n_jobs}
    answer = dadapy.ask(dadapys)
    # its own clock starts when its processes have
    watch.seconds["dimension"] = answer["seconds"]
    dimension, error = zip(*answer["found"], strict=True)
    with watch.stage("overlap"):
        overlap = spread(neighborhood_overlap, distances[:-1], distances[1:])
    with watch.stage("cosine"):
        n_bytes += spread(write_cosines, hidden, cosines)
        cosine = spread(mean_cosine, cosines)
    nearest, tied = zip(*spread(nearest_neighbors, distances), strict=True)
    started = time.perf_counter()
    spread(overlap_by_sets, nearest[:-1], nearest[1:])
    by_sets = time.perf_counter() - started
    return Measured(
        dimension=_stacked(dimension),
        error=_stacked(error),
        n_points=np.array(answer["n_points"]),
        overlap=np.stack(overlap),
        cosine=np.array(cosine),
        overlap_seconds_by_sets=by_sets,
        nearest=np.stack(nearest),
        tied=np.stack(tied),
        n_bytes=sum(n_bytes),
        added_memory=spread.added_memory(answer["added_memory"]),
    )


def write_distances(points: np.ndarray, path: Path) -> int:
    """Write the distance matrix of a layer and return its size in bytes."""
    np.save(path, euclidean_distances(points).astype(np.float32))
    return path.stat().st_size


def nearest_neighbors(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Nearest tokens of each token, and whether equal distances leave their order open."""
    distances = np.load(path)
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1)[:, : N_NEIGHBORS + 1]
    ranked = np.take_along_axis(distances, order, axis=1)
    return order[:, :N_NEIGHBORS], (np.diff(ranked, axis=1) == 0).any(1)


def neighborhood_overlap(first: Path, second: Path) -> np.ndarray:
    """Share of common k-neighbors of two layers for k = 1 … `K_MAX`, token by token, as published."""
    orders = [np.argsort(np.load(path), axis=1) for path in (first, second)]
    overlap = np.zeros(K_MAX)
    for token in range(len(orders[0])):
        marks = [np.zeros(order.max() + 1, dtype=bool) for order in orders]
        for k in range(1, K_MAX + 1):
            # place 0 is the token itself
            for mark, order in zip(marks, orders, strict=True):
                mark[order[token, k]] = True
            overlap[k - 1] += np.sum(marks[0] & marks[1]) / k
    return overlap / len(orders[0])


def overlap_by_sets(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The same from lists of neighbors, by sets."""
    overlap = np.zeros(K_MAX)
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        for k in range(1, K_MAX + 1):
            overlap[k - 1] += len(set(one[:k]) & set(other[:k])) / k
    return overlap / len(first)


def write_cosines(points: np.ndarray, path: Path) -> int:
    """Write the matrix of cosine similarities of a layer and return its size in bytes."""
    np.save(path, cosine_similarity(points))
    return path.stat().st_size


def mean_cosine(path: Path) -> float:
    """Mean of the matrix of cosine similarities; its deviation is taken as well, as published."""
    cosines = np.load(path)
    cosines.std(axis=(-1, -2))
    return float(cosines.mean(axis=(-1, -2), dtype=np.float64))


def _stacked(rows) -> np.ndarray:
    """Rows that may differ in length, since a layer with few distinct points has few scales."""
    stacked = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, values in zip(stacked, rows, strict=True):
        row[: len(values)] = values
    return stacked


class _Spread:
    """Map over layers in parallel, with an account of the memory of every process."""

    def __init__(self, parallel: joblib.Parallel):
        self._parallel = parallel
        self._added: dict[int, int] = {}

    def __call__(self, function: Callable, *arguments) -> list:
        calls = zip(*arguments, strict=True)
        done = self._parallel(joblib.delayed(_metered)(function, *each) for each in calls)
        for _, process, added in done:
            for n_bytes in added:
                self._added[process] = max(self._added.get(process, 0), n_bytes)
        return [result for result, _, _ in done]

    def added_memory(self, others: dict[str, int]) -> int | None:
        """Of these processes, and of others that ran at another time: the larger one."""
        return max(sum(self._added.values()), sum(others.values())) if self._added else None


def _metered(function: Callable, *arguments) -> tuple:
    with added_memory() as added:
        result = function(*arguments)
    return result, os.getpid(), added
