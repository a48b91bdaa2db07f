"""Overlap, reciprocity, cosine similarity and angles against counts, one token at a time."""

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.metrics.pairwise import cosine_similarity

from token_geometry.geometry import neighbors, overlap
from token_geometry.observables import labelled


def random_neighbors(n_layers, n_points, n_neighbors, n_near):
    """Lists of `n_neighbors` among the `n_near` that follow a token, itself left out."""
    random = np.random.default_rng([n_points, n_neighbors])
    draw = [[1 + random.permutation(n_near)[:n_neighbors] for _ in range(n_points)] for _ in range(n_layers)]
    return (np.arange(n_points)[:, None] + draw) % n_points


def share_of_common(first, second, k):
    """Mean over tokens of the share of common members of their sets of k neighbors."""
    return np.mean([len({*a[:k]} & {*b[:k]}) / k for a, b in zip(first, second, strict=True)])


def test_overlap_is_the_share_of_common_neighbors():
    index = random_neighbors(4, 120, 31, 60)
    found = overlap.neighborhood_overlap(index)
    assert found.shape == (4, 31)
    for layer in range(3):
        for k in range(1, 32):
            expected = share_of_common(index[layer], index[layer + 1], k)
            assert found[layer, k - 1] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(found[3]).all()  # the last layer has no next one


def test_a_layer_overlaps_wholly_with_itself_whatever_the_order_of_neighbors():
    index = random_neighbors(1, 80, 16, 40)[0]
    assert (overlap.neighborhood_overlap(np.stack([index, index]))[0] == 1).all()
    turned = overlap.neighborhood_overlap(np.stack([index, index[:, ::-1]]))[0]
    assert turned[-1] == 1 and turned[0] == 0


def test_reciprocity_is_the_share_of_mutual_edges():
    index = random_neighbors(2, 90, 31, 89)
    found = overlap.reciprocity(index)
    for layer in range(2):
        for k in range(1, 32):
            edges = {(i, int(j)) for i, near in enumerate(index[layer]) for j in near[:k]}
            mutual = sum((j, i) in edges for i, j in edges)
            assert found[layer, k - 1] == pytest.approx(mutual / (90 * k), abs=1e-12)


def test_layer_overlap_compares_16_neighbors_of_any_two_layers():
    index = random_neighbors(5, 70, 32, 50)
    found = overlap.layer_overlap(index)
    for first in range(5):
        for second in range(5):
            expected = share_of_common(index[first], index[second], 16)
            assert found[first, second] == pytest.approx(expected, abs=1e-12)


def test_neighbors_that_a_short_prompt_has_not_make_no_overlap():
    index = random_neighbors(3, 20, 32, 32)
    index[:, :, 19:] = -1
    for values in (overlap.neighborhood_overlap(index)[0], overlap.reciprocity(index)[0]):
        assert np.isfinite(values[:19]).all() and np.isnan(values[19:]).all()


def test_overlap_of_real_prompts_agrees_with_counted_sets(readings, clouds):
    # Repeated tokens tie at layer 0, and there both sides take the lower index first;
    # the distances of all other layers are different ones.
    for reading, layers in zip(readings, clouds, strict=True):
        assert [layer.tied for layer in layers] == [True] + [False] * 30
        found = reading.observed["neighborhood_overlap"].transpose("layer", "k")
        assert found["k"].values.tolist() == list(range(1, 32))
        expected = np.array(
            [
                [share_of_common(here, there, k) for k in range(1, 32)]
                for here, there in zip(neighbor_lists(layers), neighbor_lists(layers)[1:], strict=False)
            ]
        )
        np.testing.assert_allclose(found[:-1], expected, rtol=0, atol=1e-6)


def neighbor_lists(layers):
    return [layer.nearest.tolist() for layer in layers]


def test_cosine_similarity_of_real_prompts_agrees_with_all_pairs(readings):
    for reading in readings:
        pairs = [cosine_similarity(points.astype(np.float64)) for points in reading.hidden]
        mean = [matrix.mean() for matrix in pairs]
        deviation = [matrix.std() for matrix in pairs]
        observed = reading.observed
        np.testing.assert_allclose(observed["cosine_similarity"], mean, rtol=0, atol=1e-6)
        np.testing.assert_allclose(observed["cosine_similarity_std"], deviation, rtol=0, atol=1e-6)


CLOUDS = {
    "more points than coordinates": lambda random: random.normal(size=(200, 8)),
    "more coordinates than points": lambda random: random.normal(size=(8, 50)),
    "two blocks of rows": lambda random: random.normal(size=(300, 64)) + 1,
    "far from the origin": lambda random: random.normal(size=(300, 64)) + 1e3,
    "beside a huge point": lambda random: random.normal(size=(300, 64)) * np.r_[1e6, np.ones(299)][:, None],
    "beside a tiny point": lambda random: random.normal(size=(300, 64)) * np.r_[1e-6, np.ones(299)][:, None],
    "beside a zero": lambda random: random.normal(size=(300, 64)) * np.r_[0, np.ones(299)][:, None],
    "one point": lambda random: random.normal(size=(1, 5)),
    "huge": lambda random: random.normal(size=(150, 5)) * 1e25,
    "tiny": lambda random: random.normal(size=(150, 5)) * 1e-25,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CLOUDS)
def test_cosine_similarity_is_that_of_all_pairs_whatever_the_cloud(name, dtype):
    cloud = CLOUDS[name](np.random.default_rng(6)).astype(dtype)
    table = neighbors.neighbor_table(torch.from_numpy(cloud)[None])
    # scikit-learn takes norms of 1e-15 for zero
    pairs = cosine_similarity(cloud.astype(np.float64) / np.abs(cloud).max())
    assert table.cosine[0] == pytest.approx(pairs.mean(), abs=1e-6)
    assert table.cosine_std[0] == pytest.approx(pairs.std(), abs=1e-6)


def test_the_histogram_of_angles_holds_every_distinct_point_once_and_180_degrees_in_the_last_bin():
    angles = np.random.default_rng(0).uniform(0, 180, (3, 50)).astype(np.float32)
    angles[0, :10] = np.nan  # points that repeat others
    angles[1, :2] = 0, 180
    angles[2] = np.nan
    shard = xr.Dataset({"neighbor_angle": (("layer", "token"), angles)})
    shares = labelled.neighbor_angle_histogram(shard)["neighbor_angle_histogram"]
    edges = np.arange(0, 181, 5)
    for layer, count in ((0, 40), (1, 50)):
        expected = np.histogram(angles[layer][np.isfinite(angles[layer])], edges)[0] / count
        assert shares[layer].values == pytest.approx(expected, abs=1e-6)
    assert shares[2].isnull().all()
    assert shares["angle"].values.tolist() == (edges[:-1] + 2.5).tolist()
