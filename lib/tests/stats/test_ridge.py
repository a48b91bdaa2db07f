"""Nested ridge classification against scikit-learn, fit by fit, and where there is nothing to learn."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut

from token_geometry.stats import probes, ridge

RANDOM = np.random.default_rng(0)


def brute_force(points, labels, parts, given=None):
    """The same by scikit-learn, one fit at a time."""
    right = 0
    for train, test in parts:
        x = points
        if given is not None:
            design = np.column_stack([np.ones(len(x)), given])
            x = x - design @ np.linalg.lstsq(design[train], x[train])[0]
        x = (x - x[train].mean(0)) / x[train].std(0) / np.sqrt(x.shape[1])
        y = 2.0 * (labels[:, None] == np.arange(labels.max() + 1)) - 1

        def left_out(penalty, x=x[train], y=y[train]):
            # the center is that of all training points, as the closed form has it for the slopes
            total = 0
            for rest, (one,) in LeaveOneOut().split(x):
                total += ((y[one] - Ridge(penalty).fit(x[rest], y[rest]).predict(x[[one]])) ** 2).sum()
            return total

        best = Ridge(min(ridge.PENALTIES, key=left_out)).fit(x[train], y[train])
        right += int((best.predict(x[test]).argmax(1) == labels[test]).sum())
    return right / len(labels)


@pytest.mark.slow
@pytest.mark.parametrize(("n_classes", "is_given"), [(2, False), (3, False), (2, True)])
def test_accuracies_are_those_of_one_fit_at_a_time(n_classes, is_given):
    labels = np.arange(36) % n_classes
    points = RANDOM.normal(size=(36, 20)) + 0.6 * labels[:, None] * RANDOM.normal(size=20)
    given = RANDOM.normal(size=(36, 2)) + 0.5 * labels[:, None] if is_given else None
    parts = probes.folds(labels, np.arange(36), seed=0)
    labelings = np.stack([labels, RANDOM.permutation(labels), RANDOM.permutation(labels)])
    found = ridge.nested_accuracy(points, labelings, parts, given=given)
    expected = [brute_force(points, one, parts, given) for one in labelings]
    np.testing.assert_allclose(found, expected)
    assert found[0] > found[1:].mean()


def test_what_only_follows_a_given_quantity_tells_nothing_beside_it():
    labels = np.repeat([0, 1], 60)
    given = labels[:, None] + 0.3 * RANDOM.normal(size=(120, 1))
    points = given @ RANDOM.normal(size=(1, 30)) + 0.1 * RANDOM.normal(size=(120, 30))
    parts = probes.folds(labels, np.arange(120), seed=0)
    (plain,) = ridge.nested_accuracy(points, labels[None], parts)
    (fixed,) = ridge.nested_accuracy(points, labels[None], parts, given=given)
    assert plain > 0.9 and abs(fixed - 0.5) < 0.12


def test_permutations_exchange_labels_within_prompts_or_whole_prompts():
    labels, groups = np.repeat([0, 1], 10), np.tile(np.arange(10), 2)
    for one in ridge.permutations(labels, groups, n=20, seed=0):
        assert (one[:10] + one[10:] == 1).all()  # every prompt keeps one of each
    labels, groups = np.repeat([0, 1, 1], 4), np.repeat(np.arange(6), 2)
    found = ridge.permutations(labels, groups, n=50, seed=0)
    assert (found[:, ::2] == found[:, 1::2]).all() and {tuple(sorted(one)) for one in found} == {
        tuple(sorted(labels))
    }
    assert len({tuple(one) for one in found}) > 5


def test_groups_of_one_point_each_are_permuted_as_wholes():
    labels, groups = np.array([0, 1, 0, 1, 1]), np.arange(5)
    found = ridge.permutations(labels, groups, n=20, seed=0)
    assert found.shape == (20, 5) and all(sorted(one) == [0, 0, 1, 1, 1] for one in found)


def test_a_few_points_and_labelings_have_the_accuracies_of_one_fit_at_a_time():
    random = np.random.default_rng(5)
    labelings = np.array([np.arange(14) % 2, np.arange(14) // 7])
    points = random.normal(size=(14, 4)) + labelings.T @ random.normal(size=(2, 4))
    parts = probes.folds(labelings[0], np.arange(14), seed=0)[:2]
    found = ridge.nested_accuracy(points, labelings, parts)
    np.testing.assert_allclose(found, [brute_force(points, one, parts) for one in labelings])
