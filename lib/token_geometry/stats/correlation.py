"""Correlations over prompts with their intervals, and false discoveries among them.

Data come in and go out as xarray objects; the unit of observation is always the prompt. Everything is
done at once for all layers, scales and models, and one resample of the prompts serves them all.

Intervals are BCa bootstrap intervals [DiCiccio & Efron, Statist. Sci. 11, 189 (1996)], as of
`scipy.stats.bootstrap`. Where nothing can be said (too few prompts, a constant), there is NaN."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy import special

from token_geometry.base import one_of
from token_geometry.stats.intervals import CONFIDENCE, FEWEST_PROMPTS, N_RESAMPLES, resample_weights

METHODS = ("pearson", "spearman")
N_PERMUTATIONS = 4999  # permutations of a test by them
_CONSTANT = 1e-12  # a spread of less than this share of the values is rounding
_AT_ONCE = 1 << 23  # entries of the largest array that is held at a time
_N_GROUPS = 200  # groups of prompts that the jackknife leaves out in turn: each alone, unless there are more


def correlate(
    x: xr.DataArray, y: xr.DataArray, *, method: str = "pearson", pool: str | None = None, seed: int = 0,
    given: xr.DataArray | Sequence[xr.DataArray] | None = None, n_resamples: int = N_RESAMPLES,
) -> xr.Dataset:  # fmt: skip
    """Correlation of two quantities over prompts, with bootstrap intervals.

    `x` and `y` have the dimension `prompt` and any others, and are broadcast against one another; prompts that
    lack one of the values do not take part. `method` is `pearson`, or `spearman` for ranks, which each resample
    takes anew; an `InputError` refuses another. `given` is a third quantity, or several, held fixed: the
    result is the partial correlation. Values of the dimension `pool` count as further observations of the same
    prompt, as the shuffle level; they are not independent: prompts are resampled whole, and there is no p-value.

    Returns, over the dimensions other than `prompt` and `pool`: `correlation`; `low` and `high`, its BCa
    interval at `CONFIDENCE`, NaN for less than `FEWEST_PROMPTS` prompts; `p_value`, two-sided by Student's t;
    `n_prompts`. NaN for less than three prompts, and one more for each of `given`, and where one is constant."""
    if method not in METHODS:
        raise one_of("method", method, METHODS)
    sample = [pool, "prompt"] if pool else ["prompt"]
    held = [given] if isinstance(given, xr.DataArray) else given or ()
    variables = xr.broadcast(x, y, *held)
    variables = [v.transpose(*(d for d in v.dims if d not in sample), *sample) for v in variables]
    shape, n_prompts = variables[0].shape[: -len(sample)], variables[0].sizes["prompt"]
    n_values = n_prompts * (variables[0].sizes[pool] if pool else 1)
    values = np.stack([v.values.astype(float).reshape(math.prod(shape), n_values) for v in variables])
    prompt = np.tile(np.arange(n_prompts), n_values // max(n_prompts, 1))
    found = np.full((5, values.shape[1]), np.nan)
    # cells that lack the same prompts share their resamples
    patterns, which = np.unique(np.isfinite(values).all(0), axis=0, return_inverse=True)
    for number, kept in enumerate(patterns):
        cells = np.flatnonzero(which.ravel() == number)
        n_kept = len(np.unique(prompt[kept]))
        found[4, cells] = n_kept
        freedom = n_kept - len(values)  # n - 2, and one less for each quantity held fixed
        if freedom < 1:
            continue
        size = max(1, _AT_ONCE // (max(n_resamples, _N_GROUPS) * int(kept.sum())))
        for some in np.array_split(cells, -(-len(cells) // size)):
            inside = values[:, some][:, :, kept]
            found[:3, some] = _correlation_with_interval(inside, prompt[kept], method, n_resamples, seed)
        if not pool:
            with np.errstate(divide="ignore"):
                t = found[0, cells] * np.sqrt(freedom / (1 - found[0, cells] ** 2))
            found[3, cells] = 2 * special.stdtr(freedom, -np.abs(t))
    template = variables[0].sum(sample).drop_attrs()
    names = ("correlation", "low", "high", "p_value", "n_prompts")
    parts = {name: template.copy(data=part.reshape(shape)) for name, part in zip(names, found, strict=True)}
    attrs = {"method": method, "confidence": CONFIDENCE, "n_resamples": n_resamples, "seed": seed}
    return xr.Dataset(parts, attrs=attrs)


def partial_rank(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Rank correlation of rows of x with y at fixed ranks of further quantities, shape (m,).

    `x` has shape (m, n), `y` (n,), `given` (g, n); what lacks a value is left out. NaN for less than g + 3."""
    found = np.full(len(x), np.nan)
    patterns, which = np.unique(np.isfinite(x) & np.isfinite(y), axis=0, return_inverse=True)
    for number, kept in enumerate(patterns):
        rows = which.ravel() == number
        if kept.sum() < len(given) + 3:
            continue
        ranks = pd.DataFrame(np.vstack([given, y, x[rows]])[:, kept].T).rank().to_numpy()
        fixed, free = np.split(ranks - ranks.mean(0), [len(given)], axis=1)
        basis = np.linalg.svd(fixed, full_matrices=False)[0]
        free -= basis @ (basis.T @ free)
        with np.errstate(invalid="ignore"):
            free /= np.linalg.norm(free, axis=0)
        found[rows] = free[:, 1:].T @ free[:, 0]
    return found


def permutation_p(x: np.ndarray, y: np.ndarray, *given: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two-sided p-values of the correlations of rows of x with y at fixed further quantities, shape (m,).

    `x` has shape (m, n), `y` and each of `given` (n,); NaN for less than three observations and one more for each
    of `given`, and where a value is NaN or all are the same. What `given` leaves of y is permuted `N_PERMUTATIONS`
    times, and `given` is taken away again, after Freedman & Lane, J. Bus. Econ. Stat. 1, 292 (1983)."""
    n, fixed = len(y), np.array([np.ones(len(y)), *given])
    spread = fixed[1:].std(1, keepdims=True)
    if n < len(fixed) + 2 or not (spread > 0).all():
        return np.full(len(x), np.nan)
    fixed[1:] = (fixed[1:] - fixed[1:].mean(1, keepdims=True)) / spread
    basis = np.linalg.qr(fixed.T)[0]

    def rest(rows):
        left = rows - rows @ basis @ basis.T
        size = np.linalg.norm(left, axis=-1, keepdims=True)
        return left / np.where(size > _CONSTANT * np.linalg.norm(rows, axis=-1, keepdims=True), size, np.nan)

    x, y = rest(x), rest(y)
    orders = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (N_PERMUTATIONS, 1)), axis=1)
    found = x @ y
    as_large = (abs(rest(y[orders]) @ x.T) >= abs(found) - _CONSTANT).sum(0)
    return np.where(np.isfinite(found), (1 + as_large) / (1 + N_PERMUTATIONS), np.nan)


def false_discovery(p_values: xr.DataArray, *, over: Sequence[str]) -> xr.DataArray:
    """Benjamini and Hochberg's adjusted p-values: below q, a share of q at most is expected to be false.

    The dimensions `over` make one family of tests, as layer and scale; each entry of the other dimensions is a
    family of its own. The shape is that of `p_values`, which are NaN where nothing was tested.
    After Benjamini & Hochberg, J. R. Stat. Soc. B 57, 289 (1995), by `scipy.stats.false_discovery_control`."""
    dims = [list(over)]
    found = xr.apply_ufunc(adjusted, p_values, input_core_dims=dims, output_core_dims=dims, vectorize=True)
    return found.transpose(*p_values.dims)


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p-values of one family of tests, as of `false_discovery`."""
    from scipy import stats  # it takes a second to import, and most chapters need none of it

    found = np.full(np.shape(p_values), np.nan)
    tested = np.isfinite(p_values)
    if tested.any():
        found[tested] = stats.false_discovery_control(p_values[tested])
    return found


def _correlation_with_interval(values, prompt, method: str, n_resamples: int, seed: int) -> np.ndarray:
    """Correlation and the ends of its interval, shape (3, cell), of values of shape (2 or more, cell, n)."""
    center, spread = values.mean(-1, keepdims=True), values.std(-1, keepdims=True)
    varies = spread > _CONSTANT * np.abs(values).max(-1, keepdims=True)
    values = np.divide(values - center, spread, out=np.full(values.shape, np.nan), where=varies)
    _, prompt = np.unique(prompt, return_inverse=True)
    n_prompts = prompt.max() + 1
    coefficient = _coefficients(values, np.ones((1, len(prompt))), method)[:, 0]
    if n_prompts < FEWEST_PROMPTS:
        return np.stack([coefficient, *np.full((2, len(coefficient)), np.nan)])
    resampled = _coefficients(values, resample_weights(prompt, n_resamples, seed), method)
    n_groups = min(n_prompts, _N_GROUPS)
    left_out = _coefficients(values, (1 - np.eye(n_groups))[:, prompt % n_groups], method)
    return np.stack([coefficient, *_bca(coefficient, resampled, left_out)])


def _coefficients(values: np.ndarray, weights: np.ndarray, method: str) -> np.ndarray:
    """Weighted correlation of the first two variables at fixed others, shape (cell, resample)."""
    if method == "spearman":
        values = np.stack([_ranks(variable, weights) for variable in values])
    total = weights.sum(1)

    def mean(variable):
        # ranks are those of each resample, values are the same in all
        return (variable @ weights.T if variable.ndim == 2 else np.einsum("crn,rn->cr", variable, weights)) / total

    means = [mean(variable) for variable in values]
    variances = (mean(v * v) - m * m for v, m in zip(values, means, strict=True))
    deviations = [np.sqrt(np.where(variance > _CONSTANT, variance, np.nan)) for variance in variances]

    n = len(values)
    matrix = np.ones((n, n, *means[0].shape))
    for i, j in itertools.combinations(range(n), 2):
        covariance = mean(values[i] * values[j]) - means[i] * means[j]
        matrix[i, j] = matrix[j, i] = np.clip(covariance / (deviations[i] * deviations[j]), -1, 1)
    for k in range(n - 1, 1, -1):  # what is held fixed is taken out, one after another
        pivot = np.where(matrix[k, k] > _CONSTANT, matrix[k, k], np.nan)
        matrix = matrix - matrix[:, None, k] * matrix[None, k] / pivot
    rest = matrix[0, 0] * matrix[1, 1]
    return np.clip(matrix[0, 1] / np.sqrt(np.where(rest > _CONSTANT, rest, np.nan)), -1, 1)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank of every value in every resample over its size, shape (cell, resample, n); ties share a rank."""
    ranks = np.empty((len(values), *weights.shape))
    for cell, row in enumerate(values):
        order = row.argsort()
        different, place = np.unique(row, return_inverse=True)
        counts = weights[:, order]
        if len(different) < len(row):
            counts = np.add.reduceat(counts, np.searchsorted(row[order], different), axis=1)
        ranks[cell] = (counts.cumsum(1) - counts / 2)[:, place] / len(row)
        if np.isnan(row).any():
            ranks[cell] = np.nan
    return ranks


def _bca(coefficient: np.ndarray, resampled: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Ends of the BCa interval, shape (2, cell)."""
    known, center = np.isfinite(resampled), coefficient[:, None]
    below = ((resampled < center).sum(1) + (resampled <= center).sum(1)) / 2 / np.maximum(known.sum(1), 1)
    bias = special.ndtri(below)
    change = left_out.mean(1, keepdims=True) - left_out
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration = (change**3).sum(1) / (6 * (change**2).sum(1) ** 1.5)
        ends = []
        for z in special.ndtri([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]):
            shifted = bias + z
            ends.append(special.ndtr(bias + shifted / (1 - acceleration * shifted)))
    interval = np.full((2, len(coefficient)), np.nan)
    for cell in np.flatnonzero(np.isfinite(ends).all(0) & known.any(1)):
        interval[:, cell] = np.quantile(resampled[cell][known[cell]], [ends[0][cell], ends[1][cell]])
    return interval
