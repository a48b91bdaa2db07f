"""Neighbor tables: what is kept of the distances of a cloud, layer by layer.

A table holds the distances to the neighbors of rank 1, 2, 4 … 256 among distinct points and the
indices of the 32 nearest points. Every observable but the cosine similarity follows from it.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .errors import InputError

RANKS = tuple(2**i for i in range(9))
"""Ranks whose distances are kept; the scales of GRIDE are ranks 2 … 256."""

N_NEIGHBORS = 32
"""How many nearest neighbors are kept by index."""

# Below this share of the squared norms, a squared distance from the Gram matrix has lost more than
# eight of its sixteen digits to cancellation, and is taken from the difference of the vectors.
_CANCELLATION = 1e-6

_PAIRS_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class NeighborTable:
    """Neighbors of the points of one cloud at every layer."""

    distance: np.ndarray
    """Distance to the neighbor of each rank of `RANKS` among distinct points, float64, shape
    (layer, token, rank); NaN for a point that repeats an earlier one and beyond the last rank."""

    index: np.ndarray
    """Indices of the nearest points, nearest first, the point itself left out, duplicates kept,
    shape (layer, token, N_NEIGHBORS); among equal distances the lower index comes first."""

    distinct: np.ndarray
    """Whether a point is the first of its value, shape (layer, token)."""

    angle: np.ndarray
    """Angle in degrees between the vectors to the first and second neighbor among distinct points,
    shape (layer, token); NaN for a point that repeats an earlier one."""


def squared_distances(points: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances between all points, float64.

    The Gram matrix of the centered points gives all pairs at once, in float64 since the norms
    of attention sinks (1e4 and more) would drown the distances of ordinary tokens in float32.
    Pairs that are close for their norms are taken again from the difference of the vectors:
    so equal points are at exactly zero.

    Parameters
    ----------
    points
        Shape (n, width), any floating type.

    Returns
    -------
    torch.Tensor
        Shape (n, n), float64, symmetric, zero on the diagonal.
    """
    centered = points.double()
    centered = centered - centered.mean(0)
    norms = centered.square().sum(1)
    sums = norms[:, None] + norms[None]
    squared = torch.addmm(sums, centered, centered.T, alpha=-2)
    close = torch.triu(squared <= _CANCELLATION * sums, diagonal=1).nonzero()
    for first, second in (pairs.T for pairs in close.split(_PAIRS_AT_ONCE)):
        exact = (points[first].double() - points[second].double()).square().sum(1)
        squared[first, second] = exact
        squared[second, first] = exact
    return squared.fill_diagonal_(0)


def first_occurrences(squared: torch.Tensor) -> torch.Tensor:
    """Whether each point is the first of its value, shape (n,), from squared distances (n, n)."""
    repeats = torch.tril(squared == 0, diagonal=-1)
    return ~repeats.any(1)


def neighbor_table(hidden: torch.Tensor) -> NeighborTable:
    """Neighbor table of a cloud at every layer.

    Parameters
    ----------
    hidden
        Hidden states, shape (layer, token, width), on any device.

    Raises
    ------
    InputError
        If a state is NaN or infinite.
    """
    finite = torch.isfinite(hidden).all(-1)
    if not bool(finite.all()):
        layer, token = (~finite).nonzero()[0].tolist()
        raise InputError(
            f"hidden state of layer {layer}, token {token} is not finite: "
            "the model overflows in this dtype; try dtype float32"
        )
    tables = [_layer_table(points) for points in hidden]
    return NeighborTable(*(np.stack(parts) for parts in zip(*tables, strict=True)))


def _layer_table(points: torch.Tensor) -> tuple[np.ndarray, ...]:
    n_points = len(points)
    squared = squared_distances(points)
    distinct = first_occurrences(squared)
    squared.fill_diagonal_(torch.inf)
    n_kept = min(max(N_NEIGHBORS, RANKS[-1]), n_points - 1)
    values, nearest = squared.topk(n_kept, largest=False)
    n_index = min(N_NEIGHBORS, n_points - 1)
    # topk leaves equal distances in any order; one more value tells whether it mattered
    edge = values[:, : n_index + 1]
    if bool((edge[:, 1:] == edge[:, :-1]).any()):
        nearest = squared.sort(dim=1, stable=True).indices[:, :n_index]
    index = torch.full((n_points, N_NEIGHBORS), -1, dtype=torch.int64)
    index[:, :n_index] = nearest[:, :n_index]

    distance = np.full((n_points, len(RANKS)), np.nan)
    angle = np.full(n_points, np.nan)
    rows = distinct.nonzero()[:, 0]
    if len(rows) < n_points:
        inner = squared[rows][:, rows]
        values, nearest = inner.topk(min(n_kept, len(rows) - 1), largest=False)
        nearest = rows[nearest]
    ranks = [rank for rank in RANKS if rank <= values.shape[1]]
    kept = values[:, [rank - 1 for rank in ranks]].sqrt()
    where = rows.cpu().numpy()
    distance[where, : len(ranks)] = kept.cpu().numpy()
    if values.shape[1] >= 2:
        angle[where] = _angles(points, rows, nearest[:, 0], nearest[:, 1]).cpu().numpy()
    return distance, index.numpy(), distinct.cpu().numpy(), angle


def _angles(points, rows, first, second) -> torch.Tensor:
    to_first = points[first].double() - points[rows].double()
    to_second = points[second].double() - points[rows].double()
    cosine = torch.nn.functional.cosine_similarity(to_first, to_second, dim=1, eps=0.0)
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
