"""Charts of the chapter on geometry and loss."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

_FIELDS = ["layer:Q", "scale:Q", "correlation:Q .2f", "mean:Q +.2f", "low:Q .2f", "high:Q .2f"]
_FIELDS += ["q_value:Q .2g", "n_prompts:Q"]


@charts.figure("correlation with the loss")
def correlation_curves(
    frame: pd.DataFrame, *, color: str = "measure", color_title: str = "correlation", x: str = "layer",
    y_title: str = "correlation with the loss", choose: str | None = None,
) -> alt.FacetChart:  # fmt: skip
    """Line chart with bands, one panel per model: {y_title} against {x}, one curve per {color}.

    A point is filled where the correlation is a discovery, and hollow elsewhere. A click in the legend
    keeps one curve. `color` is the column of the curves, `color_title` the title of its legend."""
    n_names, by_level = frame[color].nunique(), frame[color].iloc[0].startswith("S = ")
    palette = [*charts.LEVEL_COLORS[: n_names - 2], "#444444", "#888888"] if by_level else charts.MODEL_COLORS
    options = {"palette": palette, "legend": charts.legend(frame, color, choose)}
    colors, picked = charts.color(frame, color, color_title, **options), charts.legend_choice(color)
    axis = charts.LAYER_AXIS if x == "layer" else charts.SCALE_AXIS
    options = {"scale": alt.Scale(domain=[-1, 1]), "picked": picked, "band": 0.15 if n_names < 6 else 0.07}
    marks = charts.banded(frame, axis, colors, y_title, middle="correlation", **options)
    fill = alt.Fill(f"{color}:N", scale=colors["scale"])  # a scale of its own would have other colors
    fill = alt.condition("datum.discovered == 'yes'", fill, alt.value("#ffffff"))
    tips = [*charts.tooltip(f"{color}:N", **{color: color_title}), *_tooltip(frame)]
    points = alt.Chart(frame).mark_point(size=26, strokeWidth=1.3).encode(x=axis, y="correlation:Q", color=colors)
    points = points.encode(fill=fill, opacity=charts.shown(picked, 1.0, 0.0), tooltip=tips)
    chart = alt.layer(charts.zero_rule(data=frame).add_params(picked), *marks, points)
    return charts.panels(chart, frame, width=253)


def _tooltip(frame: pd.DataFrame) -> list[alt.Tooltip]:
    return charts.tooltip(*(field for field in _FIELDS if field.partition(":")[0] in frame))


@charts.figure("correlation with the loss")
def correlation_map(
    frame: pd.DataFrame, *, value: str = "correlation", title: str = "correlation with the loss", end: float = 1
) -> alt.TopLevelMixin:
    """Heat map, one panel per model: {title} over layer and scale."""
    x = alt.X("layer:O", title="layer", axis=alt.Axis(values=charts.layer_values(frame), labelAngle=0))
    y = alt.Y("scale:O", title="scale (rank n2)", sort="descending")
    base = alt.Chart(frame).encode(x=x, y=y, tooltip=_tooltip(frame))
    scale = alt.Scale(domain=[-end, end], scheme="purpleorange", reverse=True)
    legend = alt.Legend(gradientLength=240, values=[-end, -end / 2, 0, end / 2, end])
    cells = base.mark_rect().encode(color=alt.Color(f"{value}:Q", title=title, scale=scale, legend=legend))
    dots = base.mark_circle(size=10, color="black").transform_filter("datum.discovered == 'yes'")
    return charts.panels(alt.layer(cells, dots), frame, width=255)


@charts.figure("ID against loss")
def scatter(frame: pd.DataFrame, *, y_title: str) -> alt.TopLevelMixin:
    """Scatter plot, one point per prompt: {y_title} against loss."""
    titles = {"loss": charts.TITLES["loss"], "intrinsic_dimension": y_title}
    chart = _cloud(frame, titles, color="panel", legend=None, names=["hovered"])
    return charts.panels(chart, frame, "panel", width=255, independent=("x", "y"))


@charts.figure("ID of the logits", choose="scale")
def logit_scatter(frame: pd.DataFrame) -> alt.HConcatChart:
    """Scatter plots, one point per prompt: ID of the logits against entropy, and entropy against loss."""
    entropy, loss = ({name: charts.TITLES[name]} for name in ("entropy", "loss"))
    names = ["hovered_left", "hovered_right"]
    left = _cloud(frame, entropy | {"logit_intrinsic_dimension": "ID of the logits"}, names=names)
    right = _cloud(frame, loss | entropy, names=names[::-1])
    return alt.hconcat(*(part.properties(width=250, height=230) for part in (left, right)))


def _cloud(frame, titles: dict[str, str], *, names: list[str], color="model_title", legend=alt.Undefined):
    """Prompts and lines of least squares; `titles` of both axes, `names` of selections of a prompt, own first."""
    (x, x_title), (y, y_title) = titles.items()
    scales = [alt.Scale(zero=False) if color == "panel" else charts.whole(frame, name) for name in titles]
    axes = alt.X(f"{x}:Q", title=x_title, scale=scales[0]), alt.Y(f"{y}:Q", title=y_title, scale=scales[1])
    base = alt.Chart(frame).encode(*axes, color=charts.color(frame, color, legend=legend))
    line = base.transform_regression(x, y, groupby=[color]).mark_line(opacity=0.5, strokeDash=[5, 3])
    hovered = {"or": [{"param": name, "empty": False} for name in names]}
    size = alt.SizeValue(45, condition={"test": hovered, "value": 160})
    tips = charts.tooltip("prompt:N", f"{x}:Q .3f", f"{y}:Q .2f", **titles)
    own = alt.selection_point(name=names[0], fields=["prompt"], on="pointerover", empty=False)
    return alt.layer(line, base.mark_circle(opacity=1).encode(size=size, tooltip=tips).add_params(own))
