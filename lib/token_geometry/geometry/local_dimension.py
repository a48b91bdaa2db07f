"""Local intrinsic dimension of each point from the distances within its neighborhood: ESS and TLE.

Both need no vectors: what angles and projections there are among the neighbors of a point follows from
their distances to it and to one another."""

import functools

import numpy as np
import torch
from scipy.special import gammaln

N_SIMPLEX = 10  # neighbors of a point that the expected simplex skewness takes
N_TIGHT = 20  # neighbors of a point that the tight local estimator takes

# Largest dimension that the skewness is inverted for: beyond, it differs from 1 by less than its rounding.
_LARGEST = 4096
_SMALLEST = 1e-4  # share of the neighborhood's radius below which the authors' code drops a measurement, too
_ROWS_IN_CACHE = 256  # rows whose pairs of neighbors stay in a core's cache


def local_dimensions(squared: torch.Tensor, nearest: torch.Tensor) -> torch.Tensor:
    """Both estimates for the points whose neighbors are given, float64, shape (2, n).

    `squared` are the squared distances of all pairs of points, shape (n, n), contiguous; the diagonal plays no
    part; of several clouds at once it has shape (cloud, n, n), and their points follow one another. `nearest` are
    the indices of the neighbors of each point, nearest first, without the point itself and without coincident
    points, shape (n, k). First comes `simplex_skewness` of the first `N_SIMPLEX` neighbors,
    then `tight_local` of the first `N_TIGHT`; NaN where there are fewer neighbors than an estimate takes."""
    n_points, nearest = squared.shape[-1], nearest[:, :N_TIGHT]
    n_rows = _ROWS_IN_CACHE if squared.device.type == "cpu" else len(nearest)
    found = torch.full((2, len(nearest)), torch.nan, dtype=torch.float64, device=squared.device)
    clouds = torch.arange(0, squared.numel(), n_points**2, device=squared.device).repeat_interleave(n_points)
    parts = (part.split(n_rows) for part in (nearest, clouds, squared.view(-1, n_points)))
    both = map(torch.unbind, found.split(n_rows, dim=1))
    for rows, start, own, (simplex, tight) in zip(*parts, both, strict=True):
        # six times as fast as indexing by two arrays
        places = torch.add((rows + start[:, None])[:, None, :], rows[:, :, None], alpha=n_points)
        among = squared.view(-1).index_select(0, places.view(-1)).view(places.shape)
        among.diagonal(dim1=1, dim2=2).zero_()
        if nearest.shape[1] >= N_SIMPLEX:
            simplex.copy_(simplex_skewness(among[:, :N_SIMPLEX, :N_SIMPLEX]))
        if nearest.shape[1] == N_TIGHT:
            tight.copy_(tight_local(own.gather(1, rows), among))
    return found


def simplex_skewness(among: torch.Tensor) -> torch.Tensor:
    """Dimension by the expected simplex skewness, float64, shape (n,), at least 1.

    NaN where all neighbors coincide. `among` are the squared distances of the neighbors of a point to one
    another, shape (n, k, k). The vectors from the mean of the neighbors to each span triangles with it; the
    ratio of their areas to what they would be at right angles grows with the dimension d as Γ(d/2)² /
    (Γ((d+1)/2) Γ((d−1)/2)) (Johnsson, Soneson, Fontes, IEEE TPAMI 37, 196 (2015), version a of order 1).
    Between two whole dimensions the ratio is interpolated linearly."""
    # scalar products of the vectors from the mean follow from squared distances by centering twice
    means = among.mean(2)
    inner = -0.5 * (among - means[:, :, None] - means[:, None, :] + means.mean(1)[:, None, None])
    squares = inner.diagonal(dim1=1, dim2=2).clamp(min=0)
    areas = (squares[:, :, None] * squares[:, None, :]).sub_(inner.square()).clamp_(min=0).sqrt_()
    # of the whole matrices, whose diagonals have no area and count no pair
    whole = squares.sqrt().sum(1).square() - squares.sum(1)
    skewness = (areas.sum((1, 2)) - areas.diagonal(dim1=1, dim2=2).sum(1)) / whole
    expected, skewness = _expected(skewness.device), skewness.double()
    above = torch.searchsorted(expected, skewness).clamp_(1, _LARGEST - 1)
    low, high = expected[above - 1], expected[above]
    return above + ((skewness - low) / (high - low)).clamp_(max=1)


@functools.cache
def _expected(device: torch.device) -> torch.Tensor:
    """The skewness of a ball of each dimension from 1 on."""
    d = np.arange(2, _LARGEST + 1, dtype=float)
    expected = np.exp(2 * gammaln(d / 2) - gammaln((d + 1) / 2) - gammaln((d - 1) / 2))
    return torch.from_numpy(np.append(0, expected)).to(device)


def tight_local(squared: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Dimension by the tight local estimator, float64, shape (n,), from a point's neighbors and their pairs.

    A maximum likelihood estimate that takes not only the distances to the point, but those between all pairs of
    its neighbors and their reflections as well, each put inside the neighborhood's ball (Amsaleg, Chelly,
    Houle, Kawarabayashi, Radovanović, Treeratanajaru, SIAM Data Mining 2019, algorithm 1). 0 where all
    distances are equal, NaN where a neighbor coincides with the point.

    `squared` are the squared distances of the neighbors to the point, nearest first, shape (n, k), k even, and
    `among` those of the neighbors to one another, shape (n, k, k)."""
    u, v = squared / squared[:, -1:], among / squared[:, -1:, None]
    own, other = u[:, :, None], u[:, None, :]
    difference, room = own - other, 4 - 4 * own
    measured = _inside(v, difference, room)
    reflected = _inside((2 * own + 2 * other).sub_(v), difference, room)
    least = torch.minimum(measured, reflected)
    least.diagonal(dim1=1, dim2=2).fill_(1)
    measured.mul_(reflected).diagonal(dim1=1, dim2=2).fill_(0.25)
    # a pair that was dropped is not counted; the diagonal stands for the distances to the point itself
    counted = torch.tensor(squared.shape[1] ** 2)  # a plain number over a tensor would be rounded twice
    if not least.amin() >= _SMALLEST / 2:  # seldom, and slow
        measured.masked_fill_(dropped := ~(least >= _SMALLEST / 2), 0.25)
        counted = counted - dropped.sum((1, 2))
    # four logarithms at once, of halves of radii
    products = measured.chunk(2, dim=1)
    logs = products[0].mul(products[1]).mul_(16).log_().sum((1, 2), dtype=torch.float64)
    dimension = -2 * counted / (logs + u.double().log().sum(1))
    return torch.where(logs > -_SMALLEST, 0.0, dimension).where(squared[:, 0] > 0, torch.nan)


def _inside(square: torch.Tensor, difference: torch.Tensor, four_rooms: torch.Tensor) -> torch.Tensor:
    """Half the radius of the ball that touches the neighborhood's from inside, and at the other side a point.

    Half the smaller root of a quadratic equation, in the form that divides by a sum. By the triangle inequality
    the sum loses no more than two digits where its first term is negative."""
    b = square + difference
    return square / (square * four_rooms).addcmul_(b, b).sqrt_().add_(b)
