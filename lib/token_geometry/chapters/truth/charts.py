"""Charts of the chapter on truth."""

import json

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

_TWO = ("component 1", "component 2")


@charts.figure("projection")
def projection(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Scatter plot of statements on two principal components, colored by label, one panel per model."""
    menu = alt.binding_select(options=["1 and 2", "1 and 3", "2 and 3"], name="components ")
    pair = alt.param("components", value="1 and 2", bind=menu)

    def panel(part: pd.DataFrame) -> alt.Chart:
        # the columns that the first and the last letter of the menu's value stand for
        base = alt.Chart(part).transform_calculate(x="datum['c' + components[0]]", y="datum['c' + components[6]]")
        titles = [f"{place} of the two components" for place in ("first", "second")]
        return _points(base, frame, titles, size=34, scale=_equal(part, ["c1", "c2", "c3"]))

    return _squares(frame, panel).add_params(pair)


@charts.figure("projection over layers", choose="layer")
def emergence(frame: pd.DataFrame, texts: pd.DataFrame) -> alt.ConcatChart:
    """Scatter plot of statements on two principal components with a slider for the layer, one panel per model."""
    # a page carries so many points of the deepest model; all models show the same statements
    some = frame["statement_id"].drop_duplicates().iloc[: 3600 // max(frame["layer"].nunique(), 1)]
    frame, texts = (part[part["statement_id"].isin(some)] for part in (frame, texts))
    lookup = alt.LookupData(texts, "statement_id", ["statement", "label"])

    def panel(part: pd.DataFrame) -> alt.Chart:
        base = alt.Chart(part).transform_lookup("statement_id", from_=lookup)
        return _points(base, texts, _TWO, size=34, scale=alt.Scale(domain=[-4, 4], clamp=True))

    shown = "shown_layer" if frame["layer"].nunique() > 1 else str(frame["layer"].iloc[0])
    return _squares(frame, panel, "model_title", layer=shown)


@charts.figure("projection of all data sets", choose="panel")
def datasets(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Scatter plots of all data sets on the two first components of the first data set."""
    # in units of the widest component, so that one pair of axes serves every model
    widest = frame.groupby("panel")[["c1", "c2"]].transform(lambda c: c.abs().max()).max(axis=1)
    frame = frame.assign(x=(frame["c1"] / widest).round(3), y=(frame["c2"] / widest).round(3))
    options = {"scale": alt.Scale(domain=[-1, 1]), "axis": alt.Axis(values=[-1, 0, 1])}
    points = _points(alt.Chart(frame.drop(columns=["c1", "c2"])), frame, _TWO, size=18, **options)
    return charts.panels(points, frame, "dataset", width=248, alone=248, height=248, independent=())


@charts.figure("explained variance")
def variance(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Line chart of cumulative explained variance against the number of components, one curve per data set."""
    x = alt.X("n_components:Q", title="number of components", scale=alt.Scale(type="log"))
    y = alt.Y("explained:Q", title="cumulative explained variance", scale=alt.Scale(domain=[0, 1]))
    tips = charts.tooltip("dataset:N", "n_components:Q", "explained:Q .1%")
    base = alt.Chart(frame).encode(x=x, y=y, color=_nominal(frame, "dataset", "data set"), tooltip=tips)
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=18))
    return charts.panels(line, frame, "panel", width=280, height=240)


@charts.figure("accuracy")
def over_layers(frame: pd.DataFrame, *, color: str, color_title: str, y_title: str) -> alt.FacetChart:
    """Line chart with bands: {y_title} against layer, one curve per {color_title}."""
    picked = charts.legend_choice(color)
    colors, lowest = _nominal(frame, color, color_title), min(0.3, float(frame["low"].min()))
    fields = (f"{color}:N", "layer:Q", "accuracy:Q .1%", "low:Q .1%", "high:Q .1%")
    options = {"middle": "accuracy", "scale": alt.Scale(domain=[lowest, 1]), "picked": picked}
    marks = charts.banded(frame, charts.LAYER_AXIS, colors, y_title, *fields, **options)
    chance = alt.Chart(frame).mark_line(color="#666666", strokeDash=[4, 3]).encode(x="layer:Q", y="mean(chance):Q")
    return charts.panels(alt.layer(*marks, chance).add_params(picked), frame, width=280, height=240)


@charts.figure("transfer", choose="probe")
def transfer(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Heat map of the accuracy of a probe by the data set that it learned from and the one that it is tested
    on."""
    trains, tests = (charts.unique(frame[column]) for column in ("train", "test"))
    x = alt.X("test:N", title="tested on", sort=tests, axis=alt.Axis(labelAngle=-35))
    base = alt.Chart(frame).encode(x=x, y=alt.Y("train:N", title="learned from", sort=trains))
    scale = alt.Scale(scheme="blueorange", domain=[0, 1], domainMid=0.5, reverse=True)
    color = alt.Color("accuracy:Q", title="accuracy", scale=scale, legend=alt.Legend(format=".0%"))
    tips = charts.tooltip("train:N", "test:N", "accuracy:Q .1%", "low:Q .1%", "high:Q .1%")
    cells = base.mark_rect().encode(color=color, tooltip=tips)
    contrast = alt.condition("abs(datum.accuracy - 0.5) > 0.3", alt.value("white"), alt.value("black"))
    text = base.mark_text(fontSize=11 if len(tests) < 8 else 9).encode(text="cell:N", color=contrast)
    # one above the other: of more beside one another, names and numbers would find no room
    size = {"width": 320, "alone": 320, "height": 24 * len(trains), "columns": 1}
    return charts.panels(alt.layer(cells, text), frame, "panel", **size, independent=())


@charts.figure("plane of truth and polarity")
def plane(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Scatter plot of statements and their negations along the directions of truth and of truth times polarity,
    one panel per model."""

    def panel(part: pd.DataFrame) -> alt.Chart:
        scale = _equal(part, ["truth", "polarity"])
        titles = ["truth", "truth times polarity"]
        points = _points(alt.Chart(part), frame, titles, ["truth:Q", "polarity:Q"], size=30, scale=scale)
        shapes = alt.Scale(range=["circle", "cross"])
        return points.encode(shape=alt.Shape("dataset:N", title="data set", scale=shapes))

    return _squares(frame, panel)


def _points(base: alt.Chart, frame: pd.DataFrame, titles, axes=("x:Q", "y:Q"), *, size: int, **options):
    labels = sorted(set(frame["label"]), key=lambda label: (len(label), label))
    if set(labels) == {"false", "true"}:
        scale = alt.Scale(domain=["false", "true"], range=["#d55e00", "#0072b2"])
    else:
        scale = alt.Scale(domain=labels, scheme="tableau10" if len(labels) <= 10 else "category20")
    x, y = alt.X(axes[0], title=titles[0], **options), alt.Y(axes[1], title=titles[1], **options)
    tips = charts.tooltip("statement:N", "label:N")  # a text may be anything: they make no page of it
    points = base.mark_point(size=size, filled=True, opacity=0.65).encode(x=x, y=y, tooltip=tips)
    return points.encode(color=alt.Color("label:N", title="label", scale=scale))


def _squares(frame: pd.DataFrame, panel, by: str = "panel", *, layer: str = "") -> alt.ConcatChart:
    titles, parts = charts.unique(frame[by]), []
    side = 252 if len(titles) > 1 else 480
    for title in titles:
        # the layer, which `layer` is an expression for, has a line of its own
        lines = alt.ExprRef(f"[{json.dumps(title)}, 'layer ' + {layer}]") if layer else title.rsplit(", ", 1)
        parts.append(panel(frame[frame[by] == title]).properties(width=side, height=side, title=alt.Title(lines)))
    return alt.concat(*parts, columns=2)


def _equal(frame: pd.DataFrame, columns: list[str]) -> alt.Scale:
    # the same for both axes, whose panels are squares: distances in the picture are distances
    reach = float(frame[columns].abs().max().max()) * 1.05 or 1.0
    return alt.Scale(domain=[-reach, reach], nice=False)


def _nominal(frame: pd.DataFrame, column: str, title: str) -> alt.Color:
    palette = [*charts.MODEL_COLORS, "#555555", "#a0a0a0", *charts.LEVEL_COLORS]
    return charts.color(frame, column, title, palette=palette)
