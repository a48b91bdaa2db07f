"""Check a built book: ``python lib/tests/check_pages.py _book``.

Every chapter is there, references and links resolve, figures have captions and alternative
texts, nothing comes from the network, and a real browser draws every chart without one.
Exit code 0: no fault; 1: faults, listed; 2: no browser to draw the charts with.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup

LIMIT = 3_000_000
OURS = "token_geometry.renderer.book"
UNRESOLVED = re.compile(r"\?@|@(fig|tbl|sec|eq)-|(?<!\S)\?\?(?!\S)|\{\{<|(?<!\S):::")
# A canvas does not show in the page's markup, so the page itself says whether it has ink.
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
  for (const canvas of document.querySelectorAll(".vega-chart canvas")) {
    const {width, height} = canvas;
    const data = width && height ? canvas.getContext("2d").getImageData(0, 0, width, height).data : [];
    const pixels = new Set(new Uint32Array(data.buffer || 0));
    canvas.dataset.ink = pixels.size > 1;
  }
}, 8000));</script>"""
MARKS = "[class*=mark-] path, [class*=mark-] text, [class*=mark-] line, [class*=mark-] image"


@cache
def parse(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def chapters(config: Path) -> list[str]:
    """The pages that a book's configuration promises."""
    book = yaml.safe_load(config.read_text("utf-8"))["book"]

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
    ids = [elem["id"] for elem in page.select("[id]")]
    faults += [f"the id {name} is there twice" for name in {i for i in ids if ids.count(i) > 1}]
    return faults


def link_faults(path: Path, root: Path, page: BeautifulSoup) -> list[str]:
    """Links and resources that lead nowhere, or to the network where ours must not."""
    faults = []
    generator = page.find("meta", attrs={"name": "generator"})
    ours = generator is not None and generator.get("content") == OURS
    for elem in page.select("a[href], link[href], script[src], img[src], source[src], iframe[src]"):
        address = elem.get("href", elem.get("src")).strip()
        url = urlsplit(address)
        if url.scheme or url.netloc:
            if ours and elem.name != "a" and url.scheme != "data":
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


def browser() -> str | None:
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def chart_faults(path: Path, chromium: str) -> list[str]:
    """Draw a page with the network off and look for marks in each of its charts."""
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--disable-background-networking", "--virtual-time-budget=15000"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command += [f"--user-data-dir={profile}", path.as_uri()]
        try:
            run = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=180)
        except subprocess.TimeoutExpired:
            return ["the browser did not finish within 180 s"]
    faults = [f"script: {line[:200]}" for line in run.stderr.splitlines() if "Uncaught" in line]
    charts = BeautifulSoup(run.stdout, "html.parser").select(".vega-chart")
    expected = len(parse(path).select(".vega-chart"))
    if len(charts) < expected:
        faults.append(f"{expected} charts, {len(charts)} after drawing: {run.stderr[-200:]}")
    for chart in charts:
        inked = any(canvas.get("data-ink") == "true" for canvas in chart.select("canvas"))
        if not inked and not chart.select(f"svg :is({MARKS})"):
            faults.append(f"chart {chart.get('id', '')} shows no mark")
    return faults


def check(root: Path, config: Path, chromium: str | None) -> tuple[list[str], bool]:
    """All faults of a book, and whether its charts could be checked."""
    faults, complete = [], True
    expected = chapters(config)
    for name in expected:
        if not (root / name).is_file():
            faults.append(f"{name}: missing, {config.name} lists it")
    # The copy carries the probe: the book itself stays as it was built.
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder, "book")
        shutil.copytree(root, drawn)
        for path in sorted(root.rglob("*.html")):
            name = path.relative_to(root).as_posix()
            if "site_libs" in path.parts or name not in expected:
                continue
            page, size = parse(path), path.stat().st_size
            found = text_faults(page) + figure_faults(page) + link_faults(path, root, page)
            if size > LIMIT:
                found.append(f"{size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f} MB")
            charts = len(page.select(".vega-chart"))
            if charts and chromium:
                copy = drawn / name
                copy.write_text(copy.read_text("utf-8") + PROBE, "utf-8")
                found += chart_faults(copy, chromium)
            complete = complete and not (charts and not chromium)
            figures = len(page.select("figure"))
            counts = f"{figures} figures and tables, {charts} charts, {len(found)} faults"
            print(f"{name}: {size / 1e3:.0f} kB, {counts}", flush=True)
            faults += [f"{name}: {fault}" for fault in found]
    return faults, complete


def main(argv: list[str] | None = None) -> int:
    """Check the book that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("book", type=Path, help="the folder that was built, such as _book/demo")
    parser.add_argument("--expect-chapters", type=Path, help="by default _quarto.yml of a folder above")
    arguments = parser.parse_args(argv)
    root = arguments.book.resolve()
    above = [folder / "_quarto.yml" for folder in root.parents]
    config = arguments.expect_chapters or next(filter(Path.is_file, above), above[0])
    for path in (root / "index.html", config):
        if not path.is_file():
            print(f"{path} does not exist: render the book first", file=sys.stderr)
            return 1
    faults, complete = check(root, config, browser())
    for fault in faults:
        print(f"FAULT {fault}")
    if not complete:
        print("no browser: set CHROMIUM or install chromium to check the charts", file=sys.stderr)
    print(f"{len(faults)} faults" if faults else "no faults")
    return 1 if faults else 0 if complete else 2


if __name__ == "__main__":
    sys.exit(main())
