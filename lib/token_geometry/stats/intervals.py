"""Means over prompts with their intervals, differences between shuffle levels, and resamples of the prompts.

Intervals are Student's. Below `FEWEST_PROMPTS` prompts there is none, and a p-value is that of the sign test,
which asks nothing of the distribution. Where nothing can be said, there is NaN.
"""

import numpy as np
import xarray as xr
from scipy import special

CONFIDENCE = 0.95
"""Level of all intervals."""

FEWEST_PROMPTS = 8
"""Below this number of prompts nothing gets an interval."""

N_RESAMPLES = 1000
"""Resamples of a bootstrap."""


def mean_interval(values: xr.DataArray) -> xr.Dataset:
    """Mean over prompts, with Student's interval, of values that are NaN where a prompt has none.

    Returns `mean`; `low` and `high`, its interval at `CONFIDENCE`, which needs `FEWEST_PROMPTS`; `p_value` of a
    mean of zero, two-sided, which needs two; `n_prompts`; `n_same_sign`, how many prompts have the sign of the
    mean. NaN for no prompt.
    """
    n = values.count("prompt")
    mean = values.mean("prompt")
    same_sign = (np.sign(values) == np.sign(mean)).where(values.notnull(), False).sum("prompt")
    freedom = (n - 1).where(n >= FEWEST_PROMPTS)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = values.std("prompt", ddof=1).where(n > 1) / np.sqrt(n)
        half = error * special.stdtrit(freedom, (1 + CONFIDENCE) / 2)
        p_value = 2 * special.stdtr(freedom, -abs(mean) / error)
    by_signs = (2 * special.bdtr(n - same_sign, n, 0.5)).clip(max=1).where(n > 1)
    p_value = p_value.where(n >= FEWEST_PROMPTS, by_signs)
    found = {"mean": mean, "low": mean - half, "high": mean + half, "p_value": p_value}
    return xr.Dataset(found | {"n_prompts": n, "n_same_sign": same_sign}).drop_attrs(deep=True)


def paired_difference(values: xr.DataArray, *, first: int, second: int) -> xr.Dataset:
    """How a quantity changes from one shuffle level to another, prompt by prompt.

    As of `mean_interval`, of the second level minus the first, over the prompts that have both; the values have
    the dimensions `prompt`, `shuffle_level` and any others.
    """
    before, after = (values.sel(shuffle_level=level, drop=True) for level in (first, second))
    return mean_interval(after - before)


def resampled_means(values: xr.DataArray, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> xr.DataArray:
    """Means over resamples of the prompts, for intervals of what is read off a mean curve.

    So `resampled_means(dimension).idxmax("layer").quantile([0.025, 0.975], "resample")` is a percentile
    interval of the layer at which the mean is largest. The dimension `resample` takes the place of `prompt`;
    prompts without any value are left out, and a value that another prompt lacks makes the means NaN there.
    """
    values = values.dropna("prompt", how="all")
    n_prompts = values.sizes["prompt"]
    weights = xr.DataArray(resample_weights(np.arange(n_prompts), n_resamples, seed), dims=("resample", "prompt"))
    return xr.dot(values.drop_vars("prompt", errors="ignore"), weights, dim="prompt") / n_prompts


def resample_weights(prompt: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """How often each observation stands in each resample, shape (resample, n); `prompt` counts from 0."""
    n_prompts = int(prompt.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, n_prompts, (n_resamples, n_prompts))
    rows = np.arange(n_resamples)[:, None] * n_prompts
    counts = np.bincount((rows + drawn).ravel(), minlength=n_resamples * n_prompts)
    return counts.reshape(n_resamples, n_prompts)[:, prompt].astype(float)
