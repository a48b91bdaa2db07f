"""The protocol of requests: what runs ask of every kind, and that a new kind needs nothing of them."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import forked
import nbformat
import pytest
import transformers
import xarray as xr
import yaml

from token_geometry.base import parameters, project, store
from token_geometry.requests.calibration import Calibration
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.protocol import Request, kinds
from token_geometry.requests.reduction import Reduction
from token_geometry.requests.truth import Truth
from token_geometry.runs import declaration, results

LENGTHS = '''"""Lengths of the texts of a corpus."""

from collections.abc import Sequence
from dataclasses import dataclass

from token_geometry.base.errors import InputError
from token_geometry.requests.protocol import Estimate, Request
from token_geometry.texts import corpora


@dataclass(frozen=True, kw_only=True)
class Lengths(Request):
    notebook = "lengths"
    keys = ("lengths",)

    corpus: str
    output: str
    unit: str = "characters"

    def check(self) -> None:
        if self.unit not in ("characters", "words"):
            raise InputError(f"unit is {self.unit!r}; accepted: characters, words")

    def recipe(self, reads: Sequence[Request] = ()) -> dict:
        return {"corpus": corpora.find_corpus(self.corpus).identity(), "unit": self.unit}

    def estimate(self) -> Estimate:
        return Estimate(memory=12_000_000)
'''

CELLS = [
    'corpus = "sotu"\nunit = "characters"\noutput = "data/results/lengths.nc"',
    "from pathlib import Path\n\nimport xarray as xr\n\nfrom token_geometry.base import parameters, store\n"
    "from token_geometry.requests.lengths import Lengths\nfrom token_geometry.texts import corpora\n\n"
    "request = parameters.collect(Lengths, globals())",
    "texts = corpora.load_corpus(request.corpus).texts\n"
    "found = [len(text if request.unit == 'characters' else text.split()) for text in texts.values()]\n"
    "attrs = store.make_attrs('Lengths', request.recipe())\n"
    "store.write(xr.Dataset({'length': ('text', found)}, attrs=attrs), Path(request.output))",
]


def test_every_kind_of_request_is_known_once_and_names_a_notebook_with_its_parameters():
    assert {Extraction, Reduction, Calibration, Truth} <= set(kinds())
    assert len(kinds()) == len(set(kinds()))
    for kind in (Extraction, Reduction, Calibration):
        notebook = nbformat.read(project.root() / "notebooks" / f"{kind.notebook}.ipynb", as_version=4)
        (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
        namespace = {}
        exec(cell.source, namespace)
        assert namespace.keys() - {"__builtins__"} == {field.name for field in dataclasses.fields(kind)}
        parameters.collect(kind, namespace)


@pytest.mark.slow
def test_requests_and_runs_are_imported_without_torch_and_without_an_engine():
    script = "import sys; from token_geometry.runs import execution, forecast, results\n"
    script += "from token_geometry.requests.protocol import kinds; kinds()\n"
    script += "names = ('torch', 'transformers', 'token_geometry.extraction', 'token_geometry.studies')\n"
    script += "print([name for name in names if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_what_a_run_gives_a_notebook_is_what_the_notebook_reads_back():
    for run in map(declaration.load, declaration.names()):
        for step in results.steps(run):
            values = step.request.parameters()
            assert all(not isinstance(value, tuple) for value in values.values())
            assert parameters.build(type(step.request), values, noun="parameter").parameters() == values
            assert isinstance(step.request, Request) and not step.path.is_relative_to("/proc")


def test_a_step_that_two_results_read_is_made_once_and_before_both():
    first = results.results(declaration.load("ci"))["observables"]
    second = dataclasses.replace(first, name="other", reads=(first, *first.reads))
    names = [step.name for step in results.in_order([second, first])]
    assert names == [*(step.name for step in first.reads), "observables", "other"]
    assert (first.depth, second.depth) == (1, 2)


@pytest.fixture(scope="module")
def copy(tmp_path_factory, save_tiny):
    """A copy of the project with a kind of request that it does not know: one module and one notebook."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(
        project.root() / "lib" / "token_geometry",
        folder / "lib" / "token_geometry",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (folder / "lib" / "token_geometry" / "requests" / "lengths.py").write_text(LENGTHS)
    for name in ("models.yml", "corpora.yml"):
        (folder / "data" / "runs").mkdir(parents=True, exist_ok=True)
        shutil.copy(project.root() / "data" / name, folder / "data" / name)
    (folder / "_quarto.yml").write_text("project: {type: book}\n")
    shutil.copytree(project.root() / "notebooks", folder / "notebooks")
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    save_tiny(config, folder / "model")
    lines = [json.dumps({"text": " ".join(f"w{n}" for n in range(start, start + 40))}) for start in (2, 9)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=python), folder / "notebooks" / "lengths.ipynb")
    return folder


def declare(folder, **sections):
    entries = {"title": "t", "models": ["model"], "corpus": "texts.jsonl", "n_tokens": 16, "device": "cpu"}
    entries |= {"extractions": {"all": {"n_prompts": 2, "shuffle_levels": [0]}}, **sections}
    (folder / "data" / "runs" / "small.yml").write_text(yaml.safe_dump(entries))


def command(folder, *words):
    environment = os.environ | {"PYTHONPATH": str(folder / "lib"), "TOKEN_GEOMETRY_CACHE": str(project.cache())}
    return subprocess.run(
        [*forked.PYTHON, "-m", "token_geometry", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_new_kind_of_result_is_one_request_and_one_notebook(copy, monkeypatch):
    # what the other kinds make is there, as far as a run looks
    declare(copy)
    monkeypatch.chdir(copy)
    for result in results.results(declaration.load("small")).values():
        store.write(xr.Dataset(attrs=store.make_attrs("", result.recipe())), result.path)
    declare(copy, lengths={"unit": "words"})
    planned = command(copy, "run", "small", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "notebooks/lengths.ipynb" in planned.stdout and 'unit: "words"' in planned.stdout
    assert "12 MB of memory" in planned.stdout
    done = command(copy, "run", "small")
    assert done.returncode == 0 and "[1/1] lengths" in done.stdout, done.stderr
    result = copy / "data" / "results" / "small" / "lengths.nc"
    assert store.read(result)["length"].values.tolist() == [40, 40]
    assert "nothing to compute" in command(copy, "run", "small").stdout
    declare(copy, lengths={"unit": "characters"})
    done = command(copy, "run", "small")
    assert "[1/1] lengths" in done.stdout, done.stderr
    assert store.read(result)["length"].max() > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"unti": "words"}, "small.yml: lengths: key 'unti'; did you mean 'unit'"),
        ({"unit": 3}, "small.yml: lengths: key 'unit' is 3"),
        (3, "small.yml: key 'lengths' is 3"),
    ],
)
def test_a_wrong_key_of_a_new_kind_is_refused_as_those_of_the_others(copy, section, words):
    declare(copy, lengths=section)
    done = command(copy, "run", "small", "--dry-run")
    assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1
