"""GRIDE: against DADApy on real prompts, and against what is known without it."""

import numpy as np
import pytest
import torch
from dadapy import Data
from scipy.spatial.distance import cdist

from token_geometry.geometry import gride, neighbors

SCALES = np.array([2, 4, 8, 16, 32, 64, 128, 256])


def estimate(points):
    """Dimension and error of one cloud at every scale."""
    table = neighbors.neighbor_table(torch.as_tensor(points)[None])
    return gride.estimate(gride.ratios(table.distance[0]).T, SCALES // 2)


def dadapy(points):
    maxk = min(257, len(points) - 1)
    data = Data(distances=cdist(points, points), maxk=maxk)
    return data.return_id_scaling_gride(range_max=min(256, maxk))[:2]


def test_dimension_agrees_with_dadapy_on_real_prompts_at_every_layer_and_scale(readings, clouds):
    for reading, layers in zip(readings, clouds, strict=True):
        expected = np.stack([layer.dimension for layer in layers])
        assert expected.shape == (31, 8)
        found = reading.observed["intrinsic_dimension"]
        assert found["scale"].values.tolist() == SCALES.tolist()
        np.testing.assert_allclose(found.transpose("layer", "scale"), expected, rtol=1e-4)


def test_error_agrees_with_dadapy_on_real_prompts_at_every_layer_and_scale(readings, clouds):
    for reading, layers in zip(readings, clouds, strict=True):
        expected = np.stack([layer.error for layer in layers])
        found = reading.observed["intrinsic_dimension_error"]
        np.testing.assert_allclose(found.transpose("layer", "scale"), expected, rtol=1e-4)


def test_mean_neighbor_distance_agrees_with_dadapy_on_real_prompts(readings, clouds):
    for reading, layers in zip(readings, clouds, strict=True):
        expected = np.stack([layer.distance for layer in layers])
        found = reading.observed["neighbor_distance"]
        np.testing.assert_allclose(found.transpose("layer", "scale"), expected, rtol=1e-4)


def test_repeated_tokens_of_the_embedding_layer_are_counted_once(readings, clouds):
    for reading, layers in zip(readings, clouds, strict=True):
        n_distinct = [layer.n_distinct for layer in layers]
        assert n_distinct[0] < 1024  # else this prompt shows nothing
        assert reading.observed["n_points"].values.tolist() == n_distinct


@pytest.mark.parametrize("dimension", [1, 2, 5, 9])
def test_gride_recovers_the_dimension_of_a_gaussian(dimension):
    random = np.random.default_rng(dimension)
    plane = np.linalg.qr(random.normal(size=(30, dimension)))[0]
    found, error = estimate(random.normal(size=(2000, dimension)) @ plane.T)
    assert abs(found[0] - dimension) < 3 * error[0]
    # the error of the maximum likelihood estimate from N ratios is about d / sqrt(N) at scale 2
    assert error[0] == pytest.approx(dimension / np.sqrt(2000), rel=0.1)


def test_gride_recovers_every_dimension_from_1_to_20_at_every_scale_where_its_law_holds():
    """In a uniform medium without boundary the volumes out to the neighbors grow by exponential steps."""
    random = np.random.default_rng(0)
    n1 = SCALES[:, None, None] // 2
    dimension = np.arange(1, 21)[:, None]
    inner = random.gamma(n1, size=(len(SCALES), 20, 1024))
    mu = (1 + random.gamma(n1, size=inner.shape) / inner) ** (1 / dimension)
    found, error = gride.estimate(mu, n1[..., 0])
    far = np.abs(found - dimension[:, 0]) / error
    # of 160 estimates, less than one is beyond three errors by chance
    assert (far > 3).sum() <= 2 and far.max() < 4


def test_gride_recovers_the_dimension_of_a_torus():
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(2000, 3))
    found, error = estimate(np.concatenate([np.cos(angle), np.sin(angle)], axis=1))
    assert abs(found[0] - 3) < 3 * error[0]


def test_scale_2_has_the_closed_form():
    # no ratio of a cloud like this reaches the cut at q50 + 20 (q95 - q50)
    table = neighbors.neighbor_table(torch.from_numpy(_gaussian(500, 6))[None])
    mu = gride.ratios(table.distance[0])[:, 0]
    found, _ = gride.estimate(mu, np.array(1))
    assert found == pytest.approx((len(mu) - 1) / np.log(mu).sum(), rel=1e-9)


def test_ratios_of_exactly_one_are_nudged_as_in_dadapy():
    # on a grid most points have several nearest neighbors at the same distance
    grid = np.stack(np.meshgrid(*[np.arange(7.0)] * 3), axis=-1).reshape(-1, 3)
    distances = np.sort(cdist(grid, grid), axis=1)
    mu = gride.ratios(distances[:, neighbors.RANKS])
    assert (distances[:, 1] == distances[:, 2]).all()
    assert (mu > 1).all()
    dimension, error = gride.estimate(mu.T, SCALES // 2)
    expected_dimension, expected_error = dadapy(grid)
    np.testing.assert_allclose(dimension, expected_dimension, rtol=1e-4)
    # 1 - mu^-d is here a few units of the last place, so the error holds to some percent only
    np.testing.assert_allclose(error, expected_error, rtol=0.02)


@pytest.mark.parametrize("n_points", [5, 9, 40, 257])
def test_scales_beyond_the_number_of_points_are_missing(n_points):
    found, error = estimate(_gaussian(n_points, 3))
    possible = SCALES < n_points
    np.testing.assert_array_equal(np.isfinite(found), possible)
    np.testing.assert_array_equal(np.isfinite(error), possible)
    expected = dadapy(_gaussian(n_points, 3))
    np.testing.assert_allclose((found[possible], error[possible]), expected, rtol=1e-4)


@pytest.mark.parametrize("n_points", [1, 2])
def test_a_cloud_of_too_few_points_has_no_dimension(n_points):
    found, error = estimate(_gaussian(n_points, 3))
    assert np.isnan(found).all() and np.isnan(error).all()


def test_repeated_points_change_no_estimate():
    cloud = _gaussian(400, 5)
    random = np.random.default_rng(1)
    repeated = random.permutation(np.concatenate([cloud, cloud[:150], cloud[:20]]))
    np.testing.assert_allclose(estimate(repeated), estimate(cloud), rtol=1e-9)


def test_a_cloud_of_one_value_has_no_dimension():
    found, error = estimate(np.ones((50, 4)))
    assert np.isnan(found).all() and np.isnan(error).all()


def test_near_coincident_points_are_trimmed_as_in_dadapy():
    cloud = _gaussian(600, 5)
    near = cloud[:10] + 1e-9 * np.random.default_rng(2).normal(size=(10, 5))
    cloud = np.concatenate([cloud, near])
    table = neighbors.neighbor_table(torch.from_numpy(cloud)[None])
    mu = gride.ratios(table.distance[0])[:, 0]
    median, upper = np.percentile(mu, [50, 95])
    trimmed = mu >= median + 20 * (upper - median)
    assert trimmed.sum() == 20
    found, error = estimate(cloud)
    expected = dadapy(cloud)
    np.testing.assert_allclose((found, error), expected, rtol=1e-4)
    untrimmed = (len(mu) - 1) / np.log(mu).sum()
    assert found[0] > 1.2 * untrimmed  # the trimming decides


def test_many_clouds_at_once_give_what_they_give_one_by_one():
    mu = 1 + np.random.default_rng(3).exponential(size=(4, 8, 300))
    mu[1, :, 200:] = np.nan
    mu[2, 3, 1:] = np.nan
    together = np.stack(gride.estimate(mu, SCALES // 2))
    for cloud in range(4):
        for scale in range(8):
            sample = mu[cloud, scale][np.isfinite(mu[cloud, scale])]
            one = gride.estimate(sample, np.array(SCALES[scale] // 2))
            np.testing.assert_allclose(together[:, cloud, scale], np.stack(one), rtol=1e-9)


def _gaussian(n_points, dimension):
    return np.random.default_rng([n_points, dimension]).normal(size=(n_points, dimension))


@pytest.mark.parametrize("n_points", [400, 100])
def test_the_library_itself_can_be_chosen_as_the_estimator_and_gives_the_same_digits(n_points):
    points = torch.from_numpy(np.random.default_rng(3).normal(size=(1, n_points, 6)))
    distance = neighbors.neighbor_table(points).distance[0]
    ours = gride.estimate(gride.ratios(distance).T, SCALES // 2)
    theirs = gride.estimate_by_dadapy(distance)[:2]
    assert np.isfinite(theirs[0]).sum() == (8 if n_points == 400 else 6)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
