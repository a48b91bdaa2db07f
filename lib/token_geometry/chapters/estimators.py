"""The chapter on three estimators of the intrinsic dimension: which they are, and what it says."""

from functools import partial

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import charts, effects, frames, markup, numbers, over_layers
from token_geometry.chapters.loss.prose import spell
from token_geometry.chapters.numbers import Number
from token_geometry.chapters.results import RunResults
from token_geometry.stats import correlation, intervals

CHOSEN = {f"GRIDE at scale {scale}": ("intrinsic_dimension", {"scale": scale}) for scale in (4, 16)}
CHOSEN |= {"ESS": ("ess", {}), "TLE": ("tle", {})}
"""Estimators: title → variable, selection. The larger scale of GRIDE takes as many neighbors as the others do."""

# parts of a cloud, as a reader knows them, and a neighborhood that does not shrink as points are added
KINDS = {"first": "the first tokens", "random": "tokens drawn at random"}
RADIUS = "the radius of the largest scale shown"
ENOUGH = 512
"""Size of a part that is nearest to the 500 tokens which the second version of arXiv:2501.10573 asks for."""


def dimensions(dataset: xr.Dataset) -> xr.DataArray:
    """ID from layer 1 on, over `estimator` and the dimensions of the data set."""
    parts = [dataset[name].sel(at | {"layer": frames.FROM_ONE}, drop=True) for name, at in CHOSEN.values()]
    return xr.concat(parts, pd.Index([*CHOSEN], name="estimator"))


def by_number(results: RunResults) -> pd.DataFrame:
    """ID of the middle layers of structured prompts, of the longer ones of a run, by the number of points taken.

    Columns `model_title`, `part`, `n_points`, `at` (a scale, or `RADIUS`), and `mean`, `low`, `high`, `n_prompts`
    of `intervals.mean_interval`; the mean is over prompts, the same ones throughout."""
    found = [intervals.mean_interval(_by_number(results, model)).to_dataframe() for model, _ in results.models]
    columns = ["part", "n_points", "at", "mean", "low", "high", "n_prompts", "model_title"]
    return pd.concat(found).reset_index().dropna(subset="mean")[columns].round(3)


def _by_number(results: RunResults, model: str) -> xr.DataArray:
    """ID by `part`, `n_points` up to all, `at` and `prompt`; NaN where not all prompts have one."""
    one = (results.observables if results.longer is None else results.longer).sel(shuffle_level=0, drop=True)
    one = one.sel(model=model, layer=results.middle_layers(model))
    names = {"subset_dimension": "intrinsic_dimension", "subset_distance": "neighbor_distance"}
    whole = one[[*names.values()]]
    found = whole.expand_dims(subset=[*KINDS], n_subset=[one.attrs["n_tokens"]])
    if "n_subset" in one.coords:
        found = xr.concat([one[[*names]].rename(names).sel(subset=[*KINDS]), found], "n_subset")
    chosen = {f"scale {n}": found["intrinsic_dimension"].sel(scale=n) for n in (2, 16, results.reference_scale)}
    chosen[RADIUS] = _at_distance(found, whole["neighbor_distance"].sel(scale=results.reference_scale))
    parts = [values.drop_vars("scale", errors="ignore").mean("layer", skipna=False) for values in chosen.values()]
    values = xr.concat(parts, pd.Index([*chosen], name="at")).rename(subset="part", n_subset="n_points")
    values = values.assign_coords(part=[*KINDS.values()]).transpose("part", "n_points", "at", "prompt")
    n_prompts = values.count("prompt")
    return values.where(n_prompts == n_prompts.max())


def _at_distance(found: xr.Dataset, radius: xr.DataArray) -> xr.DataArray:
    """ID where the mean distance of the neighbors involved is `radius`, between two scales in its logarithm."""

    def between(dimension, distance, wanted):
        kept = np.isfinite(dimension) & np.isfinite(distance)
        if kept.sum() < 2 or not distance[kept][0] <= wanted <= distance[kept][-1]:
            return np.nan
        return np.interp(np.log(wanted), np.log(distance[kept]), dimension[kept])

    arrays = found["intrinsic_dimension"], found["neighbor_distance"], radius
    return xr.apply_ufunc(between, *arrays, input_core_dims=[["scale"], ["scale"], []], vectorize=True)


@charts.figure("intrinsic dimension against the number of points", choose="at")
def number_curves(frame: pd.DataFrame) -> alt.FacetChart:
    """Line chart with bands, one panel per model: intrinsic dimension against number of points by kind of part."""
    sizes, scale = charts.unique(frame["n_points"]), alt.Scale(type="log", nice=False)  # else to a power of ten
    x = alt.X("n_points:Q", title="number of points", scale=scale, axis=alt.Axis(values=sizes))
    fields = ("part:N", "n_points:Q", "mean:Q .2f", "low:Q .2f", "high:Q .2f", "n_prompts:Q")
    marks = charts.banded(frame, x, charts.color(frame, "part", "points"), "intrinsic dimension", *fields)
    return charts.panels(alt.layer(*marks), frame)


@markup.per_model
def number(results: RunResults, model: str, title: str) -> str:
    """How much lower the ID is when it is taken from fewer points, and whether 500 of a long prompt are enough."""
    values, parts = _by_number(results, model), []
    sizes = values.dropna("n_points", how="all")["n_points"].values.tolist()
    for at in values["at"].values.tolist():
        means = values.sel(at=at).mean("prompt").dropna("n_points")
        known = means["n_points"].values
        fewer = [n for n in dict.fromkeys((*sizes[:1], ENOUGH)) if n in known and n < sizes[-1] in known]
        both = {n: " and ".join(f"{Number(s):.2f}" for s in means.loc[:, n] / means[:, -1]) for n in fewer}
        shares = [f"{spelled} of it from {n} points" for n, spelled in both.items()]
        enough = _enough(values.sel(at=at)) if results.longer is not None and ENOUGH in known else ""
        if shares:
            parts.append(f"at {at} {Number(means[0, -1]):.1f} from {sizes[-1]}, {', '.join(shares)}{enough}")
    if not parts:
        return f"{title}: the prompts are too short to be taken apart."
    first, second = KINDS.values()
    return f"{title}, mean ID of the middle layers ({first} and {second}): {'; '.join(parts)}."


def _enough(values: xr.DataArray) -> str:
    """Whether the first `ENOUGH` tokens give the ID of all of them to a tenth."""
    first = values.sel(part=KINDS["first"])
    found = intervals.mean_interval(first.sel(n_points=ENOUGH) / first[-1])
    low, high = float(found["low"]), float(found["high"])
    word = "are" if 0.9 <= low and high <= 1.1 else "are not" if high < 0.9 or low > 1.1 else "may or may not be"
    said = f"the first {ENOUGH} give {numbers.told(found)}"
    return f", and 500 tokens {word} enough to come within a tenth of it: {said}"


@markup.unless(over_layers.one_level)
def shuffled(results: RunResults) -> Markdown:
    """Effect of full shuffling on the ID of the middle layers, and whether the estimators agree on its sign."""
    found = intervals.mean_interval(effects.change(frames.middle(dimensions(results.ends))))
    return _compared(results, found=found, say=over_layers.effect, words="change of the {} by full shuffling")


def with_loss(results: RunResults) -> Markdown:
    """Correlation of the ID of the middle layers with the loss, and whether the estimators agree on its sign."""
    found = correlation.correlate(frames.middle(dimensions(results.structured)), results.structured["loss"])
    found, say = found.rename(correlation="mean"), partial(spell, value="mean")
    return _compared(results, found=found, say=say, words="correlation of the {} with the loss")


@markup.per_model
def _compared(results: RunResults, model: str, title: str, *, found: xr.Dataset, say, words: str) -> str:
    """What each estimator finds, and which signs the intervals leave."""
    layers, found = results.middle_layers(model), found.sel(model=model).dropna("estimator", subset=["mean"])
    names = found["estimator"].values
    what = f"{title}, {words.format(f'mean ID of {numbers.layers(layers)}')}"
    if not names.size:
        return f"{what}: the prompts are too few or too short."
    above, below = found["low"].values > 0, found["high"].values < 0
    sides = {"is positive by": above, "is negative by": below, "has an open sign by": ~(above | below)}
    parts = [f"{side} {', '.join(names[chosen])}" for side, chosen in sides.items() if chosen.any()]
    verdict = "agree" if above.all() or below.all() else "leave it open whether they agree"
    verdict = "contradict one another" if above.any() and below.any() else verdict
    each = "; ".join(f"{name} {say(found.sel(estimator=name))}" for name in names)
    return f"{what}: {each}. It {' and '.join(parts)}: the estimators {verdict}."
