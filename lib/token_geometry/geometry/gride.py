"""GRIDE: intrinsic dimension from the ratio of two neighbor distances, at many scales at once.

With n1 = n2/2 and mu = r_n2 / r_n1, the density of mu given the dimension d is

    p(mu | d) = d (mu^d - 1)^(n2-n1-1) / [ B(n2-n1, n1) mu^((n2-1) d + 1) ]

(Denti, Doimo, Laio, Mira, Sci. Rep. 12, 20005 (2022)). d is found by maximum likelihood; its error
is the inverse square root of the Fisher information. The conventions that decide digits are those of
DADApy's `return_id_scaling_gride`, and are stated where they are applied."""

import numpy as np

_LOWEST, _HIGHEST = 1e-3, 1e3  # bracket of the dimension, as in DADApy

# Relative step at which Newton's method stops; the step before it was the square root of this.
_TOLERANCE = 1e-11

# DADApy keeps 1 - mu^-d away from zero by these: in the score and in the Fisher information.
_FLOOR_SCORE = 2e-7
_FLOOR_FISHER = 5 * np.finfo(np.float64).eps


def ratios(distance: np.ndarray) -> np.ndarray:
    """Ratios mu of the distances to neighbors of rank 2n and n, shape (..., n_points, n_ranks - 1).

    They come from the distances to the neighbors of rank 1, 2, 4 …, shape (..., n_points, n_ranks), and are NaN
    where one is missing. A ratio of exactly 1 is nudged by ten units of the last place, as in DADApy."""
    mu = distance[..., 1:] / distance[..., :-1]
    return np.where(mu == 1, 1 + 10 * np.finfo(np.float64).eps, mu)


def estimate(mu: np.ndarray, n1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dimension and its error for many samples of mu, of shape (...); NaN where fewer than two ratios are left.

    `mu` are ratios r_{2 n1} / r_{n1}, shape (..., n_points), NaN for points that do not take part, and `n1` the
    rank of the nearer neighbor, broadcast against the leading dimensions. Ratios of at least q50 + 20 (q95 -
    q50) do not enter the likelihood (points that nearly coincide), but do enter the Fisher information; the
    score counts N - 1 points, not N. Both as in DADApy 0.3."""
    shape = mu.shape[:-1]
    mu = mu.reshape(-1, mu.shape[-1])
    n1 = np.broadcast_to(n1, shape).reshape(-1, 1).astype(float)
    present = np.isfinite(mu)
    usable = present.sum(1) >= 2
    dimension, error = np.full(len(mu), np.nan), np.full(len(mu), np.nan)
    if usable.any():
        mu, n1, present = mu[usable], n1[usable], present[usable]
        log_mu = np.log(np.where(present, mu, 1.0))
        whole, cuts = present.all(1), np.empty((2, len(mu)))
        for rows, percentile in ((whole, np.percentile), (~whole, np.nanpercentile)):  # the second is much slower
            if rows.any():
                cuts[:, rows] = percentile(np.where(present[rows], mu[rows], np.nan), [50, 95], axis=1)
        median, upper = cuts
        kept = present & (mu < (20 * (upper - median) + median)[:, None])
        dimension[usable] = _maximum_likelihood(log_mu, kept, n1)
        # the inverse square root of the observed information
        d = dimension[usable][:, None]
        power = np.exp(-d * log_mu)
        terms = np.where(present, (log_mu / np.maximum(1 - power, _FLOOR_FISHER)) ** 2 * power, 0.0)
        error[usable] = (present.sum(1) / d[:, 0] ** 2 + ((n1 - 1) * terms).sum(1)) ** -0.5
    return dimension.reshape(shape), error.reshape(shape)


def _maximum_likelihood(log_mu: np.ndarray, kept: np.ndarray, n1: np.ndarray) -> np.ndarray:
    """Root in d of the score, by Newton's method inside a shrinking bracket, shape (m,)."""
    from scipy import special

    n_kept, weight = kept.sum(1), np.where(kept, log_mu, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # d log mu is minus the logarithm of a Beta(n1, n1) variable, whose mean is psi(n1) - psi(2 n1): exact
        # for n1 = 1, and near the root for the others
        expected = special.digamma(2 * n1[:, 0]) - special.digamma(n1[:, 0])
        d = np.nan_to_num(expected * (n_kept - 1) / weight.sum(1), nan=_HIGHEST)
    d = np.clip(d, _LOWEST, _HIGHEST)
    low, high = np.full(len(d), _LOWEST), np.full(len(d), _HIGHEST)
    open_ = np.flatnonzero(n1[:, 0] > 1)
    for _ in range(100):
        if not open_.size:
            break
        now = d[open_]
        score, slope = _score(now, weight[open_], n_kept[open_], n1[open_])
        low[open_] = np.where(score > 0, now, low[open_])
        high[open_] = np.where(score > 0, high[open_], now)
        step = now - score / np.where(slope < 0, slope, -np.inf)
        inside = (slope < 0) & (step > low[open_]) & (step < high[open_])
        d[open_] = np.where(inside, step, (low[open_] + high[open_]) / 2)
        open_ = open_[np.abs(d[open_] - now) > _TOLERANCE * now]
    return d


def _score(d, weight, n_kept, n1) -> tuple[np.ndarray, np.ndarray]:
    """Derivative of the log-likelihood at d, which falls in d, and its own derivative, shape (m,).

    (N - 1)/d + sum_i [ (n1 - 1)/(1 - mu_i^-d) - (2 n1 - 1) ] log mu_i; `weight` is log mu, 0 if left out."""
    power = np.exp(-d[:, None] * weight)
    gap = 1 - power
    floored = gap < _FLOOR_SCORE
    gap[floored] = _FLOOR_SCORE
    share = weight / gap
    score = (n_kept - 1) / d + (n1[:, 0] - 1) * share.sum(1) - (2 * n1[:, 0] - 1) * weight.sum(1)
    power[floored] = 0
    return score, -(n_kept - 1) / d**2 - (n1[:, 0] - 1) * (power * share**2).sum(1)
