"""Manifolds: random samples of shapes whose intrinsic dimension is known, in 64 coordinates.

Every sample is turned by a random orthogonal map, so that no coordinate is a coordinate of the
manifold. The map keeps distances: what bends a shape is its own formula."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

N_COORDINATES = 64  # coordinates that every sample lives in
HIGHEST_DIMENSION = N_COORDINATES // 2  # largest that is offered: a torus takes two coordinates per dimension
NOISE = 0.02  # standard deviation of the noise in each coordinate, in units of the radius of the noisy torus

# One and a half turns of the spiral r = t, and the width of scikit-learn's Swiss roll.
_ROLL_START, _ROLL_STOP, _ROLL_WIDTH = 1.5 * np.pi, 4.5 * np.pi, 21.0


@dataclass(frozen=True)
class Family:
    """One kind of manifold, for every dimension; `title` is the name that a reader sees.

    `draw` makes of a generator, a number of points and a dimension points in the fewest coordinates they need.
    To a `noisy` one noise is added: then the dimension depends on the scale at which one looks."""

    title: str
    draw: Callable[[np.random.Generator, int, int], np.ndarray]
    noisy: bool = False


def torus(random: np.random.Generator, n_points: int, dimension: int) -> np.ndarray:
    """Flat (Clifford) torus: a point on each of `dimension` circles of radius 1, 2 d coordinates."""
    angle = random.uniform(0, 2 * np.pi, size=(n_points, dimension))
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def sphere(random: np.random.Generator, n_points: int, dimension: int) -> np.ndarray:
    """Sphere of radius 1, d + 1 coordinates."""
    points = random.normal(size=(n_points, dimension + 1))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def roll(random: np.random.Generator, n_points: int, dimension: int) -> np.ndarray:
    """Swiss roll: a cuboid, one side of which is rolled up to a spiral, d + 1 coordinates.

    The density is uniform along the spiral, so it is an isometric image of the cuboid; its turns are 2 pi apart.
    """
    t = np.linspace(_ROLL_START, _ROLL_STOP, 4096)
    length = (t * np.sqrt(1 + t**2) + np.arcsinh(t)) / 2  # arc length of the spiral r = t
    at = np.interp(random.uniform(length[0], length[-1], size=n_points), length, t)
    flat = random.uniform(0, _ROLL_WIDTH, size=(n_points, dimension - 1))
    return np.column_stack([at * np.cos(at), at * np.sin(at), flat])


FAMILIES = {
    "torus": Family("flat torus", torus),
    "sphere": Family("sphere", sphere),
    "hypercube": Family("hypercube", lambda random, n, d: random.uniform(size=(n, d))),
    "gaussian": Family("Gaussian", lambda random, n, d: random.normal(size=(n, d))),
    "roll": Family("Swiss roll", roll),
    "noisy_torus": Family("noisy torus", torus, noisy=True),
}
"""Families by name; the hypercube is uniform with sides of 1, the Gaussian has a standard deviation of 1."""


def expected_dimension(family: str, *, dimension: int, n_points: int, n_clouds: int, seed: int) -> float:
    """Dimension that the estimator of scale 2 has for so many points of a manifold, by brute force.

    The maximum of the likelihood of r_2 / r_1, one over the mean of log(r_2 / r_1) (Facco et al., Sci. Rep. 7,
    12140 (2017)), is taken over all points of several clouds together. It is what a single cloud differs
    from by chance only; how far it is from `dimension` is the bias of the estimator.
    `n_clouds` clouds are drawn as by `sample`, the first with `seed` and each other with the next one."""
    from sklearn.metrics import euclidean_distances

    logarithms = []
    for cloud in range(n_clouds):
        points = sample(family, dimension=dimension, n_points=n_points, seed=seed + cloud)
        squared = euclidean_distances(points, squared=True)
        np.fill_diagonal(squared, np.inf)
        nearest = np.arange(n_points), squared.argmin(axis=1)
        first, squared[nearest] = squared[nearest], np.inf
        logarithms.append(np.log(squared.min(axis=1) / first) / 2)
    return float(1 / np.mean(logarithms))


def sample(family: str, *, dimension: int, n_points: int, seed: int) -> np.ndarray:
    """Random points of a manifold, float64, shape (n_points, N_COORDINATES).

    `family` is the name of one of `FAMILIES`; the dimension, up to `HIGHEST_DIMENSION`, is that without the
    noise. The seed is that of the points, the orthogonal map and the noise; family and dimension are mixed in."""
    random = np.random.default_rng([seed, list(FAMILIES).index(family), dimension])
    drawn = FAMILIES[family].draw(random, n_points, dimension)
    directions, _ = np.linalg.qr(random.normal(size=(N_COORDINATES, drawn.shape[1])))
    points = drawn @ directions.T
    if FAMILIES[family].noisy:
        points += random.normal(scale=NOISE, size=points.shape)
    return points
