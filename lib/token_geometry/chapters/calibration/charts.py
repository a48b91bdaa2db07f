"""Charts of the chapter on validation."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

_QUIET = "#666"
_DASHED = {"color": _QUIET, "strokeDash": [4, 3]}
_PANEL = 225  # width in pixels of a panel of the differences


@charts.figure("estimated dimension")
def manifolds(frame: pd.DataFrame, *, initial: int = 2) -> alt.TopLevelMixin:
    """Points with error bars, one panel per kind of manifold: estimated against true dimension, with the
    diagonal where they are equal.
    """
    top = float(frame["dimension"].max()) * 1.05
    base = alt.Chart(frame).encode(x=alt.X("dimension:Q", title="true dimension"))
    diagonal = base.mark_line(**_DASHED).encode(y="dimension:Q")
    # the noise of a line has 64 dimensions: clamped, so that it does not squeeze the others
    y = alt.Y("low:Q", title="estimated dimension", scale=alt.Scale(domain=[0, 1.4 * top], clamp=True))
    color = charts.color(frame, "title", "manifold", legend=None)
    bars = base.mark_rule(strokeWidth=1.5).encode(y=y, y2="high:Q", color=color)
    tooltip = [
        alt.Tooltip("title:N", title="manifold"),
        alt.Tooltip("dimension:Q", title="true dimension"),
        *charts.tooltip("estimate:Q .2f", "error:Q .2f"),
        alt.Tooltip("within:Q", title="samples within three errors"),
        *charts.tooltip("n_samples:Q"),
    ]
    points = base.mark_circle(size=34, opacity=1).encode(y="estimate:Q", color=color, tooltip=tooltip)
    expected = base.mark_tick(color="black", thickness=1.5, size=11).encode(
        y="expected:Q", tooltip=[alt.Tooltip("expected:Q", title="expected for so many points", format=".2f")]
    )
    layers = alt.layer(diagonal, bars, points, expected)
    chart = charts.panels(layers, frame, "title", width=165, height=165, columns=3, independent=())
    return charts.chosen(chart, frame["scale"], title="scale", initial=initial)


@charts.figure("estimated dimension")
def scales(frame: pd.DataFrame, *, initial: int = 2) -> alt.TopLevelMixin:
    """Line chart: estimated dimension against scale on a logarithmic axis, one curve per manifold."""
    base = alt.Chart(frame).encode(x=charts.SCALE_AXIS)
    truth = base.mark_line(**_DASHED).encode(y="dimension:Q")
    color = charts.color(frame, "title", "manifold")
    # logarithmic, so that the noise of one curve leaves room for the bend of another
    limits = alt.Scale(type="log", nice=False)
    ticks = alt.Axis(values=[1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40])
    y = alt.Y("low:Q", title="estimated dimension", scale=limits, axis=ticks)
    band = base.mark_area(opacity=0.15).encode(y=y, y2="high:Q", color=color)
    tooltip = [alt.Tooltip("title:N", title="manifold")]
    tooltip += charts.tooltip("scale:Q", "estimate:Q .2f", "error:Q .2f")
    line = base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(y="estimate:Q", color=color, tooltip=tooltip)
    chart = alt.layer(band, line, truth).properties(width=520, height=260)
    return charts.chosen(chart, frame["dimension"], title="true dimension", initial=initial)


@charts.figure("relative difference to DADApy")
def differences(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Line chart in two panels, intrinsic dimension and its error: relative difference to DADApy on a
    logarithmic axis against layer, one curve per scale.
    """
    base = alt.Chart(frame).encode(x=alt.X("layer:Q", title="layer"))
    y = alt.Y(
        "difference:Q",
        title="relative difference to DADApy",
        scale=alt.Scale(type="log", domain=[5e-17, 1e-2]),
        axis=alt.Axis(format=".0e", values=[10.0**power for power in range(-16, -1, 2)]),
    )
    lines = base.mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(size=22)).encode(
        y=y,
        color=alt.Color("scale:O", title="scale", scale=alt.Scale(scheme="viridis")),
        tooltip=charts.tooltip("layer:Q", "scale:O", "difference:Q .1e"),
    )
    # one row per panel: a rule for every row would be drawn over itself
    once = base.transform_aggregate(limit="max(limit)", groupby=["quantity"])
    marks = [lines, *_rule(once, alt.Y("limit:Q"), "limit", color="#b22222")]
    for digits, text in ((24, "float32"), (53, "float64")):
        marks += _rule(once, alt.YDatum(2.0**-digits), text, color=_QUIET)
    panels = alt.layer(*marks).properties(width=_PANEL, height=260)
    facet = alt.Facet("quantity:N", sort=charts.unique(frame["quantity"]))
    return panels.facet(facet=facet, columns=2, spacing=50)


@charts.figure("observables by precision")
def precisions(frame: pd.DataFrame, *, initial: str = "ID at scale 64") -> alt.VConcatChart:
    """Two line charts, one above the other: an observable against layer, one curve per precision; and its
    change from float32.
    """
    first = frame["title"].iloc[0]
    base = alt.Chart(frame).encode(x=alt.X("layer:Q", title="layer"))
    tooltip = [alt.Tooltip("title:N", title="precision")]
    tooltip += charts.tooltip("layer:Q", "value:Q .4f", "change:Q +.4f")
    curve = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=22))
    curve = curve.encode(color=charts.color(frame, "title", None), tooltip=tooltip)
    value = curve.encode(y=alt.Y("value:Q", title="value of the observable", scale=alt.Scale(zero=False)))
    reference = base.transform_filter(alt.FieldEqualPredicate(field="title", equal=first))
    band = reference.transform_calculate(below="-datum.error").mark_area(color=_QUIET, opacity=0.18)
    band = band.encode(y=alt.Y("below:Q", title=f"change from {first}"), y2="error:Q")
    upper = value.properties(width=520, height=200)
    lower = alt.layer(band, curve.encode(y=alt.Y("change:Q"))).properties(width=520, height=150)
    chart = alt.vconcat(upper, lower)
    return charts.chosen(chart, frame["observable"], title="observable", initial=initial)


def _rule(once: alt.Chart, y, text: str, *, color: str) -> list[alt.Chart]:
    rule = once.mark_rule(color=color, strokeDash=[4, 3]).encode(x=alt.value(0), x2=alt.value(_PANEL), y=y)
    # outside the panel, where no curve runs through it
    label = once.mark_text(color=color, align="left", baseline="middle", dx=4, fontSize=10)
    return [rule, label.encode(x=alt.value(_PANEL), y=y, text=alt.value(text))]
