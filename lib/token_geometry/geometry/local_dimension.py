"""Local intrinsic dimension of each point from the distances within its neighborhood: ESS and TLE.

Both need no vectors: what angles and projections there are among the neighbors of a point follows from
their distances to it and to one another.
"""

import functools

import numpy as np
import torch
from scipy.special import gammaln

N_SIMPLEX = 10
"""Neighbors of a point that the expected simplex skewness takes."""

N_TIGHT = 20
"""Neighbors of a point that the tight local estimator takes."""

_LARGEST = 4096
"""Largest dimension that the skewness is inverted for: beyond, it differs from 1 by less than its rounding."""

# A measurement below this share of the neighborhood's radius is dropped, as in the authors' code.
_SMALLEST = 1e-4

# rows whose pairs of neighbors stay in a core's cache
_ROWS_IN_CACHE = 128


def local_dimensions(squared: torch.Tensor, nearest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both estimates for the points whose neighbors are given.

    Parameters
    ----------
    squared
        Squared distances of all pairs of points, shape (n, n); the diagonal plays no part.
    nearest
        Indices of the neighbors of each point, nearest first, without the point itself and without
        coincident points, shape (n, k), k at least `N_TIGHT`.

    Returns
    -------
    simplex, tight
        Float64, shape (n,): `simplex_skewness` of the first `N_SIMPLEX` neighbors and `tight_local` of the
        first `N_TIGHT`.
    """
    nearest = nearest[:, :N_TIGHT]
    n_rows = _ROWS_IN_CACHE if squared.device.type == "cpu" else len(nearest)
    diagonal = torch.arange(nearest.shape[1], device=squared.device)
    simplex, tight = [], []
    for first, rows in enumerate(nearest.split(n_rows)):
        points = torch.arange(first * n_rows, first * n_rows + len(rows), device=squared.device)
        among = squared[rows[:, :, None], rows[:, None, :]]
        among[:, diagonal, diagonal] = 0
        simplex.append(simplex_skewness(among[:, :N_SIMPLEX, :N_SIMPLEX]))
        tight.append(tight_local(squared[points[:, None], rows], among))
    return torch.cat(simplex), torch.cat(tight)


def simplex_skewness(among: torch.Tensor) -> torch.Tensor:
    """Dimension by the expected simplex skewness, from pairs of neighbors.

    The vectors from the mean of the neighbors to each span triangles with it; the ratio of their areas to
    what they would be at right angles grows with the dimension d as
    Γ(d/2)² / (Γ((d+1)/2) Γ((d−1)/2)) (Johnsson, Soneson, Fontes, IEEE TPAMI 37, 196 (2015), version a of order
    1). Between two whole dimensions the ratio is interpolated linearly.

    Parameters
    ----------
    among
        Squared distances of the neighbors of a point to one another, shape (n, k, k).

    Returns
    -------
    torch.Tensor
        Float64, shape (n,), at least 1; NaN where all neighbors coincide.
    """
    # scalar products of the vectors from the mean follow from squared distances by centering twice
    means = among.mean(2)
    inner = -0.5 * (among - means[:, :, None] - means[:, None, :] + means.mean(1)[:, None, None])
    lengths = inner.diagonal(dim1=1, dim2=2)
    products = lengths[:, :, None] * lengths[:, None, :]
    areas = (products - inner.square()).clamp_(min=0).sqrt_()
    # of the whole matrices, whose diagonals have no area and count no pair
    whole = products.clamp_(min=0).sqrt_().sum((1, 2)) - lengths.sum(1)
    skewness = (areas.sum((1, 2)) - areas.diagonal(dim1=1, dim2=2).sum(1)) / whole
    return _dimension_of(skewness.double())


def _dimension_of(skewness: torch.Tensor) -> torch.Tensor:
    dimensions, expected = _expected()
    return torch.from_numpy(np.interp(skewness.cpu().numpy(), expected, dimensions)).to(skewness.device)


@functools.cache
def _expected() -> tuple[np.ndarray, np.ndarray]:
    """Whole dimensions and the skewness of a ball of each."""
    dimensions = np.arange(1, _LARGEST + 1, dtype=float)
    d = dimensions[1:]
    expected = np.exp(2 * gammaln(d / 2) - gammaln((d + 1) / 2) - gammaln((d - 1) / 2))
    return dimensions, np.append(0, expected)


def tight_local(squared: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Dimension by the tight local estimator, from a point's neighbors and their pairs.

    A maximum likelihood estimate that takes not only the distances to the point, but those between all
    pairs of its neighbors and their reflections as well, each put inside the neighborhood's ball
    (Amsaleg, Chelly, Houle, Kawarabayashi, Radovanović, Treeratanajaru, SIAM Data Mining 2019, algorithm 1).

    Parameters
    ----------
    squared
        Squared distances of the neighbors to the point, nearest first, shape (n, k).
    among
        Squared distances of the neighbors to one another, shape (n, k, k).

    Returns
    -------
    torch.Tensor
        Float64, shape (n,); 0 where all distances are equal, NaN where a neighbor coincides with the point.
    """
    n_neighbors = squared.shape[1]
    unit = squared[:, -1:]
    u = squared / unit
    v = among / unit[:, :, None]
    own, other = u[:, :, None], u[:, None, :]
    difference, room = own - other, 4 - 4 * own
    measured = _inside(v, difference, room)
    reflected = _inside((2 * (own + other)).sub_(v), difference, room)
    kept = torch.minimum(measured, reflected) >= _SMALLEST / 2
    kept.diagonal(dim1=1, dim2=2).fill_(False)
    logs = torch.where(kept, measured.mul_(reflected).mul_(4), 1).log_().sum((1, 2), dtype=torch.float64)
    central = (0.5 * u.double().log()).sum(1)
    # a pair that was dropped is not counted; the diagonal stands for the distances to the point itself
    counted = kept.sum((1, 2)) + n_neighbors
    dimension = -2 * counted / (logs + 2 * central)
    return torch.where(logs > -_SMALLEST, 0.0, dimension).where(squared[:, 0] > 0, torch.nan)


def _inside(square: torch.Tensor, difference: torch.Tensor, four_rooms: torch.Tensor) -> torch.Tensor:
    """Half the radius of the ball that touches the neighborhood's from inside, and at the other side a point.

    Half the smaller root of a quadratic equation, in the form that divides by a sum. By the triangle inequality
    the sum loses no more than two digits where its first term is negative.
    """
    b = square + difference
    root = (square * four_rooms).addcmul_(b, b).clamp_(min=0).sqrt_()
    return square / root.add_(b)
