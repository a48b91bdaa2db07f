"""What goes with the size of models: frame, chart and sentences, of a run together with published numbers."""

import itertools
import math

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.base import project
from token_geometry.chapters import charts, confounds, frames, markup
from token_geometry.chapters.loss.frames import RATE
from token_geometry.chapters.numbers import Number, short
from token_geometry.chapters.published import arrays
from token_geometry.chapters.results import RunResults
from token_geometry.stats import correlation


def frame(results: RunResults) -> pd.DataFrame:
    """Columns `quantity`, `model`, `family` (the name without a size), `numbers` (whose), `parameters`, `value`.

    Of models whose `shape` is in `data/models.yml`; published are those that the run has not."""
    one, given = results.structured, arrays.tokens().sel(shuffle_level=0)
    names = ("intrinsic_dimension", "neighborhood_overlap")
    own = xr.Dataset({f"{name}_mean": one[name].mean("prompt") for name in names})
    r = correlation.correlate(one["intrinsic_dimension"], one["loss"], n_resamples=1)["correlation"]
    own["pearson_id_loss"] = r
    sides = {"of the run": own, "published": given.drop_sel(model=np.intersect1d(given["model"], own["model"]))}
    found = pd.concat([_quantities(of).assign(numbers=side) for side, of in sides.items()], ignore_index=True)
    shapes = {name: entry.get("shape", {}) for name, entry in project.entries("models.yml").items()}
    found["parameters"] = [shapes.get(name, {}).get("parameters", np.nan) for name in found["model"]]
    found["family"] = found["model"].str.replace(r"-[\d.]+[mb]\b.*", "", regex=True)
    return found.dropna(subset=["parameters", "value"]).sort_values("parameters", kind="stable")


def _quantities(of: xr.Dataset) -> pd.DataFrame:
    depth, found = of["relative_depth"], {}
    for scale in confounds.ENDS:
        at = of.sel(scale=scale, layer=frames.FROM_ONE, drop=True)
        curve = at["intrinsic_dimension_mean"]
        found[f"largest ID at scale {scale}"] = curve.max("layer")
        found[f"depth of the largest ID at scale {scale}"] = depth.where(curve == curve.max("layer")).max("layer")
        found[f"correlation of ID and loss at scale {scale}"] = frames.middle(at["pearson_id_loss"])
    found["neighborhood overlap at k = 2"] = frames.middle(of["neighborhood_overlap_mean"].sel(k=2, drop=True))
    return xr.Dataset(found).to_array("quantity", name="value").to_dataframe().reset_index()


@charts.figure("quantities by size", choose="quantity")
def chart(frame: pd.DataFrame) -> alt.LayerChart:
    """Points with names, one per model: the quantity that the menu chooses against the number of parameters on a
    logarithmic axis; lines join models of a family."""
    ends = [float(frame["parameters"].min()) / 6, float(frame["parameters"].max()) * 1.4]
    scale, axis = alt.Scale(type="log", domain=ends, nice=False), alt.Axis(format="~s", grid=False)
    x, y = alt.X("parameters:Q", scale=scale, axis=axis), alt.Y("value:Q", title="value of the quantity")
    base = alt.Chart(frame[["quantity", "model", "family", "numbers", "parameters", "value"]])
    base = base.encode(x=x, y=y.scale(zero=False), color=charts.color(frame, "numbers", None))
    tooltip = charts.tooltip("model:N", "numbers:N", "parameters:Q .3s", "value:Q .2f")
    points = base.mark_circle(size=60, opacity=1).encode(tooltip=tooltip)
    text = base.mark_text(align="right", dx=-7, fontSize=10).encode(text="model:N")
    lines = base.mark_line(opacity=0.5).encode(detail="family:N")
    return alt.layer(points, lines, text).properties(width=520, height=260)


def findings(frame: pd.DataFrame) -> Markdown:
    """Rank correlation of each quantity with the size, and what becomes of it within a family."""
    lines, n = [], frame["model"].nunique()
    if "of the run" not in set(frame["numbers"]):
        return Markdown("No model of the run has a `shape` in data/models.yml: all that is drawn is published.")
    if n < 3:
        return Markdown("An order of sizes takes three models whose `shape` is in data/models.yml.")
    parts = dict(iter(frame.groupby("quantity", sort=False)))
    ranks = [part[["parameters", "value"]].rank().to_numpy().T for part in parts.values()]
    p_values = np.array([correlation.permutation_p(values[None], sizes)[0] for sizes, values in ranks])
    for (quantity, part), one, q in zip(parts.items(), ranks, correlation.adjusted(p_values), strict=True):
        families = [family for family in part.groupby("family") if len(family[1]) > 1]
        within = [f"; in {markup.escaped(name)} {', '.join(map(short, own['value']))}" for name, own in families]
        lines.append(f"{quantity}: {Number(np.corrcoef(one)[0, 1]):.2f} (q = {q:.2g}){''.join(within)}.")
    least = next(number for number in itertools.count(2) if 2 / math.factorial(number) <= RATE)
    start = f"Spearman's coefficient with the number of parameters over {n} models, q adjusted over the quantities"
    never = f"no p-value can be below {2 / math.factorial(n):.2g}, and below {least} models none below {RATE}"
    return markup.bullets(lines, start=f"{start}. With {n} models {never}:")
