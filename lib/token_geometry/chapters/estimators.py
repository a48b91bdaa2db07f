"""The chapter on three estimators of the intrinsic dimension: which they are, and what it says."""

import itertools
from collections.abc import Callable

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.chapters import charts, markup
from token_geometry.chapters.frames import FROM_ONE
from token_geometry.chapters.loss import frames as loss_frames
from token_geometry.chapters.loss.prose import spell
from token_geometry.chapters.numbers import Number
from token_geometry.chapters.over_layers import effect, one_level
from token_geometry.chapters.results import RunResults
from token_geometry.stats import correlation, intervals

CHOSEN = {f"GRIDE at scale {scale}": ("intrinsic_dimension", {"scale": scale}) for scale in (4, 16)}
CHOSEN |= {"ESS": ("ess", {}), "TLE": ("tle", {})}
"""Estimators: title → variable, selection. The larger scale of GRIDE takes as many neighbors as the others do."""

# parts of a cloud, as a reader knows them, and a neighborhood that does not shrink as points are added
KINDS = {"first": "the first tokens", "random": "tokens drawn at random"}
RADIUS = "the radius of the largest scale shown"


def dimensions(dataset: xr.Dataset) -> xr.DataArray:
    """ID from layer 1 on, over `estimator` and the dimensions of the data set."""
    parts = [dataset[name].sel(at | {"layer": FROM_ONE}, drop=True) for name, at in CHOSEN.values()]
    return xr.concat(parts, pd.Index([*CHOSEN], name="estimator"))


def by_number(results: RunResults) -> pd.DataFrame:
    """ID of the middle layers of structured prompts against the number of points that it is taken from.

    Columns `model_title`, `part`, `n_points`, `at` (a scale, or `RADIUS`), and `mean`, `low`, `high`, `n_prompts`
    of `intervals.mean_interval`; the mean is over prompts, the same ones throughout.
    """
    return pd.concat([_by_number(results, model) for model, _ in results.models], ignore_index=True)


def _by_number(results: RunResults, model: str) -> pd.DataFrame:
    one = results.structured.isel(shuffle_level=0, drop=True).sel(model=model, layer=results.middle_layers(model))
    rows, whole, n_tokens = [], one[["intrinsic_dimension", "neighbor_distance"]], int(one.attrs["n_tokens"])
    radius = whole["neighbor_distance"].sel(scale=results.reference_scale)
    sizes = one["n_subset"].values.tolist() if "n_subset" in one.coords else []
    names = {"subset_dimension": "intrinsic_dimension", "subset_distance": "neighbor_distance"}
    for (kind, part), n_points in itertools.product(KINDS.items(), (*sizes, n_tokens)):
        of_part = {"subset": kind, "n_subset": n_points}
        found = whole if n_points == n_tokens else one[[*names]].sel(of_part).rename(names)
        scales = {f"scale {n}": {"scale": n} for n in (2, 16, results.reference_scale)}
        chosen = {name: found["intrinsic_dimension"].sel(at) for name, at in scales.items()}
        for at, values in (chosen | {RADIUS: _at_distance(found, radius)}).items():
            means = intervals.mean_interval(values.mean("layer", skipna=False))
            numbers = {key: round(float(means[key]), 3) for key in ("mean", "low", "high", "n_prompts")}
            rows.append({"part": part, "n_points": n_points, "at": at} | numbers)
    found = pd.DataFrame(rows)  # of which the same prompts throughout
    found = found[found["mean"].notnull() & found["n_prompts"].eq(found["n_prompts"].max())]
    return found.assign(model_title=str(one["model_title"].values))


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
    sizes = charts.unique(frame["n_points"])
    base = alt.Chart(frame).encode(
        x=alt.X("n_points:Q", title="number of points", scale=alt.Scale(type="log"), axis=alt.Axis(values=sizes)),
        color=charts.color(frame, "part", "points"),
    )
    y = alt.Y("low:Q", title="intrinsic dimension", scale=charts.whole(frame, "low", "mean", "high"))
    fields = ("part:N", "n_points:Q", "mean:Q .2f", "low:Q .2f", "high:Q .2f", "n_prompts:Q")
    return charts.panels(alt.layer(*charts.banded(base, y, "mean:Q", *fields)), frame)


@markup.per_model()
def number(results: RunResults, model: str, title: str) -> str:
    """How much lower the ID is when it is taken from fewer points."""
    own = _by_number(results, model)
    parts, largest, smallest = [], own["n_points"].max(), own["n_points"].min()
    for at in charts.unique(own["at"]):
        table = own[own["at"] == at].pivot(index="n_points", columns="part", values="mean").dropna()
        shares = [
            f"{' and '.join(f'{Number(s):.2f}' for s in table.loc[n] / table.loc[largest])} of it from {n} points"
            for n in dict.fromkeys((smallest, 512))
            if n in table.index and n < largest in table.index
        ]
        if shares:
            parts.append(f"at {at} {Number(table.loc[largest].iloc[0]):.1f} from {largest}, {', '.join(shares)}")
    if not parts:
        return f"{title}: the prompts are too short to be taken apart."
    first, second = sorted(KINDS.values())
    return f"{title}, mean ID of the middle layers ({first} and {second}): {'; '.join(parts)}."


@markup.unless(one_level)
@markup.per_model()
def shuffled(results: RunResults, model: str, title: str) -> str:
    """Effect of full shuffling on the ID of the middle layers, and whether the estimators agree on its sign."""
    (low, high), layers = results.extremes, results.middle_layers(model)
    mean = dimensions(results.ends).sel(model=model, layer=layers).mean("layer")
    found = intervals.paired_difference(mean, first=low, second=high).dropna("estimator", subset=["mean"])
    what = f"{title}, change of the mean ID of layers {layers.start} to {layers.stop} by full shuffling"
    return _compared(what, found, effect)


@markup.per_model()
def with_loss(results: RunResults, model: str, title: str) -> str:
    """Correlation of the ID of the middle layers with the loss, and whether the estimators agree on its sign."""
    layers, dataset = results.middle_layers(model), loss_frames.structured(results).sel(model=model)
    found = correlation.correlate(dimensions(dataset).sel(layer=layers).mean("layer"), dataset["loss"])
    found = found.dropna("estimator", subset=["correlation"])
    what = f"{title}, correlation of the mean ID of layers {layers.start} to {layers.stop} with the loss"
    return _compared(what, found, spell)


def _compared(what: str, found: xr.Dataset, say: Callable[[xr.Dataset], str]) -> str:
    """What each estimator finds, and which signs the intervals leave."""
    names = found["estimator"].values
    if not names.size:
        return f"{what}: the prompts are too few or too short."
    above, below = found["low"].values > 0, found["high"].values < 0
    sides = {"is positive by": above, "is negative by": below, "has an open sign by": ~(above | below)}
    parts = [f"{side} {', '.join(names[chosen])}" for side, chosen in sides.items() if chosen.any()]
    verdict = "agree" if above.all() or below.all() else "leave it open whether they agree"
    verdict = "contradict one another" if above.any() and below.any() else verdict
    each = "; ".join(f"{name} {say(found.sel(estimator=name))}" for name in names)
    return f"{what}: {each}. It {' and '.join(parts)}: the estimators {verdict}."
