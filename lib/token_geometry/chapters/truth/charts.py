"""Charts of the chapter on truth: a tidy frame of `truth_report` in, an Altair chart out."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

FALSE_TRUE = ("#d55e00", "#0072b2")
"""Colors of the labels 0 and 1."""

_QUIET = "#666"
_PAIRS = {"1 and 2": ("c1", "c2"), "1 and 3": ("c1", "c3"), "2 and 3": ("c2", "c3")}


def projection(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Statements on two of their three leading components, which a menu chooses; one panel a model.

    Parameters
    ----------
    frame
        Columns `model_title`, `label`, `statement`, `c1`, `c2`, `c3`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("projection", description)
    menu = alt.binding_select(options=list(_PAIRS), name="components ")
    pair = alt.param("components", value="1 and 2", bind=menu)

    def panel(part: pd.DataFrame) -> alt.Chart:
        chosen = {  # of each axis: the column that the menu's value stands for
            axis: " : ".join(f"components == '{name}' ? datum.{columns[i]}" for name, columns in _PAIRS.items())
            for i, axis in enumerate("xy")
        }
        base = alt.Chart(part).transform_calculate(**{axis: f"{code} : 0" for axis, code in chosen.items()})
        first = alt.X("x:Q", title="first of the two components", scale=_equal(part, ["c1", "c2", "c3"]))
        second = alt.Y("y:Q", title="second of the two components", scale=_equal(part, ["c1", "c2", "c3"]))
        return _points(base, frame, size=34).encode(x=first, y=second)

    return _panels(frame, panel).add_params(pair).properties(description=description)


def emergence(frame: pd.DataFrame, texts: pd.DataFrame, *, description: str, initial: int) -> alt.Chart:
    """Statements on the two leading components of the layer that a slider chooses; one panel a model.

    Parameters
    ----------
    frame
        Columns `model_title`, `statement_id`, `layer`, `x`, `y`.
    texts
        Columns `statement_id`, `statement`, `label`: looked up, so that the page has each text once.
    description
        Alt text: chart type, axes, finding.
    initial
        Layer that the slider starts with.
    """
    if frame.empty:
        return charts.no_data("projection over layers", description)
    slider = alt.binding_range(min=0, max=int(frame["layer"].max()), step=1, name="layer ")
    shown = alt.param("shown_layer", value=initial, bind=slider)
    lookup = alt.LookupData(texts, "statement_id", ["statement", "label"])
    # a model that has fewer layers stays at its last one
    last = {title: int(part["layer"].max()) for title, part in frame.groupby("model_title")}

    def panel(part: pd.DataFrame) -> alt.Chart:
        top = last[part["model_title"].iloc[0]]
        base = alt.Chart(part).transform_filter(f"datum.layer == min(shown_layer, {top})")
        base = base.transform_lookup("statement_id", from_=lookup)
        scale = alt.Scale(domain=[-4, 4], clamp=True)
        return _points(base, texts, size=34).encode(
            x=alt.X("x:Q", title="component 1", scale=scale), y=alt.Y("y:Q", title="component 2", scale=scale)
        )

    return _panels(frame, panel).add_params(shown).properties(description=description)


def datasets(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """All data sets in the basis of the first, one panel a data set, of the model that a menu chooses.

    Parameters
    ----------
    frame
        Columns `model_title`, `dataset`, `label`, `statement`, `c1`, `c2`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("projection of all data sets", description)
    titles = list(dict.fromkeys(frame["model_title"]))
    menu = alt.binding_select(options=titles, name="model ")
    shown = alt.param("shown_model", value=titles[0], bind=menu)
    # in units of the widest component, so that one pair of axes serves every model
    widest = frame.groupby("model_title")[["c1", "c2"]].transform(lambda c: c.abs().max()).max(axis=1)
    frame = frame.assign(x=(frame["c1"] / widest).round(3), y=(frame["c2"] / widest).round(3))
    scale = alt.Scale(domain=[-1, 1])
    ticks = alt.Axis(values=[-1, 0, 1])
    base = alt.Chart(frame.drop(columns=["c1", "c2", "c3"], errors="ignore"))
    points = _points(base, frame, size=18).encode(
        x=alt.X("x:Q", title="component 1", scale=scale, axis=ticks),
        y=alt.Y("y:Q", title="component 2", scale=scale, axis=ticks),
    )
    points = points.properties(width=250, height=250).add_params(shown)
    points = points.transform_filter("datum.model_title == shown_model")
    order = list(dict.fromkeys(frame["dataset"]))
    return points.facet(facet=alt.Facet("dataset:N", sort=order), columns=2).properties(description=description)


def variance(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Cumulative explained variance against the number of components, one curve a data set.

    Parameters
    ----------
    frame
        Columns `model_title`, `dataset`, `n_components`, `explained`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("explained variance", description)
    base = alt.Chart(frame).encode(
        x=alt.X("n_components:Q", title="number of components", scale=alt.Scale(type="log")),
        y=alt.Y("explained:Q", title="cumulative explained variance", scale=alt.Scale(domain=[0, 1])),
        color=_nominal(frame, "dataset", "data set"),
        tooltip=[
            alt.Tooltip("dataset:N", title="data set"),
            alt.Tooltip("n_components:Q", title="components"),
            alt.Tooltip("explained:Q", title="explained", format=".1%"),
        ],
    )
    lines = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=18))
    return _facet(lines, frame).properties(description=description)


def over_layers(
    frame: pd.DataFrame,
    *,
    color: str,
    color_title: str,
    y_title: str,
    description: str,
    choose: str | None = None,
    choose_title: str = "",
) -> alt.Chart:
    """Accuracy over layers with 95 % intervals and a rule at chance; one panel a model.

    Parameters
    ----------
    frame
        Columns `model_title`, `layer`, `accuracy`, `low`, `high`, `chance`, and those named by `color` and
        `choose`.
    color
        Column of the curves.
    color_title
        Title of the legend; a click there keeps one curve.
    y_title
        Title of the y axis.
    description
        Alt text: chart type, axes, finding.
    choose
        Column, of which a menu under the chart shows one value at a time.
    choose_title
        Title of the menu.
    """
    if frame.empty:
        return charts.no_data(y_title, description)
    picked = alt.selection_point(fields=[color], bind="legend")
    base = alt.Chart(frame).encode(x=alt.X("layer:Q", title="layer"), color=_nominal(frame, color, color_title))
    y_scale = alt.Scale(domain=[min(0.3, float(frame["low"].min())), 1])
    band = base.mark_area().encode(
        y=alt.Y("low:Q", title=y_title, scale=y_scale),
        y2="high:Q",
        opacity=alt.condition(picked, alt.value(0.14), alt.value(0.01)),
    )
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=24)).encode(
        y="accuracy:Q",
        opacity=alt.condition(picked, alt.value(1.0), alt.value(0.1)),
        tooltip=[
            alt.Tooltip(f"{color}:N", title=color_title),
            alt.Tooltip("layer:Q"),
            alt.Tooltip("accuracy:Q", format=".1%"),
            alt.Tooltip("low:Q", format=".1%", title="95 % interval from"),
            alt.Tooltip("high:Q", format=".1%", title="to"),
        ],
    )
    chance = alt.Chart(frame).mark_line(color=_QUIET, strokeDash=[4, 3]).encode(
        x="layer:Q", y="mean(chance):Q"
    )  # fmt: skip
    chart = alt.layer(band, line, chance).add_params(picked)
    if choose:
        options = list(dict.fromkeys(frame[choose]))
        menu = alt.binding_select(options=options, name=f"{choose_title} ")
        shown = alt.param("shown", value=options[0], bind=menu)
        chart = chart.add_params(shown).transform_filter(f"datum.{choose} == shown")
    return _facet(chart, frame).properties(description=description)


def transfer(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Heat map of accuracy by training and test data set, of the probe that a menu chooses.

    Parameters
    ----------
    frame
        Columns `model_title`, `probe`, `train`, `test`, `accuracy`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("transfer", description)
    options = list(dict.fromkeys(frame["probe"]))
    menu = alt.binding_select(options=options, name="probe ")
    shown = alt.param("shown_probe", value=options[0], bind=menu)
    order = list(dict.fromkeys([*frame["train"], *frame["test"]]))
    base = alt.Chart(frame).encode(
        x=alt.X("test:N", title="tested on", sort=order, axis=alt.Axis(labelAngle=-35)),
        y=alt.Y("train:N", title="learned from", sort=order),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "accuracy:Q",
            title="accuracy",
            scale=alt.Scale(scheme="blueorange", domain=[0, 1], domainMid=0.5, reverse=True),
            legend=alt.Legend(format=".0%"),
        ),
        tooltip=[
            alt.Tooltip("train:N", title="learned from"),
            alt.Tooltip("test:N", title="tested on"),
            alt.Tooltip("accuracy:Q", format=".1%"),
        ],
    )
    far = "abs(datum.accuracy - 0.5) > 0.3"
    text = base.mark_text(fontSize=11).encode(
        text=alt.Text("accuracy:Q", format=".0%"),
        color=alt.condition(far, alt.value("white"), alt.value("black")),
    )
    chart = alt.layer(cells, text).add_params(shown).transform_filter("datum.probe == shown_probe")
    n_panels = frame["model_title"].nunique()
    chart = chart.properties(width=200 if n_panels > 1 else 300, height=200 if n_panels > 1 else 300)
    facet = alt.Facet("model_title:N", sort=list(dict.fromkeys(frame["model_title"])))
    return chart.facet(facet=facet, columns=2).properties(description=description)


def plane(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Statements and their negations along the directions of truth and of polarity; one panel a model.

    Parameters
    ----------
    frame
        Columns `model_title`, `dataset`, `label`, `statement`, `truth`, `polarity`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("plane of truth and polarity", description)

    def panel(part: pd.DataFrame) -> alt.Chart:
        scale = _equal(part, ["truth", "polarity"])
        return _points(alt.Chart(part), frame, size=30).encode(
            x=alt.X("truth:Q", title="truth", scale=scale),
            y=alt.Y("polarity:Q", title="truth times polarity", scale=scale),
            shape=alt.Shape("dataset:N", title="data set", scale=alt.Scale(range=["circle", "cross"])),
        )

    return _panels(frame, panel).properties(description=description)


def _points(base: alt.Chart, frame: pd.DataFrame, *, size: int) -> alt.Chart:
    labels = sorted(set(frame["label"]), key=lambda label: (len(label), label))
    if set(labels) == {"false", "true"}:
        scale = alt.Scale(domain=["false", "true"], range=list(FALSE_TRUE))
    elif len(labels) <= 10:
        scale = alt.Scale(domain=labels, scheme="tableau10")
    else:
        scale = alt.Scale(domain=labels, scheme="category20")
    return base.mark_point(size=size, filled=True, opacity=0.65).encode(
        color=alt.Color("label:N", title="label", scale=scale),
        # the text of a statement may be anything: tooltips show it, and nothing makes a page of it
        tooltip=[alt.Tooltip("statement:N"), alt.Tooltip("label:N")],
    )


def _panels(frame: pd.DataFrame, panel) -> alt.Chart:
    titles = list(dict.fromkeys(frame["model_title"]))
    side = 255 if len(titles) > 1 else 480
    parts = [
        panel(frame[frame["model_title"] == title]).properties(width=side, height=side, title=title)
        for title in titles
    ]
    return alt.concat(*parts, columns=2) if len(parts) > 1 else parts[0]


def _equal(frame: pd.DataFrame, columns: list[str]) -> alt.Scale:
    # the same for both axes, whose panels are squares: distances in the picture are distances
    reach = float(frame[columns].abs().max().max()) * 1.05 or 1.0
    return alt.Scale(domain=[-reach, reach], nice=False)


def _nominal(frame: pd.DataFrame, column: str, title: str) -> alt.Color:
    values = list(dict.fromkeys(frame[column]))
    palette = [*charts.MODEL_COLORS, "#555555", "#a0a0a0", *charts.LEVEL_COLORS]
    colors = [palette[i % len(palette)] for i in range(len(values))]
    return alt.Color(
        f"{column}:N",
        title=title,
        scale=alt.Scale(domain=values, range=colors),
        legend=alt.Legend(columns=4),  # more would go beyond the width of the text
    )


def _facet(chart: alt.Chart, frame: pd.DataFrame) -> alt.Chart:
    titles = list(dict.fromkeys(frame["model_title"]))
    chart = chart.properties(width=280 if len(titles) > 1 else 520, height=240)
    facet = alt.Facet("model_title:N", sort=titles)
    return chart.facet(facet=facet, columns=2).resolve_scale(x="independent")
