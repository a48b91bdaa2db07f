"""Parts of a cloud against clouds of their points alone."""

import numpy as np
import pytest
import torch

from token_geometry.geometry import gride, neighbors, subsets

N = 600


def clouds():
    """Two layers of 600 points; in the second one some repeat others."""
    points = np.random.default_rng(0).normal(size=(2, N, 40)).astype(np.float32)
    points[1, [5, 130, 400, 401]] = points[1, [3, 3, 10, 10]]
    return points


@pytest.mark.parametrize("kind", subsets.KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distances_in_a_part_are_those_of_a_cloud_of_its_points_alone(kind, dtype):
    points = torch.from_numpy(clouds().astype(dtype))
    found = neighbors.neighbor_table(points).part
    assert found.shape == (2, 2, 128 + 256 + 512, 9)
    starts = dict(zip(subsets.sizes(600), (0, 128, 384), strict=True))
    for size in subsets.sizes(N):
        chosen = subsets.members(N, kind, size)
        assert len(set(chosen.tolist())) == size and sorted(chosen) == chosen.tolist()
        alone = neighbors.neighbor_table(points[:, chosen]).distance
        part = found[:, subsets.KINDS.index(kind), starts[size] : starts[size] + size]
        np.testing.assert_allclose(part[0], alone[0], rtol=2e-5)
        # a point counts where it is the first of its value in the whole cloud, though that one be no part
        kept = ~np.isin(chosen, [5, 130, 400, 401])
        assert np.isnan(part[1][~kept]).all()
        alone = neighbors.neighbor_table(points[:, chosen[kept]]).distance
        np.testing.assert_allclose(part[1][kept], alone[1], rtol=2e-5)


def test_the_first_points_are_a_shorter_prompt_and_smaller_random_parts_lie_in_larger_ones():
    assert subsets.members(N, "first", 128).tolist() == list(range(128))
    small, large = (set(subsets.members(1024, "random", size)) for size in (128, 512))
    assert small < large and max(large) > 1000


def test_estimates_are_those_of_gride_over_the_points_of_each_part():
    distance = neighbors.neighbor_table(torch.from_numpy(clouds())).part
    dimension, mean = subsets.estimates(distance, N)
    assert dimension.shape == mean.shape == (2, 2, 3, 8)
    part = distance[1, 1, 128:384].astype(float)
    expected, _ = gride.estimate(gride.ratios(part).T, 2 ** np.arange(8))
    np.testing.assert_allclose(dimension[1, 1, 1], expected, rtol=1e-12)
    np.testing.assert_allclose(mean[1, 1, 1, 3], np.nanmean(part[:, 3:5]))
    # of 128 points there is no neighbor of rank 128
    assert np.isnan(dimension[0, 0, 0, -2:]).all() and np.isfinite(dimension[0, 0, 0, :-2]).all()


def test_a_cloud_of_no_more_points_than_the_smallest_part_has_none():
    points = torch.from_numpy(clouds()[:, :128])
    assert neighbors.neighbor_table(points).part.shape == (2, 2, 0, 9)
