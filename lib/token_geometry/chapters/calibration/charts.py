"""Charts of the chapter on validation: a tidy frame of `validation_report` in, an Altair chart out."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

_SCALE_SCHEME = "viridis"
_QUIET = "#666"
_PANEL = 225  # width in pixels of a panel of the differences


def manifolds(frame: pd.DataFrame, *, description: str, initial: int = 2) -> alt.Chart:
    """Estimated against true dimension, one panel a kind of manifold.

    Parameters
    ----------
    frame
        From `validation_report.manifold_frame`.
    description
        Alt text: chart type, axes, finding.
    initial
        Scale that the menu starts with.
    """
    if frame.empty:
        return charts.no_data("estimated dimension", description)
    titles = list(dict.fromkeys(frame["title"]))
    top = float(frame["dimension"].max()) * 1.05
    base = alt.Chart(frame).encode(x=alt.X("dimension:Q", title="true dimension"))
    diagonal = base.mark_line(color=_QUIET, strokeDash=[4, 3]).encode(y="dimension:Q")
    # the noise of a line has 64 dimensions: clamped, so that it does not squeeze the others
    limits = alt.Scale(domain=[0, 1.4 * top], clamp=True)
    color = _by_title(titles).legend(None)
    bars = base.mark_rule(strokeWidth=1.5).encode(
        y=alt.Y("low:Q", title="estimated dimension", scale=limits), y2="high:Q", color=color
    )
    points = base.mark_circle(size=34, opacity=1).encode(
        y="estimate:Q",
        color=color,
        tooltip=[
            alt.Tooltip("title:N", title="manifold"),
            alt.Tooltip("dimension:Q", title="true dimension"),
            alt.Tooltip("estimate:Q", title="estimate", format=".2f"),
            alt.Tooltip("error:Q", title="error", format=".2f"),
            alt.Tooltip("within:Q", title="samples within three errors"),
            alt.Tooltip("n_samples:Q", title="samples"),
        ],
    )
    expected = base.mark_tick(color="black", thickness=1.5, size=11).encode(
        y="expected:Q", tooltip=[alt.Tooltip("expected:Q", title="expected for so many points", format=".2f")]
    )
    panels = alt.layer(diagonal, bars, points, expected).properties(width=165, height=165)
    shown = _menu(frame["scale"], name="shown_scale", title="scale", initial=initial)
    panels = panels.add_params(shown).transform_filter("datum.scale == shown_scale")
    return panels.facet(facet=alt.Facet("title:N", sort=titles), columns=3).properties(description=description)


def scales(frame: pd.DataFrame, *, description: str, initial: int = 2) -> alt.Chart:
    """Estimated dimension against scale, one curve a manifold, at a true dimension that a menu chooses.

    Parameters
    ----------
    frame
        From `validation_report.manifold_frame`.
    description
        Alt text: chart type, axes, finding.
    initial
        True dimension that the menu starts with.
    """
    if frame.empty:
        return charts.no_data("estimated dimension", description)
    titles = list(dict.fromkeys(frame["title"]))
    x = alt.X("scale:Q", scale=alt.Scale(type="log", base=2), title="scale (rank n2)")
    base = alt.Chart(frame).encode(x=x)
    truth = base.mark_line(color=_QUIET, strokeDash=[4, 3]).encode(y="dimension:Q")
    color = _by_title(titles)
    # logarithmic, so that the noise of one curve leaves room for the bend of another
    limits = alt.Scale(type="log", nice=False)
    ticks = alt.Axis(values=[1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40])
    band = base.mark_area(opacity=0.15).encode(
        y=alt.Y("low:Q", title="estimated dimension", scale=limits, axis=ticks), y2="high:Q", color=color
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(
        y="estimate:Q",
        color=color,
        tooltip=[
            alt.Tooltip("title:N", title="manifold"),
            alt.Tooltip("scale:Q"),
            alt.Tooltip("estimate:Q", title="estimate", format=".2f"),
            alt.Tooltip("error:Q", title="error", format=".2f"),
        ],
    )
    shown = _menu(frame["dimension"], name="shown_dimension", title="true dimension", initial=initial)
    chart = alt.layer(band, line, truth).add_params(shown)
    chart = chart.transform_filter("datum.dimension == shown_dimension")
    return chart.properties(width=520, height=260, description=description)


def differences(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Relative difference to DADApy over layers, one panel a quantity, one curve a scale.

    Parameters
    ----------
    frame
        From `validation_report.difference_frame`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("relative difference to DADApy", description)
    limits = alt.Scale(type="log", domain=[5e-17, 1e-2])
    base = alt.Chart(frame).encode(x=alt.X("layer:Q", title="layer"))
    y = alt.Y(
        "difference:Q",
        title="relative difference to DADApy",
        scale=limits,
        axis=alt.Axis(format=".0e", values=[10.0**power for power in range(-16, -1, 2)]),
    )
    lines = base.mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(size=22)).encode(
        y=y,
        color=alt.Color("scale:O", title="scale", scale=alt.Scale(scheme=_SCALE_SCHEME)),
        tooltip=[
            alt.Tooltip("layer:Q"),
            alt.Tooltip("scale:O"),
            alt.Tooltip("difference:Q", title="relative difference", format=".1e"),
        ],
    )
    # one row a panel: a rule for every row would be drawn over itself
    once = base.transform_aggregate(limit="max(limit)", groupby=["quantity"])
    marks = [lines, *_rule(once, alt.Y("limit:Q"), "limit", color="#b22222")]
    for digits, text in ((24, "float32"), (53, "float64")):
        marks += _rule(once, alt.YDatum(2.0**-digits), text, color=_QUIET)
    panels = alt.layer(*marks).properties(width=_PANEL, height=260)
    order = list(dict.fromkeys(frame["quantity"]))
    panels = panels.facet(facet=alt.Facet("quantity:N", sort=order), columns=2, spacing=50)
    return panels.properties(description=description)


def precisions(frame: pd.DataFrame, *, description: str, initial: str = "ID at scale 64") -> alt.Chart:
    """An observable over layers in every precision, and below it its change from the first precision.

    Parameters
    ----------
    frame
        From `validation_report.precision_frame`.
    description
        Alt text: chart type, axes, finding.
    initial
        Observable that the menu starts with.
    """
    if frame.empty:
        return charts.no_data("observables by precision", description)
    titles = list(dict.fromkeys(frame["title"]))
    shown = _menu(frame["observable"], name="shown_observable", title="observable", initial=initial)
    x = alt.X("layer:Q", title="layer")
    base = alt.Chart(frame).transform_filter("datum.observable == shown_observable").encode(x=x)
    color = alt.Color(
        "title:N", title=None, scale=alt.Scale(domain=titles, range=list(charts.MODEL_COLORS[: len(titles)]))
    )
    tooltip = [
        alt.Tooltip("title:N", title="precision"),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("value:Q", format=".4f"),
        alt.Tooltip("change:Q", format="+.4f"),
    ]
    value = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=22)).encode(
        y=alt.Y("value:Q", title="value of the observable", scale=alt.Scale(zero=False)),
        color=color,
        tooltip=tooltip,
    )
    reference = base.transform_filter(alt.FieldEqualPredicate(field="title", equal=titles[0]))
    band = reference.transform_calculate(below="-datum.error").mark_area(color=_QUIET, opacity=0.18)
    band = band.encode(y=alt.Y("below:Q", title=f"change from {titles[0]}"), y2="error:Q")
    change = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=22)).encode(
        y=alt.Y("change:Q"), color=color, tooltip=tooltip
    )
    upper = value.properties(width=520, height=200)
    lower = alt.layer(band, change).properties(width=520, height=150)
    return alt.vconcat(upper, lower).add_params(shown).properties(description=description)


def _rule(once: alt.Chart, y, text: str, *, color: str) -> list[alt.Chart]:
    rule = once.mark_rule(color=color, strokeDash=[4, 3]).encode(x=alt.value(0), x2=alt.value(_PANEL), y=y)
    # outside the panel, where no curve runs through it
    label = once.mark_text(color=color, align="left", baseline="middle", dx=4, fontSize=10)
    return [rule, label.encode(x=alt.value(_PANEL), y=y, text=alt.value(text))]


def _menu(values: pd.Series, *, name: str, title: str, initial) -> alt.Parameter:
    options = list(dict.fromkeys(values))
    options = sorted(options) if not isinstance(options[0], str) else options
    menu = alt.binding_select(options=options, name=f"{title} ")
    return alt.param(name, value=initial if initial in options else options[0], bind=menu)


def _by_title(titles: list[str]) -> alt.Color:
    colors = list(charts.MODEL_COLORS[: len(titles)])
    return alt.Color("title:N", title="manifold", scale=alt.Scale(domain=titles, range=colors))
