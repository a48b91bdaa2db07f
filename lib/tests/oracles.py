"""What other code finds for a cloud: brute force in float64, and DADApy."""

from dataclasses import dataclass

import numpy as np
from dadapy import Data
from sklearn.metrics import euclidean_distances


@dataclass(frozen=True)
class Cloud:
    """What brute force and DADApy find for the tokens of one layer."""

    nearest: np.ndarray
    """The 32 nearest tokens; among equal distances the lower index first."""
    tied: bool
    """Whether equal distances decide anything among the 32."""
    n_distinct: int
    dimension: np.ndarray
    error: np.ndarray
    distance: np.ndarray
    """DADApy's mean distance of the neighbors involved at each scale."""


def brute_force(points):
    distinct, place = np.unique(points.astype(np.float64), axis=0, return_inverse=True)
    place = place.reshape(-1)
    distances = euclidean_distances(distinct)
    # DADApy caps the range at its default of maxk = 100 and only warns
    dadapy = Data(distances=distances, maxk=257)
    dimension, error, distance = dadapy.return_id_scaling_gride(range_max=256)
    of_tokens = distances[np.ix_(place, place)]  # repeated tokens tie exactly here
    np.fill_diagonal(of_tokens, np.inf)
    order = np.argsort(of_tokens, axis=1, kind="stable")
    ranked = np.take_along_axis(of_tokens, order[:, :33], axis=1)
    return Cloud(
        nearest=order[:, :32],
        tied=bool((np.diff(ranked, axis=1) == 0).any()),
        n_distinct=len(distinct),
        dimension=dimension,
        error=error,
        distance=distance,
    )
