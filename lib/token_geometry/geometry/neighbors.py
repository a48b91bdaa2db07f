"""Neighbor tables: what is kept of the distances of a cloud, layer by layer.

A table holds the distances to the neighbors of rank 1, 2, 4 … 256 among distinct points and the
indices of the 32 nearest points, and what needs the vectors or the distances between neighbors: the angle
between the two nearest, local dimensions, and the cosine similarity. Every observable follows from it.

Distances come from the Gram matrix of the centered points, in float32 where that decides the
neighborhoods as float64 would; the deviation of the cosine comes from the same matrix. A row that float32
cannot be trusted with (near-duplicates, nearly equal distances, tokens of huge norm) is noticed by a bound on
the rounding error and done again in float64."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from token_geometry.base import InputError
from token_geometry.geometry import cosine, local_dimension, selection, subsets
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

# Points coincide up to rounding where they lie this many units of rounding of their norm around their mean. One
# token said 256 times to SmolLM2 in float32 gives up to 15; the clouds of ordinary texts are beyond a million.
_ROUNDING = 128

# The cosine is taken from the Gram matrix of the centered points where the mean of the squares of these, each in
# units of its point's own, is at most this: below 1 in ordinary clouds, large beside a huge token or a tiny one.
_CENTERED_SHARE = 4

_FLOAT32_SIZES = 1e-25, 1e37  # sums of squares that float32 holds with all digits of its terms
_PAIRS_AT_ONCE = 1 << 15

# Pairs of points of the layers that a GPU works on at a time, each 8 bytes in half a dozen arrays.
_PAIRS_OF_LAYERS = 1 << 23


@dataclass(frozen=True)
class NeighborTable:
    """Neighbors of the points of one cloud at every layer, and what else needs the points themselves.

    `distance` is that to the neighbor of each rank of `RANKS` among distinct points, float64, NaN beyond the
    last rank. `index` are the nearest points, nearest first, the point itself left out, duplicates kept; of
    equal distances the lower index first, and -1 where there are no more points. `distinct` says whether a
    point is the first of its value; where all points of a layer coincide up to rounding, they count as one.
    `angle`, in degrees, is that between the vectors to the first and second neighbor among distinct points.
    `ess` and `tle` are local dimensions among distinct points by `local_dimension.simplex_skewness` and
    `tight_local`, float64, NaN where there are too few points. A point that repeats an earlier one has NaN for
    all but `index` and `distinct`."""

    distance: np.ndarray  # shape (layer, token, rank)
    index: np.ndarray  # shape (layer, token, N_NEIGHBORS)
    distinct: np.ndarray  # shape (layer, token)
    angle: np.ndarray  # shape (layer, token)
    ess: np.ndarray  # shape (layer, token)
    tle: np.ndarray  # shape (layer, token)
    part: np.ndarray  # distances within parts of the cloud by `part_distances`, shape (layer, kind, point, rank)
    redone: np.ndarray  # number of points whose neighbors were decided in float64, shape (layer,)
    cosine: np.ndarray  # mean of the cosine over all pairs, the diagonal included, float64, shape (layer,)
    cosine_std: np.ndarray  # its standard deviation over all pairs, float64, shape (layer,)


def neighbor_table(hidden: torch.Tensor) -> NeighborTable:
    """Neighbor table of hidden states, shape (layer, token, width), on any device; `InputError` if not finite."""
    return NeighborTable(**{name: part.cpu().numpy() for name, part in neighbor_tensors(hidden).items()})


def neighbor_tensors(hidden: torch.Tensor) -> dict[str, torch.Tensor]:
    """The fields of `neighbor_table` by name, those of tokens still on the device of the hidden states."""
    if bad := first_not_finite(hidden):
        way_out = "the model overflows in this dtype; try dtype float32"
        raise InputError(f"hidden state of layer {bad[0]}, token {bad[1]} is not finite: {way_out}")
    layers = map_layers(_layer_table, hidden) if hidden.device.type == "cpu" else layers_at_once(hidden)
    return dict(zip(NeighborTable.__dataclass_fields__, map(torch.stack, zip(*layers, strict=True)), strict=True))


def first_not_finite(hidden: torch.Tensor) -> tuple[int, int] | None:
    """Layer and token of the first state that is NaN or infinite, if there is one."""
    # where a sum is finite all its terms are; a sum of large terms may overflow without one that does
    finite = torch.isfinite(torch.stack(map_layers(lambda points: points.sum(1, dtype=torch.float32), hidden)))
    for layer, token in (~finite).nonzero().tolist():
        if not bool(torch.isfinite(hidden[layer, token]).all()):
            return layer, token
    return None


def squared_distances(points: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
    """Squared Euclidean distances in float64, shape (m, n), of the points of some rows to all points.

    The Gram matrix of the centered points gives all pairs at once. Pairs that are close for their norms are taken
    again from the difference of the vectors: so equal points are at exactly zero. Points have shape (n, width) and
    any floating type; `rows` are indices, shape (m,), by default all."""
    centered = points.to(torch.float64, copy=True)
    centered -= centered.mean(0)
    norms = _squared_norms(centered)
    chosen = torch.arange(len(points), device=points.device) if rows is None else rows
    result = norms.new_empty(len(chosen), len(points))
    blocks = _gram_rows(centered, out=result) if rows is None else [(0, torch.mm(centered[rows], centered.T))]
    for start, gram in blocks:
        first_rows = chosen[start : start + len(gram)]
        sums = norms[first_rows, None] + norms
        squared = torch.sub(sums, gram, alpha=2, out=result[start : start + len(gram)])
        close = (squared <= _CANCELLATION * sums).nonzero()
        for first, second in (pairs.T for pairs in close.split(_PAIRS_AT_ONCE)):
            difference = points[first_rows[first]].double() - points[second].double()
            squared[first, second] = difference.square().sum(1)
    return result


def _gram_rows(centered: torch.Tensor, *, out: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Blocks of rows of the Gram matrix, each with the index of its first row; they may be overwritten.

    On a CPU a block has few enough rows to stay in a core's cache. Products are taken for one half of the
    matrix; the other half is its mirror image."""
    step = selection.ROWS_IN_CACHE if centered.device.type == "cpu" else len(centered)
    for start in range(0, len(centered), step):
        stop = start + step
        torch.mm(centered[start:stop], centered[start:].T, out=out[start:stop, start:])
        out[stop:, start:stop] = out[start:stop, stop:].contiguous().T.contiguous()  # thrice as fast as strided
        yield start, out[start:stop]


def _squared_norms(points: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(points, dim=1).square()  # four times as fast as `vecdot`


class _Cloud:
    """The points of one layer, and what float32 finds of them."""

    def __init__(self, points: torch.Tensor):
        self.points, self.center = points, points.mean(0)
        self.centered = points - self.center
        self.squares, self.centered_squares = _squared_norms(points), _squared_norms(self.centered)
        self.size = float(self.squares.sum(dtype=torch.float64))

    def coincides(self) -> bool:
        """Whether all points are one up to rounding."""
        spread = float(self.centered_squares.sum(dtype=torch.float64))
        return spread <= (_ROUNDING * torch.finfo(self.points.dtype).eps) ** 2 * self.size


def _layer_table(points: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The fields of a neighbor table, for one layer."""
    cloud = _Cloud(points if points.dtype == torch.float64 else points.float())
    if cloud.points.dtype == torch.float32 and not _FLOAT32_SIZES[0] < cloud.size < _FLOAT32_SIZES[1]:
        cloud = _Cloud(points.double())
    if not np.isfinite(cloud.size):
        raise InputError("the squares of the points overflow in float64: divide the points by a common factor")
    points, n_points = cloud.points, len(points)
    n_values, n_index = min(RANKS[-1], n_points - 1), min(N_NEIGHBORS, n_points - 1)
    found, similarity = None, None
    if cloud.coincides():
        points = points[:1].expand_as(points)
    elif points.dtype == torch.float32:
        found, similarity = _nearest_float32(cloud, n_values, n_index)
    values, inner, nearest, rows, local, parts, n_redone = found or _nearest_float64(points, n_values, n_index)

    index = torch.full((n_points, N_NEIGHBORS), -1, device=points.device)
    index[:, :n_index] = nearest[:, :n_index]
    distinct = torch.zeros(n_points, dtype=torch.bool, device=points.device).index_fill_(0, rows, True)
    ranks = [rank for rank in RANKS if rank <= values.shape[1]]
    angle = torch.full((n_points,), torch.nan, dtype=torch.float64, device=points.device)
    distance, dimensions = angle[:, None].repeat(1, len(RANKS)), angle.repeat(2, 1)
    dimensions[:, rows] = local
    distance[rows, : len(ranks)] = values[:, [rank - 1 for rank in ranks]].double().sqrt()
    if inner.shape[1] >= 2:
        angle[rows] = _angles(points, rows, inner[:, 0], inner[:, 1])
    moments = torch.tensor(similarity or cosine.similarity(points), dtype=torch.float64)
    return distance, index, distinct, angle, *dimensions, parts, torch.tensor(n_redone), *moments


def layers_at_once(hidden: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The fields of a neighbor table layer by layer, of several layers at a time and in float64.

    A GPU waits for every small operation to be started: layer by layer it would take ten times as long. A layer
    where points coincide, or a point is zero, is done by itself."""
    n_points = hidden.shape[1]
    for layers in hidden.split(max(1, _PAIRS_OF_LAYERS // n_points**2)):
        if n_points <= N_NEIGHBORS:
            yield from map(_layer_table, layers)
            continue
        fields, is_plain = _plain_layers(layers if layers.dtype == torch.float64 else layers.float())
        for place, plain in enumerate(is_plain.tolist()):
            yield tuple(field[place] for field in fields) if plain else _layer_table(layers[place])


def _plain_layers(layers: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The fields of a neighbor table for layers of different points, and whether each layer is one."""
    points, n_points = layers.double(), layers.shape[1]
    centered = points - (center := points.mean(1, keepdim=True))
    squares, norms = points.square().sum(2), centered.square().sum(2)
    spread, size = norms.sum(1), squares.sum(1)
    gram = centered @ centered.mT
    moments = cosine.of_clouds(points, centered, center, gram)
    sums = norms[:, :, None] + norms[:, None, :]
    squared = torch.sub(sums, gram, alpha=2, out=gram)
    squared.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    for layer, first, second in (p.T for p in (squared <= _CANCELLATION * sums).nonzero().split(_PAIRS_AT_ONCE)):
        squared[layer, first, second] = (points[layer, first] - points[layer, second]).square().sum(1)
    values, nearest = selection.smallest(squared, min(RANKS[-1], n_points - 1), N_NEIGHBORS)
    coincide = spread <= (_ROUNDING * torch.finfo(layers.dtype).eps) ** 2 * size
    is_plain = (values[..., 0] > 0).all(1) & (squares > 0).all(1) & ~coincide & torch.isfinite(size)
    ranks = [rank for rank in RANKS if rank <= values.shape[2]]
    distance = points.new_full((*squares.shape, len(RANKS)), torch.nan)
    distance[..., : len(ranks)] = values[..., [rank - 1 for rank in ranks]].sqrt()
    local = local_dimension.local_dimensions(squared, nearest.flatten(0, 1)).view(2, *squares.shape)
    parts = part_distances(squared, torch.arange(n_points, device=points.device), n_points).float()
    every = torch.arange(squares.numel(), device=points.device)
    two = ((nearest[..., place] + every.view(squares.shape)[:, :1]).flatten() for place in (0, 1))
    angle = _angles(points.flatten(0, 1), every, *two).view(squares.shape)
    redone, none = torch.full((len(layers),), n_points), torch.ones_like(squares, dtype=torch.bool)
    return [distance, nearest, none, angle, *local, parts, redone, *moments.cpu()], is_plain


def _nearest_float64(points, n_values: int, n_index: int) -> tuple[torch.Tensor, ...]:
    """Neighbors decided in float64.

    Returns the smallest squared distances among distinct points, the points nearest to them among distinct
    points, the points nearest to each point among all, the indices of the distinct points, their local dimensions,
    the distances within parts, and how many points were decided so."""
    rows, group = _distinct(points)
    squared = squared_distances(points[rows])
    n_others = len(rows) - 1
    among_all = None
    if len(rows) < len(points):
        # a point that repeats others has their list, but for the point itself
        among_all = _without_own(selection.smallest(squared[:, group], n_index + 1, n_index + 1)[1][group])
    squared.fill_diagonal_(torch.inf)
    values, inner = selection.smallest(squared, min(n_values, n_others), min(n_index, n_others))
    local = local_dimension.local_dimensions(squared, inner)
    parts = part_distances(squared, rows, len(points)).float()
    return values, rows[inner], inner if among_all is None else among_all, rows, local, parts, len(points)


def _without_own(nearest: torch.Tensor) -> torch.Tensor:
    """Lists of neighbors without the point that each is the list of; where that is not in it, without the last."""
    own = nearest == torch.arange(len(nearest), device=nearest.device)[:, None]
    own[:, -1] |= ~own.any(1)
    return nearest[~own].reshape(len(nearest), -1)


def _distinct(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the points that repeat no earlier one, and for each point its place among these."""
    # adding zero makes one of the two zeros, which are equal and differ in their bits
    places: dict[bytes, int] = {}
    group = np.array([places.setdefault(line.tobytes(), len(places)) for line in (points + 0.0).cpu().numpy()])
    first = np.unique(group, return_index=True)[1]
    return torch.from_numpy(first).to(points.device), torch.from_numpy(group).to(points.device)


def _nearest_float32(cloud: _Cloud, n_values: int, n_index: int) -> tuple[tuple | None, tuple | None]:
    """As `_nearest_float64` by float32, but for the rows that this cannot decide; and the cosine similarity.

    The first is None where points coincide or most rows are undecided, the second where the Gram matrix does not
    serve."""
    norms, n_points = cloud.centered_squares, len(cloud.points)
    similarity = None
    # else rounding errors of the Gram matrix, which go with the centered points, could be seen
    if bool((norms / cloud.squares).mean() <= _CENTERED_SHARE):
        similarity = cosine.FromGram(cloud.points, cloud.centered, cloud.center, cloud.squares.sqrt())
    # one value more than is kept: whether the last neighbor is the right one depends on the next
    n_edge = min(n_index + 1, n_points - 1)
    selected, matrix = [], norms.new_empty(n_points, n_points)
    for start, gram in _gram_rows(cloud.centered, out=matrix):
        if similarity is not None:
            similarity.add(gram, start)
        # the norm of the row's own point changes no order, and is added to what is selected
        squared = torch.sub(norms, gram, alpha=2, out=gram)
        squared.diagonal(start).fill_(torch.inf)
        values, nearest = selection.smallest(squared, n_values, n_edge)
        selected.append((values.add_(norms[start : start + len(gram), None]), nearest))
    values, nearest = (torch.cat(parts) for parts in zip(*selected, strict=True))
    found = _redo_undecided(cloud.points, norms, values, nearest, squared=matrix.add_(norms[:, None]))
    return found, None if similarity is None else similarity.result()


def _redo_undecided(points, norms, values, nearest, *, squared) -> tuple | None:
    """Do the rows in float64 that the bound on the errors of float32 leaves open."""
    # The rounding error of a product of rows of this width, in units of the last place of the two
    # norms: measured at most 30 for widths of 576 and 640, that is 1.2 sqrt(width).
    unit = (2 * points.shape[1] ** 0.5 + 2) * torch.finfo(torch.float32).eps / 2
    error = unit * (norms + norms[nearest].max(1).values)
    n_edge = nearest.shape[1]
    gaps = values[:, 1:n_edge] - values[:, : n_edge - 1]
    # so that what is no number for an overflow is not taken for decided
    decided = gaps.min(1).values > 2 * error if n_edge > 1 else values[:, 0] > 0
    decided &= values[:, 0] * _RELATIVE_ERROR > error
    rows = (~decided).nonzero()[:, 0]
    if len(rows) > _MANY_ROWS * len(points):
        return None
    values = values.double()
    if len(rows):
        again = squared_distances(points, rows)
        again[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        values[rows], nearest[rows] = selection.smallest(again, values.shape[1], nearest.shape[1])
        if bool((values[rows, 0] == 0).any()):
            return None
        squared.index_copy_(0, rows, again.float()).index_copy_(1, rows, again.float().T)
    every = torch.arange(len(points), device=points.device)
    local = local_dimension.local_dimensions(squared, nearest)
    return values, nearest, nearest, every, local, part_distances(squared, every, len(points)), len(rows)


def part_distances(squared: torch.Tensor, rows: torch.Tensor, n_points: int) -> torch.Tensor:
    """Distances to the neighbor of each rank within every part of a cloud, shape (kind, point, rank).

    `squared` are the squared distances of the distinct points, infinite on the diagonal, shape (m, m), or those of
    several clouds, which gives as many, and `rows` the indices of these among all `n_points`, ascending, shape
    (m,). The parts of all sizes stand one after another; NaN for a point that repeats an earlier one of the whole
    cloud, and beyond the last rank."""
    sizes = subsets.sizes(n_points)
    found = squared.new_full((*squared.shape[:-2], len(subsets.KINDS), sum(sizes), len(RANKS)), torch.nan)
    place = rows.new_full((n_points,), -1).index_copy_(0, rows, torch.arange(len(rows), device=rows.device))
    for kind, lines in zip(subsets.KINDS, found.unbind(-3), strict=True):
        for size, part in zip(sizes, lines.split(sizes, dim=-2), strict=True):
            places = place[torch.from_numpy(subsets.members(n_points, kind, size)).to(rows.device)]
            places = places[among := places >= 0]
            # the first points are a corner of the matrix, which need not be copied
            block = squared[..., : len(places), : len(places)]
            if kind != "first":
                block = squared.index_select(-2, places).index_select(-1, places)
            ranks = [rank for rank in RANKS if rank < block.shape[-1]]
            if ranks:
                values, _ = selection.smallest(block, ranks[-1], 0)
                part[..., among, : len(ranks)] = values[..., [rank - 1 for rank in ranks]].sqrt()
    return found


def _angles(points, rows, first, second) -> torch.Tensor:
    """Angles in degrees between the vectors from `rows` to `first` and `second`, shape (n,)."""
    # on a CPU in pieces that stay in its cache, three times as fast
    piece = selection.ROWS_IN_CACHE if points.device.type == "cpu" else len(rows)
    cosines = []
    for i, j, k in zip(rows.split(piece), first.split(piece), second.split(piece), strict=True):
        origin, *others = (points.index_select(0, places) for places in (i, j, k))
        to_first, to_second = (other.sub_(origin) for other in others)
        inner = torch.linalg.vecdot(to_first, to_second).double()
        lengths = [torch.linalg.vector_norm(side, dim=1).double() for side in (to_first, to_second)]
        cosines.append(inner / (lengths[0] * lengths[1]))
    return torch.rad2deg(torch.acos(torch.cat(cosines).clamp(-1, 1)))
