"""Both renderers: of the run `ci` Quarto, where it is present, makes the book that the other renderer makes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from token_geometry.__main__ import find_quarto
from token_geometry.base import project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.model,
    pytest.mark.skipif(not find_quarto()[0], reason="no Quarto on the PATH"),
]
ROOT = project.root()
ASIDES = "nav, script:not([type]), style, .permalink, .byline, .quarto-title-meta, .subtitle, .equation > .number"
LEFT_OUT = (".git", ".venv", "_book", ".quarto", "cache", "tests", "__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """Folders of the book of `ci` as each renderer makes it from the same results, in a copy of the project."""
    folder = tmp_path_factory.mktemp("both") / "project"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    environment = os.environ | {
        "PYTHONPATH": str(folder / "lib"),
        "TOKEN_GEOMETRY_CACHE": str(project.cache()),
        "QUARTO_PROFILE": "",
    }
    made = {}
    for renderer in ("pandoc", "quarto"):
        command = [sys.executable, "-m", "token_geometry", "book", "ci", "--renderer", renderer]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        made[renderer] = (folder / "_book" / "ci").rename(folder / renderer)
    return made


def words(text: str) -> str:
    return re.sub(r"\s+([,.;:)])", r"\1", " ".join(text.replace("\u00a0", " ").split()))


def read(folder: Path) -> dict[str, dict]:
    """By page, what a reader finds: headings with their numbers, captions, charts, tables, formulas, sentences."""
    found = {}
    for path in sorted(folder.rglob("*.html")):
        if "site_libs" in path.parts:
            continue
        main = BeautifulSoup(path.read_text("utf-8"), "html.parser").main
        # Quarto puts the number of a formula into it, and the other renderer behind it
        numbers = [re.sub(r".*\(([\d.]+)\)$", r"\1", words(one.get_text())) for one in main.select("[id^=eq-]")]
        sources = [words(one.get_text()) for one in main.select("math annotation")]
        formulas = sorted(source.partition(r"\qquad(")[0].strip() for source in sources)
        for aside in main.select(ASIDES):
            aside.decompose()
        for formula in main.select("math"):
            formula.replace_with("formula")
        # on a page without a number Quarto names a chapter by its title, and a caption is a paragraph
        for link in main.select("a.xref, a.quarto-xref, h1.title") if path.name == "index.html" else ():
            link.replace_with("reference")
        texts = {"headings": "h1, h2, h3, h4", "captions": "figcaption", "cells": "th, td", "sentences": "p, li"}
        page = {
            kind: [
                words(part.get_text(" ")) for part in main.select(places) if not part.find_parent(class_="cover")
            ]
            for kind, places in texts.items()
        }
        if path.name == "index.html":
            page["sentences"] += page.pop("captions")
        page["sentences"] = sorted(filter(None, page["sentences"]))
        charts = [json.loads(script.string) for script in main.select(".vega-chart script")]
        found[path.relative_to(folder).as_posix()] = page | {
            "charts": charts, "numbers": numbers, "formulas": formulas,
        }  # fmt: skip
    return found


def test_both_renderers_make_the_same_pages_with_the_same_contents(books):
    ours, quartos = read(books["pandoc"]), read(books["quarto"])
    assert ours.keys() == quartos.keys()
    assert sum(len(page["charts"]) for page in ours.values()) > 40
    for page in ours:
        for kind, one in ours[page].items():
            assert one == quartos[page][kind], f"{kind} of {page}"


def test_both_books_bring_the_files_that_they_lead_to(books):
    names = {
        renderer: {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".nc", ".zip")
        }
        for renderer, folder in books.items()
    }
    assert names["pandoc"] == names["quarto"] and len(names["pandoc"]) >= 4
