"""Cosine similarity: the mean and deviation over all pairs, whatever the length of the points."""

import numpy as np
import pytest
import torch

from token_geometry.geometry import cosine, neighbors


def expected(points):
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return (unit @ unit.T).mean(), (unit @ unit.T).std()


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-3, 1, 1e6, 1e30])
@pytest.mark.parametrize("shape", [(50, 8), (20, 64)])
def test_the_length_of_the_points_is_no_matter(size, shape):
    points = np.random.default_rng(0).normal(size=shape) + 0.5
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        if dtype == np.float32 and not 1e-12 <= size <= 1e12:
            continue
        scaled = torch.from_numpy((points * size).astype(dtype))
        assert cosine.similarity(scaled) == pytest.approx(expected(points), rel=tolerance)
        table = neighbors.neighbor_table(scaled[None])
        assert (table.cosine[0], table.cosine_std[0]) == pytest.approx(expected(points), rel=10 * tolerance)


def test_points_of_very_different_length_count_alike():
    points = np.random.default_rng(1).normal(size=(40, 16))
    lengths = np.geomspace(1e-6, 1e3, 40)[:, None]
    scaled = torch.from_numpy((points * lengths).astype(np.float32))
    assert cosine.similarity(scaled) == pytest.approx(expected(points), rel=1e-5)
    table = neighbors.neighbor_table(scaled[None])
    assert (table.cosine[0], table.cosine_std[0]) == pytest.approx(expected(points), rel=1e-4)


def test_a_zero_vector_is_at_a_right_angle_to_all():
    points = np.eye(4)
    points[3] = 0
    cosines = points @ points.T
    found = cosine.similarity(torch.from_numpy(points))
    assert found == pytest.approx((cosines.mean(), cosines.std()))
