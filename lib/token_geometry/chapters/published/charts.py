"""Charts of the chapter on published results."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts, numbers

_VERDICTS = alt.Scale(domain=["agrees", "open", "disagrees"], range=["#0072b2", "#8a8a8a", "#d55e00"])
_SIDES = ["published", "run"]
_DEPTH = alt.X("relative_depth:Q", title="relative depth", scale=alt.Scale(domain=[0, 1]))


@charts.figure("claims")
def effects(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Points with intervals, one panel per claim, one row per model, zero as a dashed line; color says whether
    the interval agrees with the claim."""
    shown = frame[frame["verdict"] != "missing"].round(4)
    spelled = [numbers.estimate(*row, sign="+") for row in shown[["value", "low", "high"]].values]
    shown = shown.assign(claim=shown["claim"] + " (" + shown["quantity"] + ")", spelled=spelled)
    shown = shown.fillna({"low": shown["value"], "high": shown["value"]})
    y = alt.Y("model_title:N", title=None, sort=charts.unique(shown["model_title"]))
    base = alt.Chart(shown).encode(y=y, color=alt.Color("verdict:N", title="with the claim, it", scale=_VERDICTS))
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=None), x2="high:Q")
    shape = alt.Shape("side:N", title="numbers", scale=alt.Scale(domain=_SIDES, range=["circle", "diamond"]))
    tips = charts.tooltip("model_title:N", "spelled:N", "verdict:N", spelled="number and interval")
    points = base.mark_point(size=55, filled=True, opacity=1)
    points = points.encode(x=alt.X("value:Q", title=None), shape=shape, tooltip=tips)
    panel = alt.layer(charts.zero_rule("x"), bars, points, data=base.data)
    header = alt.Header(labelAnchor="start", labelLimit=560, labelPadding=2)
    facet = alt.Facet("claim:N", sort=charts.unique(shown["claim"]), header=header)
    panel = panel.properties(width=345, height=alt.Step(15))
    return panel.facet(facet=facet, columns=1, spacing=6).resolve_scale(x="independent")


@charts.figure("published and own curves")
def beside(frame: pd.DataFrame) -> alt.VConcatChart:
    """Line charts, one row per observable, structured text on the left and shuffled on the right: mean against
    relative depth, one curve per model, solid if published and dashed if of the run."""
    picked, rows = charts.legend_choice("model_title"), []
    dashes = alt.Scale(domain=_SIDES, range=[[1, 0], [5, 3]])
    dash = alt.StrokeDash("side:N", title=None, scale=dashes, legend=alt.Legend(symbolType="stroke"))
    tips = charts.tooltip("model_title:N", "layer:Q", "mean:Q .3f", "std:Q .3f")
    looks = {"color": charts.color(frame, "model_title"), "strokeDash": dash, "tooltip": tips}
    for observable, part in frame.groupby("observable", sort=False):
        y = alt.Y("mean:Q", title=observable, scale=alt.Scale(zero=False))
        base = alt.Chart(part).encode(x=_DEPTH, y=y, opacity=charts.shown(picked, 0.95, 0.08), **looks)
        rows.append(charts.traced(base, 10).properties(width=270, height=170))
    return charts.rows(rows, picked, "order", ["structured", "shuffled"])


@charts.figure("correlation of ID and loss", choose="scale", initial=2)
def correlations(frame: pd.DataFrame) -> alt.FacetChart:
    """Line chart with bands, one panel per model: Pearson correlation of ID and loss over structured prompts
    against relative depth, at the scale that the slider chooses."""
    color, full = charts.color(frame, "model_title", legend=None), alt.Scale(domain=[-1, 1])
    fields = ("layer:Q", "correlation:Q .2f", "low:Q .2f", "high:Q .2f", "n_prompts:Q")
    both = charts.banded(frame, _DEPTH, color, "Pearson correlation", *fields, middle="correlation", scale=full)
    return charts.panels(alt.layer(charts.zero_rule(), *both, data=frame), frame, width=165, height=150, columns=3)


@charts.figure("loss (nats)")
def losses(frame: pd.DataFrame) -> alt.LayerChart:
    """Points with bars: mean loss in nats against shuffle level."""
    offset = alt.XOffset("model_title:N", sort=charts.unique(frame["model_title"]))
    base = alt.Chart(frame).encode(x=charts.LEVEL_AXIS, xOffset=offset, color=charts.color(frame, "model_title"))
    bars = base.mark_rule().encode(y=alt.Y("low:Q", title="loss (nats)"), y2="high:Q")
    shape = alt.Shape("side:N", title=None, scale=alt.Scale(domain=_SIDES))
    tips = charts.tooltip("model_title:N", "mean:Q .2f", "std:Q .2f")
    points = base.mark_point(filled=True, size=45, opacity=1).encode(y="mean:Q", shape=shape, tooltip=tips)
    return alt.layer(bars, points).properties(width=520, height=230)
