"""Check a built book: ``python lib/tests/check_pages.py _book``.

Every chapter is there, references and links resolve, figures have captions and alternative
texts, nothing comes from the network, and a real browser draws every chart without one.
Exit code 0: no fault; 1: faults, listed; 2: no browser to draw the charts with.
"""

import argparse
import contextlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser
import numpy as np
import yaml
from bs4 import BeautifulSoup

from token_geometry.runs import declaration

sys.path.append(str(Path(__file__).parents[1]))  # as a script this knows its own folder
import pages  # noqa: E402

LIMIT = 1_500_000
OURS = "token_geometry.renderer.book"
UNRESOLVED = re.compile(r"\?@|@(fig|tbl|sec|eq)-|(?<!\S)\?\?(?!\S)|\{\{<|(?<!\S):::")
LOOK = Path(__file__).with_name("page_faults.js").read_text("utf-8")
SIZES = [(1280, False), (1280, True), (390, False), (390, True)]
"""Widths of the window in pixels, and whether the page is dark."""


@cache
def parse(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def chapters(config: Path, name: str = "") -> list[str]:
    """The pages that a book's configuration promises, to the run of this name where it has such a run."""
    entries = yaml.safe_load(config.read_text("utf-8"))
    book = entries["book"]
    if "pages" in entries:
        run = declaration.load(name if name in declaration.names() else "")
        book = book | pages.of_run(entries, run)["book"]

    def flatten(entries: list) -> list[str]:
        found = []
        for entry in entries or []:
            found += flatten(entry["chapters"]) if isinstance(entry, dict) else [entry]
        return found

    sources = flatten(book.get("chapters")) + flatten(book.get("appendices"))
    return [Path(source).with_suffix(".html").as_posix() for source in sources]


def text_faults(page: BeautifulSoup) -> list[str]:
    """Marks that a renderer leaves where it could not resolve something."""
    faults = []
    for string in page.find_all(string=True):
        names = {parent.name for parent in string.parents}
        if names & {"script", "style", "annotation"}:
            continue
        if "Traceback (most recent call last)" in string:
            faults.append("shows a traceback")
        if not names & {"pre", "code"} and UNRESOLVED.search(string):
            faults.append(f"unresolved: {' '.join(string.split())[:80]!r}")
    faults += ["shows the error of a cell"] * len(page.select(".cell-output-error"))
    for elem in page.select(".citation strong, .quarto-unresolved-ref"):
        faults.append(f"unresolved: {elem.get_text()!r}")
    return faults


def figure_faults(page: BeautifulSoup) -> list[str]:
    faults = []
    for figure in page.select("figure"):
        parent = figure.find_parent(id=True)
        name = figure.get("id") or (parent.get("id") if parent else "") or "figure"
        caption = figure.find("figcaption")
        # What stands after "Figure 1.2: " is the caption.
        words = re.sub(r"^(Figure|Table)\s[\w.]+:?", "", caption.get_text().strip()) if caption else ""
        if not words.strip():
            faults.append(f"{name}: no caption")
        images = figure.find_all("img")
        described = images and all((image.get("alt") or "").strip() for image in images)
        labels = [elem["aria-label"].strip() for elem in figure.select("[aria-label]")]
        # A small run may have a sentence where a table would be; it is read as it is.
        sentence = name.startswith("tbl-") and not images and not figure.select(".vega-chart, svg, canvas")
        if not figure.find("table") and not sentence and not described and not any(labels):
            faults.append(f"{name}: no alternative text")
    ends = Counter(elem["aria-label"].strip().rpartition(". ")[2] for elem in page.select("figure [aria-label]"))
    faults += [f"{n} figures are described as {end[:60]!r}" for end, n in ends.items() if n > 2 and len(end) > 30]
    ids = [elem["id"] for elem in page.select("[id]:not(link)")]  # Quarto has its style sheets twice
    faults += [f"the id {name} is there twice" for name in {i for i in ids if ids.count(i) > 1}]
    return faults


def is_ours(page: BeautifulSoup) -> bool:
    """Whether the renderer of this project has made a page."""
    return page.find("meta", attrs={"name": "generator", "content": OURS}) is not None


def link_faults(path: Path, root: Path, page: BeautifulSoup) -> list[str]:
    """Links and resources that lead nowhere, or to the network where ours must not."""
    faults = []
    for elem in page.select("a[href], link[href], script[src], img[src], source[src], iframe[src]"):
        address = elem.get("href", elem.get("src")).strip()
        url = urlsplit(address)
        if url.scheme or url.netloc:
            if is_ours(page) and elem.name != "a" and url.scheme != "data":
                faults.append(f"<{elem.name}> needs the network: {address[:80]}")
            continue
        target = (path.parent / unquote(url.path)).resolve() if url.path else path
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file() or root not in target.parents:
            faults.append(f"dead link: {address}")
        elif url.fragment and target.suffix == ".html":
            name = unquote(url.fragment)
            if not parse(target).find(attrs={"id": name}):
                faults.append(f"dead anchor: {address}")
    return faults


def colors(page: BeautifulSoup) -> Iterator[tuple[str, str]]:
    """Titles of models with their colors, as the charts of a page declare them."""

    def walk(part) -> Iterator[tuple[str, str]]:
        if isinstance(part, list):
            for item in part:
                yield from walk(item)
        elif isinstance(part, dict):
            scale = part.get("scale")
            if part.get("field") == "model_title" and isinstance(scale, dict) and "range" in scale:
                yield from zip(scale["domain"], scale["range"], strict=True)
            for value in part.values():
                yield from walk(value)

    for script in page.select(".vega-chart script"):
        yield from walk(json.loads(script.string))


def chart_faults(address: str, tab: browser.Page, sizes: list = SIZES, *, by_hand: bool = True) -> list[str]:
    """Faults of a page as a browser without a network draws it: at a glance, and at the reader's hand."""
    faults = []
    for width, dark in sizes:
        tab.open(address, width=width, dark=dark)
        found = tab.evaluate(LOOK)
        if by_hand and (width, dark) == sizes[0]:
            found += list(hand_faults(tab))
        found += [f"the console says {message[:200]}" for message in tab.messages]
        own = ("file:", "data:", "blob:", "http://127.0.0.1:")
        foreign = {url for url in tab.requests if not url.startswith(own)}
        found += [f"asks the network for {url[:80]}" for url in sorted(foreign)]
        faults += [f"{width} px{', dark' * dark}: {fault}" for fault in found]
    return faults


STATE = """(n) => {
  const chart = document.querySelectorAll(".vega-chart")[n], svg = chart.querySelector("svg");
  const hash = (text) => {
    let sum = 0;
    for (let i = 0; i < text.length; i++) sum = (31 * sum + text.charCodeAt(i)) | 0;
    return sum;
  };
  const texts = (some) => [...svg.querySelectorAll(some)].map((text) => text.textContent).join(" ");
  return {
    // labels of vertical axes stand left of them
    axis: [...new Set([...svg.querySelectorAll(".role-axis-label text[text-anchor=end]")]
      .filter((text) => !/rotate/.test(text.getAttribute("transform") ?? "")).map((text) => text.textContent))],
    title: texts(".role-title-text text"),
    output: chart.querySelector("output")?.textContent,
    marks: hash([...svg.querySelectorAll("[class*=mark-] path")]
      .map((path) => ["opacity", "fill", "d"].map((name) => path.getAttribute(name)).join()).join()),
    tip: document.querySelector("#vg-tooltip-element.visible")?.textContent ?? "",
  };
}"""


def hand_faults(tab: browser.Page) -> Iterator[str]:
    """What sliders and the pointer do not do that they should, chart by chart."""
    charts = tab.evaluate("""[...document.querySelectorAll(".vega-chart")].map((chart) => ({
      name: chart.closest("[id^=fig-]")?.id ?? "a chart",
      caption: chart.closest("figure, [id^=fig-]")?.querySelector("figcaption")?.textContent ?? "",
      values: (chart.querySelector("input[type=range]")?.max ?? -1) - 0 + 1,
    }))""")
    for n, chart in enumerate(charts):
        state = lambda n=n: tab.evaluate(f"({STATE})({n})")  # noqa: E731
        if chart["values"]:
            yield from (f"{chart['name']}: {fault}" for fault in slider_faults(tab, n, chart["values"], state))
        if re.search("point at", chart["caption"], re.I):
            yield from (f"{chart['name']}: {fault}" for fault in pointer_faults(tab, n, chart["caption"], state))


def slider_faults(tab: browser.Page, n: int, n_values: int, state) -> Iterator[str]:
    slider = f'document.querySelectorAll(".vega-chart")[{n}].querySelector("input[type=range]")'

    def move(value: int) -> None:
        tab.evaluate(f"{slider}.value = {value}; {slider}.dispatchEvent(new Event('input'))")

    move(0)
    tab.evaluate(f"{slider}.focus(); drawCharts()")
    before = state()
    # of many values some, each of them reached by a key from the one before
    places = (
        range(1, n_values) if n_values < 9 else sorted({*np.linspace(1, n_values - 1, 7).astype(int).tolist()})
    )
    for place in places:
        if n_values >= 9:
            move(place - 1)
        tab.press("ArrowRight")
        tab.evaluate("drawCharts()")
        now = state()
        if now["output"] == before["output"]:
            yield "the keyboard does not move its slider"
            return
        if now["output"] not in now["title"].split():
            yield f"its slider is at {now['output']}, its title {now['title']!r}"
        # a model without that layer has no axis, but no other one
        if not ({*now["axis"]} <= {*before["axis"]} or {*now["axis"]} >= {*before["axis"]}):
            yield f"its axis jumps from {before['axis']} to {now['axis']} at {now['output']}"
            return
        before["output"] = now["output"]


def pointer_faults(tab: browser.Page, n: int, caption: str, state) -> Iterator[str]:
    places = tab.evaluate(f"""(() => {{
      const svg = document.querySelectorAll(".vega-chart")[{n}].querySelector("svg");
      svg.scrollIntoView({{block: "center", behavior: "instant"}});
      const points = [...svg.querySelectorAll(".mark-symbol:not(.role-legend-symbol) path")].map((path) => {{
        const {{ x, y, width, height }} = path.getBoundingClientRect();
        return [x + width / 2, y + height / 2];
      }}).filter(([x, y]) => y > 5 && y < innerHeight - 5);
      return [0.3, 0.6, 0.9].map((share) => points[Math.floor(share * points.length)]).filter(Boolean);
    }})()""")
    if not places:  # a run that holds no data for this figure
        return
    tab.point(1, 1)
    now = before = state()
    moved, told, finds = False, False, "to find" in caption
    for x, y in places:
        tab.point(x - 3, y)
        tab.point(x, y)
        last, start, late, answers = now, time.monotonic(), False, False
        while not (answers or late):  # until all that is looked for is there, or has had its time
            late, now = time.monotonic() - start > 0.12, state()
            answers = now["tip"] not in ("", last["tip"]) and (now["marks"] != last["marks"] or not finds)
        moved |= now["marks"] != before["marks"]
        told |= bool(now["tip"])
        if re.search(r"null|undefined|NaN", now["tip"]):
            yield f"a tooltip says {now['tip']}"
    tab.point(1, 1)
    if finds and not moved:
        yield "nothing changes where its caption says to point"
    if not told:
        yield "pointing at it tells nothing"


def check(root: Path, config: Path, tab: browser.Page | None, server: str) -> tuple[list[str], bool]:
    """All faults of a book, and whether its charts could be checked."""
    faults, complete, seen = [], True, {}
    expected = chapters(config, root.name)
    for name in expected:
        if not (root / name).is_file():
            faults.append(f"{name}: missing, {config.name} lists it")
    for path in sorted(root.rglob("*.html")):
        name = path.relative_to(root).as_posix()
        if "site_libs" in path.parts or name not in expected:
            continue
        page, size = parse(path), path.stat().st_size
        found = text_faults(page) + figure_faults(page) + link_faults(path, root, page)
        if size > LIMIT:
            found.append(f"{size / 1e6:.1f} MB, more than {LIMIT / 1e6:.1f} MB")
        for model, color in colors(page):
            if seen.setdefault(model, color) != color:
                found.append(f"{model} is {color} here and {seen[model]} on another page")
        charts = len(page.select(".vega-chart"))
        # Quarto's scripts need a server; our own pages are read as files
        address = path.as_uri() if is_ours(page) else f"{server}/{name}"
        found += chart_faults(address, tab) if tab else []
        complete = complete and not (charts and not tab)
        figures = len(page.select("figure"))
        counts = f"{figures} figures and tables, {charts} charts, {len(found)} faults"
        print(f"{name}: {size / 1e3:.0f} kB, {counts}", flush=True)
        faults += [f"{name}: {fault}" for fault in dict.fromkeys(found)]
    return faults, complete


def main(argv: list[str] | None = None) -> int:
    """Check the book that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("book", type=Path, help="the folder that was built, such as _book/demo")
    parser.add_argument("--expect-chapters", type=Path, help="by default _quarto.yml of a folder above")
    arguments = parser.parse_args(argv)
    root = arguments.book.resolve()
    above = [folder / "_quarto.yml" for folder in root.parents]
    config = (arguments.expect_chapters or next(filter(Path.is_file, above), above[0])).resolve()
    for path in (root / "index.html", config):
        if not path.is_file():
            print(f"{path} does not exist: render the book first", file=sys.stderr)
            return 1
    opened = browser.page() if browser.find() else contextlib.nullcontext()
    # a run's paths are from its project's folder
    with opened as tab, browser.served(root) as server, contextlib.chdir(config.parent):
        faults, complete = check(root, config, tab, server)
    for fault in faults:
        print(f"FAULT {fault}")
    if not complete:
        print("no browser: set CHROMIUM or install chromium to check the charts", file=sys.stderr)
    print(f"{len(faults)} faults" if faults else "no faults")
    return 1 if faults else 0 if complete else 2


if __name__ == "__main__":
    sys.exit(main())
