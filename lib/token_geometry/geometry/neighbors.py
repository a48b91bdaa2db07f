"""Neighbor tables: what is kept of the distances of a cloud, layer by layer.

A table holds the distances to the neighbors of rank 1, 2, 4 … 256 among distinct points and the
indices of the 32 nearest points. Every observable but the cosine similarity follows from it.

Distances come from the Gram matrix of the centered points, in float32 where that decides the
neighborhoods as float64 would. A row that float32 cannot be trusted with (near-duplicates, nearly equal
distances, tokens of huge norm) is noticed by a bound on the rounding error and done again in float64.
"""

from dataclasses import dataclass

import numpy as np
import torch

from token_geometry.base.errors import InputError
from token_geometry.geometry.parallel import map_layers
from token_geometry.geometry.table_format import N_NEIGHBORS, RANKS

# Below this share of the squared norms, a squared distance from the Gram matrix has lost more than
# eight of its sixteen digits to cancellation, and is taken from the difference of the vectors.
_CANCELLATION = 1e-6

# A squared distance from float32 is kept only if the bound on its relative error is below this; the errors
# themselves are a fifth of the bound at most, and a dimension averages over all points.
_RELATIVE_ERROR = 1e-3

# Where more rows than this share need float64, the whole layer is done so: one product is cheaper.
_MANY_ROWS = 0.4

_PAIRS_AT_ONCE = 1 << 15
_ROWS_IN_CACHE = 128


@dataclass(frozen=True)
class NeighborTable:
    """Neighbors of the points of one cloud at every layer."""

    distance: np.ndarray
    """Distance to the neighbor of each rank of `RANKS` among distinct points, float64, shape
    (layer, token, rank); NaN for a point that repeats an earlier one and beyond the last rank."""

    index: np.ndarray
    """Indices of the nearest points, nearest first, the point itself left out, duplicates kept,
    shape (layer, token, N_NEIGHBORS); among equal distances the lower index comes first, and -1
    stands where there are no more points."""

    distinct: np.ndarray
    """Whether a point is the first of its value, shape (layer, token)."""

    angle: np.ndarray
    """Angle in degrees between the vectors to the first and second neighbor among distinct points,
    shape (layer, token); NaN for a point that repeats an earlier one."""

    redone: np.ndarray
    """Number of points whose neighbors were decided in float64, shape (layer,)."""


def squared_distances(points: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
    """Squared Euclidean distances in float64.

    The Gram matrix of the centered points gives all pairs at once. Pairs that are close for their
    norms are taken again from the difference of the vectors: so equal points are at exactly zero.

    Parameters
    ----------
    points
        Shape (n, width), any floating type.
    rows
        Indices of the points whose distances to all are wanted, shape (m,); by default all.

    Returns
    -------
    torch.Tensor
        Shape (m, n), float64; zero between a point and itself.
    """
    centered = points - points.mean(0, dtype=torch.float64)
    norms = torch.linalg.vecdot(centered, centered)
    chosen = torch.arange(len(points), device=points.device) if rows is None else rows
    sums = norms[chosen, None] + norms
    squared = torch.addmm(sums, centered[chosen], centered.T, alpha=-2)
    close = (squared <= _CANCELLATION * sums).nonzero()
    for first, second in (pairs.T for pairs in close.split(_PAIRS_AT_ONCE)):
        difference = points[chosen[first]].double() - points[second].double()
        squared[first, second] = difference.square().sum(1)
    return squared


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
    # a sum is finite where all its terms are
    finite = torch.isfinite(torch.stack(map_layers(lambda points: points.sum(1, dtype=torch.float32), hidden)))
    if not bool(finite.all()):
        layer, token = (~finite).nonzero()[0].tolist()
        raise InputError(
            f"hidden state of layer {layer}, token {token} is not finite: "
            "the model overflows in this dtype; try dtype float32"
        )
    tables = map_layers(_layer_table, hidden)
    return NeighborTable(*(np.stack(parts) for parts in zip(*tables, strict=True)))


def _layer_table(points: torch.Tensor) -> tuple[np.ndarray, ...]:
    points = points if points.dtype == torch.float64 else points.float()
    n_points = len(points)
    n_values = min(RANKS[-1], n_points - 1)
    n_index = min(N_NEIGHBORS, n_points - 1)
    fast = _nearest_float32(points, n_values, n_index) if points.dtype != torch.float64 else None
    if fast is None:
        values, inner, nearest, rows = _nearest_float64(points, n_values, n_index)
        n_redone = n_points
    else:
        values, nearest, n_redone = fast
        inner, rows = nearest, torch.arange(n_points, device=points.device)

    index = np.full((n_points, N_NEIGHBORS), -1, dtype=np.int64)
    index[:, :n_index] = nearest.cpu().numpy()
    distinct = np.zeros(n_points, dtype=bool)
    distinct[rows.cpu().numpy()] = True
    ranks = [rank for rank in RANKS if rank <= values.shape[1]]
    distance = np.full((n_points, len(RANKS)), np.nan)
    distance[distinct, : len(ranks)] = values[:, [rank - 1 for rank in ranks]].double().sqrt().cpu().numpy()
    angle = np.full(n_points, np.nan)
    if inner.shape[1] >= 2:
        angle[distinct] = _angles(points, rows, inner[:, 0], inner[:, 1]).cpu().numpy()
    return distance, index, distinct, angle, np.int64(n_redone)


def _nearest_float64(points, n_values: int, n_index: int) -> tuple[torch.Tensor, ...]:
    """Neighbors decided in float64.

    Returns the smallest squared distances among distinct points, the points nearest to them among distinct
    points, the points nearest to each point among all, and the indices of the distinct points.
    """
    rows, group = _distinct(points)
    squared = squared_distances(points[rows])
    n_others = len(rows) - 1
    squared.fill_diagonal_(torch.inf)
    values, inner = _smallest(squared, min(n_values, n_others), min(n_index, n_others))
    if len(rows) == len(points):
        return values, inner, inner, rows
    squared.fill_diagonal_(0)
    among_all = squared[group][:, group].fill_diagonal_(torch.inf)
    return values, rows[inner], _smallest(among_all, n_index, n_index)[1], rows


def _distinct(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the points that repeat no earlier one, and for each point its place among these."""
    # adding zero makes one of the two zeros, which are equal and differ in their bits
    lines = (points + 0.0).cpu().numpy()
    keys = [line.tobytes() for line in lines]
    first: dict[bytes, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    rows = np.fromiter(first.values(), dtype=np.int64)
    places = {key: place for place, key in enumerate(first)}
    group = np.fromiter((places[key] for key in keys), dtype=np.int64)
    return torch.from_numpy(rows).to(points.device), torch.from_numpy(group).to(points.device)


def _nearest_float32(points, n_values: int, n_index: int):
    """As `_nearest_float64` by float32, but for the rows that this cannot decide.

    Returns None where points coincide or most rows are undecided, else the squared distances (float64 in
    the rows that were done again), the nearest points and the number of rows done again.
    """
    centered = points - points.mean(0)
    norms = torch.linalg.vecdot(centered, centered)
    squared = torch.addmm(norms[:, None] + norms, centered, centered.T, alpha=-2)
    squared.fill_diagonal_(torch.inf)
    # one value more than is kept: whether the last neighbor is the right one depends on the next
    n_edge = min(n_index + 1, squared.shape[1] - 1)
    values, nearest = _smallest(squared, max(n_values, n_edge), n_edge)
    # The rounding error of a product of rows of this width, in units of the last place of the two
    # norms: measured at most 30 for widths of 576 and 640, that is 1.2 sqrt(width).
    unit = 2 * points.shape[1] ** 0.5 * torch.finfo(torch.float32).eps / 2
    error = unit * (norms + norms[nearest].max(1).values)
    gaps = values[:, 1:n_edge] - values[:, : n_edge - 1]
    undecided = gaps.min(1).values <= 2 * error if n_edge > 1 else values[:, 0] <= 0
    undecided |= values[:, 0] * _RELATIVE_ERROR <= error
    rows = undecided.nonzero()[:, 0]
    if len(rows) > _MANY_ROWS * len(points):
        return None
    values = values.double()
    if len(rows):
        again = squared_distances(points, rows)
        again[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        values[rows], nearest[rows] = _smallest(again, values.shape[1], nearest.shape[1])
        if bool((values[rows, 0] == 0).any()):
            return None
    return values[:, :n_values], nearest[:, :n_index], len(rows)


def _smallest(squared: torch.Tensor, n_values: int, n_index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `n_values` smallest entries of each row in order, and the columns of the `n_index` smallest.

    Among equal entries the lower column comes first.
    """
    if squared.device.type != "cpu" or n_index == 0:
        values, columns = squared.sort(dim=1, stable=True)
        return values[:, :n_values], columns[:, :n_index]
    values, columns = _smallest_of_rows(squared.numpy(), n_values, n_index)
    return torch.from_numpy(values), torch.from_numpy(columns)


def _smallest_of_rows(matrix: np.ndarray, n_values: int, n_index: int) -> tuple[np.ndarray, np.ndarray]:
    # numpy sorts values by vector instructions, several times as fast as values together with their
    # columns; the columns are then looked up for the few entries up to the n-th value.
    values = np.sort(matrix, axis=1)[:, :n_values]
    n_rows, n_columns = matrix.shape
    flat = np.flatnonzero(matrix <= values[:, n_index - 1 : n_index])
    if len(flat) == n_rows * n_index:  # no row has more entries than asked for
        entries = flat.reshape(n_rows, n_index)
        found = matrix.ravel()[entries]
    else:  # some equal the n-th value of their row
        counts = np.bincount(flat // n_columns, minlength=n_rows)
        starts = counts.cumsum() - counts
        place = np.arange(counts.max())
        present = place < counts[:, None]
        entries = flat[np.where(present, starts[:, None] + place, 0)]
        found = np.where(present, matrix.ravel()[entries], np.inf)
    order = found.argsort(axis=1, kind="stable")[:, :n_index]
    return values, np.take_along_axis(entries, order, axis=1) % n_columns


def _angles(points, rows, first, second) -> torch.Tensor:
    """Angles in degrees between the vectors from `rows` to `first` and `second`, shape (n,)."""
    # on a CPU in pieces that stay in its cache, three times as fast
    piece = _ROWS_IN_CACHE if points.device.type == "cpu" else len(rows)
    cosines = []
    for i, j, k in zip(rows.split(piece), first.split(piece), second.split(piece), strict=True):
        origin = points[i]
        to_first, to_second = points[j].sub_(origin), points[k].sub_(origin)
        inner, square_first, square_second = (
            torch.linalg.vecdot(a, b).double()
            for a, b in ((to_first, to_second), (to_first, to_first), (to_second, to_second))
        )
        cosines.append(inner / (square_first * square_second).sqrt())
    return torch.rad2deg(torch.acos(torch.cat(cosines).clamp(-1, 1)))
