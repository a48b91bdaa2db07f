"""Charts of the chapter on shuffling."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts, frames
from token_geometry.chapters.curves import curves


@charts.figure("loss (nats)")
def loss_by_level(frame: pd.DataFrame) -> alt.Chart:
    """Line chart: loss in nats against shuffle level, thin lines for prompts and thick ones for their mean."""
    hovered = alt.selection_point(fields=["prompt"], on="pointerover", empty=False)
    base = alt.Chart(frame).encode(x=charts.LEVEL_AXIS, color=charts.color(frame, "model_title"))
    y = alt.Y("loss:Q", title="loss (nats)", scale=alt.Scale(zero=False))
    tips = charts.tooltip("prompt:N", "shuffle_level:O", "loss:Q .3f")
    single = base.encode(y=y, detail=["prompt:N", "model_title:N"], tooltip=tips)
    single = single.encode(opacity=charts.shown(hovered, 1.0, 0.25))
    mean = base.mark_line(strokeWidth=3).encode(y="mean(loss):Q")
    return alt.layer(charts.traced(single, 40).add_params(hovered), mean).properties(width=520, height=230)


@charts.figure("observables")
def grid(frame: pd.DataFrame) -> alt.FacetChart:
    """Line charts with bands, one row per model and one column per observable, against layer, one curve per
    shuffle level."""
    return _grid(curves(frame, y_title=None, keep=("model_title", "observable")), frame)


@charts.figure("observables of one prompt", choose="prompt")
def prompt_levels(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Line charts, one row per model and one column per observable, against layer, one curve per shuffle level."""
    picked = charts.legend_choice("shuffle_level")
    color = charts.level_color(sorted(frame["shuffle_level"].unique().tolist()))
    return _observables(frame, picked, color=color, opacity=charts.shown(picked))


@charts.figure("observables by prompt", choose="shuffle_level")
def prompts(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Line charts, one row per model and one column per observable, against layer, one curve per prompt."""
    hovered = alt.selection_point(fields=["prompt"], on="pointerover", nearest=True, empty=True)
    scale = alt.Scale(domain=charts.unique(frame["prompt"]), scheme="tableau10")
    color = alt.condition(hovered, alt.Color("prompt:N", title="prompt", scale=scale), alt.value("#cccccc"))
    return _observables(frame, hovered, color=color, opacity=charts.shown(hovered, 1.0, 0.4))


@charts.figure("effect of shuffling on the ID", choose="scale")
def effects(frame: pd.DataFrame, *, by: str = "") -> alt.TopLevelMixin:
    """Line chart with bands, one panel per model: change of the intrinsic dimension by full shuffling against
    layer, at the scale that the slider chooses, with zero as a dashed line.

    With a column in `by` there is one curve per value of it."""
    color = charts.color(frame, by, by) if by else alt.value(charts.LEVEL_COLORS[-1])
    fields = ("layer:Q", "mean:Q +.2f", "low:Q +.2f", "high:Q +.2f", "n_prompts:Q")
    marks = charts.banded(frame, charts.LAYER_AXIS, color, "change of the ID", *fields)
    return charts.panels(alt.layer(charts.zero_rule(), *marks, data=frame), frame, height=200)


@charts.figure("severity of shuffling", choose="scale")
def severity(frame: pd.DataFrame) -> alt.FacetChart:
    """Scatter chart, one panel per model: change of the intrinsic dimension of the middle layers against BLEU,
    faint points for prompts and a line through the means of shuffle levels, at the scale that the slider chooses.
    """
    base = alt.Chart(frame).encode(color=charts.level_color(sorted(frame["shuffle_level"].unique().tolist())))
    x = alt.X("bleu:Q", title="likeness to the structured prompt (BLEU)", scale=alt.Scale(domain=[0, 1]))
    y = alt.Y("change:Q", title="change of the ID", scale=charts.whole(frame, "change", "mean", "low", "high"))
    of_prompt = charts.tooltip("prompt:N", "shuffle_level:N", "bleu:Q .2f", "change:Q +.2f", bleu="BLEU")
    single = base.mark_circle(size=20, opacity=0.3).encode(x=x, y=y, tooltip=of_prompt)
    fields = ("shuffle_level:N", "mean_bleu:Q .2f", "mean:Q +.2f", "low:Q +.2f", "high:Q +.2f", "n_prompts:Q")
    means = base.encode(x="mean_bleu:Q", y="mean:Q", tooltip=charts.tooltip(*fields, mean_bleu="BLEU"))
    line = means.mark_line(strokeWidth=1.5).encode(color=alt.value("#aaaaaa"))
    rule = means.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q")
    marks = charts.zero_rule(), single, line, rule, means.mark_circle(size=70, opacity=1)
    return charts.panels(alt.layer(*marks, data=frame), frame, independent=())


@charts.figure("neighbor angle", choose="layer")
def angles(frame: pd.DataFrame) -> alt.FacetChart:
    """Step chart, one panel per model: share of tokens against neighbor angle in degrees, one curve per shuffle
    level, at the layer that the slider chooses."""
    names = [column for column in frame if column.startswith("S = ")]
    picked = charts.legend_choice("shuffle_level")
    titles = {"shuffle_level": "shuffle level", "angle": "center of the bin (degrees)"}
    x = alt.X("angle:Q", title="neighbor angle (degrees)", scale=alt.Scale(domain=[0, 180]))
    y = alt.Y("share:Q", title="share of tokens", axis=alt.Axis(format="%"), scale=charts.whole(frame, *names))
    color = charts.level_color([int(name.split()[-1]) for name in names], title="shuffle level", names=names)
    tips = charts.tooltip("shuffle_level:N", "angle:Q", "share:Q .1%", **titles)
    panel = alt.Chart(frame).mark_line(interpolate="step", strokeWidth=2)
    panel = panel.encode(x=x, y=y, color=color, opacity=charts.shown(picked), tooltip=tips).add_params(picked)
    chart = charts.panels(panel, frame, alone=270, height=200, independent=())
    return chart.transform_fold(names, as_=["shuffle_level", "share"])


def _observables(frame: pd.DataFrame, picked: alt.Parameter, **encoding) -> alt.FacetChart:
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False))
    tips = charts.tooltip("prompt:N", "shuffle_level:N", "layer:Q", "value:Q .3f")
    base = alt.Chart(frame).encode(x=charts.LAYER_AXIS, y=y, detail="prompt:N", tooltip=tips, **encoding)
    # columns of the frame become rows in the browser: the page carries a third of the text
    names = [name for name in frames.BESIDE if name in frame]
    # an unseen rule over all values keeps the axes of a panel where they are while the control moves
    ends, by = {"low": "min(value)", "high": "max(value)"}, ["model_title", "observable"]
    rule = alt.Chart(frame).mark_rule(opacity=0).encode(y="min(low):Q", y2="max(high):Q")
    faceted = _grid(alt.layer(charts.traced(base).add_params(picked), rule), frame, names)
    return faceted.transform_fold(names, as_=["observable", "value"]).transform_joinaggregate(groupby=by, **ends)


def _grid(panel: alt.Chart, frame: pd.DataFrame, order: list[str] | None = None) -> alt.FacetChart:
    # beside the panels: above them a long name would push the panels apart
    name = alt.Header(orient="left", labelAngle=-90, labelAlign="center", labelFontSize=11)
    order = order or charts.unique(frame["observable"])
    # as wide as the text, each panel with some 45 pixels for its axis
    panel = panel.properties(width=600 // max(len(order), 3) - 50, height=140)
    row = alt.Row("model_title:N", sort=charts.unique(frame["model_title"]), header=name)
    faceted = panel.facet(row=row, column=alt.Column("observable:N", sort=order), spacing=14)
    return faceted.resolve_scale(x="independent", y="independent")
