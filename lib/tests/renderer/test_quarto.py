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
    return " ".join(text.replace("\u00a0", " ").split())


def read(folder: Path) -> dict[str, dict]:
    """By page, what a reader finds: headings with their numbers, captions, charts, tables, sentences."""
    found = {}
    for path in sorted(folder.rglob("*.html")):
        if "site_libs" in path.parts:
            continue
        main = BeautifulSoup(path.read_text("utf-8"), "html.parser").main
        for aside in main.select("nav, script:not([type]), style, .permalink, .cover .byline, .quarto-title-meta"):
            aside.decompose()
        charts = [json.loads(script.string) for script in main.select(".vega-chart script")]
        captions = [words(caption.get_text()) for caption in main.select("figcaption")]
        headings = [words(heading.get_text(" ")) for heading in main.select("h1, h2, h3, h4")]
        tables = [[words(cell.get_text()) for cell in table.select("th, td")] for table in main.select("table")]
        sentences = [
            words(part.get_text()) for part in main.select("p, li") if not part.find_parent(class_="cover")
        ]
        found[path.relative_to(folder).as_posix()] = {
            "headings": headings,
            "captions": [caption for caption in captions if caption],
            "charts": charts,
            "tables": tables,
            "sentences": [re.sub(r"\s+([,.;:)])", r"\1", text) for text in sentences if text],
        }
    return found


def test_both_renderers_make_the_same_pages_with_the_same_contents(books):
    ours, quartos = read(books["pandoc"]), read(books["quarto"])
    assert ours.keys() == quartos.keys()
    for page in ours:
        for kind, one in ours[page].items():
            other = quartos[page][kind]
            assert one == other, f"{kind} of {page}"


def test_both_books_bring_the_files_that_they_lead_to(books):
    names = {
        renderer: {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".nc", ".zip")
        }
        for renderer, folder in books.items()
    }
    assert names["pandoc"] == names["quarto"] and len(names["pandoc"]) >= 4
