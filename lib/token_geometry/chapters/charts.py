"""Charts: a tidy frame in, an Altair chart out; one theme, one palette, one renderer.

Importing this module registers the theme and the renderer.
"""

import hashlib
import html
import itertools
import json
import math
import os

import altair as alt
import pandas as pd

MODEL_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Colors of models (Okabe and Ito's, readable with every kind of color vision)."""

LEVEL_COLORS = ("#1b2a49", "#3b528b", "#21908d", "#5dc863", "#e8a800", "#d1495b")
"""Colors of shuffle levels 0 … 5, from structured to fully shuffled."""

_numbers = itertools.count(1)

BUNDLE = "book/assets/vega-embed.js"
"""Site resource that draws the charts; it defines the global `vegaEmbed`."""


@alt.theme.register("token_geometry", enable=True)
def _theme() -> alt.theme.ThemeConfig:
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
    return {
        "config": {
            "font": font,
            "view": {"stroke": None, "continuousWidth": 280, "continuousHeight": 220},
            "axis": {
                "labelFontSize": 11,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "gridColor": "#e8e8e8",
                "domainColor": "#888",
                "tickColor": "#888",
            },
            "legend": {
                "orient": "top",
                "labelFontSize": 11,
                "labelLimit": 260,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "symbolOpacity": 1,
                "symbolType": "circle",
            },
            "header": {"labelFontSize": 12, "labelFontWeight": 600, "title": None},
            "title": {"fontSize": 12, "fontWeight": 600, "anchor": "start"},
        }
    }


def _render(spec: dict, **_) -> dict[str, str]:
    # Quarto asks a CDN for require.js and jQuery as soon as a cell emits text/html;
    # raw HTML inside Markdown reaches the page without them.
    body = chart_html(spec)
    return {"text/markdown": f"```{{=html}}\n{body}\n```"}


def chart_html(spec: dict) -> str:
    """HTML of a chart on a page that has loaded `BUNDLE`: a labelled div and a call to `vegaEmbed`."""
    spec = _with_csv(spec)
    # "</script" would end the script element, and "<!--" keep it from ending, wherever in the data they stand
    text = json.dumps(spec, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    # the number keeps two equal charts of a page apart
    name = f"chart-{hashlib.sha256(text.encode()).hexdigest()[:12]}-{next(_numbers)}"
    label = html.escape(spec.get("description", ""), quote=True)
    options = '{"actions":{"export":true,"source":false,"compiled":false,"editor":false}}'
    return (
        f'<div id="{name}" class="vega-chart" role="img" aria-label="{label}"></div>\n'
        f'<script>vegaEmbed("#{name}",{text},{options});</script>'
    )


def _with_csv(spec: dict) -> dict:
    """The same chart with its data as CSV, a third of the size: rows do not repeat the names of columns."""
    formats, texts = {}, {}
    for name, rows in spec.get("datasets", {}).items():
        frame = pd.DataFrame(rows)
        texts[name] = frame.to_csv(index=False, lineterminator="\n")
        numeric = {column: pd.api.types.is_numeric_dtype(frame[column]) for column in frame}
        parse = {column: "number" if number else "string" for column, number in numeric.items()}
        formats[name] = {"type": "csv", "parse": parse}

    def rewrite(part):
        if isinstance(part, list):
            return [rewrite(item) for item in part]
        if not isinstance(part, dict):
            return part
        if set(part) == {"name"} and part["name"] in formats:
            return part | {"format": formats[part["name"]]}
        return {key: rewrite(value) for key, value in part.items() if key != "datasets"}

    return rewrite(spec) | ({"datasets": texts} if texts else {})


alt.renderers.register("token_geometry", _render)
alt.data_transformers.disable_max_rows()
# Both renderers of the book set the profile. In JupyterLab, where no page has
# loaded the bundle, Altair's own renderer draws.
alt.renderers.enable("token_geometry" if "QUARTO_PROFILE" in os.environ else "default")


def layer_curves(
    frame: pd.DataFrame,
    *,
    y_title: str,
    description: str,
    x: str = "layer",
    color: str = "shuffle_level",
    color_title: str = "shuffle level S",
    facet: str | None = "model_title",
    choose: str | None = None,
    choose_title: str = "",
    initial: int | None = None,
    y_zero: bool = False,
) -> alt.Chart:
    """Mean over prompts against layer, with bands of one standard deviation.

    Among shuffle levels only the lowest and the highest have a band.

    Parameters
    ----------
    frame
        Columns `mean`, `std`, `low`, `high`, `n_prompts`, `layer`, the columns named by `x`, `color`, `facet` and
        `choose`; one row a point.
    y_title
        Title of the y axis.
    description
        Alt text: chart type, axes, finding.
    x
        `layer` or `relative_depth`.
    color
        Column of the curves.
    color_title
        Title of the legend; a click there keeps one curve.
    facet
        Column of the panels; None for a single panel.
    choose
        Column, of which a slider under the chart shows one value at a time.
    choose_title
        Name of that value in the title of the chart.
    initial
        Value that the slider starts with.
    y_zero
        Whether the y axis starts at zero.

    Returns
    -------
    altair.Chart
        A chart that says so where the frame is empty.
    """
    if frame.empty:
        return no_data(y_title, description)
    n_panels = frame[facet].nunique() if facet else 1
    chart = curves(
        frame, x=x, y_title=y_title, color=color, color_title=color_title, keep=(facet, choose), y_zero=y_zero
    )
    chart = chart.properties(width=270 if n_panels > 1 else 520, height=230)
    if facet:
        chart = chart.facet(
            facet=alt.Facet(f"{facet}:N", sort=list(dict.fromkeys(frame[facet]))), columns=2
        ).resolve_scale(x="independent" if x == "layer" else "shared")
    if choose:
        chart = chosen(chart, frame[choose], title=choose_title, initial=initial)
    return chart.properties(description=description)


def curves(
    frame: pd.DataFrame,
    *,
    y_title: str | None,
    x: str = "layer",
    color: str = "shuffle_level",
    color_title: str = "shuffle level S",
    keep: tuple = (),
    y_zero: bool = False,
    picked: alt.Parameter | None = None,
) -> alt.LayerChart:
    """Layers of one panel of `layer_curves`: bands, lines and points, with a legend to click.

    Parameters
    ----------
    frame, y_title, x, color, color_title, y_zero
        As of `layer_curves`.
    keep
        Further columns that facets and filters need; None among them is passed over.
    picked
        Selection of another panel that this one follows; by default it makes its own, at the legend.
    """
    x_title = {"layer": "layer", "relative_depth": "relative depth"}[x]
    columns = dict.fromkeys(c for c in (x, "layer", color, *keep, "mean", "std", "low", "high", "n_prompts") if c)
    by_level = color == "shuffle_level"
    values = sorted(set(frame[color])) if by_level else list(dict.fromkeys(frame[color]))
    palette = LEVEL_COLORS if by_level else MODEL_COLORS
    colors = [palette[(value if by_level else place) % len(palette)] for place, value in enumerate(values)]
    own = picked is None
    picked = alt.selection_point(fields=[color], bind="legend") if own else picked
    base = alt.Chart(frame[list(columns)]).encode(
        x=alt.X(f"{x}:Q", title=x_title),
        color=alt.Color(f"{color}:N", title=color_title, scale=alt.Scale(domain=values, range=colors)),
    )
    tooltip = [
        alt.Tooltip(f"{color}:N", title=color_title),
        alt.Tooltip("layer:Q", title="layer"),
        alt.Tooltip("mean:Q", title="mean", format=".3f"),
        alt.Tooltip("std:Q", title="standard deviation", format=".3f"),
        alt.Tooltip("n_prompts:Q", title="prompts"),
    ]
    y_scale = alt.Scale(zero=y_zero)
    outer = [values[0], values[-1]] if by_level else values
    # bands of the levels in between would cover one another
    band = (
        base.transform_filter(alt.FieldOneOfPredicate(color, outer))
        .mark_area()
        .encode(
            y=alt.Y("low:Q", title=y_title, scale=y_scale),
            y2="high:Q",
            opacity=alt.condition(picked, alt.value(0.18), alt.value(0.02)),
        )
    )
    line = base.mark_line(strokeWidth=2).encode(
        y="mean:Q", opacity=alt.condition(picked, alt.value(1.0), alt.value(0.1))
    )
    points = base.mark_circle(size=28).encode(
        y="mean:Q", tooltip=tooltip, opacity=alt.condition(picked, alt.value(0.9), alt.value(0.0))
    )
    chart = alt.layer(band, line, points)
    return chart.add_params(picked) if own else chart


def chosen(chart: alt.TopLevelMixin, values: pd.Series, *, title: str, initial=None) -> alt.TopLevelMixin:
    """A chart of which a control under it shows the rows with one value of a column; its title says which.

    Whole numbers in a row and powers of two have a slider, anything else a menu.

    Parameters
    ----------
    chart
        Any chart whose data hold the column.
    values
        The column.
    title
        Name of a value, as `scale` or `layer`.
    initial
        Value to begin with; by default, and if the column lacks it, the first.
    """
    options = sorted(values.unique().tolist())
    initial = initial if initial in options else options[0]
    name = f"shown_{values.name}"
    if len(options) == 1:
        expression, bind, start = json.dumps(options[0]), None, None
    elif _is_row(options):
        expression, start = name, initial
        bind = alt.binding_range(min=options[0], max=options[-1], step=1, name=f"{title} ")
    elif all(isinstance(v, int) and v > 0 for v in options) and _is_row([math.log2(v) for v in options]):
        # a slider has equal steps: it moves the exponent
        expression, start = f"pow(2, {name})", int(math.log2(initial))
        limits = (int(math.log2(options[0])), int(math.log2(options[-1])))
        bind = alt.binding_range(min=limits[0], max=limits[1], step=1, name=f"{title} 2^")
    else:
        expression, start = name, initial
        bind = alt.binding_select(options=options, name=f"{title} ")
    if bind is not None:
        chart = chart.add_params(alt.param(name, value=start, bind=bind))
    text = alt.ExprRef(f"'{title} ' + {expression}")
    kept = f"datum['{values.name}'] == {expression}"
    if isinstance(chart, alt.HConcatChart):  # its parts have data of their own
        chart.hconcat = [part.transform_filter(kept) for part in chart.hconcat]
    else:
        chart = chart.transform_filter(kept)
    return chart.properties(title=alt.TitleParams(text=text))


def _is_row(values: list) -> bool:
    return not isinstance(values[0], str) and all(b - a == 1 for a, b in itertools.pairwise(values))


def headline(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Intrinsic dimension over layers, structured against shuffled, one panel a scale.

    Parameters
    ----------
    frame
        Columns `layer`, `shuffle_level`, `scale`, `mean`, `std`, `low`, `high`, `n_prompts`.
    description
        Alt text: chart type, axes, finding.
    """
    frame = frame.assign(panel=[f"scale {scale}" for scale in frame["scale"]])
    return layer_curves(frame, y_title="intrinsic dimension", description=description, facet="panel")


def loss_by_level(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Loss against shuffle level: one thin line a prompt, a thick one for their mean.

    Parameters
    ----------
    frame
        Columns `model_title`, `shuffle_level`, `prompt`, `loss`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return no_data("loss (nats)", description)
    titles = list(dict.fromkeys(frame["model_title"]))
    colors = list(MODEL_COLORS[: len(titles)])
    hovered = alt.selection_point(fields=["prompt"], on="pointerover", empty=False)
    base = alt.Chart(frame).encode(
        x=alt.X("shuffle_level:O", title="shuffle level S", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("model_title:N", title="model", scale=alt.Scale(domain=titles, range=colors)),
    )
    single = (
        base.mark_line(point=alt.OverlayMarkDef(size=40))
        .encode(
            y=alt.Y("loss:Q", title="loss (nats)", scale=alt.Scale(zero=False)),
            detail=["prompt:N", "model_title:N"],
            opacity=alt.condition(hovered, alt.value(1.0), alt.value(0.25)),
            tooltip=[
                alt.Tooltip("prompt:N"),
                alt.Tooltip("shuffle_level:O", title="shuffle level S"),
                alt.Tooltip("loss:Q", format=".3f", title="loss (nats)"),
            ],
        )
        .add_params(hovered)
    )
    mean = base.mark_line(strokeWidth=3).encode(y="mean(loss):Q")
    return alt.layer(single, mean).properties(width=520, height=230, description=description)


def scale_curves(frame: pd.DataFrame, *, description: str, initial: int) -> alt.Chart:
    """Intrinsic dimension against scale at a layer that a slider chooses.

    Parameters
    ----------
    frame
        Columns `model_title`, `layer`, `scale`, `mean`, `std`, `low`, `high`, `n_prompts`.
    description
        Alt text: chart type, axes, finding.
    initial
        Layer that the slider starts with.
    """
    if frame.empty:
        return no_data("intrinsic dimension", description)
    titles = list(dict.fromkeys(frame["model_title"]))
    colors = list(MODEL_COLORS[: len(titles)])
    columns = ["model_title", "layer", "scale", "mean", "std", "low", "high"]
    base = alt.Chart(frame[columns]).encode(
        x=alt.X("scale:Q", scale=alt.Scale(type="log", base=2), title="scale (rank n2)"),
        color=alt.Color("model_title:N", title="model", scale=alt.Scale(domain=titles, range=colors)),
    )
    # fixed limits, so that moving the slider shows the change
    limits = alt.Scale(domain=[0, float(frame.query("layer > 0")["high"].max())], clamp=True)
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("low:Q", title="intrinsic dimension", scale=limits), y2="high:Q"
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(
        y="mean:Q",
        tooltip=[
            alt.Tooltip("model_title:N", title="model"),
            alt.Tooltip("scale:Q"),
            alt.Tooltip("mean:Q", format=".2f"),
            alt.Tooltip("std:Q", format=".2f", title="standard deviation"),
        ],
    )
    chart = alt.layer(band, line).properties(width=520, height=230)
    return chosen(chart, frame["layer"], title="layer", initial=initial).properties(description=description)


def no_data(what: str, description: str) -> alt.Chart:
    """A chart that says that the run holds no data for it.

    Parameters
    ----------
    what
        Title of the quantity.
    description
        Alt text of the chart that would be there.
    """
    text = f"{what}: this run holds no data for this figure"
    return (
        alt.Chart(pd.DataFrame({"text": [text]}))
        .mark_text(fontSize=13, color="#666")
        .encode(text="text:N")
        .properties(width=520, height=80, description=f"{description} No data in this run.")
    )
