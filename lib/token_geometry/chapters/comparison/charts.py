"""Charts of the chapter that compares models: a tidy frame in, an Altair chart out."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

_SCALE = alt.Scale(type="log", base=2)
_BY_MODEL = {"color": "model_title", "color_title": "model"}


def by_depth(
    frame: pd.DataFrame, *, y_title: str, description: str, choose: str | None = None, initial: int | None = None
) -> alt.Chart:
    """Mean over prompts by model, against the layer and against the relative depth.

    Parameters
    ----------
    frame
        Columns of `frames.summary`.
    y_title
        Title of the y axes.
    description
        Alt text: chart type, axes, finding.
    choose
        Column, of which a slider shows one value at a time; it is its own title.
    initial
        Value that the slider starts with.
    """
    if frame.empty:
        return charts.no_data(y_title, description)
    picked = alt.selection_point(fields=["model_title"], bind="legend")
    common = _BY_MODEL | {"keep": (choose,), "picked": picked}
    left = charts.curves(frame, y_title=y_title, **common).add_params(picked)
    right = charts.curves(frame, x="relative_depth", y_title=None, **common)
    chart = alt.hconcat(*(panel.properties(width=270, height=230) for panel in (left, right)), spacing=10)
    if choose:
        title = "k =" if choose == "k" else choose
        chart = charts.chosen(chart, frame[choose], title=title, initial=initial)
    return chart.properties(description=description)


def scales_by_layer(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Intrinsic dimension against scale, one curve a layer; to point at a layer marks it in all panels.

    Parameters
    ----------
    frame
        Columns `model_title`, `layer`, `scale`, `mean`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("intrinsic dimension", description)
    hovered = alt.selection_point(fields=["layer"], on="pointerover", nearest=True, empty=True)
    panel = (
        alt.Chart(frame[["model_title", "layer", "scale", "mean"]])
        .mark_line(point=alt.OverlayMarkDef(size=16), strokeWidth=1.5)
        .encode(
            x=alt.X("scale:Q", scale=_SCALE, title="scale (rank n2)"),
            y=alt.Y("mean:Q", title="intrinsic dimension"),
            color=alt.Color("layer:Q", scale=alt.Scale(scheme="viridis"), title="layer"),
            detail="layer:N",
            opacity=alt.condition(hovered, alt.value(0.9), alt.value(0.1)),
            tooltip=["layer:Q", "scale:Q", alt.Tooltip("mean:Q", format=".2f")],
        )
        .add_params(hovered)
    )
    return _by_model(panel, frame).properties(description=description)


def scales_by_prompt(frame: pd.DataFrame, *, description: str, initial: int) -> alt.Chart:
    """Intrinsic dimension against scale at a layer that a slider chooses, one curve a prompt.

    Parameters
    ----------
    frame
        Columns `model_title`, `prompt`, `layer`, `scale`, `value`, `loss`.
    description
        Alt text: chart type, axes, finding.
    initial
        Layer that the slider starts with.
    """
    if frame.empty:
        return charts.no_data("intrinsic dimension", description)
    hovered = alt.selection_point(fields=["prompt"], on="pointerover", nearest=True, empty=True)
    limits = alt.Scale(domain=[0, float(frame.query("layer > 0")["value"].max())], clamp=True)
    panel = (
        alt.Chart(frame)
        .mark_line(point=alt.OverlayMarkDef(size=16), strokeWidth=1.5)
        .encode(
            x=alt.X("scale:Q", scale=_SCALE, title="scale (rank n2)"),
            y=alt.Y("value:Q", title="intrinsic dimension", scale=limits),
            color=alt.Color("loss:Q", scale=alt.Scale(scheme="viridis"), title="loss (nats)"),
            detail="prompt:N",
            opacity=alt.condition(hovered, alt.value(0.9), alt.value(0.08)),
            tooltip=[
                "prompt:N",
                "scale:Q",
                alt.Tooltip("value:Q", format=".2f"),
                alt.Tooltip("loss:Q", format=".2f"),
            ],
        )
        .add_params(hovered)
    )
    chart = charts.chosen(_by_model(panel, frame), frame["layer"], title="layer", initial=initial)
    return chart.properties(description=description)


def layer_overlap(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Heat map of the overlap of neighborhoods between any two layers; a slider chooses the shuffle level.

    Parameters
    ----------
    frame
        Columns `model_title`, `shuffle_level`, `layer`, `layer_other`, `overlap`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("overlap of layers", description)
    ticks = alt.Axis(values=list(range(0, int(frame["layer"].max()) + 1, 5)), labelAngle=0)
    panel = (
        alt.Chart(frame)
        .mark_rect()
        .encode(
            x=alt.X("layer:O", title="layer", axis=ticks),
            y=alt.Y("layer_other:O", title="layer", sort="descending", axis=ticks),
            color=alt.Color(
                "overlap:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1]), title="overlap (k = 16)"
            ),
            tooltip=["layer:O", "layer_other:O", alt.Tooltip("overlap:Q", format=".2f")],
        )
    )
    chart = _by_model(panel, frame, height=270).resolve_scale(x="independent", y="independent")
    return charts.chosen(chart, frame["shuffle_level"], title="S =").properties(description=description)


def controls(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Trained model and its control side by side: one row an observable, one curve a shuffle level.

    Parameters
    ----------
    frame
        Columns of `frames.summary`, `observable`, and `kind`, the columns of the figure.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("untrained control", description)
    kinds = list(dict.fromkeys(frame["kind"]))
    picked = alt.selection_point(fields=["shuffle_level"], bind="legend")
    rows = []
    for observable, part in frame.groupby("observable", sort=False):
        panel = charts.curves(part, y_title=observable, keep=("kind",), picked=picked)
        panel = panel.properties(width=260, height=140)
        panel = panel if rows else panel.add_params(picked)
        header = alt.Header(labels=not rows, labelFontSize=11, labelLimit=255)
        rows.append(panel.facet(column=alt.Column("kind:N", sort=kinds, header=header)))
    return alt.vconcat(*rows).properties(description=description)


def _by_model(panel: alt.Chart, frame: pd.DataFrame, *, height: int = 230) -> alt.FacetChart:
    titles = list(dict.fromkeys(frame["model_title"]))
    sized = panel.properties(width=270 if len(titles) > 1 else 400, height=height)
    return sized.facet(facet=alt.Facet("model_title:N", sort=titles), columns=2)
