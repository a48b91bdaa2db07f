"""Notebooks through papermill's own command, as a user types it."""

import json
import os
import subprocess
import sys

import book_sources
import forked
import nbformat
import papermill.cli
import pytest
import readme
import xarray as xr
from papermill.engines import Engine, papermill_engines

from token_geometry.base import project
from token_geometry.base.errors import InputError
from token_geometry.observables import catalog
from token_geometry.texts import corpora

NOTEBOOKS = sorted((project.root() / "notebooks").glob("*.ipynb"))


class Here(Engine):
    """Runs the cells in this process, which has imported everything: a kernel takes seconds for that."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
        namespace = {}
        for cell in nb_man.nb.cells:
            if cell.cell_type == "code":
                exec(cell.source, namespace)


papermill_engines.register("here", Here)


@pytest.fixture
def refusal(corpus, monkeypatch):
    """Function that gives papermill's command wrong parameters and returns the last line that the user sees."""

    def line(notebook, *parameters, kernel=True):
        path = project.root() / "notebooks" / f"{notebook}.ipynb"
        words = [str(path), f"{notebook}-executed.ipynb", *parameters]
        if kernel:
            command = [sys.executable, "-m", "papermill", *words]
            environment = {name: value for name, value in os.environ.items() if name != "JUPYTER_PATH"}
            done = subprocess.run(command, cwd=corpus, env=environment, capture_output=True, text=True)
            assert done.returncode != 0
            return done.stderr.strip().splitlines()[-1]
        monkeypatch.chdir(corpus)
        with pytest.raises(InputError) as caught:
            papermill.cli.papermill([*words, "--engine", "here"], standalone_mode=False)
        assert "\n" not in str(caught.value)
        return f"InputError: {caught.value}"

    return line


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Folder with `texts.jsonl`: four long texts and a short one."""
    folder = tmp_path_factory.mktemp("papermill")
    texts = list(corpora.load_corpus("sotu").texts.values())[:4]
    lines = [json.dumps({"text": text}) for text in [*texts, "too short"]]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs_and_with_one_parameters_cell(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    calls = [cell for cell in code if "parameters" not in cell.metadata.get("tags", [])]
    assert max(len(cell.source.splitlines()) for cell in calls) <= 16


@pytest.mark.slow
def test_chapters_import_no_torch_before_they_need_it():
    sources = [(project.root() / path).read_text() for path in book_sources.pages() if path.endswith(".ipynb")]
    code = [c.source for text in sources for c in nbformat.reads(text, 4).cells if c.cell_type == "code"]
    imports = [line for cell in code for line in cell.splitlines() if line.startswith(("import ", "from "))]
    script = "\n".join(
        [*imports, "import sys", "print(sorted({'torch', 'transformers', 'dadapy'} & {*sys.modules}))"]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.model
@pytest.mark.slow
def test_the_commands_of_the_readme_give_the_dataset_with_the_fixed_names(corpus):
    (corpus / "notebooks").symlink_to(project.root() / "notebooks")
    for words in readme.commands("papermill"):
        done = subprocess.run([*forked.PYTHON, "-m", *words], cwd=corpus, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    drawn = [
        output.data["text/html"]
        for cell in nbformat.read(corpus / "truth.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {}) and "vegaEmbed(" in output.data["text/html"]
    ]
    assert len(drawn) >= 6 and not any("cdn." in html[-len(drawn[1]) :] for html in drawn)
    assert len(drawn[0]) > 500_000 > len(drawn[1]), "the first brings the library that draws"
    with xr.open_dataset(corpus / "observables.nc") as dataset:
        for name, entry in catalog.CATALOG.items():
            assert dataset[name].dims == ("model", "shuffle_level", "prompt", *entry.dims)
            assert dataset[name].attrs == {"long_name": entry.title, "units": entry.unit}
        assert dict(dataset.sizes) == {
            "model": 1,
            "shuffle_level": 1,
            "prompt": 2,
            "layer": 31,
            "layer_other": 31,
            "scale": 8,
            "k": 31,
            "angle": 36,
            "subset": 2,
            "n_subset": 2,
            "coordinate": 576,
        }
        assert dataset["relative_depth"].dims == ("model", "layer")
        assert dataset["scale"].values.tolist() == [2, 4, 8, 16, 32, 64, 128, 256]
        assert dataset["k"].values.tolist() == list(range(1, 32))
        assert bool(dataset["loss"].notnull().all())
        for attribute in ("Conventions", "versions", "models", "dtype", "seed", "recipe"):
            assert attribute in dataset.attrs
        assert "sha256" in dataset.attrs["models"]


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "words", "kernel"),
    [
        (["-p", "n_promts", "3"], "unknown parameter 'n_promts'; did you mean 'n_prompts'?", True),
        (["-p", "n_prompts", "three"], "parameter 'n_prompts' is 'three'", False),
        (["-p", "model", "smollm3"], "unknown model 'smollm3'", False),
        (["-p", "corpus", "nothing.jsonl"], "unknown corpus 'nothing.jsonl'", False),
        (["-p", "corpus", "texts.jsonl", "-p", "n_prompts", "5"], "1 are shorter", False),
        (["-p", "n_tokens", "100", "-p", "shuffle_levels", "[0, 2]"], "4^2 blocks do not divide", False),
        (["-p", "device", "cuda:7"], "device 'cuda:7' does not exist here", False),
        (["-p", "dtype", "int4"], "dtype is 'int4'; accepted: float32", False),
    ],
)
def test_bad_parameters_are_refused_with_one_line_and_leave_no_result(corpus, refusal, parameters, words, kernel):
    defaults = ["-p", "output", "refused", "-p", "n_tokens", "64"]
    last = refusal("extraction", *defaults, *parameters, kernel=kernel)
    assert last.startswith("InputError: ") and words in last
    assert not list((corpus / "refused").glob("*.nc"))


@pytest.mark.model
@pytest.mark.slow
def test_observables_refuse_a_folder_without_an_extraction(corpus, refusal):
    last = refusal("observables", "-p", "extraction", "elsewhere", "-p", "output", "none.nc", kernel=False)
    assert "extraction 'elsewhere' holds no extraction.json" in last
    assert not (corpus / "none.nc").exists()


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["shuffling", "loss", "published", "truth-pca", "validation", "performance"])
def test_a_chapter_refuses_a_parameter_that_it_does_not_know(refusal, chapter):
    last = refusal(chapter, "-p", "rum", "paper", kernel=chapter == "shuffling")
    assert last.startswith("InputError: ") and "unknown parameter 'rum'; did you mean 'run'?" in last
