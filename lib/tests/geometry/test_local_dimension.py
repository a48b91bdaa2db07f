"""ESS and TLE agree point by point with scikit-dimension, from distances alone."""

import numpy as np
import pytest
import torch
from skdim_values import FILE, LAYERS, clouds

from token_geometry.geometry.local_dimension import local_dimensions, simplex_skewness, tight_local
from token_geometry.geometry.neighbors import neighbor_table, squared_distances


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


@pytest.mark.parametrize("name", clouds())
def test_a_neighbor_table_of_float32_has_them_for_every_distinct_point(name):
    points = np.concatenate([clouds()[name], clouds()[name][:3]])
    table = neighbor_table(torch.from_numpy(np.stack([points, points + 5])).float())
    alone = neighbor_table(torch.from_numpy(points[None, :300]).float())
    with np.load(FILE) as pinned:
        for method, found, single in (("ESS", table.ess, alone.ess), ("TLE", table.tle, alone.tle)):
            np.testing.assert_allclose(found[:, :300], [pinned[f"{method} {name}"]] * 2, rtol=1e-3)
            np.testing.assert_allclose(single[0], pinned[f"{method} {name}"], rtol=1e-3)
            assert np.isnan(found[:, 300:]).all()


@pytest.mark.model
def test_hidden_states_have_them_too(readings):
    hidden = torch.from_numpy(readings[0].hidden[list(LAYERS)])
    table = neighbor_table(hidden)
    with np.load(FILE) as pinned:
        for row, layer in enumerate(LAYERS):
            for method, found in (("ESS", table.ess[row]), ("TLE", table.tle[row])):
                expected = pinned[f"{method} layer {layer}"]
                relative = np.abs(found / expected - 1)
                # another processor rounds the states, and so may exchange two neighbors that are equally far
                assert len(expected) == 1024 and (relative < 1e-3).mean() > 0.995, (layer, method, relative.max())
                assert found.mean() == pytest.approx(expected.mean(), rel=1e-4)


def test_near_duplicates_and_an_attention_sink_have_the_dimensions_of_float64():
    random = np.random.default_rng(0)
    points = random.normal(size=(300, 64)).astype(np.float32)
    points[0] *= 1e3
    points[290:] = points[1:11] + 1e-3 * random.normal(size=(10, 64))
    tensor = torch.from_numpy(points)
    table = neighbor_table(tensor[None])
    assert 0 < table.redone[0] < 300
    squared = squared_distances(tensor).fill_diagonal_(torch.inf)
    for found, exact in zip((table.ess, table.tle), local_dimensions(squared, squared.argsort(1)), strict=True):
        np.testing.assert_allclose(found[0], exact, rtol=1e-3)


@pytest.mark.parametrize(("n_points", "has_ess", "has_tle"), [(10, 0, 0), (11, 1, 0), (20, 1, 0), (21, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fewer_neighbors_than_an_estimate_takes_have_none(n_points, has_ess, has_tle, dtype):
    table = neighbor_table(torch.randn(1, n_points, 8, generator=torch.Generator().manual_seed(0)).to(dtype))
    assert np.isfinite(table.ess).all() == has_ess and np.isfinite(table.tle).all() == has_tle
    assert np.isnan(table.ess).all() != has_ess and np.isnan(table.tle).all() != has_tle


def test_the_means_lie_near_the_true_dimension_of_a_sphere():
    simplex, tight = local_dimensions(
        *distances(torch.from_numpy(clouds()["sphere of dimension 3"]), torch.float64)
    )
    assert abs(float(simplex.mean()) - 3) < 0.5 and abs(float(tight.mean()) - 3) < 1


def test_neighbors_at_one_place_have_no_dimension():
    assert bool(simplex_skewness(torch.zeros(2, 10, 10)).isnan().all())
    assert bool(tight_local(torch.zeros(2, 20), torch.zeros(2, 20, 20)).isnan().all())


def test_points_that_are_all_equally_far_apart_have_the_tight_dimension_zero():
    squared = torch.full((3, 20), 2.0)
    among = 2.0 * (1 - torch.eye(20)).expand(3, 20, 20)
    assert tight_local(squared, among).tolist() == [0, 0, 0]
