"""Means over prompts, and over models, with their intervals, and resamples of the prompts.

Intervals are Student's. Below `FEWEST_PROMPTS` prompts there is none, and a p-value is that of a sign-flip test,
which asks nothing of the distribution but symmetry. Where nothing can be said, there is NaN."""

import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy import special

CONFIDENCE = 0.95  # level of all intervals
FEWEST_PROMPTS = 8  # below this number of prompts nothing gets an interval
FEWEST_MODELS = 3  # below this number of models there is no mean over them
N_RESAMPLES = 1000  # resamples of a bootstrap


def mean_interval(values: xr.DataArray) -> xr.Dataset:
    """Mean over prompts, with Student's interval, of values that are NaN where a prompt has none.

    Returns `mean`; `low` and `high`, its interval at `CONFIDENCE`, which needs `FEWEST_PROMPTS`; `p_value` of a
    mean of zero, two-sided, which needs two; `n_prompts`; `n_same_sign`, how many prompts have the sign of the
    mean. NaN for no prompt."""
    n, mean = values.count("prompt"), values.mean("prompt")
    same_sign = (np.sign(values) == np.sign(mean)).where(values.notnull(), False).sum("prompt")
    freedom = (n - 1).where(n >= FEWEST_PROMPTS)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = values.std("prompt", ddof=1).where(n > 1) / np.sqrt(n)
        half = error * special.stdtrit(freedom, (1 + CONFIDENCE) / 2)
        p_value = 2 * special.stdtr(freedom, -abs(mean) / error)
    flipped = xr.apply_ufunc(_sign_flips, values, input_core_dims=[["prompt"]])
    p_value = p_value.where(n >= FEWEST_PROMPTS, flipped.where(n > 1))
    found = {"mean": mean, "low": mean - half, "high": mean + half, "p_value": p_value}
    return xr.Dataset(found | {"n_prompts": n, "n_same_sign": same_sign}).drop_attrs(deep=True)


def _sign_flips(values: np.ndarray) -> np.ndarray:
    """Share of all choices of signs under which a sum over the last axis, of few values, is as large or larger."""
    # NaN are sorted to the end, and a zero in their place adds nothing under either sign
    few = np.nan_to_num(np.sort(values, axis=-1)[..., : FEWEST_PROMPTS - 1])
    sums = np.abs(few @ np.array([*itertools.product((1, -1), repeat=few.shape[-1])]).T)
    rounding = 1e-12 * np.abs(few).sum(-1, keepdims=True)
    return (sums >= sums[..., :1] - rounding).mean(-1)  # the first choice leaves all signs as they are


def pooled(values: xr.DataArray, *, further: Sequence[float] = ()) -> xr.Dataset:
    """Mean of an effect over models and prompts, of dimensions `model` and `prompt`, with its interval.

    Random effects of models and of prompts, as `sec-methods-pooling` says: Hartung, Knapp, Sidik and Jonkman's
    interval with equal weights [IntHout et al., BMC Med. Res. Methodol. 14:25 (2014)], to which what the models
    share by reading the same prompts is added, with Satterthwaite's degrees of freedom. `further` are means of
    models that read other prompts. Prompts that lack a model are left out.
    Returns `mean`, NaN below `FEWEST_MODELS`; `low` and `high`, its interval at `CONFIDENCE`, NaN below
    `FEWEST_PROMPTS` as well; `n_models`, `further` included; `n_prompts`."""
    known = values.transpose("model", "prompt").dropna("prompt").values
    means = np.concatenate([known.mean(1), further]) if known.size else np.empty(0)
    (n_own, n_prompts), n_models, mean, half = known.shape, len(means), np.nan, np.nan
    if n_models >= FEWEST_MODELS:
        mean = means.mean()
        if n_prompts >= FEWEST_PROMPTS:
            common = (known.sum(0).var(ddof=1) - known.var(1, ddof=1).sum()) / max(n_own * (n_own - 1), 1)
            of_models = means.var(ddof=1) / n_models
            of_prompts = max(common, 0.0) / n_prompts * (n_own / n_models) ** 2
            variance = of_models + of_prompts
            freedom = variance**2 / (of_models**2 / (n_models - 1) + of_prompts**2 / (n_prompts - 1))
            half = special.stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(variance)
    found = {"mean": mean, "low": mean - half, "high": mean + half, "n_models": n_models, "n_prompts": n_prompts}
    return xr.Dataset({name: ((), value) for name, value in found.items()})


def resampled_means(values: xr.DataArray, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> xr.DataArray:
    """Means over resamples of the prompts, for intervals of what is read off a mean curve.

    So `resampled_means(dimension).idxmax("layer").quantile([0.025, 0.975], "resample")` is a percentile
    interval of the layer at which the mean is largest. The dimension `resample` takes the place of `prompt`;
    prompts without any value are left out, and a value that another prompt lacks makes the means NaN there."""
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
