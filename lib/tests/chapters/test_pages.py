"""Pages as a browser draws them: what a reader would stumble over is found, and the book has none of it."""

import dataclasses
import json
import re
import shutil

import browser
import check_pages
import pandas as pd
import pytest
import xarray as xr
from IPython.display import Markdown
from test_chapters import code_cells, label, observed, once, outputs

from token_geometry.base import project
from token_geometry.chapters import charts
from token_geometry.chapters.loss.charts import correlation_curves

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not browser.find(), reason="no browser here"),
]
ASSETS = project.root() / "book" / "assets"
HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Charts</title>
<link rel="icon" href="icon.svg"><link rel="stylesheet" href="page.css"><link rel="stylesheet" href="book.css">
<script defer src="vega-embed.js"></script><script defer src="charts.js"></script>
<script defer src="page.js"></script></head><body><div class="page"><div></div><main>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the pages of the book load, beside the pages of these tests."""
    import prerender

    made = tmp_path_factory.mktemp("pages")
    for file in ASSETS.glob("*.*"):
        shutil.copy(file, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prerender.project, "root", lambda: made)
        prerender.write_bundle()
    shutil.copy(made / charts.BUNDLE, made)
    return made


@pytest.fixture(scope="module")
def tab():
    with browser.page() as opened:
        yield opened


def test_a_browser_that_does_not_start_is_started_anew_and_then_quoted(tmp_path, monkeypatch):
    program, starts = tmp_path / "browser", tmp_path / "starts"
    program.write_text(
        f"#!/bin/sh\necho started >> {starts}\n"
        f"[ $(wc -l < {starts}) -le $FAILS ] && {{ echo no display >&2; exit 1; }}\n"
        f'exec {browser.find()} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("CHROMIUM", str(program))
    monkeypatch.setenv("FAILS", "1")
    with browser.page() as opened:
        assert opened.evaluate("6 * 7") == 42
    assert starts.read_text().count("started") == 2
    monkeypatch.setenv("FAILS", "9")
    with pytest.raises(
        RuntimeError, match="was started 3 times and opened no debugging port; it said: no display"
    ):
        with browser.page():
            pass


def write(folder, figures):
    """A page of figures: name, caption, HTML of the chart."""
    parts = [f'<figure id="{n}">{html}<figcaption>{text}</figcaption></figure>' for n, text, html in figures]
    path = folder / "page.html"
    path.write_text(HEAD + "\n".join(parts) + "</main></div></body></html>", encoding="utf-8")
    return path.as_uri()


def figures_of(chapter, results, monkeypatch):
    captions = {label(cell): re.search(r'#\| fig-cap: "(.*)"', cell.source) for cell in code_cells(chapter)}
    for name, value in outputs(chapter, results, monkeypatch).items():
        if not isinstance(value, Markdown):
            caption = captions.get(name)
            yield name.replace(" ", "-"), caption[1] if caption else "", charts.chart_html(value.to_dict())


RUNS = {
    "index": once,
    "shuffling": once,
    # three models: no panel leaves a hole; one with a long name
    "model-comparison": lambda: once({"one": 32, "two": 12, "a" * 40: 6}, n_prompts=3),
    "effects": lambda: once({"one": 12, "two": 8, "three": 6}, n_prompts=12, n_shuffled=10),
    "loss": lambda: once(n_prompts=12, n_shuffled=8),
    "estimators": lambda: once({"alone": 6}, n_prompts=10),
    "published": lambda: once(n_prompts=10, n_shuffled=6),
}
MANY = ("shuffling", "model-comparison", "effects", "loss", "estimators", "profile-probe", "published")


@pytest.mark.parametrize("chapter", RUNS)
def test_the_charts_of_a_chapter_do_what_a_reader_expects(chapter, folder, tab, monkeypatch):
    path = write(folder, figures_of(chapter, RUNS[chapter](), monkeypatch))
    assert check_pages.chart_faults(path, tab, [(1280, False), (390, True)]) == []


@pytest.mark.parametrize(("chapter", "n_models"), [*((chapter, 4) for chapter in MANY), ("shuffling", 3)])
def test_the_charts_of_many_models_fit_a_page_and_a_phone(chapter, n_models, folder, tab, monkeypatch):
    """Their titles are as long as those of real models, and two have a control each."""
    depths = (30, 6, 5, 4)  # one as deep as real ones: what all layers of the others would add is time
    models = {f"Coder-1.5B-Instruct (Q4_K_M) {n}": depths[n] for n in range(n_models)}
    results = once(models, n_prompts=12, n_shuffled=8)
    others = [observed({f"{name}@random": models[name]}, (0, 2), 2, 2) for name in [*models][:2]]
    control = xr.concat(others, "model", join="outer", combine_attrs="override")
    results = dataclasses.replace(results, control=control)
    path = write(folder, figures_of(chapter, results, monkeypatch))
    # sliders and pointers are those of the same charts with fewer models
    assert check_pages.chart_faults(path, tab, [(1280, False), (390, False)], by_hand=False) == []


LONG = "A model's <b>name *of* eighty_characters_ [that] goes on & on | until its $end$ i"


@pytest.mark.parametrize("chapter", ["index", "model-comparison", "loss", "estimators", "published"])
def test_a_small_run_with_odd_names_stays_within_its_pages(chapter, folder, tab, monkeypatch):
    """One model with a title of 80 characters, one level, three prompts with markup in their ids, Arabic texts."""
    results = once({LONG: 6}, levels=(0,), n_prompts=3, n_shuffled=3, control=False)
    made = results.observables.assign_coords(prompt=[f"<b>{n}</b> | *{n}*" for n in range(3)])
    assert len(made["model_title"].item()) >= 80
    results = dataclasses.replace(results, observables=made.assign_attrs(corpus="خطب الرؤساء"))
    path = write(folder, figures_of(chapter, results, monkeypatch))
    assert check_pages.chart_faults(path, tab, [(1280, False), (390, True)]) == []


def test_a_legend_lists_what_has_data_at_the_value_that_is_chosen(folder, tab):
    rows = [
        {
            "model_title": "one",
            "scale": scale,
            "texts": texts,
            "measure": measure,
            "correlation": 0.1,
            "low": 0,
            "high": 0.2,
        }
        for texts, measures in {"speeches": ["loss"], "code": ["loss", "length"]}.items()
        for measure in measures
        for scale in (2, 4)
    ]
    frame = pd.DataFrame(rows).assign(discovered="no", q_value=0.5, n_prompts=9)
    drawn = correlation_curves(frame, x="scale", choose="texts", finding="None.")
    tab.open(write(folder, [("fig-a", "One.", charts.chart_html(drawn.to_dict()))]))
    names = "[...document.querySelectorAll('.role-legend-label text')].map((text) => text.textContent)"
    assert tab.evaluate(names) == ["loss"]
    menu = "document.querySelector('select')"
    tab.evaluate(f"{menu}.value = 'code'; {menu}.dispatchEvent(new Event('change'))")
    assert tab.evaluate(f"drawCharts().then(() => {names})") == ["loss", "length"]


def test_a_model_has_one_color_in_all_chapters(folder, monkeypatch):
    seen = {}
    for chapter, make in RUNS.items():
        # runs of the same two models: where other tests draw one, it is drawn once
        results = make() if len(make().models) == 2 else once(n_prompts=10, n_shuffled=6)
        html = "".join(text for *_, text in figures_of(chapter, results, monkeypatch))
        for model, color in check_pages.colors(check_pages.BeautifulSoup(html, "html.parser")):
            seen.setdefault(model, set()).add(color)
    assert {"Model one", "Model two", "Llama-3-8B"} <= seen.keys()
    assert all(len(found) == 1 for found in seen.values()), seen
    assert len(set.union(*seen.values())) == len(seen)


def points(n=6):
    return [{"x": i, "y": i * s, "s": s, "model_title": "abc"[s % 3]} for i in range(n) for s in (1, 2)]


def spec(mark, encoding, **more):
    base = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "description": "d", "width": 300}
    encoding = {axis: {"field": axis, "type": "quantitative"} for axis in "xy"} | encoding
    return base | {"datasets": {"d": points()}, "data": {"name": "d"}, "mark": mark, "encoding": encoding} | more


def by_s(palette):
    return {"field": "s", "type": "nominal", "scale": {"domain": [1, 2], "range": palette}, "legend": None}


SLIDER = {
    "params": [{"name": "shown_x", "value": 1, "bind": {"input": "select", "options": [1, 2, 4], "name": "x "}}],
    "transform": [{"filter": "datum.x <= shown_x"}],
}
PLANTED = {
    "is filled with": spec(
        {"type": "point"}, {"stroke": by_s(["#0072b2", "#d55e00"]), "fill": by_s(["#d55e00", "#0072b2"])}
    ),
    "its axis jumps": spec("point", {}, title={"text": {"expr": "'x ' + shown_x"}}, **SLIDER),
    "its title": spec(
        "point", {"y": {"field": "y", "type": "quantitative", "scale": {"domain": [0, 9]}}}, **SLIDER
    ),
    "nothing changes where its caption says": spec("point", {"tooltip": {"field": "y", "type": "quantitative"}}),
    "pointing at it tells nothing": spec("point", {}),
    "texts overlap": spec({"type": "text", "fontSize": 40}, {"text": {"value": "overlapping"}}),
    "is wider than its place": spec("bar", {"x": {"field": "x", "type": "ordinal"}}, width={"step": 150}),
    "the console says": spec("point", {"y": {"field": "y", "type": "quantitative", "scale": {"type": "log"}}}),
    "shows no mark": spec("point", {"x": {"field": "gone", "type": "quantitative"}}, data={"name": "none"}),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault, folder, tab):
    html = charts.chart_html(PLANTED[fault])
    path = write(folder, [("fig-planted", "Point at one to find it.", html)])
    found = check_pages.chart_faults(path, tab, [(1280, False)])
    assert any(fault in line for line in found), found


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ([LONG, "layer 2"], "layer 2"),
        (LONG, "i"),
        (f"{LONG}: NO at k = 2", "k = 2"),
        ({"expr": f"[{json.dumps(LONG)}, 'layer ' + shown_x]"}, "layer 1"),
        ({"expr": f"'data set ' + {json.dumps(LONG)}"}, "i"),
    ],
)
def test_a_long_title_breaks_into_lines_and_loses_nothing(text, ends, folder, tab):
    path = write(folder, [("fig-a", "One.", charts.chart_html(spec("point", {}, title={"text": text}, **SLIDER)))])
    assert [fault for fault in check_pages.chart_faults(path, tab, [(390, False)]) if "wide" in fault] == []
    tab.open(path, width=390)
    lines = tab.evaluate(
        "[...document.querySelectorAll('.role-title-text tspan')].map((line) => line.textContent)"
    )
    assert len(lines) > 1 and lines[-1].endswith(ends) and LONG in " ".join(lines)
    assert not any(line.strip().endswith("=") for line in lines)


def test_a_chart_follows_the_page_and_its_data_and_pictures_are_had(folder, tab, tmp_path):
    drawn = spec("point", {"y": {"field": "y", "type": "quantitative", "title": "loss (nats)"}}, config={})
    path = write(folder, [("fig-a", "One.", charts.chart_html(drawn))])
    tab.open(path)
    ink = "getComputedStyle(document.querySelector('.role-axis-title text')).fill"
    light = tab.evaluate(ink)
    tab.evaluate("document.documentElement.dataset.theme = 'dark'; new Promise(requestAnimationFrame)")
    assert tab.evaluate(f"drawCharts().then(() => {ink})") != light
    tab.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.evaluate("for (const button of document.querySelectorAll('.files button')) button.click()")
    tab.evaluate("new Promise((done) => setTimeout(done, 1500))")
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(files) == {"fig-a.csv", "fig-a.svg", "fig-a.png"}
    header, *rows = files["fig-a.csv"].decode().splitlines()
    assert header == "x,y (nats),s,model_title" and len(rows) == len(points())
    assert files["fig-a.svg"].startswith(b"<svg") and files["fig-a.png"].startswith(b"\x89PNG")


def test_formulas_are_in_the_font_that_comes_with_the_book(folder, tab):
    path = folder / "formula.html"
    path.write_text(HEAD + "<math><mi>𝜌</mi><mo>∑</mo></math></main></div></body></html>", encoding="utf-8")
    tab.open(path.as_uri())
    fonts = "[...document.fonts].map((font) => [font.family.replaceAll('\"', ''), font.status])"
    assert tab.evaluate(f"document.fonts.ready.then(() => {fonts})") == [["STIX Two Math", "loaded"]]
    assert tab.evaluate("getComputedStyle(document.querySelector('math')).fontFamily").startswith(
        '"STIX Two Math"'
    )


def test_references_of_a_notebook_that_is_run_by_itself_are_plain_words(folder, tab):
    text = (
        "<h2>Part {#sec-a .if-b}</h2><p>@fig-a-b shows it <em>so</em> @eq-e says, as @doe2020 and others "
        "[@roe2021; @moe2022] do (@sec-x-y). @tbl-c lists it: [@fig-d; @fig-e].</p><pre>@fig-a</pre>"
    )
    alone = (ASSETS / "alone.js").read_text(encoding="utf-8")
    path = folder / "alone.html"
    path.write_text(
        f"<!doctype html><meta charset=utf-8><body><script>{alone}</script>{text}</body>", encoding="utf-8"
    )
    tab.open(path.as_uri())
    assert tab.evaluate("document.body.innerText").split("\n\n") == [
        "Part",
        "The figure “a b” shows it so the equation “e” says, as Doe 2020 and others (Roe 2021; Moe 2022) do "
        "(the section “x y”). The table “c” lists it: the figure “d”; the figure “e”.",
        "@fig-a",
    ]
    assert alone in next(charts._bundles())


TOP = {"orient": "top"}


def test_nothing_of_a_page_runs_or_breaks_out_of_it(folder, tab):
    title = "<img src=x onerror=\"document.title='ran'\"> " + "long name " * 8
    rows = json.loads(json.dumps(points()).replace('"a"', json.dumps(title)).replace('"b"', '"عنوان"'))
    color = {"field": "model_title", "type": "nominal", "scale": {"domain": [title, "عنوان", "c"]}, "legend": TOP}
    drawn = spec("point", {"color": color}, datasets={"d": rows})
    path = write(folder, [("fig-a", "One.", charts.chart_html(drawn))])
    assert [f for f in check_pages.chart_faults(path, tab) if "cut short" not in f] == []
    assert tab.evaluate("document.title") == "Charts"
