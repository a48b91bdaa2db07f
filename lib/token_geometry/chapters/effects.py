"""The chapter on the effect of order: one declared summary at every scale, and what other summaries say."""

import itertools

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown
from scipy import special

from token_geometry.chapters import charts, markup, numbers
from token_geometry.chapters.frames import MIDDLE, middle, window
from token_geometry.chapters.numbers import Number
from token_geometry.chapters.published import arrays
from token_geometry.chapters.results import RunResults
from token_geometry.stats import intervals

PARTS = {"first half": (0, 1 / 2), "second half": (1 / 2, 1), "all layers": (0, 1)}
PARTS |= {"1/4 to 3/4": (1 / 4, 3 / 4), "1/3 to 3/4": (1 / 3, 3 / 4)}  # of the depth, beside the declared one


def published() -> list[xr.DataArray]:
    """Mean ID of the published models at the ends of the shuffle levels; their `prompt` has no coordinate."""
    mean = arrays.tokens()["intrinsic_dimension_mean"].isel(shuffle_level=[0, -1]).expand_dims("prompt")
    return [mean.sel(model=model) for model in mean["model"].values]


def of_all(results: RunResults) -> list[xr.DataArray]:
    """ID at the ends of the shuffle levels of each model of the run, if it shuffles, and of those published."""
    values = results.ends["intrinsic_dimension"]
    return [*(values.sel(model=model) for model, _ in results.models if results.is_shuffled), *published()]


def change(values: xr.DataArray, measure: str = "difference") -> xr.DataArray:
    """What leads from the first shuffle level to the last: their `difference`, `ratio` less 1, or `log ratio`."""
    first, last = (values.isel(shuffle_level=end, drop=True) for end in (0, -1))
    return {"difference": last - first, "ratio": last / first - 1, "log ratio": np.log(last / first)}[measure]


def changes(values: xr.DataArray, *, part=MIDDLE, over: str = "mean", measure: str = "difference") -> xr.DataArray:
    """Change of the mean, or of what `over` names, of a quantity of one model over a part of its depth."""
    return change(getattr(values.sel(layer=window(values["relative_depth"], part)), over)("layer"), measure)


def found(dimension: xr.DataArray, measure: str = "difference") -> xr.Dataset:
    """Effect of full shuffling on the ID of one of `of_all`, by scale, under the declared summary.

    As of `intervals.mean_interval`; of a published model with an interval that is rather too wide, and no p-value.
    """
    mean = changes(dimension, measure=measure)
    if "prompt" in mean.coords:
        return intervals.mean_interval(mean)
    mean, layers, given = mean.squeeze("prompt"), window(dimension["relative_depth"]), arrays.tokens()
    # a mean over layers varies no more than they do on average; deviations were published with the divisor n
    errors = given["intrinsic_dimension_std"].sel(model=dimension["model"], layer=layers).mean("layer")
    errors = errors.isel(shuffle_level=[0, -1]) / np.sqrt(given.attrs["n_prompts"] - 1)
    errors = errors if measure == "difference" else errors / dimension.sel(layer=layers).mean(["layer", "prompt"])
    # as if the two levels were independent, although their prompts are the same
    quantile = special.stdtrit(given.attrs["n_prompts"] - 1, (1 + intervals.CONFIDENCE) / 2)
    half, n = quantile * np.sqrt((errors**2).sum("shuffle_level")), given.attrs["n_prompts"] + 0 * mean
    return xr.Dataset({"mean": mean, "low": mean - half, "high": mean + half, "n_prompts": n})


def frame(results: RunResults, measure: str) -> pd.DataFrame:
    """Effect of full shuffling on the ID under the declared summary, by scale.

    `measure` is `difference`, or `log ratio`, of which the frame has the ratios: geometric means over prompts.
    Columns `model_title`, `scale`, `mean`, `low`, `high`, `n_prompts`; NaN where there is no interval."""
    columns, parts = ["mean", "low", "high"], []
    for one in of_all(results):
        part = found(one, measure)[[*columns, "n_prompts"]].reset_coords(drop=True)
        parts.append(part.to_dataframe().reset_index().assign(model_title=one["model_title"].item()))
    every = pd.concat(parts).dropna(subset="mean")[["model_title", "scale", *columns, "n_prompts"]]
    order = charts.unique([*results.titles, *every["model_title"]])  # so that models keep their colors
    every["model_title"] = pd.Categorical(every["model_title"], order)
    every[columns] = every[columns] if measure == "difference" else np.exp(every[columns])
    return every.round(4).reset_index(drop=True)


@charts.figure("effect of shuffling")
def curves(frame: pd.DataFrame, *, y_title: str, nothing: int) -> alt.FacetChart:
    """Line chart with bands, one panel per model: {y_title} against scale, with a dashed line at {nothing}."""
    color = charts.color(frame, "model_title", legend=None)
    ends = charts.whole(frame.assign(nothing=nothing), "low", "mean", "high", "nothing", zero=False)
    fields = ("model_title:N", "scale:Q", "mean:Q .2f", "low:Q .2f", "high:Q .2f", "n_prompts:Q")
    marks = charts.banded(frame, charts.SCALE_AXIS, color, y_title, *fields, scale=ends)
    panel = alt.layer(charts.zero_rule(at=nothing), *marks, data=frame)
    return charts.panels(panel, frame, width=165, height=150, columns=3)


def range_of(frame: pd.DataFrame) -> Markdown:
    """Smallest and largest effect of each model."""
    lines = []
    for title, part in markup.with_text_titles(frame).groupby("model_title", sort=False, observed=True):
        ends = (part.loc[part["mean"].agg(end)] for end in ("idxmin", "idxmax"))
        spelled = dict.fromkeys(f"{Number(row['mean']):.2f} at scale {row['scale']:.0f}" for row in ends)
        lines.append(f"{title}: {'from ' * (len(spelled) > 1)}{' to '.join(spelled)}.")
    return markup.bullets(lines)


def signs(results: RunResults) -> Markdown:
    """Table: change of the ID by full shuffling at two scales and its sign, per model and over all."""
    at, own = results.scales, change(middle(results.ends["intrinsic_dimension"]))
    known = [(one["model_title"].item(), [found(one).sel(scale=s) for s in at]) for one in of_all(results)]
    beside = ({"of the run": []} if len(results.models) > 1 else {}) | {"with those published": published()}
    for title, others in beside.items() if results.is_shuffled else ():
        further = ([changes(one).sel(scale=s).item() for one in others] for s in at)
        pool = [intervals.pooled(own.sel(scale=s), further=means) for s, means in zip(at, further, strict=True)]
        known.append((f"mean over {numbers.count(int(pool[0]['n_models']), 'model')} {title}", pool))
    rows = [[markup.escaped(t), int(p[0]["n_prompts"]), *itertools.chain(*map(_told, p))] for t, p in known]
    columns = [name for scale in at for name in (f"scale {scale}", "sign")]
    return markup.table(pd.DataFrame(rows, columns=["model", "prompts", *columns]))


def _told(part: xr.Dataset) -> tuple[str, str]:
    """An effect with its interval, and its sign."""
    if np.isnan(part["mean"]):
        return f"not given below {intervals.FEWEST_MODELS} models", "–"
    unsure = f" ($p$ = {Number(part['p_value']):.2g})" if np.isnan(part["low"]) and "p_value" in part else ""
    sign = "raised" if part["low"] > 0 else "lowered" if part["high"] < 0 else f"open{unsure}"
    return numbers.told(part, sign="+", digits=None), sign


def multiverse(results: RunResults) -> pd.DataFrame:
    """Whether other reasonable summaries give the effect of full shuffling the sign that the declared one gives.

    Columns `model_title`, `scale`, `declared` (the effect by the declared summary), `summary`, `value`, `holds`.
    """
    parts = []
    for one in of_all(results):
        declared, single, title = changes(one).mean("prompt"), "prompt" in one.coords, one["model_title"].item()
        estimators = {name: results.ends[name].sel(model=one["model"]) for name in ("ess", "tle") if single}
        for name, values in _alternatives(one, estimators, single).items():
            both = xr.Dataset({"declared": declared, "value": values.mean("prompt")}).reset_coords(drop=True)
            parts.append(both.to_dataframe().reset_index().dropna().assign(model_title=title, summary=name))
    every = pd.concat(parts, ignore_index=True)
    return every.assign(holds=np.sign(every["value"]) == np.sign(every["declared"]))


def _alternatives(one: xr.DataArray, estimators: dict[str, xr.DataArray], single: bool) -> dict[str, xr.DataArray]:
    """Effect by other summaries than the declared one; `single` says whether single prompts are known."""
    curves = one.sel(layer=window(one["relative_depth"], (0, 1)))
    found = {name: changes(one, part=part) for name, part in PARTS.items()}
    found |= {name: changes(one, measure=name) for name in ("ratio", "log ratio")}
    found |= {name.upper(): changes(values) for name, values in estimators.items()}
    found["median of layers"] = changes(one, over="median")
    found["peaks of means"] = change(_peaks(curves.mean("prompt", keepdims=True)))
    if single:
        found["peaks of prompts"] = change(_peaks(curves))
        found["median of prompts"] = changes(one).median("prompt", keepdims=True)
    return found


def _peaks(curves: xr.DataArray) -> xr.DataArray:
    """Height of the peak; NaN where the largest value is that of the first or the last layer."""
    inner = curves.isel(layer=slice(1, -1)).fillna(-np.inf).reduce(np.max, "layer", initial=-np.inf)
    return inner.where(inner > curves.isel(layer=[0, -1]).max("layer"))


def holds(every: pd.DataFrame, by: str) -> Markdown:
    """Table of how often the sign holds, by scale and by `model_title`, with the sign, or by `summary`."""
    rows = []
    for name, part in every.groupby(by, sort=False):
        row = {by.removesuffix("_title"): markup.escaped(name)}
        for scale, at in part.groupby("scale"):
            sign = f"{'−+'[int(at['declared'].iloc[0] > 0)]} " * (by == "model_title")
            row[str(scale)] = f"{sign}{at['holds'].sum()}/{len(at)}"
        rows.append(row)
    return markup.table(pd.DataFrame(rows).fillna("–"))
