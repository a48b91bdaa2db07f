"""Charts of the chapter on geometry and loss: a tidy frame of `loss_report` in, an Altair chart out."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_QUIET = "#666"
_FULL = alt.Scale(domain=[-1, 1])


def correlation_curves(
    frame: pd.DataFrame,
    *,
    description: str,
    color: str = "measure",
    color_title: str = "correlation",
    choose: str | None = None,
    choose_title: str = "",
    initial=None,
) -> alt.TopLevelMixin:
    """Correlation with the loss against layer, one panel a model, with bootstrap bands.

    A point is filled where the correlation is a discovery, and hollow elsewhere. A click in the legend
    keeps one curve.

    Parameters
    ----------
    frame
        Columns `model_title`, `layer`, `correlation`, `low`, `high`, `q_value`, `discovered`, `n_prompts`
        and those named by `color` and `choose`.
    description
        Alt text: chart type, axes, finding.
    color, color_title
        Column of the curves, and title of its legend.
    choose, choose_title, initial
        Column of which a control shows one value at a time, its name, and the value to begin with.
    """
    if frame.empty:
        return charts.no_data("correlation with the loss", description)
    names = list(dict.fromkeys(frame[color]))
    by_level = names[0].startswith("S = ")
    colors = [*charts.LEVEL_COLORS[: len(names) - 2], "#000000", "#888888"] if by_level else _COLORS[: len(names)]
    picked = alt.selection_point(fields=[color], bind="legend")
    base = alt.Chart(frame).encode(
        x=alt.X("layer:Q", title="layer"),
        color=alt.Color(f"{color}:N", title=color_title, scale=alt.Scale(domain=names, range=list(colors))),
    )
    band = base.mark_area().encode(
        y=alt.Y("low:Q", title="correlation with the loss", scale=_FULL),
        y2="high:Q",
        opacity=alt.condition(picked, alt.value(0.13), alt.value(0.0)),
    )
    line = base.mark_line(strokeWidth=2).encode(
        y="correlation:Q", opacity=alt.condition(picked, alt.value(1.0), alt.value(0.1))
    )
    points = base.mark_point(size=26, strokeWidth=1.3).encode(
        y="correlation:Q",
        fill=alt.condition("datum.discovered == 'yes'", f"{color}:N", alt.value("white"), legend=None),
        opacity=alt.condition(picked, alt.value(1.0), alt.value(0.0)),
        tooltip=[alt.Tooltip(f"{color}:N", title=color_title), *_tooltip(frame)],
    )
    zero = alt.Chart(frame).mark_rule(color=_QUIET, strokeDash=[4, 3]).encode(y=alt.datum(0))
    chart = alt.layer(band, zero, line, points).add_params(picked)
    return _panels(chart, frame, choose, choose_title, initial).properties(description=description)


def _tooltip(frame: pd.DataFrame) -> list[alt.Tooltip]:
    titles = {
        "layer": "layer",
        "scale": "scale",
        "correlation": "correlation",
        "low": "from",
        "high": "to",
        "q_value": "adjusted p-value",
        "n_prompts": "prompts",
    }
    formats = {name: ".2f" for name in ("correlation", "low", "high")} | {"q_value": ".2g"}
    return [
        alt.Tooltip(f"{name}:Q", title=title, format=formats.get(name, ""))
        for name, title in titles.items()
        if name in frame
    ]


def _panels(chart, frame: pd.DataFrame, choose, choose_title, initial) -> alt.TopLevelMixin:
    titles = list(dict.fromkeys(frame["model_title"]))
    chart = chart.properties(width=255 if len(titles) > 1 else 520, height=230)
    chart = chart.facet(facet=alt.Facet("model_title:N", sort=titles), columns=2).resolve_scale(x="independent")
    return charts.chosen(chart, frame[choose], title=choose_title, initial=initial) if choose else chart


def correlation_map(frame: pd.DataFrame, *, description: str) -> alt.TopLevelMixin:
    """Correlation with the loss as a heat map of layer and scale, one panel a model; dots mark discoveries.

    Parameters
    ----------
    frame
        Columns as of `correlation_curves`, and `scale`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("correlation with the loss", description)
    base = alt.Chart(frame).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelOverlap=True, labelAngle=0)),
        y=alt.Y("scale:O", title="scale (rank n2)", sort="descending"),
        tooltip=_tooltip(frame),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "correlation:Q",
            title="correlation with the loss",
            scale=alt.Scale(domain=[-1, 1], scheme="purpleorange", reverse=True),
            legend=alt.Legend(gradientLength=240, values=[-1, -0.5, 0, 0.5, 1]),
        )
    )
    dots = base.mark_circle(size=10, color="black").transform_filter("datum.discovered == 'yes'")
    return _panels(alt.layer(cells, dots), frame, None, "", None).properties(description=description)


def scatter(frame: pd.DataFrame, *, y_title: str, description: str) -> alt.TopLevelMixin:
    """ID against loss, one point a prompt and one panel a model; pointing at a prompt shows it in all panels.

    Parameters
    ----------
    frame
        Columns `panel`, `prompt`, `loss`, `intrinsic_dimension`.
    y_title
        Title of the y axis.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data(y_title, description)
    panels = list(dict.fromkeys(frame["panel"]))
    titles = {"loss": "loss (nats)", "intrinsic_dimension": y_title}
    chart = _cloud(frame, titles, color="panel", legend=None, names=["hovered"])
    chart = chart.properties(width=260 if len(panels) > 1 else 520, height=230)
    chart = chart.facet(facet=alt.Facet("panel:N", sort=panels), columns=2)
    return chart.resolve_scale(x="independent", y="independent").properties(description=description)


def logit_scatter(frame: pd.DataFrame, *, description: str, initial: int) -> alt.TopLevelMixin:
    """ID of the logits against entropy, and entropy against loss; pointing at a prompt shows it in both.

    Parameters
    ----------
    frame
        Columns `model_title`, `prompt`, `scale`, `logit_intrinsic_dimension`, `entropy`, `loss`.
    description
        Alt text: chart type, axes, finding.
    initial
        Scale that the control starts with.
    """
    if frame.empty:
        return charts.no_data("ID of the logits", description)
    nats = {name: f"{name} (nats)" for name in ("entropy", "loss")}
    names = ["hovered_left", "hovered_right"]
    left = _cloud(
        frame, {"entropy": nats["entropy"], "logit_intrinsic_dimension": "ID of the logits"}, names=names
    )
    right = _cloud(frame, {"loss": nats["loss"], "entropy": nats["entropy"]}, names=names[::-1])
    chart = alt.hconcat(*(part.properties(width=250, height=230) for part in (left, right)))
    chart = charts.chosen(chart, frame["scale"], title="scale", initial=initial)
    return chart.properties(description=description)


def _cloud(
    frame: pd.DataFrame,
    titles: dict[str, str],
    *,
    names: list[str],
    color: str = "model_title",
    legend=alt.Undefined,
) -> alt.LayerChart:
    """Points of prompts with the line of least squares of each color.

    `titles` are those of the two axes, by column. `names` are those of the selections of a prompt that the
    chart shows, of which it makes the first.
    """
    (x, x_title), (y, y_title) = titles.items()
    values = list(dict.fromkeys(frame[color]))
    base = alt.Chart(frame).encode(
        x=alt.X(f"{x}:Q", title=x_title, scale=alt.Scale(zero=False)),
        y=alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(zero=False)),
        color=alt.Color(
            f"{color}:N",
            title="model",
            scale=alt.Scale(domain=values, range=list(charts.MODEL_COLORS[: len(values)])),
            legend=legend,
        ),
    )
    line = base.transform_regression(x, y, groupby=[color]).mark_line(opacity=0.5, strokeDash=[5, 3])
    hovered = {"or": [{"param": name, "empty": False} for name in names]}
    points = base.mark_circle(opacity=1).encode(
        size=alt.SizeValue(45, condition={"test": hovered, "value": 160}),
        tooltip=[
            alt.Tooltip("prompt:N"),
            alt.Tooltip(f"{x}:Q", title=x_title, format=".3f"),
            alt.Tooltip(f"{y}:Q", title=y_title, format=".2f"),
        ],
    )
    own = alt.selection_point(name=names[0], fields=["prompt"], on="pointerover", empty=False)
    return alt.layer(line, points.add_params(own))
