"""Charts of the chapter on published results: a tidy frame in, an Altair chart out."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

VERDICT_COLORS = {"agrees": "#0072b2", "open": "#8a8a8a", "disagrees": "#d55e00"}
"""Colors of what an interval says about a claim."""

_DASHES = {"published": [1, 0], "run": [5, 3]}


def effects(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Points with intervals: the number of every claim for every model, one panel a claim.

    Parameters
    ----------
    frame
        From `claims.compare`.
    description
        Alt text: chart type, axes, finding.
    """
    shown = frame[frame["verdict"] != "missing"]
    if shown.empty:
        return charts.no_data("claims", description)
    models = list(dict.fromkeys(shown["model_title"]))
    base = alt.Chart(shown[["claim", "model_title", "side", "value", "low", "high", "verdict"]].round(4)).encode(
        y=alt.Y("model_title:N", title=None, sort=models, axis=alt.Axis(labelLimit=200)),
        color=alt.Color(
            "verdict:N",
            title="with the claim, it",
            scale=alt.Scale(domain=list(VERDICT_COLORS), range=list(VERDICT_COLORS.values())),
        ),
    )
    zero = alt.Chart().mark_rule(color="#888", strokeDash=[3, 3]).encode(x=alt.datum(0))
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=None), x2="high:Q")
    points = base.mark_point(size=55, filled=True, opacity=1).encode(
        x=alt.X("value:Q", title=None),
        shape=alt.Shape(
            "side:N", title="numbers", scale=alt.Scale(domain=["published", "run"], range=["circle", "diamond"])
        ),
        tooltip=[
            alt.Tooltip("model_title:N", title="model"),
            alt.Tooltip("value:Q", format="+.3g"),
            alt.Tooltip("low:Q", format="+.3g"),
            alt.Tooltip("high:Q", format="+.3g"),
            "verdict:N",
        ],
    )
    panel = alt.layer(zero, bars, points, data=base.data).properties(width=345, height=alt.Step(15))
    header = alt.Header(labelAnchor="start", labelLimit=560, labelPadding=2)
    order = list(dict.fromkeys(shown["claim"]))
    chart = panel.facet(facet=alt.Facet("claim:N", sort=order, header=header), columns=1, spacing=6)
    return chart.resolve_scale(x="independent").properties(description=description)


def beside(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Published curves and those of the run on the axis of relative depth, structured and shuffled.

    Parameters
    ----------
    frame
        Columns `observable`, `order` (`structured` or `shuffled`), `model_title`, `side`, `relative_depth`,
        `layer`, `mean`, `std`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("published and own curves", description)
    picked = alt.selection_point(fields=["model_title"], bind="legend")
    rows = []
    for observable, part in frame.groupby("observable", sort=False):
        panel = (
            alt.Chart(part)
            .mark_line(strokeWidth=2)
            .encode(
                x=alt.X("relative_depth:Q", title="relative depth", scale=alt.Scale(domain=[0, 1])),
                y=alt.Y("mean:Q", title=observable, scale=alt.Scale(zero=False)),
                color=_model_color(frame),
                strokeDash=alt.StrokeDash(
                    "side:N", title=None, scale=alt.Scale(domain=list(_DASHES), range=list(_DASHES.values()))
                ),
                opacity=alt.condition(picked, alt.value(0.95), alt.value(0.08)),
                tooltip=[
                    alt.Tooltip("model_title:N", title="model"),
                    "layer:Q",
                    alt.Tooltip("mean:Q", format=".3f"),
                    alt.Tooltip("std:Q", format=".3f", title="standard deviation"),
                ],
            )
            .properties(width=270, height=170)
        )
        panel = panel if rows else panel.add_params(picked)
        header = alt.Header(labels=not rows)
        rows.append(panel.facet(column=alt.Column("order:N", sort=["structured", "shuffled"], header=header)))
    return alt.vconcat(*rows).properties(description=description)


def correlations(frame: pd.DataFrame, *, description: str, initial: int = 2) -> alt.Chart:
    """Correlation of ID and loss against relative depth with intervals, one panel a model; a slider for the scale.

    Parameters
    ----------
    frame
        Columns `model_title`, `side`, `layer`, `relative_depth`, `scale`, `correlation`, `low`, `high`,
        `n_prompts`.
    description
        Alt text: chart type, axes, finding.
    initial
        Scale that the slider starts with.
    """
    if frame.empty:
        return charts.no_data("correlation of ID and loss", description)
    titles = list(dict.fromkeys(frame["model_title"]))
    limits = alt.Scale(domain=[-1, 1])
    base = alt.Chart(frame).encode(
        x=alt.X("relative_depth:Q", title="relative depth", scale=alt.Scale(domain=[0, 1])),
        color=_model_color(frame).legend(None),
    )
    zero = alt.Chart().mark_rule(color="#888", strokeDash=[3, 3]).encode(y=alt.datum(0))
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("low:Q", title="Pearson correlation", scale=limits), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=20)).encode(
        y="correlation:Q",
        tooltip=[
            "layer:Q",
            alt.Tooltip("correlation:Q", format=".2f"),
            alt.Tooltip("low:Q", format=".2f"),
            alt.Tooltip("high:Q", format=".2f"),
            alt.Tooltip("n_prompts:Q", title="prompts"),
        ],
    )
    panel = alt.layer(zero, band, line, data=frame).properties(width=165, height=150)
    chart = panel.facet(facet=alt.Facet("model_title:N", sort=titles), columns=3).resolve_scale(x="independent")
    return charts.chosen(chart, frame["scale"], title="scale", initial=initial).properties(description=description)


def losses(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Mean loss against shuffle level with one standard deviation, published and of the run.

    Parameters
    ----------
    frame
        Columns `model_title`, `side`, `shuffle_level`, `mean`, `low`, `high`, `std`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("loss (nats)", description)
    base = alt.Chart(frame).encode(
        x=alt.X("shuffle_level:O", title="shuffle level S", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("model_title:N", sort=list(dict.fromkeys(frame["model_title"]))),
        color=_model_color(frame),
    )
    bars = base.mark_rule().encode(y=alt.Y("low:Q", title="loss (nats)"), y2="high:Q")
    points = base.mark_point(filled=True, size=45, opacity=1).encode(
        y="mean:Q",
        shape=alt.Shape("side:N", title=None, scale=alt.Scale(domain=["published", "run"])),
        tooltip=[
            alt.Tooltip("model_title:N", title="model"),
            alt.Tooltip("mean:Q", format=".2f"),
            alt.Tooltip("std:Q", format=".2f", title="standard deviation"),
        ],
    )
    return alt.layer(bars, points).properties(width=520, height=230, description=description)


def _model_color(frame: pd.DataFrame) -> alt.Color:
    titles = list(dict.fromkeys(frame["model_title"]))
    colors = [charts.MODEL_COLORS[place % len(charts.MODEL_COLORS)] for place in range(len(titles))]
    return alt.Color(
        "model_title:N",
        title="model",
        scale=alt.Scale(domain=titles, range=colors),
        # five names in one row would be wider than the chart
        legend=alt.Legend(columns=3),
    )
