"""Charts of the chapter on shuffling: a tidy frame of `observable_frames` in, an Altair chart out."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts
from token_geometry.chapters.observable_frames import OBSERVABLES

_WIDTH, _HEIGHT = 150, 140  # of a panel among three


def panels(frame: pd.DataFrame, *, column: str, description: str, y_title: str | None = None) -> alt.Chart:
    """Mean over prompts against layer by shuffle level: one row a model, one column a value of `column`.

    Parameters
    ----------
    frame
        Columns of `frames.summary` and `column`.
    column
        Column of the panels from left to right.
    description
        Alt text: chart type, axes, finding.
    y_title
        Title of the y axes; by default none, for panels of several quantities.
    """
    if frame.empty:
        return charts.no_data(y_title or "observables", description)
    panel = charts.curves(frame, y_title=y_title, keep=("model_title", column))
    return _grid(panel, frame, column).properties(description=description)


def prompt_levels(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Observables of one prompt against layer, one curve a shuffle level; a menu chooses the prompt.

    Parameters
    ----------
    frame
        From `observable_frames.single_prompts`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("observables of one prompt", description)
    values = sorted(frame["shuffle_level"].unique().tolist())
    colors = [charts.LEVEL_COLORS[value % len(charts.LEVEL_COLORS)] for value in values]
    picked = alt.selection_point(fields=["shuffle_level"], bind="legend")
    panel = _lines(frame).encode(
        color=alt.Color("shuffle_level:N", title="shuffle level S", scale=alt.Scale(domain=values, range=colors)),
        opacity=alt.condition(picked, alt.value(1.0), alt.value(0.1)),
    )
    grid = _grid_of_observables(panel.add_params(picked), frame)
    first = frame["prompt"].iloc[0]
    return charts.chosen(grid, frame["prompt"], title="prompt", initial=first).properties(description=description)


def prompts(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Observables against layer, one curve a prompt; to point at one marks it in all panels.

    Parameters
    ----------
    frame
        From `observable_frames.single_prompts`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("observables by prompt", description)
    hovered = alt.selection_point(fields=["prompt"], on="pointerover", nearest=True, empty=True)
    names = list(dict.fromkeys(frame["prompt"]))
    panel = _lines(frame).encode(
        color=alt.condition(
            hovered,
            alt.Color(
                "prompt:N",
                title="prompt",
                scale=alt.Scale(domain=names, scheme="tableau10"),
                legend=alt.Legend(columns=3),
            ),
            alt.value("#cccccc"),
        ),
        opacity=alt.condition(hovered, alt.value(1.0), alt.value(0.4)),
    )
    grid = _grid_of_observables(panel.add_params(hovered), frame)
    return charts.chosen(grid, frame["shuffle_level"], title="S =").properties(description=description)


def effects(frame: pd.DataFrame, *, description: str, initial: int) -> alt.Chart:
    """Change of the ID by full shuffling against layer with its interval, at a scale that a slider chooses.

    Parameters
    ----------
    frame
        Columns `model_title`, `layer`, `scale`, `mean`, `low`, `high`, `n_prompts`.
    description
        Alt text: chart type, axes, finding.
    initial
        Scale that the slider starts with.
    """
    if frame.empty:
        return charts.no_data("effect of shuffling on the ID", description)
    base = alt.Chart(frame).encode(x=alt.X("layer:Q", title="layer"))
    color = charts.LEVEL_COLORS[-1]
    y = alt.Y("low:Q", title="change of the ID")
    band = base.mark_area(opacity=0.18, color=color).encode(y=y, y2="high:Q")
    line = base.mark_line(color=color, point=alt.OverlayMarkDef(size=24, color=color)).encode(
        y="mean:Q",
        tooltip=[
            "layer:Q",
            alt.Tooltip("mean:Q", format="+.2f"),
            alt.Tooltip("low:Q", format="+.2f"),
            alt.Tooltip("high:Q", format="+.2f"),
            alt.Tooltip("n_prompts:Q", title="prompts"),
        ],
    )
    zero = alt.Chart().mark_rule(color="#888", strokeDash=[3, 3]).encode(y=alt.datum(0))
    titles = list(dict.fromkeys(frame["model_title"]))
    panel = alt.layer(zero, band, line, data=frame).properties(width=270 if len(titles) > 1 else 520, height=200)
    chart = panel.facet(facet=alt.Facet("model_title:N", sort=titles), columns=2).resolve_scale(x="independent")
    return charts.chosen(chart, frame["scale"], title="scale", initial=initial).properties(description=description)


def angles(frame: pd.DataFrame, *, description: str, initial: int) -> alt.Chart:
    """Distribution of the neighbor angle at a layer that a slider chooses, one curve a shuffle level.

    Parameters
    ----------
    frame
        From `observable_frames.angles`.
    description
        Alt text: chart type, axes, finding.
    initial
        Layer that the slider starts with.
    """
    if frame.empty:
        return charts.no_data("neighbor angle", description)
    values = [column for column in frame if column.startswith("S = ")]
    colors = [charts.LEVEL_COLORS[int(value.split()[-1]) % len(charts.LEVEL_COLORS)] for value in values]
    picked = alt.selection_point(fields=["shuffle_level"], bind="legend")
    panel = (
        alt.Chart(frame)
        .mark_line(interpolate="step", strokeWidth=2)
        .encode(
            x=alt.X("angle:Q", title="neighbor angle (degrees)", scale=alt.Scale(domain=[0, 180])),
            y=alt.Y("share:Q", title="share of tokens", axis=alt.Axis(format="%")),
            color=alt.Color(
                "shuffle_level:N", title="shuffle level", scale=alt.Scale(domain=values, range=colors)
            ),
            opacity=alt.condition(picked, alt.value(1.0), alt.value(0.1)),
            tooltip=[
                alt.Tooltip("shuffle_level:N", title="shuffle level"),
                alt.Tooltip("angle:Q", title="center of the bin (degrees)"),
                alt.Tooltip("share:Q", format=".1%"),
            ],
        )
        .add_params(picked)
        .properties(width=270, height=200)
    )
    chart = panel.facet(
        facet=alt.Facet("model_title:N", sort=list(dict.fromkeys(frame["model_title"]))), columns=2
    )
    chart = chart.transform_fold(values, as_=["shuffle_level", "share"])
    chart = charts.chosen(chart, frame["layer"], title="layer", initial=initial)
    return chart.properties(description=description)


def _lines(frame: pd.DataFrame) -> alt.Chart:
    return (
        alt.Chart(frame)
        .mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(size=14))
        .encode(
            x=alt.X("layer:Q", title="layer"),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            detail="prompt:N",
            tooltip=[
                alt.Tooltip("prompt:N"),
                alt.Tooltip("shuffle_level:N", title="shuffle level S"),
                alt.Tooltip("layer:Q"),
                alt.Tooltip("value:Q", format=".3f"),
            ],
        )
    )


def _grid_of_observables(panel: alt.Chart, frame: pd.DataFrame) -> alt.FacetChart:
    # columns of the frame become rows in the browser: the page carries a third of the text
    names = [name for name in OBSERVABLES if name in frame]
    return _grid(panel, frame, "observable", order=names).transform_fold(names, as_=["observable", "value"])


def _grid(panel: alt.Chart, frame: pd.DataFrame, column: str, *, order: list[str] | None = None) -> alt.FacetChart:
    order = order or list(dict.fromkeys(frame[column]))
    rows = list(dict.fromkeys(frame["model_title"]))
    # two lines beside the panels: in one line above them a long name would push the panels apart
    lines = "split(replace(datum.label, ' (', '|('), '|')"
    name = alt.Header(orient="left", labelAngle=-90, labelAlign="center", labelFontSize=11, labelExpr=lines)
    grid = panel.properties(width=_WIDTH, height=_HEIGHT).facet(
        row=alt.Row("model_title:N", sort=rows, header=name),
        column=alt.Column(f"{column}:N", sort=order),
        spacing=14,
    )
    return grid.resolve_scale(x="independent", y="independent")
