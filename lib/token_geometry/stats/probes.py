"""Probes of labelled points: principal components, linear classifiers, directions, and how sure they are.

Arrays in, arrays out. Points have the shape (point, coordinate) and are float64; labels the shape (point,)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.special import ndtri

from token_geometry.stats.intervals import CONFIDENCE

N_FOLDS = 5  # folds of the cross-validation, or fewer where a class has fewer points

PENALTY = 100
"""Weight of the squared norm in logistic regression (1/C), on coordinates of variance 1 on average; with
less, the fit takes longer and finds less."""

N_COMPONENTS = 100
"""Leading principal components in which probes look for their direction: what lies in the others is little,
and with as many coordinates as points any labels could be learned."""

CCS_RESTARTS, CCS_STEPS, CCS_RATE = 4, 100, 0.05
"""Random starts of CCS, of which that with the smallest loss is kept; steps of each; learning rate (Adam)."""


class Components(NamedTuple):
    """Principal components of a cloud."""

    axes: np.ndarray  # unit vectors, largest variance first, shape (component, coordinate)
    scores: np.ndarray  # the centred points along the axes, shape (point, component)
    variance_ratio: np.ndarray  # share of the variance along each axis, shape (component,)


def principal_components(points: np.ndarray, labels: np.ndarray | None = None) -> Components:
    """All principal components, unscaled; with labels, axes point to the larger ones, alike at every layer."""
    centred = points - points.mean(axis=0)
    # of the two matrices of scalar products, the smaller one: several times faster than the points' SVD
    if len(points) <= points.shape[1]:
        size, left = _singular_values(centred @ centred.T)
        axes = (centred.T @ left / np.where(size > 0, size, 1)).T
        scores = left * size
    else:
        size, right = _singular_values(centred.T @ centred)
        axes, scores = right.T, centred @ right
    if labels is not None:
        sign = np.where(scores.T @ (labels - labels.mean()) < 0, -1.0, 1.0)
        scores, axes = scores * sign, axes * sign[:, None]
    variance = size**2
    return Components(axes, scores, variance / (variance.sum() or 1.0))


def _singular_values(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values and vectors from scalar products, those left out that are rounding; at least one."""
    # numpy's is a fifth slower for a few hundred points
    values, vectors = eigh(products, driver="evd", overwrite_a=True, check_finite=False)
    size = np.sqrt(np.maximum(values[::-1], 0))
    n_kept = max(1, int((size > 1e-6 * size[0]).sum()))
    # numpy multiplies an array that runs backwards without BLAS, fifty times slower
    return size[:n_kept], np.ascontiguousarray(vectors[:, ::-1][:, :n_kept])


Folds = list[tuple[np.ndarray, np.ndarray]]
"""Training and test points of each fold."""


def folds(labels: np.ndarray, groups: np.ndarray, *, seed: int) -> Folds:
    """Folds with the classes in proportion; a group is in one, as statements that differ in one word must be."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    places, seed = np.zeros((len(labels), 1)), seed % 2**32  # scikit-learn takes no larger one
    n_groups = min(len(set(groups[labels == label].tolist())) for label in np.unique(labels))
    if n_groups >= 2:
        split = StratifiedGroupKFold(min(N_FOLDS, n_groups), shuffle=True, random_state=seed)
        found = list(split.split(places, labels, groups))
        if all(len(set(labels[train])) == len(set(labels)) and len(test) for train, test in found):
            return found
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    return list(StratifiedKFold(min(N_FOLDS, smallest), shuffle=True, random_state=seed).split(places, labels))


def interval(n_right: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a share of independent answers [J. Am. Stat. Assoc. 22, 209 (1927)]."""
    z2 = ndtri(0.5 + CONFIDENCE / 2) ** 2
    share = n_right / n
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return center - half, center + half


Fit = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From centred points and their labels to weights, of shape (1, coordinate) and positive for the label 1, or of
shape (class, coordinate)."""


def logistic_regression(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Logistic regression without intercept, with an L2 penalty of weight `PENALTY`."""
    from sklearn.linear_model import LogisticRegression

    unit = np.sqrt((points**2).mean()) or 1.0
    model = LogisticRegression(C=1 / PENALTY, fit_intercept=False, max_iter=2000)
    return model.fit(points / unit, labels).coef_ / unit


def mass_mean(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Difference of the class means (Marks & Tegmark, arXiv:2310.06824)."""
    return (points[labels == 1].mean(axis=0) - points[labels == 0].mean(axis=0))[None]


def mass_means(points: np.ndarray, labelings: np.ndarray) -> np.ndarray:
    """The same for many labelings of shape (labeling, point), shape (labeling, coordinate)."""
    n_true = labelings.sum(axis=1, keepdims=True)
    n_false = labelings.shape[1] - n_true
    return (labelings / np.maximum(n_true, 1) - (1 - labelings) / np.maximum(n_false, 1)) @ points


def mass_mean_whitened(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Difference of the class means, times the inverse of the covariance within the classes.

    The covariance of few points is uncertain: shrunk after Ledoit & Wolf, J. Multivar. Anal. 88, 365 (2004)."""
    from sklearn.covariance import ledoit_wolf

    means = np.stack([points[labels == label].mean(axis=0) for label in (0, 1)])
    within, _ = ledoit_wolf(points - means[labels], assume_centered=True)
    if not within.any():  # all points are one
        return np.zeros((1, points.shape[1]))
    return np.linalg.solve(within, means[1] - means[0])[None]


FITS: dict[str, Fit] = {
    "logistic_regression": logistic_regression,
    "mass_mean": mass_mean,
    "mass_mean_whitened": mass_mean_whitened,
}
"""Probes that learn from one data set."""

PAIRED = ("ccs", "truth_direction")  # probes that learn from a data set and its opposite together

TITLES = {
    "logistic_regression": "logistic regression",
    "mass_mean": "mass-mean",
    "mass_mean_whitened": "mass-mean, whitened",
    "ccs": "CCS",
    "truth_direction": "truth direction",
}
"""Names that a reader sees."""


def cross_validate(fit: Fit, points: np.ndarray, labels: np.ndarray, parts: Folds) -> float:
    """Share of points whose label a probe finds that was fitted to the other folds, and centred by their mean."""
    classes, right = np.unique(labels), 0
    for train, test in parts:
        if len(found := set(labels[train].tolist())) == 1:  # so few points that nothing else can be learned
            right += int((labels[test] == found.pop()).sum())
            continue
        mean = points[train].mean(axis=0)
        scores = (points[test] - mean) @ fit(points[train] - mean, labels[train]).T
        place = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)
        right += int((classes[place] == labels[test]).sum())
    return right / len(labels)


def separation(scores: np.ndarray, labels: np.ndarray, parts: Folds) -> float:
    """Cross-validated accuracy of logistic regression with intercept on the first two components."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    plane = scores[:, :2] / (np.sqrt((scores[:, :2] ** 2).mean()) or 1.0)
    return float((cross_val_predict(LogisticRegression(), plane, labels, cv=parts) == labels).mean())


def variance_ratio(points: np.ndarray, labels: np.ndarray) -> float:
    """Variance between class means over that within, mean over coordinates that vary [arXiv:2407.12831]."""
    classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.stack([points[labels == label].mean(axis=0) for label in classes])
    within = ((points - means[place]) ** 2).mean(axis=0)
    between = (counts[:, None] * (means - points.mean(axis=0)) ** 2).sum(axis=0) / len(labels)
    varies = within > 0
    return float((between[varies] / within[varies]).mean()) if varies.any() else 0.0


def truth_directions(sets: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> np.ndarray:
    """Directions of truth, and of truth times polarity, by least squares.

    With τ = ±1 for true and false and p = ±1 for affirmative and negated, the centred points of each data set
    are fitted by τ t_G + τ p t_P (Bürger et al., arXiv:2407.12831), shape (2, coordinate). `sets` are centred
    points, labels 0 and 1, and polarity of each data set; both polarities must occur."""
    truth = np.concatenate([2.0 * labels - 1 for _, labels, _ in sets])
    polarity = np.concatenate([np.full(len(labels), float(p)) for _, labels, p in sets])
    design = np.stack([truth, truth * polarity], axis=1)
    return np.linalg.lstsq(design, np.concatenate([points for points, _, _ in sets]), rcond=None)[0]


def truth_direction(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """t_G of `truth_directions` for a data set and its negation, each centred; `labels` are those of the first."""
    return truth_directions([(first, labels, 1), (second, 1 - labels, -1)])[:1]


def contrast_consistent_search(
    first: np.ndarray, second: np.ndarray, masks: np.ndarray, *, seed: int
) -> np.ndarray:
    """CCS: directions whose answers to a statement and to its opposite add up to one, found without labels.

    Burns et al., arXiv:2212.03827: p(x) = σ(w·x + b), loss (p(x⁺) + p(x⁻) − 1)² +
    min(p(x⁺), p(x⁻))². All folds and random starts are one optimization.

    `first` and `second` are points of a data set and of its opposite, shape (pair, coordinate); `masks` says
    which pairs each fold trains on, shape (fold, pair), and each fold centres both sets by those. Gives weights
    and, last, b for coordinates of variance 1 on average, shape (fold, coordinate + 1), of arbitrary sign."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    n_folds, width = len(masks), first.shape[1]
    unit = float(np.sqrt(((first - first.mean(axis=0)) ** 2).mean())) or 1.0
    sides = torch.tensor(np.stack([first, second]) / unit, dtype=torch.float32)
    # one column per fold and random start
    share = torch.tensor(masks / masks.sum(axis=1, keepdims=True), dtype=torch.float32)
    share = share.repeat_interleave(CCS_RESTARTS, dim=0).T
    means = sides.transpose(1, 2) @ share
    weights = torch.randn(width, share.shape[1], generator=generator) / width**0.5
    shift = torch.zeros(share.shape[1])
    optimizer = torch.optim.Adam([weights, shift], lr=CCS_RATE, fused=True)

    def answers() -> torch.Tensor:
        return torch.sigmoid(sides @ weights - (means * weights).sum(dim=1, keepdim=True) + shift)

    # the gradient by hand: autograd would take five times as long for so small a problem
    for _ in range(CCS_STEPS):
        answer = answers()
        slope = answer.sum(dim=0) - 1 + answer * (answer == answer.amin(dim=0))
        slope *= 2 * share * answer * (1 - answer)
        total = slope.sum(dim=1, keepdim=True)
        weights.grad = (sides.transpose(1, 2) @ slope - means * total).sum(dim=0)
        shift.grad = total.sum(dim=(0, 1))
        optimizer.step()
    answer = answers()
    losses = (((answer.sum(dim=0) - 1) ** 2 + answer.amin(dim=0) ** 2) * share).sum(dim=0)
    start = losses.view(n_folds, CCS_RESTARTS).argmin(dim=1)
    best = torch.arange(n_folds) * CCS_RESTARTS + start
    return torch.cat([weights / unit, shift[None]])[:, best].T.double().numpy()
