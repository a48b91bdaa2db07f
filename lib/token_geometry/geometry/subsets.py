"""Parts of a cloud: how far apart neighbors are among fewer of its points, and what dimension they have there.

A causal model gives the first n tokens of a text the states that it gives them alone, so that the first n points
are the cloud of a shorter prompt; as many points at random have the text's whole length and fewer neighbors."""

import numpy as np

from token_geometry.geometry import gride
from token_geometry.geometry.table_format import RANKS

KINDS = ("first", "random")
"""Which points of a cloud make a part: the first ones, or some that a seed draws, smaller parts inside larger."""

SIZES = (128, 256, 512, 1024)  # numbers of points of the parts


def sizes(n_points: int) -> tuple[int, ...]:
    """Those of `SIZES` that are parts of so many points."""
    return tuple(size for size in SIZES if size < n_points)


def members(n_points: int, kind: str, size: int) -> np.ndarray:
    """Indices of the points of a part, in order, shape (size,)."""
    drawn = np.random.default_rng(0).permutation(n_points) if kind == "random" else np.arange(n_points)
    return np.sort(drawn[:size])


def estimates(distance: np.ndarray, n_points: int) -> tuple[np.ndarray, np.ndarray]:
    """GRIDE estimate and mean distance of the neighbors involved, each of shape (layer, kind, size, scale).

    `distance` is that of `neighbors.part_distances` at every layer, shape (layer, kind, point, rank)."""
    dimension, mean = [], []
    for part in np.split(distance.astype(np.float64), np.cumsum(sizes(n_points))[:-1], axis=2):
        dimension.append(gride.estimate(np.moveaxis(gride.ratios(part), -1, -2), np.array(RANKS[:-1]))[0])
        mean.append(mean_distance(part))
    return np.stack(dimension, 2), np.stack(mean, 2)


def mean_distance(distance: np.ndarray) -> np.ndarray:
    """Mean distance of the two neighbors of each scale, shape (..., scale), from shape (..., point, rank)."""
    means = mean_of_present(distance, -2)
    return (means[..., 1:] + means[..., :-1]) / 2


def mean_of_present(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean along an axis of what is there, NaN where nothing is, without a warning."""
    present = np.isfinite(values)
    count = present.sum(axis)
    return np.where(present, values, 0).sum(axis) / np.where(count, count, np.nan)
