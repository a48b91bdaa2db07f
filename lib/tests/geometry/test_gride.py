"""GRIDE: against DADApy on real prompts, and against what is known without it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from oracles import LAYERS, clouds, gaussian, of_points, pinned
from scipy.spatial.distance import cdist

from token_geometry.geometry import dadapy, gride, neighbors
from token_geometry.observables import labelled

SCALES = np.array([2, 4, 8, 16, 32, 64, 128, 256])


def estimate(points):
    """Dimension and error of one cloud at every scale."""
    table = neighbors.neighbor_table(torch.as_tensor(points)[None])
    return gride.estimate(gride.ratios(table.distance[0]).T, SCALES // 2)


def test_estimates_of_real_layers_agree_with_the_pinned_ones_of_dadapy():
    tables = pinned("tables")
    assert tables.shape == (len(LAYERS), 1024, 9)
    distance = tables.astype(np.float64)
    found = gride.estimate(np.moveaxis(gride.ratios(distance), -1, -2), SCALES // 2)
    np.testing.assert_allclose(found, pinned("layers")[:2], rtol=1e-6)


def test_every_layer_of_real_prompts_agrees_with_dadapy_at_every_scale(readings, clouds, live_dadapy):
    for reading, layers in zip(readings, clouds, strict=True):
        expected = dadapy.estimate(np.stack([layer.table for layer in layers]))
        names = ("intrinsic_dimension", "intrinsic_dimension_error", "neighbor_distance")
        for name, theirs in zip(names, expected, strict=True):
            found = reading.observed[name]
            assert found["scale"].values.tolist() == SCALES.tolist() and theirs.shape == (31, 8)
            np.testing.assert_allclose(found.transpose("layer", "scale"), theirs, rtol=1e-4)


@pytest.mark.parametrize("name", clouds())
def test_pinned_digits_are_those_of_dadapy(name, live_dadapy):
    np.testing.assert_allclose(of_points(clouds()[name]), pinned(name), rtol=1e-9)


def test_repeated_tokens_of_the_embedding_layer_are_counted_once(readings, clouds):
    for reading, layers in zip(readings, clouds, strict=True):
        n_distinct = [layer.n_distinct for layer in layers]
        assert n_distinct[0] < 1024  # else this prompt shows nothing
        assert reading.observed["n_points"].values.tolist() == n_distinct


@pytest.mark.parametrize("dimension", [1, 2, 5, 9])
def test_gride_recovers_the_dimension_of_agaussian(dimension):
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
    table = neighbors.neighbor_table(torch.from_numpy(gaussian(500, 6))[None])
    mu = gride.ratios(table.distance[0])[:, 0]
    found, _ = gride.estimate(mu, np.array(1))
    assert found == pytest.approx((len(mu) - 1) / np.log(mu).sum(), rel=1e-9)


def test_ratios_of_exactly_one_are_nudged_as_in_dadapy():
    grid = clouds()["grid"]
    distances = np.sort(cdist(grid, grid), axis=1)
    mu = gride.ratios(distances[:, neighbors.RANKS])
    assert (distances[:, 1] == distances[:, 2]).all()
    assert (mu > 1).all()
    dimension, error = gride.estimate(mu.T, SCALES // 2)
    expected_dimension, expected_error, _ = pinned("grid")
    np.testing.assert_allclose(dimension, expected_dimension, rtol=1e-4)
    # 1 - mu^-d is here a few units of the last place, so the error holds to some percent only
    np.testing.assert_allclose(error, expected_error, rtol=0.02)


def test_a_ratio_of_one_is_nudged_by_ten_units_of_the_last_place():
    mu = gride.ratios(np.array([[1.0, 1.0, 2.0], [3.0, 3.0, 3.0]]))
    assert mu.tolist() == [[1 + 10 * 2.0**-52, 2.0], [1 + 10 * 2.0**-52] * 2]


def test_two_ratios_are_the_fewest():
    for n_ratios in range(5):
        mu = np.full(6, np.nan)
        mu[:n_ratios] = [1.5, 1.7, 2.0, 2.5][:n_ratios]
        found, error = gride.estimate(mu, np.array(1))
        if n_ratios < 2:
            assert np.isnan(found) and np.isnan(error)
        else:  # the closed form of scale 2
            assert found == pytest.approx((n_ratios - 1) / np.log(mu[:n_ratios]).sum(), rel=1e-9)
            assert error == pytest.approx(found / n_ratios**0.5, rel=1e-9)


@pytest.mark.parametrize("n_points", [5, 9, 40, 257])
def test_scales_beyond_the_number_of_points_are_missing(n_points):
    found, error = estimate(gaussian(n_points, 3))
    possible = SCALES < n_points
    np.testing.assert_array_equal(np.isfinite(found), possible)
    np.testing.assert_array_equal(np.isfinite(error), possible)
    np.testing.assert_allclose((found, error), pinned(f"gaussian{n_points}")[:2], rtol=1e-4)


@pytest.mark.parametrize("n_points", [1, 2])
def test_a_cloud_of_too_few_points_has_no_dimension(n_points):
    found, error = estimate(gaussian(n_points, 3))
    assert np.isnan(found).all() and np.isnan(error).all()


def test_repeated_points_change_no_estimate():
    cloud = gaussian(400, 5)
    random = np.random.default_rng(1)
    repeated = random.permutation(np.concatenate([cloud, cloud[:150], cloud[:20]]))
    np.testing.assert_allclose(estimate(repeated), estimate(cloud), rtol=1e-9)


def test_a_cloud_of_one_value_has_no_dimension():
    found, error = estimate(np.ones((50, 4)))
    assert np.isnan(found).all() and np.isnan(error).all()


def test_near_coincident_points_are_trimmed_as_in_dadapy():
    cloud = clouds()["near"]
    table = neighbors.neighbor_table(torch.from_numpy(cloud)[None])
    mu = gride.ratios(table.distance[0])[:, 0]
    median, upper = np.percentile(mu, [50, 95])
    trimmed = mu >= median + 20 * (upper - median)
    assert trimmed.sum() == 20
    found, error = estimate(cloud)
    np.testing.assert_allclose((found, error), pinned("near")[:2], rtol=1e-4)
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


@pytest.mark.parametrize("n_points", [400, 100])
def test_dadapy_can_be_chosen_as_the_estimator_and_gives_the_same_digits(n_points, live_dadapy):
    points = torch.from_numpy(np.random.default_rng(3).normal(size=(2, n_points, 6)))
    distance = neighbors.neighbor_table(points).distance
    shard = xr.Dataset({"neighbor_distance": (("layer", "token", "rank"), distance)})
    ours, theirs = (labelled.intrinsic_dimension(shard, estimator=name) for name in labelled.ESTIMATORS)
    assert theirs["intrinsic_dimension"].count("scale").values.tolist() == [8 if n_points == 400 else 6] * 2
    xr.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.slow
def test_where_dadapy_cannot_be_had_it_is_refused_in_one_line_and_the_rest_works(tmp_path):
    """uv has no index and nothing in store here, as on a machine without a network."""
    script = (
        "import numpy, xarray\n"
        "from token_geometry.base.errors import InputError\n"
        "from token_geometry.observables import labelled\n"
        "distance = numpy.random.default_rng(0).exponential(size=(1, 50, 9)).cumsum(-1)\n"
        "shard = xarray.Dataset({'neighbor_distance': (('layer', 'token', 'rank'), distance)})\n"
        "assert labelled.intrinsic_dimension(shard)['intrinsic_dimension'].notnull().all()\n"
        "try:\n    labelled.intrinsic_dimension(shard, estimator='dadapy')\n"
        "except InputError as error:\n    print(error)"
    )
    away = {
        "UV_OFFLINE": "1",
        "UV_NO_INDEX": "",  # whatever pip is told, which would be another reason
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "TOKEN_GEOMETRY_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | away, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("DADApy cannot be had here: ") and done.stdout.count("\n") == 1
    assert any(way in done.stdout for way in ("network", "install Python 3.11 or 3.12", "pip install uv"))
    assert not list((tmp_path / "cache").glob("dadapy-*/bin/python"))


@pytest.mark.parametrize("n1", [1, 4, 32])
def test_points_that_do_not_take_part_change_neither_estimate_nor_error(n1):
    mu = 1 + np.random.default_rng(n1).gamma(2, 0.1, 50)
    expected = gride.estimate(mu, np.array(n1))
    found = gride.estimate(np.insert(mu, [0, 7, 50], np.nan), np.array(n1))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
