"""Chapters on results made for the purpose: what is missing of a run is said, and nothing fails."""

import ast
import dataclasses
import functools
import json
import pkgutil
import re
import subprocess
import sys
import warnings

import book_sources
import nbformat
import numpy as np
import pytest
import xarray as xr
import yaml
from IPython.display import Markdown

import families_page
import pages
from token_geometry import chapters
from token_geometry.base import project
from token_geometry.chapters import charts, markup, over_layers
from token_geometry.chapters import results as results_module
from token_geometry.chapters.curves import curves, layer_curves
from token_geometry.chapters.frames import summary
from token_geometry.geometry import subsets
from token_geometry.observables import catalog, labelled
from token_geometry.runs import declaration

CHAPTERS = (
    "index", "introduction", "shuffling", "model-comparison", "effects", "loss", "confounds", "estimators",
    "profile-probe", "published",
)  # fmt: skip

# What a figure of arXiv:2501.10573 shows → labels of the figures of the book that show it.
COUNTERPARTS = {
    "mean cosine, one prompt at S = 0 … 5": ["fig-shuffling-prompt"],
    "ID, one prompt at S = 0 … 5": ["fig-shuffling-prompt"],
    "NO (k = 2), one prompt at S = 0 … 5": ["fig-shuffling-prompt"],
    "means of the three at S = 0 and 5": ["fig-shuffling-means", "fig-published-beside"],
    "histogram of neighbor angles at layer 10": ["fig-shuffling-angles"],
    "correlation of ID with loss, three models": ["fig-published-correlation", "fig-loss-id"],
    "logit ID against contextual entropy, entropy against loss": ["fig-loss-logits"],
    "six random prompts": ["fig-shuffling-prompts"],
    "all models shuffled: ID": ["fig-shuffling-id", "fig-published-id"],
    "all models shuffled: NO": ["fig-shuffling-no", "fig-published-no"],
    "all models shuffled: mean cosine": ["fig-shuffling-cosine", "fig-published-cosine"],
    "ID at scale 2, 4, 8": ["fig-shuffling-scales", "fig-published-id"],
    "NO at k = 1 … 6": ["fig-shuffling-no", "fig-published-no"],
    "ID of three models, structured": ["fig-comparison-id", "fig-published-beside"],
    "NO of three models, structured": ["fig-comparison-no", "fig-published-beside"],
    "ID against range scaling": ["fig-comparison-scale", "fig-comparison-scales", "fig-comparison-prompts"],
    "NO at k = 2, 4, 8, structured": ["fig-comparison-no"],
    "correlation at scale 2, 4, 8": ["fig-published-correlation", "fig-loss-id"],
}


def observed(models, levels, n_prompts, n_shuffled, *, n_scales=8, seed=0):
    """Observables of models (name → number of blocks) with smooth, random values."""
    return _observed(tuple(models.items()), tuple(levels), n_prompts, n_shuffled, n_scales, seed).copy(deep=True)


@functools.lru_cache(maxsize=48)
def _observed(models, levels, n_prompts, n_shuffled, n_scales, seed):
    random, models = np.random.default_rng(seed), dict(models)
    layers = np.arange(max(models.values()) + 1)
    names = [f"prompt-{number}" for number in range(n_prompts)]
    coords = {
        "model": list(models),
        "shuffle_level": list(levels),
        "prompt": names,
        "layer": layers,
        "scale": labelled.SCALES,
        "k": labelled.K,
        "layer_other": layers,
        "angle": np.arange(2.5, 180, 5),
        "subset": list(subsets.KINDS),
        "n_subset": [16, 32],
        "coordinate": range(8),
    }
    outer = ("model", "shuffle_level", "prompt")
    dims = {name: (*outer, *entry.dims) for name, entry in catalog.CATALOG.items()}
    dataset = xr.Dataset(
        {name: (d, 1 + random.random([len(coords[dim]) for dim in d])) for name, d in dims.items()}, coords=coords
    )
    depth = np.full((len(models), len(layers)), np.nan)
    for row, n_blocks in enumerate(models.values()):
        depth[row, : n_blocks + 1] = np.arange(n_blocks + 1) / n_blocks
    dataset = dataset.assign_coords(
        relative_depth=(("model", "layer"), depth), model_title=("model", [f"Model {name}" for name in models])
    )
    exists = dataset["relative_depth"].notnull()
    for name in dataset.data_vars:
        if "layer" in dataset[name].dims:
            dataset[name] = dataset[name].where(exists)
    other = exists.rename(layer="layer_other").drop_vars("relative_depth")
    dataset["layer_overlap"] = dataset["layer_overlap"].where(other)
    for name in dataset.data_vars:
        for level in levels[1:]:
            dataset[name].loc[{"shuffle_level": level, "prompt": names[n_shuffled:]}] = np.nan
    for name in ("intrinsic_dimension", "logit_intrinsic_dimension"):
        dataset[name] = dataset[name].where(dataset["scale"] <= 2**n_scales)
    for variable in dataset.variables.values():
        variable.values.flags.writeable = False  # many tests see the same arrays
    return dataset.assign_attrs(n_tokens=64, corpus="sotu", n_texts_too_short=1)


def results_of(*given, **options):
    """Results of one's own, to write into, like the shared ones of `once`."""
    shared = once(*given, **options)
    control = shared.control if shared.control is None else shared.control.copy(deep=True)
    return dataclasses.replace(shared, observables=shared.observables.copy(deep=True), control=control)


def once(models=None, levels=(0, 1, 2), n_prompts=4, n_shuffled=3, control=True, n_scales=8):
    """Results that are made once in a process, so that chapters show them once."""
    models = tuple((models or {"one": 6, "two": 4}).items())
    return _once(models, tuple(levels), n_prompts, n_shuffled, control, n_scales)


@functools.lru_cache(maxsize=48)
def _once(models, levels, n_prompts, n_shuffled, control, n_scales):
    models = dict(models)
    name = next(iter(models))
    declared = declaration.Run(
        name="made", title="made for a test", models=list(models), corpus="sotu", n_tokens=64
    )
    made = _observed(tuple(models.items()), levels, n_prompts, n_shuffled, n_scales, 0)
    other = _observed(((f"{name}@random", models[name]),), levels[:: len(levels) - 1 or 1], 2, 2, 8, 1)
    return results_module.RunResults(run=declared, observables=made, control=other if control else None)


RUNS = {
    "three prompts": lambda: with_canaries(),
    "one shuffle level": lambda: once(levels=(0,)),
    "one short prompt of one model, no control": lambda: once({"a": 6}, (0, 1), 1, 1, False, n_scales=1),
}


def notebook(chapter):
    return nbformat.read(project.root() / "notebooks" / f"{chapter}.ipynb", as_version=4)


def code_cells(chapter):
    if chapter in ("index", "introduction"):
        (path,) = [path for path in project.root().glob("*/*.qmd") if path.stem == chapter] or ["index.qmd"]
        text = (project.root() / path).read_text(encoding="utf-8")
        return [
            nbformat.v4.new_code_cell(code) for code in re.findall(r"```\{python\}\n(.*?)```", text, re.DOTALL)
        ]
    return [cell for cell in notebook(chapter).cells if cell.cell_type == "code"]


_SHOWN = {}
"""What chapters showed: chapter and results, which must live as long as their number stands for them."""


def outputs(chapter, results, monkeypatch):
    """What every code cell of a chapter shows for these results, by its label or number: once in a process."""
    key = (chapter, id(results))
    if key not in _SHOWN:
        if len(_SHOWN) >= 64:
            del _SHOWN[next(iter(_SHOWN))]
        with warnings.catch_warnings():  # whichever test comes first
            warnings.simplefilter("error")
            _SHOWN[key] = results, _outputs(chapter, results, monkeypatch)
    return _SHOWN[key][1]


class Chart:
    """A chart that a chapter shows, and its specification, which takes as long to write as the chart to make."""

    def __init__(self, chart):
        self.spec = chart.to_dict()

    def to_dict(self):
        return self.spec


def _outputs(chapter, results, monkeypatch):
    monkeypatch.setattr(results_module, "open_results", lambda run="": results)
    namespace, shown = {}, {}
    for number, cell in enumerate(code_cells(chapter)):
        *body, last = ast.parse(cell.source).body
        is_value = isinstance(last, ast.Expr)
        exec(compile(ast.Module(body if is_value else [*body, last], []), chapter, "exec"), namespace)
        if is_value:
            value = eval(compile(ast.Expression(last.value), chapter, "eval"), namespace)
            shown[label(cell) or f"cell {number}"] = value if isinstance(value, Markdown) else Chart(value)
    return shown


def label(cell):
    lines = [line for line in cell.source.splitlines() if line.startswith("#| label: ")]
    return lines[0].removeprefix("#| label: ") if lines else None


@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize(
    "run", [pytest.param(run, marks=[pytest.mark.slow] * (n < 3)) for n, run in enumerate(RUNS)]
)
def test_a_chapter_renders_for_any_run_and_says_what_is_missing(chapter, run, monkeypatch):
    results = RUNS[run]()
    shown = outputs(chapter, results, monkeypatch)
    said = " ".join(value.data for value in shown.values() if isinstance(value, Markdown))
    for name, value in shown.items():
        if isinstance(value, Markdown):
            assert value.data.strip(), name
        else:
            spec = value.to_dict()
            assert len(spec["description"]) > 40, name
            charts.chart_html(spec)
    assert "Traceback" not in said and "None" not in said
    missing = {
        ("index", "one short prompt of one model, no control"): ["too short for another scale"],
        ("shuffling", "one shuffle level"): ["The run has one shuffle level"],
        ("shuffling", "one short prompt of one model, no control"): ["prompts cannot be compared"],
        ("effects", "three prompts"): ["not given below 3 models", "open ("],
        ("effects", "one shuffle level"): ["so there is nothing to compare"],
        ("model-comparison", "one short prompt of one model, no control"): ["has no control"],
        ("loss", "one shuffle level"): ["so there is nothing to compare"],
        ("loss", "one short prompt of one model, no control"): ["A correlation needs three"],
        ("confounds", "three prompts"): ["length of the text, year", "a run names more under `genres`"],
        ("confounds", "one short prompt of one model, no control"): ["No correlation can be taken"],
        ("estimators", "one shuffle level"): ["so there is nothing to compare"],
        ("estimators", "one short prompt of one model, no control"): ["too few or too short"],
        ("loss", "three prompts"): ["(no interval from 3 prompts)", "with this sign in"],
        ("estimators", "three prompts"): ["of it from 16 points"],
        ("profile-probe", "three prompts"): ["shuffled, 3 prompts", "permuted labels"],
        ("profile-probe", "one shuffle level"): ["nothing to be told apart"],
        ("published", "one shuffle level"): ["not in this run"],
    }
    for words in missing.get((chapter, run), []):
        assert words in said


def book_chapters():
    notebooks = [page.removeprefix("notebooks/") for page in book_sources.pages() if "notebooks/" in page]
    return [page.removesuffix(".ipynb") for page in notebooks]


EVERYTHING = " ".join(pages.ADDED)


@pytest.mark.slow
@pytest.mark.parametrize("lacks", ["shuffled", "controls calibration", "steered", EVERYTHING, "lacking"])
def test_what_a_run_lacks_is_absent_and_nothing_that_is_left_refers_to_it(lacks):
    config = yaml.safe_load((project.root() / "_quarto.yml").read_text())
    optional = ("genres", "controls", "truth", "truth_controls", "calibration")
    sections = {name: {} for name in optional if name not in lacks.split()}
    if "truth" in sections:
        sections["truth"] = {"datasets": ["cities", "neg_cities", "maths"]}
    if "truth_controls" in sections:
        sections["truth_controls"] = {"models": {"one": {"layer": 2, "steered": "steered" not in lacks}}}
    sections["extractions"] = {"all": {"shuffle_levels": [0] if "shuffled" in lacks else [0, 5]}}
    models = ["one"] if "several" in lacks else ["one", "two"]
    run = declaration.Run(name="a", title="a", models=models, corpus="sotu", n_tokens=64, sections=sections)
    assert pages.lacks(run) == lacks.split()
    left = pages.of_run(config, run)
    assert left["lacks"] == lacks
    read = {
        page: book_sources.read(page, lacks) for page in [*left["book"]["chapters"], *config["book"]["appendices"]]
    }
    defined = set.union(*(labels for _, labels, _ in read.values()))
    for page, (text, _, cited) in read.items():
        assert cited <= defined, f"{page} refers to {cited - defined}"
        assert "if-" not in text
    missing = {name for name in ("shuffling", "effects", "truth-pca", "validation", "profile-probe")}
    missing -= {page.removeprefix("notebooks/").removesuffix(".ipynb") for page in read}
    needs = {"shuffled": {"shuffling", "effects"}, "controls calibration": {"validation"}}
    needs[EVERYTHING] = {*set.union(*needs.values()), "profile-probe", "truth-pca"}
    assert missing == needs.get(lacks, set())
    assert ("What could be added" in read["book/conclusion.qmd"][0]) == (lacks != "lacking")
    assert ("An untrained control" in read["notebooks/model-comparison.ipynb"][0]) == ("controls" not in lacks)
    assert pages.addable(run).count("\n") == max(1, len([name for name in lacks.split() if name in pages.ADDED]))


def test_every_figure_of_the_paper_has_its_counterpart_in_the_book():
    present = {}
    for chapter in book_chapters():
        for cell in notebook(chapter).cells:
            if cell.cell_type == "code" and label(cell):
                present[label(cell)] = cell.source
    for figure, labels in COUNTERPARTS.items():
        for name in labels:
            assert name in present, f"{figure}: no figure {name}"
            assert "#| fig-cap: " in present[name]


@pytest.mark.parametrize("chapter", book_chapters())
def test_every_figure_and_table_of_a_chapter_is_captioned_and_referred_to(chapter):
    cells = notebook(chapter).cells
    prose = " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for cell in cells:
        if cell.cell_type == "code" and label(cell):
            assert f"@{label(cell)}" in prose, f"{label(cell)} is not referred to"
            assert "#| fig-cap: " in cell.source or "#| tbl-cap: " in cell.source


def rows(chart):
    """Rows of the largest data set of a chart."""
    return max(chart.to_dict()["datasets"].values(), key=len)


@pytest.mark.slow
def test_the_figures_hold_the_scales_neighborhoods_and_levels_that_the_paper_shows(monkeypatch):
    results = once(n_prompts=10, n_shuffled=6)
    shuffling = outputs("shuffling", results, monkeypatch)
    assert {row["shuffle_level"] for row in rows(shuffling["fig-shuffling-prompt"])} == {0, 1, 2}
    assert len({row["prompt"] for row in rows(shuffling["fig-shuffling-prompts"])}) == 6
    assert {row["shuffle_level"] for row in rows(shuffling["fig-shuffling-means"])} == {0, 2}
    assert {row["k"] for row in rows(shuffling["fig-shuffling-no"])} == set(range(1, 7))
    assert {row["scale"] for row in rows(shuffling["fig-shuffling-id"])} == set(labelled.SCALES.tolist())
    names = {f"ID at scale {scale}" for scale in (2, 4, 8)}
    assert {row["observable"] for row in rows(shuffling["fig-shuffling-scales"])} == names
    comparison = outputs("model-comparison", results, monkeypatch)
    assert {row["kind"] for row in all_rows(comparison["fig-comparison-control"])} == {
        "Model one",
        "Model one@random",
    }
    overlap = rows(comparison["fig-comparison-overlap"])
    assert len(overlap) == 2 * (7 * 7 + 5 * 5)


def all_rows(chart):
    return [row for part in chart.to_dict()["datasets"].values() for row in part]


def test_a_chart_keeps_its_values_when_its_data_become_csv():
    frame = summary(results_of().shuffled["cosine_similarity"])
    frame["model_title"] = frame["model_title"].replace("Model one", 'Model "one", </script>')
    spec = layer_curves(frame, y_title="y", finding="d").to_dict()
    page = charts.chart_html(spec)
    assert "</script>" not in page.removesuffix("</script></div>")
    (text,) = charts._with_csv(spec)["datasets"].values()
    lines = text.splitlines()
    assert lines[0].split(",")[:2] == ["layer", "shuffle_level"]
    assert len(lines) == len(frame) + 1
    assert len(text) < len(json.dumps(*spec["datasets"].values())) / 2


def test_a_control_offers_the_values_that_there_are_and_shows_the_rows_of_one():
    frame = summary(results_of().shuffled["intrinsic_dimension"])

    def control(values, **options):
        chart = curves(frame, y_title="y", keep=(values.name,))
        spec = charts.chosen(chart, values, title="value", **options).to_dict()
        param = next(p for p in spec["params"] if p["name"].startswith("shown"))
        return param["value"], param["bind"]["options"], spec["transform"][0]["filter"]

    assert control(frame["scale"], initial=64) == (64, labelled.SCALES.tolist(), "datum['scale'] == shown_scale")
    assert control(frame["layer"])[:2] == (0, list(range(7)))
    assert control(frame["model_title"])[1] == ["Model one", "Model two"]


def over_layers_names():
    return [entry.name for entry in catalog.CATALOG.values() if "layer" in entry.dims and len(entry.dims) < 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", over_layers_names())
def test_any_observable_of_the_catalog_has_a_chart_an_alt_text_and_a_sentence_over_layers(name):
    results, entry = results_of(), catalog.CATALOG[name]
    if entry.choice:
        values = results.observables[entry.choice].values
        at = values[1].item()
    else:
        at = None
    for make in (over_layers.by_level, over_layers.by_model):
        found = make(results, name, at=at)
        spec = found.chart.to_dict()
        assert entry.axis_title in json.dumps(spec, ensure_ascii=False)
        assert entry.title in spec["description"]
        assert min(row["layer"] for row in rows(found.chart)) == entry.first_layer
        assert all(title in found.sentence.data for title in results.titles)


def test_an_observable_without_layers_is_refused_with_those_that_have_them(refused):
    with refused("unknown observable over layers 'loss'", "ccepted: intrinsic_dimension, "):
        over_layers.by_level(results_of(), "loss")


@pytest.mark.slow
def test_no_module_of_the_chapters_imports_torch():
    names = [module.name for module in pkgutil.walk_packages(chapters.__path__, f"{chapters.__name__}.")]
    assert len(names) > 30
    script = (
        f"import sys, {', '.join(names)}; print(sorted({{'torch', 'transformers', 'dadapy'}} & {{*sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_chapter_on_methods_includes_the_table_of_the_catalog_and_defines_all_that_it_names():
    text = (project.root() / "book" / "methods.qmd").read_text(encoding="utf-8")
    assert "Markdown(catalog.as_table())" in text
    header, _, *rows = catalog.as_table().splitlines()
    assert header.startswith("| variable |") and len(rows) == len(catalog.CATALOG)
    for row, entry in zip(rows, catalog.CATALOG.values(), strict=True):
        assert row.startswith(f"| `{entry.name}` | ") and row.endswith(f"| @{entry.source} |")
        assert f"{{#{entry.source}}}" in text


def test_the_appendix_has_every_family_once_with_what_was_said_of_it():
    assert 'open("book/_families.md"' in (project.root() / "book" / "families.qmd").read_text()
    table = json.loads((project.root() / "data" / "families.json").read_text())
    page = families_page.as_page().replace("\\", "")
    assert f"these are {len(table['families'])} models" in page and f"of {table['n_classes']} classes" in page
    tables, _, exceptions = page.partition("Exceptions among")
    rows = [line.strip("| ").split(" | ") for line in tables.splitlines() if line.startswith("| ")]
    named = [name for row in rows if row[1] != "families" for name in row[1].split(", ")]
    expected = [row["model_type"] + " (as a decoder)" * bool(row["setting"]) for row in table["families"]]
    assert sorted(named) == sorted(expected)
    (encoders,) = [row for row in rows if "sees the tokens behind a token" in row[0]]
    assert "roberta" in encoders[1].split(", ") and "llama" not in encoders[1].split(", ")
    for row in table["families"]:
        other = {**(row.get("dtypes") or {}), **row.get("parts", {})}.values()
        assert (f"- {row['model_type']}: " in exceptions) == any(line != "equal" for line in other)


CANARY = '<img src=x onerror="document.title=1">'


@functools.cache
def with_canaries():
    """Results of three prompts in which every text that comes from outside holds markup that would run."""
    results = once(models={f"one{CANARY}": 6, "two": 4}, n_prompts=3)
    made = results.observables
    made = made.assign_coords(
        model_title=("model", [f"{title} {CANARY}" for title in made["model_title"].values]),
        prompt=[f"{name}{CANARY}" for name in made["prompt"].values],
    ).assign_attrs(corpus=f"texts{CANARY}")
    run = dataclasses.replace(results.run, name=f"made{CANARY}", title=f"made {CANARY}")
    return dataclasses.replace(results, run=run, observables=made)


@pytest.mark.parametrize(
    "chapter", [pytest.param(name, marks=[pytest.mark.slow] * (name != "index")) for name in CHAPTERS]
)
def test_markup_in_texts_from_outside_stays_text(chapter, monkeypatch):
    for name, value in outputs(chapter, with_canaries(), monkeypatch).items():
        text = value.data if isinstance(value, Markdown) else charts.chart_html(value.to_dict())
        assert "<img" not in text, name


def test_colors_of_a_terminal_and_brackets_of_an_error_reach_no_page():
    # pandoc takes minutes over a bracket that does not close, again and again
    assert markup.escaped("\x1b[1m\x1b[31mcause\x1b[0m: [no] *name*\x07") == r"cause: \[no\] \*name\*"
