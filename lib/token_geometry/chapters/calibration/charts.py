"""Charts of the chapter on validation."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

_QUIET = "#666666"
_DASHED = {"color": _QUIET, "strokeDash": [4, 3]}


@charts.figure("estimated dimension", choose="scale")
def manifolds(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Points with error bars, one panel per kind of manifold: estimated against true dimension, with the
    diagonal where they are equal."""
    top = float(frame["dimension"].max()) * 1.05
    x = alt.X("dimension:Q", title="true dimension", scale=charts.whole(frame, "dimension"))
    base = alt.Chart(frame).encode(x=x)
    diagonal = base.mark_line(**_DASHED).encode(y="dimension:Q")
    # the noise of a line has 64 dimensions: clamped, so that it does not squeeze the others
    y = alt.Y("low:Q", title="estimated dimension", scale=alt.Scale(domain=[0, 1.4 * top], clamp=True))
    color = charts.color(frame, "title", "manifold", legend=None)
    bars = base.mark_rule(strokeWidth=1.5).encode(y=y, y2="high:Q", color=color)
    fields = ("title:N", "dimension:Q", "estimate:Q .2f", "error:Q .2f", "within:Q", "n_samples:Q")
    tooltip = charts.tooltip(*fields, title="manifold", within="samples within three errors")
    points = base.mark_circle(size=34, opacity=1).encode(y="estimate:Q", color=color, tooltip=tooltip)
    tooltip = charts.tooltip("expected:Q .2f", expected="expected for so many points")
    expected = base.mark_tick(color="#000000", thickness=1.5, size=11, orient="horizontal")
    expected = expected.encode(y="expected:Q", tooltip=tooltip)
    layers = alt.layer(diagonal, bars, points, expected)
    return charts.panels(layers, frame, "title", width=165, height=165, columns=3, independent=())


@charts.figure("estimated dimension", choose="dimension", initial=2)
def scales(frame: pd.DataFrame) -> alt.LayerChart:
    """Line chart: estimated dimension against scale on a logarithmic axis, one curve per manifold."""
    base = alt.Chart(frame).encode(x=charts.SCALE_AXIS)
    truth, color = base.mark_line(**_DASHED).encode(y="dimension:Q"), charts.color(frame, "title", "manifold")
    # logarithmic, so that the noise of one curve leaves room for the bend of another
    limits = charts.whole(frame, "low", "high", type="log", nice=False)
    ticks = alt.Axis(values=[1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40])
    y = alt.Y("low:Q", title="estimated dimension", scale=limits, axis=ticks)
    band = base.mark_area(opacity=0.15).encode(y=y, y2="high:Q", color=color)
    tooltip = charts.tooltip("title:N", "scale:Q", "estimate:Q .2f", "error:Q .2f", title="manifold")
    line = base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(y="estimate:Q", color=color, tooltip=tooltip)
    return alt.layer(band, line, truth).properties(width=520, height=260)


@charts.figure("relative difference to DADApy")
def differences(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Line chart in two panels, intrinsic dimension and its error: relative difference to DADApy on a
    logarithmic axis against layer, one curve per scale."""
    base, scale = alt.Chart(frame).encode(x=charts.LAYER_AXIS), alt.Scale(type="log", domain=[5e-17, 1e-2])
    axis = alt.Axis(format=".0e", values=[10.0**power for power in range(-16, -1, 2)])
    y = alt.Y("difference:Q", title="relative difference to DADApy", scale=scale, axis=axis)
    color = alt.Color("scale:O", title="scale", scale=alt.Scale(scheme="viridis"))
    tips = charts.tooltip("layer:Q", "scale:O", "difference:Q .1e")
    lines = base.mark_line(strokeWidth=1.5, point={"size": 22}).encode(y=y, color=color, tooltip=tips)
    # one row per panel: a rule for every row would be drawn over itself
    once = base.transform_aggregate(limit="max(limit)", groupby=["quantity"])
    marks = [lines, *_rule(once, alt.Y("limit:Q"), "limit", color="#b22222")]
    for digits, text in ((24, "float32"), (53, "float64")):
        marks += _rule(once, alt.YDatum(2.0**-digits), text, color=_QUIET)
    panels = alt.layer(*marks).properties(width=225, height=260)
    facet = alt.Facet("quantity:N", sort=charts.unique(frame["quantity"]))
    return panels.facet(facet=facet, columns=2, spacing=50)


@charts.figure("observables by precision", choose="observable", initial="ID at scale 64")
def precisions(frame: pd.DataFrame) -> alt.VConcatChart:
    """Two line charts, one above the other: an observable against layer, one curve per precision; and its
    change from float32."""
    first, base = frame["title"].iloc[0], alt.Chart(frame).encode(x=charts.LAYER_AXIS)
    tooltip = charts.tooltip("title:N", "layer:Q", "value:Q .4f", "change:Q +.4f", title="precision")
    curve = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=22))
    curve = curve.encode(color=charts.color(frame, "title", None), tooltip=tooltip)
    value = curve.encode(y=alt.Y("value:Q", title="value of the observable", scale=alt.Scale(zero=False)))
    reference = base.transform_filter(alt.FieldEqualPredicate(field="title", equal=first))
    band = reference.transform_calculate(below="-datum.error").mark_area(color=_QUIET, opacity=0.18)
    band = band.encode(y=alt.Y("below:Q", title=f"change from {first}"), y2="error:Q")
    lower = alt.layer(band, curve.encode(y=alt.Y("change:Q"))).properties(width=520, height=150)
    return alt.vconcat(value.properties(width=520, height=200), lower)


def _rule(once: alt.Chart, y, text: str, *, color: str) -> list[alt.Chart]:
    rule = once.mark_rule(color=color, strokeDash=[4, 3]).encode(x=alt.value(0), x2=alt.value("width"), y=y)
    # outside the panel, where no curve runs through it
    label = once.mark_text(color=color, align="left", baseline="middle", dx=4, fontSize=10)
    return [rule, label.encode(x=alt.value("width"), y=y, text=alt.value(text))]
