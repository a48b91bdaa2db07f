"""Ridge classification with nested cross-validation, of many labelings at once."""

import numpy as np

from token_geometry.stats.probes import Folds

PENALTIES = 10.0 ** np.arange(-3, 3)  # weights of the squared norm to choose from, in units of the mean variance


def nested_accuracy(
    points: np.ndarray, labels: np.ndarray, parts: Folds, *, given: np.ndarray | None = None
) -> np.ndarray:
    """Share of points whose class is found by a ridge regression of the other folds, shape (labeling,).

    The points have the shape (point, coordinate), the labels, classes from 0 on, (labeling, point); the parts are
    from `probes.folds`. The linear part of the `given` quantities, shape (point, quantity), is fitted to the
    training folds and taken from every coordinate. The penalty is that with the smallest squared error when each
    point of the training folds is left out in turn, which has a closed form. Coordinates are centered and scaled
    by the training folds."""
    targets = np.where(labels[..., None] == np.arange(labels.max() + 1), 1.0, -1.0).transpose(1, 0, 2)
    right = np.zeros(len(labels))
    for train, test in parts:
        x, y = points, targets[train].reshape(len(train), -1)
        if given is not None:
            design = np.column_stack([np.ones(len(points)), given])
            x = x - design @ np.linalg.lstsq(design[train], x[train], rcond=None)[0]
        spread = x[train].std(axis=0)
        x = (x - x[train].mean(axis=0)) / np.where(spread > 1e-9 * np.abs(x[train]).max(), spread, np.inf)
        mean = y.mean(axis=0)
        values, vectors = np.linalg.eigh(x[train] @ x[train].T / x.shape[1])
        values = np.maximum(values, 0)  # below it is rounding
        turned, across = vectors.T @ (y - mean), x[test] @ x[train].T @ vectors / x.shape[1]
        errors, scores = [], []
        for penalty in PENALTIES:
            shrunk = values / (values + penalty)
            leverage = 1 / len(train) + (vectors**2) @ shrunk
            left_out = (y - mean - vectors @ (shrunk[:, None] * turned)) / (1 - leverage)[:, None]
            errors.append((left_out**2).sum(axis=0).reshape(len(labels), -1).sum(axis=1))
            scores.append(mean + across @ (turned / (values + penalty)[:, None]))
        best = np.stack(scores).reshape(len(PENALTIES), len(test), len(labels), -1)
        chosen = best[np.argmin(errors, axis=0), :, np.arange(len(labels))]
        right += (chosen.argmax(axis=2) == labels[:, test]).sum(axis=1)
    return right / labels.shape[1]


def permutations(labels: np.ndarray, groups: np.ndarray, *, n: int, seed: int) -> np.ndarray:
    """Labelings that say nothing, shape (n, point).

    Within each group that holds several classes, as a prompt does in its own order and shuffled; the other groups,
    which have one label each, are permuted as wholes."""
    random = np.random.default_rng(seed)
    names, place = np.unique(groups, return_inverse=True)
    rows = [np.flatnonzero(place == number) for number in range(len(names))]
    several = [row for row in rows if len(set(labels[row].tolist())) > 1]
    alone = [number for number, row in enumerate(rows) if len(set(labels[row].tolist())) == 1]
    first, is_alone = labels[[rows[number][0] for number in alone]], np.isin(place, alone)
    found = np.tile(labels, (n, 1))
    for one in found:
        for row in several:
            one[row] = random.permutation(labels[row])
        one[is_alone] = random.permutation(first)[np.searchsorted(alone, place[is_alone])]
    return found
