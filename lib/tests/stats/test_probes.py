"""Probes: what decides their numbers, each against a definition that is written out here."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from token_geometry.stats import probes
from token_geometry.studies import truth
from token_geometry.texts.statements import Statements


def cloud(n=60, width=8, apart=0.6, seed=0):
    """Two classes, the second of two thirds of the points, apart along the first coordinate and off the origin."""
    labels = (np.arange(n) % 3 > 0).astype(int)
    points = np.random.default_rng(seed).normal(size=(n, width)) * np.linspace(3, 0.5, width) + 5
    points[:, 0] += apart * labels
    return points, labels


def test_logistic_regression_is_where_the_penalized_likelihood_has_no_slope():
    points, labels = cloud()
    centred = points - points.mean(axis=0)
    (weights,) = probes.logistic_regression(centred, labels)
    unit = np.sqrt((centred**2).mean())
    answers = 1 / (1 + np.exp(-centred @ weights))
    # the penalty is 100 times half the squared norm of the weights of coordinates of variance 1
    slope = centred.T @ (answers - labels) / unit + 100 * weights * unit
    assert np.abs(slope).max() < 1e-3 * np.abs(centred.T @ (answers - labels) / unit).max()


def test_a_test_point_is_centred_by_the_mean_of_the_training_points_alone():
    seen = []

    def along_the_first(points, labels):
        seen.append(points.mean(axis=0))
        return np.array([[1.0, 0.0]])

    # the mean of the first three is 1, that of all four 3.25: a point at 2 is above the one and below the other
    points, labels = np.array([[0.0, 0], [2, 0], [1, 0], [10, 0], [2, 0], [0, 0]]), np.array([0, 1, 1, 1, 1, 0])
    parts = [(np.array([0, 1, 2]), np.array([4])), (np.array([0, 1, 2]), np.array([5]))]
    assert probes.cross_validate(along_the_first, points, labels, parts) == 2 / 6
    assert all(np.allclose(mean, 0) for mean in seen) and len(seen) == 2


def test_the_variance_ratio_weighs_classes_by_their_size():
    points, labels = cloud()
    expected = []
    for column in points.T:
        groups = [column[labels == label] for label in (0, 1)]
        between = sum(len(group) * (group.mean() - column.mean()) ** 2 for group in groups) / len(column)
        within = sum(((group - group.mean()) ** 2).sum() for group in groups) / len(column)
        expected.append(between / within)
    assert probes.variance_ratio(points, labels) == pytest.approx(np.mean(expected), rel=1e-12)
    assert len(points[labels == 0]) != len(points[labels == 1])


@pytest.mark.parametrize("shape", [(60, 8), (20, 40)])
def test_a_component_points_to_where_the_larger_labels_are(shape):
    points, labels = cloud(*shape)
    for sign in (1, -1):
        found = probes.principal_components(points, sign * labels)
        scores = found.scores
        higher = scores[labels == 1].mean(axis=0) - scores[labels == 0].mean(axis=0)
        assert (sign * higher >= -1e-12).all()
        np.testing.assert_allclose((points - points.mean(axis=0)) @ found.axes.T, scores, atol=1e-9)


def test_mass_mean_is_the_difference_of_the_means_from_0_to_1():
    points, labels = cloud()
    (found,) = probes.mass_mean(points, labels)
    np.testing.assert_allclose(found, points[labels == 1].mean(axis=0) - points[labels == 0].mean(axis=0))
    (white,) = probes.mass_mean_whitened(points, labels)
    assert white @ found > 0


def test_separation_takes_two_components_and_an_intercept():
    points, labels = cloud(apart=8)
    parts = probes.folds(labels, np.arange(60), seed=0)
    scores = points - points.mean(axis=0)
    assert probes.separation(scores, labels, parts) > 0.9
    # what only the third coordinate holds is not seen, and guessing finds the larger class
    hidden = scores[:, [4, 5, 0]]
    assert probes.separation(hidden, labels, parts) < 0.75
    assert probes.separation(scores + 3 * scores.std(), labels, parts) > 0.85  # an intercept finds the border


def made(n=240):
    labels = np.arange(n) % 2
    return Statements("own", tuple(map(str, range(n))), labels, tuple(map(str, labels)), np.arange(n), n, 0, 0)


def test_statements_on_one_thing_side_by_side_are_in_one_fold():
    drawn = made()
    pairs = np.arange(240) // 2
    parts = truth.folds(drawn, seed=0)
    assert len(parts) == 5
    assert all(not {*pairs[train]} & {*pairs[test]} for train, test in parts)
    # rows of the file decide, not places among those that were drawn
    odd = Statements(
        *(getattr(drawn, name) for name in ("name", "texts", "labels", "label_names")), pairs * 4, 960, 0, 0
    )
    assert all(len({*odd.rows[test]} & {*odd.rows[train]}) == 0 for train, test in truth.folds(odd, seed=0))


def test_probes_look_for_their_direction_in_a_hundred_components(monkeypatch):
    widths = set()

    def recorded(points, labels):
        widths.add(points.shape[1])
        return np.ones((1, points.shape[1]))

    monkeypatch.setattr(probes, "FITS", dict.fromkeys(probes.FITS, recorded))
    states = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 240, 130)).astype(np.float32))
    truth._over_layers([made()], states, seed=0)
    truth._at_layer([made()], states[0], np.zeros((len(probes.TITLES), 1)), seed=0)
    assert widths == {100}


def test_where_the_training_points_have_one_label_every_answer_is_that_label():
    points, labels = np.zeros((4, 2)), np.array([0, 0, 0, 1])
    parts = [(np.array([0, 1]), np.array([2, 3])), (np.array([3]), np.array([0, 1]))]
    assert probes.cross_validate(probes.mass_mean, points, labels, parts) == 1 / 4


def test_a_score_of_zero_is_an_answer_for_the_first_class():
    points, labels = cloud()
    parts = probes.folds(labels, np.arange(60), seed=0)
    found = probes.cross_validate(lambda points, labels: np.zeros((1, 8)), points, labels, parts)
    assert found == (labels == 0).mean() != (labels == 1).mean()


def test_points_on_a_line_have_one_component():
    line = np.arange(30.0)[:, None] * np.array([1.0, 2, 3, 4]) + 5
    for points in (line, np.repeat(line, 3, axis=1)[:5]):
        found = probes.principal_components(points)
        assert len(found.axes) == len(found.variance_ratio) == 1 and found.variance_ratio[0] == 1


def test_the_unit_of_the_points_is_no_matter_to_ccs():
    points, labels = cloud()
    masks = np.ones((2, 60), dtype=bool)
    masks[1, ::2] = False
    one = probes.contrast_consistent_search(points, -points, masks, seed=0)
    other = probes.contrast_consistent_search(1024 * points, -1024 * points, masks, seed=0)
    np.testing.assert_array_equal(1024 * other[:, :-1], one[:, :-1])
    np.testing.assert_array_equal(other[:, -1], one[:, -1])


def test_many_labelings_have_the_mass_mean_of_each():
    random = np.random.default_rng(1)
    points, labelings = random.normal(size=(20, 5)), random.integers(0, 2, (6, 20))
    expected = [probes.mass_mean(points, one)[0] for one in labelings]
    np.testing.assert_allclose(probes.mass_means(points, labelings), expected)


def test_whitening_is_by_the_shrunk_covariance_within_the_classes():
    random = np.random.default_rng(2)
    labels = np.arange(50) % 5 // 4  # four to one
    points = random.normal(size=(50, 6)) @ random.normal(size=(6, 6)) + 3 * labels[:, None] + 7
    centered = points - np.stack([points[labels == label].mean(axis=0) for label in (0, 1)])[labels]
    within = LedoitWolf(assume_centered=True).fit(centered).covariance_
    expected = np.linalg.inv(within) @ (points[labels == 1].mean(axis=0) - points[labels == 0].mean(axis=0))
    np.testing.assert_allclose(probes.mass_mean_whitened(points, labels)[0], expected)


def test_classes_of_one_group_each_are_in_folds_that_the_seed_draws():
    labels = np.repeat([0, 1], 10)
    drawn = [probes.folds(labels, labels, seed=seed) for seed in (0, 1)]
    for parts in drawn:
        assert np.array_equal(np.sort(np.concatenate([test for _, test in parts])), np.arange(20))
        assert all(labels[test].mean() == labels[train].mean() == 0.5 for train, test in parts)
    assert not all(np.array_equal(*tests) for tests in zip(*([test for _, test in d] for d in drawn), strict=True))
