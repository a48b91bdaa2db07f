"""CONTRIBUTING.md, followed to the letter in a copy of the project: what it adds is where it says."""

import json
import os
import re
import shutil
import subprocess

import forked
import nbformat
import numpy as np
import pytest
import transformers
import yaml
from bs4 import BeautifulSoup

from token_geometry.base import project, store

ROOT = project.root()
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

KEPT = ("index.qmd", "book/methods.qmd", "notebooks/distance-ratio.ipynb", "book/own.qmd", "book/references.qmd")
"""Chapters of the copy: those that need no other result than the run makes."""


def blocks():
    """Path, place and content of each block that says in its first line where it belongs."""
    found = re.findall(r"```\w+\n# (\S+), ([^\n]+)\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(found) == 13
    return found


def insert(path, place, content):
    """Put a block where its first line says."""
    way, _, mark = place.partition(' "')
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    if mark:
        (number,) = [n for n, line in enumerate(lines) if mark.removesuffix('"') in line]
        number += {"above": 0, "below": 1}[way]
    else:
        assert (way == "new") != path.exists()
        number = len(lines)
        content = ("\n\n" if path.suffix == ".py" else "") + content
    path.write_text("".join([*lines[:number], content, *lines[number:]]))


def add_cell(notebook, place, content):
    make = nbformat.v4.new_markdown_cell if place.startswith("markdown") else nbformat.v4.new_code_cell
    notebook.cells.append(make(content.strip()))
    if "tagged" in place:
        notebook.cells[-1].metadata["tags"] = [place.split('"')[1]]


@pytest.fixture(scope="module")
def copy(tmp_path_factory, save_tiny):
    """The project with all that CONTRIBUTING.md adds, its run made with a tiny random model, and its book."""
    folder = tmp_path_factory.mktemp("contributing") / "project"
    left_out = (".git", ".venv", "_book", ".quarto", "results", "cache", "tests", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left_out))
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for path, place, content in blocks():
        if path.endswith(".ipynb"):
            add_cell(notebook, place, content)
            nbformat.write(notebook, folder / path)
        else:
            insert(folder / path, place, content)
    methods = folder / "book" / "methods.qmd"  # which leads to chapters that are left out
    methods.write_text(
        re.sub(r"@sec-(effects|confounds|truth-controls)[\w-]*", "another chapter", methods.read_text())
    )
    config = transformers.LlamaConfig(
        vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=2
    )
    save_tiny(config, folder / "tiny")
    run = folder / "data" / "runs" / "counting.yml"
    run.write_text(run.read_text().replace("smollm2-135m", "tiny"))
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in random.permutation(np.arange(2, 200))) for _ in range(4)]
    (folder / "data" / "counting.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    book = yaml.safe_load((folder / "_quarto.yml").read_text())
    book["pages"] = [page for page in book["pages"] if page in KEPT]
    book["book"].pop("appendices", None)
    (folder / "_quarto.yml").write_text(yaml.safe_dump(book))
    done = subprocess.run(
        [*forked.PYTHON, "-m", "token_geometry", "book", "counting", "--renderer", "pandoc"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "lib"), "TOKEN_GEOMETRY_CACHE": str(project.cache())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def page(copy, name):
    return BeautifulSoup((copy / "_book" / "counting" / name).read_text(), "html.parser")


@pytest.mark.slow
def test_the_data_set_has_the_observable_of_the_corpus_and_the_probe(copy):
    results = copy / "data" / "results" / "counting"
    observables = store.read(results / "observables.nc")
    ratio = observables["distance_ratio"]
    assert ratio.attrs == {"long_name": "ratio of neighbor distances", "units": "1"}
    assert ratio.dims == ("model", "shuffle_level", "prompt", "layer") and float(ratio.min()) > 1
    assert set(observables["shuffle_level"].values) == {0, 3} and observables.sizes["prompt"] == 3
    assert observables.attrs["corpus"] == "counting"
    (truth,) = results.glob("truth*.nc")
    assert "sign_of_means" in store.read(truth)["probe"].values
    assert bool(store.read(truth)["probe_accuracy"].sel(probe="sign_of_means").notnull().all())


@pytest.mark.slow
def test_the_table_of_the_chapter_on_methods_has_the_observable(copy):
    rows = [[cell.get_text() for cell in row.select("td")] for row in page(copy, "book/methods.html").select("tr")]
    (row,) = [row for row in rows if row and row[0] == "distance_ratio"]
    assert row[1:3] == ["layer", "median distance to the second neighbor over that to the first"]


@pytest.mark.slow
def test_the_chapter_is_in_the_book_with_its_chart_and_sentence(copy):
    chapter = page(copy, "notebooks/distance-ratio.html")
    assert "Distance ratio" in chapter.title.get_text()
    (figure,) = chapter.select("figure")
    assert len(figure.select(".vega-chart")) == 1 and "Ratio of the distances" in figure.figcaption.get_text()
    assert "ratio of neighbor distances is" in chapter.main.get_text()
    assert any("Distance ratio" in link.get_text() for link in page(copy, "index.html").select("nav a"))


def test_every_file_and_folder_that_contributing_names_exists():
    made = {path for path, place, _ in blocks() if place == "new" or path.endswith(".ipynb")}
    named = {name for name in re.findall(r"`((?:lib|data|notebooks|book)/[\w./-]+)`", TEXT)} - made
    drawn = set(re.findall(r"(\w+/\w+\.(?:py|ipynb))\s", TEXT.split("## The way of a request")[1]))
    assert len(named) > 10 and len(drawn) > 8
    lacking = [name for name in named if not (ROOT / name).exists()]
    lacking += [n for n in drawn if not ((ROOT / "lib" / "token_geometry" / n).exists() or (ROOT / n).exists())]
    assert lacking == []


def test_every_folder_of_the_package_is_in_the_table_of_contributing():
    folders = {path.parent.name for path in (ROOT / "lib" / "token_geometry").glob("*/__init__.py")}
    assert folders == set(re.findall(r"^\| `(\w+)/` \|", TEXT, flags=re.MULTILINE))
