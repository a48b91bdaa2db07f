"""ESS and TLE agree point by point with scikit-dimension, from distances alone."""

import numpy as np
import pytest
import torch
from skdim_values import FILE, clouds

from token_geometry.geometry.local_dimension import local_dimensions, simplex_skewness, tight_local


def distances(points, dtype):
    squared = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square().to(dtype)
    away = squared.clone().fill_diagonal_(torch.inf)
    return squared, away.argsort(1)[:, :20]


@pytest.mark.parametrize("name", clouds())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_every_point_has_the_dimension_that_scikit_dimension_finds(name, dtype, tolerance):
    found = local_dimensions(*distances(torch.from_numpy(clouds()[name]), dtype))
    with np.load(FILE) as pinned:
        for method, values in zip(("ESS", "TLE"), found, strict=True):
            np.testing.assert_allclose(values.numpy(), pinned[f"{method} {name}"], rtol=tolerance)


def test_the_means_lie_near_the_true_dimension_of_a_sphere():
    simplex, tight = local_dimensions(
        *distances(torch.from_numpy(clouds()["sphere of dimension 3"]), torch.float64)
    )
    assert abs(float(simplex.mean()) - 3) < 0.5 and abs(float(tight.mean()) - 3) < 1


def test_neighbors_at_one_place_have_no_dimension():
    assert bool(simplex_skewness(torch.zeros(2, 10, 10)).isnan().all())
    assert bool(tight_local(torch.zeros(2, 20), torch.zeros(2, 20, 20)).isnan().all())
