"""Curves over layers: the mean over prompts with bands of one standard deviation."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts


@charts.figure("curves over layers")
def layer_curves(frame: pd.DataFrame, *, y_title: str, facet="model_title", choose=None) -> alt.FacetChart:
    """Line chart with bands, one panel per model: {y_title} against layer, one curve per shuffle level.

    The frame has the columns of `frames.summary`, `facet` and `choose`; only the outer levels have a band."""
    return charts.panels(curves(frame, y_title=y_title, keep=(facet, choose)), frame, facet)


@charts.figure("curves over layers")
def by_depth(frame: pd.DataFrame, *, y_title: str, choose: str | None = None) -> alt.TopLevelMixin:
    """Line chart with bands: {y_title} of structured prompts against layer and relative depth, one curve per
    model."""
    picked = charts.legend_choice("model_title")
    common = {"color": "model_title", "keep": (choose,), "picked": picked}
    left = curves(frame, y_title=y_title, **common).add_params(picked)
    right = curves(frame, x="relative_depth", y_title=None, **common)
    return alt.hconcat(*(panel.properties(width=270, height=230) for panel in (left, right)), spacing=10)


def curves(
    frame: pd.DataFrame, *, y_title: str | None, x: str = "layer", color: str = "shuffle_level", keep: tuple = (),
    picked: alt.Parameter | None = None,
) -> alt.LayerChart:  # fmt: skip
    """Layers of one panel: bands, lines and points, with a legend to click.

    `x` is `layer` or `relative_depth`, `color` `shuffle_level` or `model_title`; `keep` are further columns that
    facets and filters need, None among them is passed over. `picked` is a selection of another panel that this
    one follows; by default it makes its own, at the legend."""
    columns = charts.unique(c for c in (x, "layer", color, *keep, "mean", "std", "low", "high", "n_prompts") if c)
    by_level = color == "shuffle_level"
    levels = sorted(set(frame[color])) if by_level else []
    own = [charts.legend_choice(color)] if picked is None else []
    picked = picked or own[0]
    # one scale for all values of a control; observables have one each
    scale = alt.Scale(zero=False) if "observable" in keep else charts.whole(frame, "low", "high")
    axis = charts.LAYER_AXIS if x == "layer" else alt.X(f"{x}:Q", title=x.replace("_", " "))
    colors = charts.level_color(levels) if by_level else charts.color(frame, color)
    base = alt.Chart(frame[columns]).encode(x=axis, color=colors)
    # bands of the levels in between would cover one another
    outer = alt.FieldOneOfPredicate(color, [levels[0], levels[-1]] if by_level else charts.unique(frame[color]))
    y, faint = alt.Y("low:Q", title=y_title, scale=scale), charts.shown(picked, 0.18, 0.02)
    band = base.transform_filter(outer).mark_area().encode(y=y, y2=alt.Y2("high:Q"), opacity=faint)
    line = base.mark_line(strokeWidth=2).encode(y=alt.Y("mean:Q"), opacity=charts.shown(picked))
    tips = charts.tooltip(f"{color}:N", "layer:Q", "mean:Q .3f", "std:Q .3f", "n_prompts:Q")
    points = base.mark_circle(size=28).encode(y="mean:Q", tooltip=tips, opacity=charts.shown(picked, 0.9, 0.0))
    return alt.layer(band.add_params(*own), line, points)
