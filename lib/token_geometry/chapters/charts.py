"""What all charts share: one theme, one palette, one renderer, and the parts that they are made of.

A chart is a function that bears `figure`: a tidy frame in, an Altair chart out. The frames of a chapter's charts
are made by its module `frames`, which says their columns. Importing this module registers theme and renderer."""

import functools
import html
import inspect
import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator

import altair as alt
import numpy as np
import pandas as pd

from token_geometry.base import files, project
from token_geometry.chapters import markup

_TABLE = files.table(__file__)
MODEL_COLORS, LEVEL_COLORS = _TABLE["model_colors"], _TABLE["level_colors"]

BUNDLE = "book/assets/vega-embed.js"  # site resource that draws the charts; it defines the global `vegaEmbed`


def _render_alone(spec: dict, **_) -> dict[str, str]:
    """HTML of a chart in a notebook that is run by itself: the first brings the library, so none is fetched."""
    text, name = json.dumps(spec).replace("<", "\\u003c"), f"chart-{uuid.uuid4()}"
    drawn = f'<div id="{name}"></div><script>vegaEmbed("#{name}",{text});</script>'
    return {"text/html": next(_bundles()) + drawn}


@functools.cache
def _bundles() -> Iterator[str]:
    import vl_convert

    text = vl_convert.javascript_bundle(None).replace("</script", "<\\/script")
    words = (project.root() / "book" / "assets" / "alone.js").read_text(encoding="utf-8")  # in place of references
    return itertools.chain([f"<script>{text}</script>\n<script>{words}</script>\n"], itertools.repeat(""))


def chart_html(spec: dict) -> str:
    """HTML of a chart on a page that has loaded `BUNDLE` and `book/assets/charts.js`, which draws it."""
    spec = _with_csv(spec)
    # "</script" would end the script element, and "<!--" keep it from ending, wherever in the data they stand
    text = json.dumps(spec, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    label = html.escape(spec.get("description", ""), quote=True)
    return (
        # of the picture alone: what stands in an image cannot be reached, as sliders must be
        f'<div class="vega-chart"><div class="plot" role="img" aria-label="{label}"></div>\n'
        f'<script type="application/json">{text}</script></div>'
    )


_FIRST = 0xE000  # of the characters that no text has a use for


def _with_csv(spec: dict) -> dict:
    """The same chart with its data as CSV, a third of the size: rows do not repeat the names of columns.

    Nor do they repeat long values: a character of the private use area stands for each, and `words` of the
    specification's `usermeta` lists them, as CSV spells them."""
    formats, texts, words = {}, {}, dict[str, str]()
    for name, rows in spec.get("datasets", {}).items():
        frame = pd.DataFrame(rows)
        # five digits are more than a chart can show
        counts = pd.Series([v for row in rows for v in row.values() if isinstance(v, str)]).value_counts()
        long = [value for value, n in counts.items() if n > 2 and len(value) > 6 and len(words) + _FIRST < 0xF8FF]
        codes = {value: words.setdefault(value, chr(_FIRST + len(words))) for value in long}
        coded = frame.apply(lambda one, to=codes: one.map(to.get).fillna(one) if one.dtype.kind == "O" else one)
        texts[name] = coded.to_csv(index=False, lineterminator="\n", float_format="%.5g")
        parse = {c: "number" if pd.api.types.is_numeric_dtype(frame[c]) else "string" for c in frame}
        formats[name] = {"format": {"type": "csv", "parse": parse}}

    def with_format(part: dict) -> dict:
        return part | formats.get(part["name"], {}) if part.keys() == {"name"} else part

    spelled = [pd.DataFrame({word: []}).to_csv(index=False)[:-1] for word in words]
    more = {"datasets": texts, "usermeta": {**spec.get("usermeta", {}), "words": spelled}} if texts else {}
    return json.loads(json.dumps(spec | more), object_hook=with_format)


# Quarto asks a CDN for require.js and jQuery as soon as a cell emits text/html; raw HTML inside Markdown does not
_MARKDOWN = "```{{=html}}\n{}\n```"
alt.renderers.register("token_geometry", lambda spec, **_: {"text/markdown": _MARKDOWN.format(chart_html(spec))})
alt.theme.register("token_geometry", enable=True)(lambda: alt.theme.ThemeConfig(config=_TABLE["theme"]))
alt.renderers.register("token_geometry_alone", _render_alone)
alt.data_transformers.disable_max_rows()
# both renderers of the book set the profile
alt.renderers.enable("token_geometry" if "QUARTO_PROFILE" in os.environ else "token_geometry_alone")

TITLES: dict[str, str] = _TABLE["titles"]  # names that a reader sees, of columns that bear another
_CONTROLS = {"shuffle_level": "S =", "k": "k ="}  # names beside a control, of columns that have a symbol

SCALE_AXIS = alt.X("scale:Q", scale=alt.Scale(type="log", base=2), title="scale (rank n2)")  # of the ID
LEVEL_AXIS = alt.X("shuffle_level:O", title="shuffle level S", axis=alt.Axis(labelAngle=0))
LAYER_AXIS = alt.X("layer:Q", title="layer", scale=alt.Scale(nice=False), axis=alt.Axis(**_TABLE["layer_axis"]))
"""Axis of layers, which ends with the last."""


def layer_values(frame: pd.DataFrame) -> list[int]:
    """The layers of a frame that an axis or a legend names: all of a few, of more every fifth."""
    layers = sorted(unique(frame["layer"]))
    return [int(layer) for layer in layers if layers[-1] <= 10 or layer % 5 == 0]


def figure(what: str, *, choose: str | None = None, initial=None) -> Callable[[Callable], Callable]:
    """Decorator of functions that draw a frame: an empty one makes a chart that says that there is no `what`.

    The function gets the option `finding`, a computed text. It makes the alt text together with the beginning of
    the docstring, which says chart type and axes and in which options may stand by name; the option `form` puts
    something else in the docstring's place. `choose` is a column of which a control under the chart shows one
    value at a time, beginning with `initial` (see `chosen`); both may be given as options, too."""

    def decorate(draw: Callable) -> Callable:
        beginning = " ".join(draw.__doc__.partition("\n\n")[0].split()).removesuffix(".")
        defaults = {name: option.default for name, option in inspect.signature(draw).parameters.items()}

        @functools.wraps(draw)
        def drawn(frame, *others, finding, form=beginning, choose=choose, initial=initial, **options):
            own = {"choose": choose, "initial": initial}
            options |= {name: own[name] for name in own if name in defaults}
            description = f"{form.format(**defaults | options)}. {markup.plain(finding)}"
            if frame.empty:
                text = [f"{options.get('y_title') or what}:", "no data for this figure in this run"]
                none = alt.Chart(pd.DataFrame({"none": [0]}), width=280, height=80)
                none = none.mark_text(text=text, fontSize=13, color="#666666")
                return none.properties(description=f"{description} No data.")
            with alt.utils.schemapi.debug_mode(False):  # no part is validated by itself, as the whole is
                chart, title = draw(frame, *others, **options), _CONTROLS.get(choose, TITLES.get(choose, choose))
                chart = chosen(chart, frame[choose], title=title, initial=initial) if choose else chart
            chart.description = description  # in place, as below: a copy of a chart of several builds them anew
            return chart

        return drawn

    return decorate


def unique(values: Iterable) -> list:
    """The values in their order, each once."""
    return list(dict.fromkeys(values))


def color(frame: pd.DataFrame, column: str, title="model", *, palette=MODEL_COLORS, **options) -> alt.Color:
    """Colors of the values of a column, in their order or that of its categories; `options` as of `alt.Color`."""
    values = frame[column].cat.categories if frame[column].dtype == "category" else unique(frame[column])
    colors = itertools.islice(itertools.cycle(palette), len(values))
    return alt.Color(f"{column}:N", title=title, scale=alt.Scale(domain=[*values], range=[*colors]), **options)


def legend(frame: pd.DataFrame, column: str, choose: str | None):
    """Legend of the values of a column that there are at the value of `choose` that a control shows."""
    at = {str(value): unique(part[column]) for value, part in frame.groupby(choose)} if choose else {}
    if all(len(values) == frame[column].nunique() for values in at.values()):
        return alt.Undefined
    return alt.Legend(values=alt.ExprRef(f"{json.dumps(at)}[shown_{choose}]"))


def whole(frame: pd.DataFrame, *columns: str, **options) -> alt.Scale:
    """Scale over all values of some columns, so that it stays where it is while a control moves."""
    ends = [float(frame[[*columns]].agg(end).agg(end)) for end in ("min", "max")]
    return alt.Scale(domain=ends if np.isfinite(ends).all() else alt.Undefined, **{"nice": True} | options)


def traced(base: alt.Chart, size: int = 16) -> alt.LayerChart:
    """Lines with points, these first: they get the selections, which find what is nearest among points only."""
    return alt.layer(base.mark_circle(size=size), base.mark_line(strokeWidth=1.5))


def level_color(levels: list[int], *, title: str = TITLES["shuffle_level"], names: list[str] | None = None):
    """Colors of shuffle levels, which bear `names` in the data where these are given."""
    colors = [LEVEL_COLORS[level % len(LEVEL_COLORS)] for level in levels]
    return alt.Color("shuffle_level:N", title=title, scale=alt.Scale(domain=names or levels, range=colors))


def tooltip(*fields: str, **titles: str) -> list[alt.Tooltip]:
    """Tooltips like `tooltip("layer:Q", "mean:Q .2f")`, titled by name of the field, else as `TITLES` says."""
    made = []
    for field, _, form in (entry.partition(" ") for entry in fields):
        name = field.partition(":")[0]
        made.append(alt.Tooltip(field, title=(TITLES | titles).get(name, name), format=form or alt.Undefined))
    return made


def legend_choice(column: str) -> alt.Parameter:
    """Selection of the curves of one value by a click in the legend."""
    return alt.selection_point(fields=[column], bind="legend")


def shown(picked: alt.Parameter, yes: float = 1.0, no: float = 0.1):
    """Opacity of what is picked, and of the rest."""
    return alt.OpacityValue(**alt.condition(picked, alt.value(yes), alt.value(no)))


def banded(frame, x, color, y_title: str, *fields: str, middle="mean", scale=None, picked=None, band=0.15) -> list:
    """Bands from column `low` to `high`, and lines of `middle` with tooltips of `fields`, faint unless picked."""
    base = alt.Chart(frame).encode(x=x, color=color)
    y = alt.Y("low:Q", title=y_title, scale=scale or whole(frame, "low", middle, "high"))
    faint, full = (alt.value(0.18), alt.value(1)) if picked is None else (shown(picked, band, 0.0), shown(picked))
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=24))
    line = line.encode(y=alt.Y(f"{middle}:Q"), opacity=full, tooltip=tooltip(*fields))
    return [base.mark_area().encode(y=y, y2=alt.Y2("high:Q"), opacity=faint), line]


def zero_rule(axis: str = "y", at: float = 0, **options) -> alt.Chart:
    """A dashed line at zero or elsewhere, for a layer of a chart that has data."""
    return alt.Chart(**options).mark_rule(color="#888888", strokeDash=[3, 3]).encode(**{axis: alt.datum(at)})


def panels(
    chart: alt.TopLevelMixin, frame: pd.DataFrame, by: str = "model_title", *, width: int = 270, alone: int = 520,
    height: int = 230, columns: int = 2, independent: tuple[str, ...] = ("x",),
) -> alt.FacetChart:  # fmt: skip
    """One panel per value of a column.

    `width` and `height` are pixels of one panel among several, `alone` is the width of a single one, `columns` how
    many are beside one another, and `independent` are the axes that each has of its own."""
    values = unique(frame[by])
    if len(values) == 3 and columns == 2:  # no hole in the place of a fourth
        width, columns = min(width, 160 if "y" in independent else 170), 3  # an axis takes 45
    chart.width, chart.height = width if len(values) > 1 else alone, height
    own = alt.ScaleResolveMap(**dict.fromkeys(independent, "independent"))
    resolve = alt.Resolve(scale=own) if independent else alt.Undefined
    return chart.facet(facet=alt.Facet(f"{by}:N", sort=values), columns=columns, resolve=resolve)


def rows(parts: list[alt.Chart], picked: alt.Parameter, by: str, order: list[str], **header) -> alt.VConcatChart:
    """Charts below one another, each as panels by a column, whose values, in this order, stand above the first."""
    parts, numbers = [parts[0].add_params(picked), *parts[1:]], range(len(parts))
    columns = [alt.Column(f"{by}:N", sort=order, header=alt.Header(labels=not n, **header)) for n in numbers]
    return alt.vconcat(*(part.facet(column=column) for part, column in zip(parts, columns, strict=True)))


def chosen(chart: alt.TopLevelMixin, values: pd.Series, *, title: str, initial=None) -> alt.TopLevelMixin:
    """A chart of which a control under it shows the rows with one value of a column; its title says which.

    The control is a menu, of which a page of the book makes a slider where the values are numbers.
    `values` is the column, which the chart's data hold, `title` the name of a value, as `scale` or `layer`, and
    `initial` the value to begin with; by default, and if the column lacks it, the first."""
    options = values.unique().tolist()
    options = options if isinstance(options[0], str) else sorted(options)
    initial = initial if initial in options else options[0]
    expression = json.dumps(options[0]) if len(options) == 1 else f"shown_{values.name}"
    if len(options) > 1:
        bind = alt.binding_select(options=options, name=f"{title} ")
        param = alt.param(expression, value=initial, bind=bind).param
        chart.params = [*([] if chart.params is alt.Undefined else chart.params), param]
    kept = f"datum['{values.name}'] == {expression}"
    kind = {alt.HConcatChart: "hconcat", alt.VConcatChart: "vconcat", alt.ConcatChart: "concat"}.get(type(chart))
    if kind:  # its parts have data of their own
        chart[kind] = [part.transform_filter(kept) for part in chart[kind]]
    else:
        chart = chart.transform_filter(kept)
    chart.title = alt.TitleParams(text=alt.ExprRef(f"'{title} ' + {expression}"))
    return chart
