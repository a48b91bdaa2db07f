"""Declared runs: what they hold, when they are stale, what a dry run says."""

import json
import multiprocessing
import re
import socket
import subprocess
import sys

import gguf
import nbformat
import numpy as np
import pytest
import transformers
import xarray as xr
import yaml

from token_geometry.__main__ import main
from token_geometry.base import project, resources, store
from token_geometry.base.errors import InputError
from token_geometry.chapters import estimators, provenance
from token_geometry.chapters.results import open_results as open_chapter
from token_geometry.chapters.results import read as read_observables
from token_geometry.extraction import extraction
from token_geometry.models import kinds
from token_geometry.requests.extraction import Extraction
from token_geometry.runs import declaration, execution, forecast, results
from token_geometry.studies import reduction

CONTROLS = {"models": ["smollm2-135m@random"], "n_prompts": 1, "shuffle_levels": [0]}


def is_fresh(run):
    """Whether all results of a run are whole and made from what it declares now."""
    return all(step.found() for step in results.results(run).values())


@pytest.fixture
def declared(tmp_path, monkeypatch):
    """A project of its own with the real models, corpora and a run `small` that a test may change."""
    for name in ("data/models.yml", "data/corpora.yml"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_text((project.root() / name).read_text())
    (tmp_path / "notebooks").symlink_to(project.root() / "notebooks")
    (tmp_path / "_quarto.yml").write_text("project: {type: book}\n")
    (tmp_path / "data" / "runs").mkdir()
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(project.cache()))
    monkeypatch.chdir(tmp_path)

    def declare(**changes):
        entries = {
            "title": "small",
            "models": ["smollm2-135m"],
            "corpus": "sotu",
            "n_tokens": 64,
            "extractions": {"all": {"n_prompts": 2, "shuffle_levels": [0, 1]}},
        }
        (tmp_path / "data" / "runs" / "small.yml").write_text(yaml.safe_dump(entries | changes))
        return declaration.load("small")

    return declare


def pretend(run):
    """Write results that hold nothing but their recipes, by which a run knows them."""
    for result in results.results(run).values():
        store.write(xr.Dataset(attrs=store.make_attrs("", result.recipe())), result.path)


def make(run):
    """Results of a run of extractions alone, without the notebooks, whose kernels take seconds to start."""
    for step in results.steps(run):
        compute = extraction.extract if isinstance(step.request, Extraction) else reduction.reduce
        compute(step.request)


def described(run):
    """What a dry run prints."""
    return forecast.describe(run)[0]


def test_every_committed_run_is_complete_and_can_be_planned():
    assert set(declaration.names()) >= {"ci", "demo", "paper"}
    for name in declaration.names():
        run = declaration.load(name)
        n_calibrations = 1 if "calibration" in run.sections else 0
        n_controls = len(run.sections["controls"]["models"]) + 1 if "controls" in run.sections else 0
        n_truths = sum(
            len(run.sections[key]["models"]) for key in ("truth", "truth_controls") if key in run.sections
        )
        n_genres = len(run.sections.get("genres", ())) + ("longer" in run.sections)
        n_extractions = len(run.models) * (len(run.sections["extractions"]) + n_genres)
        assert len(results.steps(run)) == n_extractions + 1 + n_genres + n_controls + n_calibrations + n_truths


def test_the_demo_run_has_sixteen_structured_four_shuffled_and_twelve_fully_shuffled_prompts_of_both_models():
    run = declaration.load("demo")
    assert run.models == ["smollm2-135m", "gemma3-270m"]
    assert run.sections["extractions"]["structured"] == {"n_prompts": 16, "shuffle_levels": [0]}
    assert run.sections["extractions"]["shuffled"] == {"n_prompts": 4, "shuffle_levels": [1, 2, 3, 4]}
    assert run.sections["extractions"]["fully_shuffled"] == {"n_prompts": 12, "shuffle_levels": [5]}


@pytest.mark.slow
def test_a_dry_run_of_the_paper_lists_every_notebook_and_an_estimate(capsys):
    assert main(["run", "paper", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("notebooks/extraction.ipynb") == 13
    assert printed.count("notebooks/observables.ipynb") == 2
    assert printed.count("notebooks/calibration.ipynb") == 1
    assert printed.count("notebooks/truth-pca.ipynb") == 2
    assert 'model: "pythia-6.9b"' in printed and "n_prompts: 2244" in printed
    assert printed.count("of memory") == 16 and "in all about" in printed


@pytest.mark.slow
def test_a_run_of_longer_prompts_has_a_result_that_the_chapter_takes_apart(declared, tmp_path, save_tiny):
    config = transformers.LlamaConfig(
        vocab_size=2000, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2
    )
    model = save_tiny(config, tmp_path / "tiny")
    random = np.random.default_rng(0)
    words = [" ".join(f"w{n}" for n in 2 + random.permutation(1998)[:700]) for _ in range(8)]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in words))
    given = {"models": [model], "corpus": str(tmp_path / "texts.jsonl"), "device": "cpu"}
    run = declared(**given, longer={"n_prompts": 8, "n_tokens": 600})
    assert [one.n_tokens for one in results.requests(run, Extraction)] == [64, 600]
    make(run)
    found = results.read(run, "longer")
    assert found.attrs["n_tokens"] == 600 and found["n_subset"].values.tolist() == [128, 256, 512]
    assert found["prompt"].size == 8 and found["shuffle_level"].values.tolist() == [0]
    with_longer = open_chapter("small")
    frame = estimators.by_number(with_longer)
    assert set(frame["n_points"]) == {128, 256, 512, 600}
    whole = found["intrinsic_dimension"].sel(scale=2, layer=with_longer.middle_layers(model)).mean()
    shown = frame[(frame["n_points"] == 600) & (frame["at"] == "scale 2")]["mean"]
    assert shown.values == pytest.approx([float(whole)] * 2, abs=1e-3)
    assert "the first 512 " in estimators.number(with_longer).data
    assert results.read(declared(**given), "longer") is None
    assert set(estimators.by_number(open_chapter("small"))["n_points"]) == {64}


@pytest.mark.slow
def test_every_alias_and_its_control_can_be_planned_without_a_network(declared, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a dry run needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    names = [
        name + control for name in project.entries("models.yml") for control in ("", "@random", "@permuted-1")
    ]
    paper = "llama-3-8b mistral-7b pythia-6.9b pythia-6.9b-deduped opt-6.7b llama-7b llama-2-7b llama-2-13b"
    assert {*paper.split(), "llama-7b-pth", "smollm2-135m", "gemma3-270m"} <= set(names)
    printed = described(declared(models=names))
    assert all(f'model: "{name}"' in printed for name in names)
    assert printed.count("of memory") == len(names)


def test_a_gguf_file_can_be_planned_from_its_header_alone(declared, tmp_path):
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(32)
    writer.add_tensor("token_embd.weight", np.zeros((7, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    request, *_ = results.requests(declared(models=[str(path)]), Extraction)
    assert request.estimate().passes == 4 and request.estimate().memory > 0


def test_a_run_may_ask_for_the_state_before_the_final_norm(declared):
    plain, before = (results.requests(declared(**keys), Extraction)[0] for keys in ({}, {"final_norm": False}))
    assert plain.final_norm and not before.final_norm
    assert store.digest(plain.recipe()) != store.digest(before.recipe())


def test_a_run_may_name_its_prompts(declared):
    block = {"prompt_ids": ["1961_Kennedy", 2], "shuffle_levels": [0, 1]}
    run = declared(extractions={"single": block})
    request, *_ = results.requests(run, Extraction)
    assert request.prompt_ids == ["1961_Kennedy", 2]
    assert "4 forward passes" in described(run)


def test_the_active_quarto_profile_chooses_the_run(monkeypatch):
    monkeypatch.setenv("QUARTO_PROFILE", "paper")
    assert declaration.load().name == "paper"
    monkeypatch.setenv("QUARTO_PROFILE", "print,ci")
    assert declaration.load().name == "ci"
    monkeypatch.delenv("QUARTO_PROFILE")
    assert declaration.load().name == "demo"


def test_a_profile_that_is_no_run_is_refused_and_not_taken_for_the_default(monkeypatch, capsys):
    monkeypatch.setenv("QUARTO_PROFILE", "papr")
    assert main(["run"]) == 1
    assert "unknown run 'papr'; did you mean 'paper'" in capsys.readouterr().err


def test_an_unknown_run_is_refused_with_the_nearest_one(capsys):
    assert main(["run", "dmo"]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "'dmo'" in message and "did you mean 'demo'" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modles": []}, "unknown key 'modles'"),
        ({"models": "smollm2-135m"}, "models"),
        ({"n_tokens": "many"}, "key 'n_tokens' is 'many'"),
        ({"extractions": {"all": {"n_prompts": "2", "shuffle_levels": [0]}}}, "key 'n_prompts' is '2'"),
        (
            {"extractions": {"all": {"n_prompts": 2}}},
            "is {'n_prompts': 2}; accepted are n_prompts or prompt_ids, and shuffle_levels",
        ),
        ({"extractions": {"all": {"n_prompts": 2, "shuffle_levels": 0}}}, "key 'shuffle_levels' is 0"),
        ({"controls": CONTROLS | {"models": [3]}}, "key 'model' is 3"),
        ({"genres": {"python-docs": "all"}}, "key 'n_prompts' is 'all'"),
        ({"genres": ["python-docs"]}, "key 'genres' is"),
        ({"longer": {"n_prompts": 2}}, "longer holds \\['n_prompts'\\]; accepted: just n_prompts and n_tokens"),
        ({"longer": {"n_prompts": 2, "n_tokens": 99, "seed": 1}}, "longer holds"),
        ({"longer": {}}, "longer holds"),
        ({"longer": {"n_prompts": 2, "n_tokens": "all"}}, "key 'n_tokens' is 'all'"),
        (
            {
                "extractions": {"longer": {"n_prompts": 1, "shuffle_levels": [0]}},
                "longer": {"n_prompts": 1, "n_tokens": 99},
            },
            "would go into one place, .*-longer",
        ),
        ({"title": 2026}, "key 'title' is 2026, .* quotation marks"),
        ({"controls": {"models": ["smollm2-135m@random"]}}, "controls must hold just models, shuffle_levels"),
        ({"controls": CONTROLS | {"models": "smollm2-135m@random"}}, "controls: models is 'smollm2-135m@random'"),
        ({"controls": CONTROLS | {"n_prompts": "2"}}, "key 'n_prompts' is '2'"),
        ({"calibration": {"n_pionts": 64}}, "calibration: key 'n_pionts'; did you mean 'n_points'"),
        ({"calibration": {"output": "elsewhere.nc"}}, "calibration: key 'output'"),
        ({"calibration": {"n_points": "many"}}, "calibration: key 'n_points' is 'many'"),
        ({"validation": 3}, "key 'validation' is 3"),
        ({"truth": {"layers": {}}}, "truth: key 'layers'"),
        ({"truth": {"datasets": ["cities"]}}, "truth: key 'models' is {}"),
        ({"truth": {"models": {"smollm2-135m": 12}}}, "truth: key 'smollm2-135m' is 12"),
        ({"truth": {"datasets": ["cities"], "models": {"smollm2-135m": {"layer": "x"}}}}, "key 'layer' is 'x'"),
    ],
)
def test_a_run_with_a_wrong_key_or_value_is_refused(declared, changes, words):
    with pytest.raises(InputError, match=words) as error:
        declared(**changes)
    assert "\n" not in str(error.value)


BLOCK = {"n_prompts": 1, "shuffle_levels": [0]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ["w/a b", "w/a_b"]}, "'w/a b' and 'w/a_b' would go into one place, .*w_a_b-all"),
        ({"models": ["w/A", "w/a"]}, "'w/A' and 'w/a' would go into one place"),
        ({"models": ["w/a", "w/a"]}, "'w/a' and 'w/a' would go into one place"),
        ({"extractions": {"control": BLOCK}, "controls": BLOCK | {"models": ["smollm2-135m"]}}, "control: rename"),
        (
            {"truth": {"datasets": ["cities"], "models": {"w/a b": {"layer": 1}, "w/a_b": {"layer": 1}}}},
            "'w/a b' and 'w/a_b' would go into one place, .*truth-w_a_b.nc",
        ),
        ({"extractions": {"x/../../evil": BLOCK}}, "extraction 'x/../../evil': accepted in its name: letters"),
        ({"extractions": {"..": BLOCK, "/tmp/evil": BLOCK}}, "'/tmp/evil': accepted in its name"),
        ({"extractions": {3: BLOCK}}, "extraction 3: accepted in its name"),
    ],
)
def test_two_results_never_share_a_place_and_none_lies_outside(declared, changes, words):
    with pytest.raises(InputError, match=words) as error:
        declared(**changes)
    assert "\n" not in str(error.value) and str(error.value).startswith("small.yml: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"title: a\ntitle: b\n",
            "small.yml, line 1, column 1, is not YAML .key 'title' is there twice",
        ),
        (b"extractions: {all: {n_prompts: 1, n_prompts: 2}}", "'n_prompts' is there twice"),
        (b"title: \xff", "small.yml is not UTF-8 .byte 7.: convert it"),
        (b"title: [", "small.yml, line 1, column 9, is not YAML"),
        (b"- title", "small.yml holds .*title.*accepted: lines of the form"),
        (b"title: !!python/object/apply:os.getpid []", "small.yml, line 1"),
        (b"", "small.yml holds no keys"),
    ],
)
def test_a_file_of_a_run_that_is_no_mapping_is_refused(declared, tmp_path, content, words):
    (tmp_path / "data" / "runs" / "small.yml").write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        declaration.load("small")
    assert "\n" not in str(error.value)


def test_the_old_key_of_the_calibration_is_accepted_and_said_to_be_old(declared, capsys):
    run = declared(validation={"n_points": 64})
    assert run.sections["calibration"] == {"n_points": 64}
    assert results.results(run)["calibration"].path.name == "validation.nc"
    main(["run", "small", "--dry-run"])
    assert capsys.readouterr().out.splitlines()[0] == (
        "small.yml: key 'validation' is an old name, and is taken for 'calibration'"
    )
    with pytest.raises(InputError, match="calibration: key 'n_pionts'; .* 'validation' is an old name"):
        declared(validation={"n_pionts": 64})
    with pytest.raises(InputError, match="'validation' is the old name of 'calibration', and both are given"):
        declared(validation={}, calibration={})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"corpus": "nowhere.jsonl"}, "unknown corpus 'nowhere.jsonl'"),
        (
            {"extractions": {"all": {"n_prompts": 2, "shuffle_levels": [0], "n_permutations": 0}}},
            "n_permutations is 0",
        ),
        ({"genres": {"python-dogs": 2}}, "unknown corpus 'python-dogs'"),
        ({"truth": {"datasets": ["cities"], "models": {"smollm2-135m": {"layer": 31}}}}, "layer is 31"),
        ({"truth": {"datasets": ["citys"], "models": {"smollm2-135m": {"layer": 3}}}}, "data set 'citys'"),
        ({"calibration": {"dimensions": [33]}}, "dimensions is [33]"),
        ({"models": ["smollm"]}, "unknown model 'smollm'"),
    ],
)
def test_a_dry_run_says_of_each_notebook_why_it_cannot_work(declared, changes, words, capsys):
    expect_problem(declared, changes, words, capsys)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"extractions": {"all": {"n_prompts": 250, "shuffle_levels": [0]}}},
            "n_prompts is 250, and corpus 'sotu'",
        ),
        ({"n_tokens": 16384}, "n_tokens is 16384"),
    ],
)
def test_a_dry_run_looks_into_what_is_at_hand(declared, changes, words, capsys, sotu, smollm2):
    expect_problem(declared, changes, words, capsys)


def expect_problem(declared, changes, words, capsys):
    declared(**changes)
    assert main(["run", "small", "--dry-run"]) == 1
    printed = capsys.readouterr().out
    (problem, *_) = [line for line in printed.splitlines() if line.startswith("    ! ")]
    assert words in problem and "cannot work: see the lines that begin with !" in printed.splitlines()[-1]


def test_shuffle_levels_that_do_not_divide_the_prompt_stop_a_run_before_it_starts(declared):
    run = declared(extractions={"all": {"n_prompts": 2, "shuffle_levels": [0, 4]}})
    with pytest.raises(InputError, match="4\\^4 blocks do not divide n_tokens = 64"):
        execution.execute(run)
    assert not project.results("small").exists()


@pytest.mark.slow
@pytest.mark.model
def test_a_run_computes_once_notices_a_change_and_keeps_its_record(declared):
    run = declared()
    assert execution.execute(run) is True
    assert execution.execute(run) is False
    records = project.results("small") / "records"
    names = {path.name for path in records.glob("*.ipynb")}
    assert names == {"extraction-smollm2-135m-all.ipynb", "observables.ipynb"}
    shards = project.results("small") / "shards" / "smollm2-135m-all"
    before = {path.name: path.stat().st_mtime_ns for path in shards.glob("*.nc")}

    larger = declared(extractions={"all": {"n_prompts": 3, "shuffle_levels": [0, 1]}})
    assert not is_fresh(larger)
    assert execution.execute(larger) is True
    after = {path.name: path.stat().st_mtime_ns for path in shards.glob("*.nc")}
    assert len(after) == 6
    assert {name: after[name] for name in before} == before, "shards that were there are kept"
    assert store.read(results.results(larger)["observables"].path).sizes["prompt"] == 3


@pytest.mark.model
def test_a_calibration_that_is_added_or_changed_is_made_without_the_rest(declared, monkeypatch, capsys):
    made = []

    def make(title, request, record):
        made.append(request.notebook)
        for result in results.results(declaration.load("small")).values():
            if request.notebook == result.request.notebook:
                store.write(xr.Dataset(attrs=store.make_attrs("", result.recipe())), result.path)
        return record.stem, 1.0

    monkeypatch.setattr(execution, "execute_notebook", make)
    assert execution.execute(declared()) is True
    assert made == ["extraction", "observables"]
    first, *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"2 notebooks, about \d+ (s|minutes) in all", first)
    assert re.fullmatch(r"2 of 2 made, 1 s gone, nothing left", last)
    made.clear()
    run = declared(calibration={"n_points": 64})
    assert not is_fresh(run) and execution.execute(run) is True
    assert made == ["calibration"]
    assert is_fresh(run) and execution.execute(run) is False
    assert is_fresh(declared(calibration={"n_points": 64}, device="cpu"))
    assert not is_fresh(declared(calibration={"n_points": 65}))


@pytest.mark.slow
@pytest.mark.model
def test_a_control_is_a_result_of_its_own_with_the_prompts_of_the_run(declared):
    run = declared(extractions={"all": {"n_prompts": 1, "shuffle_levels": [0]}}, controls=CONTROLS)
    make(run)
    trained, control = results.read(run, "observables"), results.read(run, "control")
    assert trained["model"].values.tolist() == run.models
    assert control["model"].values.tolist() == ["smollm2-135m@random"]
    assert control["prompt"].values.tolist() == trained["prompt"].values.tolist()
    assert float(control["loss"].max()) > float(trained["loss"].max())
    assert results.read(declared(), "control") is None


@pytest.mark.slow
@pytest.mark.model
def test_several_permutations_of_a_prompt_have_a_dimension_and_further_corpora_results_of_their_own(declared):
    block = {"n_prompts": 2, "shuffle_levels": [0, 2], "n_permutations": 2}
    run = declared(extractions={"all": block}, genres={"python-docs": 1})
    make(run)
    found = results.read(run, "observables")
    assert found["loss"].dims == ("model", "shuffle_level", "prompt", "permutation")
    loss = found["loss"].isel(model=0)
    assert loss.sel(shuffle_level=0, permutation=1).isnull().all()
    assert (abs(loss.sel(shuffle_level=2).diff("permutation")) > 1e-3).all()
    averaged = read_observables(run, "observables")
    xr.testing.assert_allclose(averaged["loss"].isel(model=0), loss.mean("permutation"))
    genre = results.read(run, "genre-python-docs")
    assert genre.attrs["corpus"] == "python-docs" and genre.sizes["prompt"] == 1
    assert genre["model"].values.tolist() == run.models


@pytest.mark.model
def test_published_results_stand_in_for_those_of_this_machine_until_the_declaration_changes(declared, monkeypatch):
    run = declared()
    refused_by_execution = pytest.raises(InputError, match="--recompute")
    with pytest.raises(InputError, match="is missing"):
        results.publish(run)
    (step,) = results.results(run).values()
    values = xr.Dataset({"a": ("x", np.arange(3000) / 7)}, attrs=store.make_attrs("", step.recipe()))
    store.write(values, step.path)
    assert results.publish(run) == [step.shipped] and results.publish(run) == [step.shipped]
    assert step.found() == step.path
    step.path.unlink()
    assert step.found() == step.shipped and step.shipped.stat().st_size < values["a"].nbytes
    found = results.read(run, "observables")
    assert found["a"].dtype == np.float32 and (found["a"] == values["a"].astype("float32")).all()
    (row,) = provenance.frame("small").to_dict("records")
    assert row["came"] == "with the project" and row["digest"] == found.attrs["recipe_digest"]
    assert row["computed on"] == resources.processor() and f"numpy {np.__version__}" in row["with"]
    assert "1 of 1 results" in provenance.where("small").data
    assert row["digest"] in provenance.table("small").data
    assert results.publish(run) == []  # what came with the project is not published again as of this machine
    computed = []

    def pretend_to_make(title, request, record):
        computed.append(title)
        return record.stem, 1.0

    monkeypatch.setattr(execution, "execute_notebook", pretend_to_make)
    assert not execution.execute(run) and not computed
    other = declared(seed=5)
    (stale,) = results.results(other).values()
    assert stale.found() is None
    with refused_by_execution:
        execution.execute(other)
    step.shipped.write_bytes(step.shipped.read_bytes()[:-100])
    with refused_by_execution:
        execution.execute(declared())
    assert not computed and execution.execute(declared(), recompute=True) and len(computed) == 2


def test_the_time_that_is_left_follows_what_notebooks_took_beside_one_another(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(execution.time, "monotonic", lambda: now)
    tell = execution._teller({"a": 60.0, "b": 60.0, "c": 120.0, "d": 120.0}, 2)
    now = 180.0  # two at a time, each of which took three times as long as alone
    tell(("a", 180.0))
    tell(("b", 180.0))
    now = 540.0
    tell(("c", 360.0))
    tell(("d", 360.0))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "4 notebooks, about 6 minutes in all"
    assert said[1] == "1 of 4 made, 3 minutes gone, about 6 minutes left"
    assert said[2] == said[1].replace("1 of", "2 of") and said[4] == "4 of 4 made, 9 minutes gone, nothing left"


def test_a_dry_run_has_the_time_of_statements_and_of_a_calibration(declared, tmp_path, capsys, monkeypatch):
    rows = "".join(f"The number {n} is {word}.,{n % 2}\n" for n in range(40) for word in ("large", "small"))
    (tmp_path / "numbers.csv").write_text(f"statement,label\n{rows}")
    truth = {"datasets": ["numbers.csv"], "n_statements": 40, "models": {"smollm2-135m": {"layer": 2}}}
    declared(truth=truth, calibration={"n_prompts": 1, "n_points": 64, "dimensions": [2]})
    monkeypatch.chdir(tmp_path / "data" / "runs")  # wherever it is asked for, paths are from the project's folder
    assert main(["run", "small", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for notebook in ("truth-pca", "calibration", "extraction"):
        (takes,) = re.findall(rf"notebooks/{notebook}.ipynb .*?→ (.*?)\n", printed, re.DOTALL)
        assert re.search(r"about [\d.]+ (s|minutes)", takes), takes
    assert "for the extractions" not in printed and " on this machine; to download: " in printed


def test_published_results_of_a_corpus_of_python_itself_serve_every_python(declared, monkeypatch):
    run = declared(genres={"python-docs": 2})
    step = results.results(run)["genre-python-docs"]
    recipes = [one.request.recipe() for one in step.reads]
    attrs = store.make_attrs("", step.recipe(), extractions=json.dumps(recipes))
    store.write(xr.Dataset(attrs=attrs), step.shipped)
    assert step.found() == step.shipped
    import pydoc_data.topics

    monkeypatch.setattr(pydoc_data.topics, "topics", {"another": "text of another Python"})
    assert store.digest(step.recipe()) != attrs["recipe_digest"] and step.found() == step.shipped


@pytest.mark.slow
def test_a_step_that_fails_stops_those_beside_it(declared, refused, tmp_path):
    parameters = nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]})
    cell = nbformat.v4.new_code_cell(
        "import pathlib, time\nif model.endswith('@random'): raise ValueError('no such thing')\n"
        f"time.sleep(300)\npathlib.Path({str(tmp_path / 'ended')!r}).touch()"
    )
    (tmp_path / "notebooks").unlink()
    (tmp_path / "notebooks").mkdir()
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[parameters, cell], metadata=python)
    nbformat.write(notebook, tmp_path / "notebooks" / "extraction.ipynb")
    run = declared(extractions={"all": {"n_prompts": 1, "shuffle_levels": [0]}}, controls=CONTROLS, device="cpu")
    with refused("extraction.ipynb: no such thing"):
        execution.execute(run)
    assert not (tmp_path / "ended").exists()
    assert multiprocessing.active_children() == []


def test_a_result_that_is_missing_or_stale_is_refused_with_the_command_that_makes_it(declared, refused):
    with refused("'observables' of run 'small' is missing", "python -m token_geometry run small"):
        results.read(declared(), "observables")
    store.write(xr.Dataset(attrs=store.make_attrs("", {})), results.results(declared())["observables"].path)
    with refused("'observables' of run 'small' is stale or damaged"):
        results.read(declared(), "observables")


def test_results_are_known_to_be_fresh_without_models_corpora_and_network(declared, monkeypatch, tmp_path):
    run = declared(calibration={"n_points": 64})
    pretend(run)
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setattr(kinds.Wheels, "check_files", lambda source: pytest.fail("nothing is to be computed"))
    assert execution.execute(run) is False
    assert not (tmp_path / "nothing").exists()


def test_a_calibration_that_cannot_work_stops_a_run_before_it_starts(declared):
    run = declared(calibration={"dimensions": [2, 33]})
    with pytest.raises(
        InputError, match="dimensions is \\[2, 33\\]; accepted: different whole numbers from 1 to 32"
    ):
        execution.execute(run)
    assert not project.results("small").exists()


def test_a_result_that_is_cut_short_is_stale(declared):
    run = declared()
    pretend(run)
    assert is_fresh(run)
    path = results.results(run)["observables"].path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert not is_fresh(run)


def test_device_and_number_of_processes_leave_results_fresh(declared):
    pretend(declared())
    assert is_fresh(declared(device="cpu"))
    assert not is_fresh(declared(seed=1))


def test_a_run_names_confounds_that_its_corpus_has(declared, refused):
    assert declared(confounds=["length", "year"]).confounds == ["length", "year"]
    assert declared().confounds == []
    with refused("small.yml", "confound of corpus 'python-docs'", "'year'", "distinct_tokens", "length"):
        declared(confounds=["length", "year"], corpus="python-docs")
    with refused("confounds", "a list"):
        declared(confounds="year")


@pytest.mark.slow
def test_a_kernel_that_dies_as_it_starts_is_one_line(tmp_path, monkeypatch, refused):
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": [sys.executable, "-c", ""], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    step = next(iter(results.results(declaration.load("ci")).values()))
    with refused("its kernel died", "fewer tokens"):
        execution.execute_notebook("one", step.request, tmp_path / "records" / "one.ipynb")
    [record] = (tmp_path / "records").glob("*")  # what papermill had written by then, whole
    assert json.loads(record.read_text())["cells"]


FULL = """
import resource, signal, sys
from pathlib import Path
from token_geometry.runs import declaration, execution, results
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # as on a disk without room
step = next(iter(results.results(declaration.load("ci")).values()))
try:
    execution.execute_notebook("one", step.request, Path(sys.argv[1]))
except OSError as error:
    print(type(error).__name__, [path.name for path in Path(sys.argv[1]).parent.iterdir()])
"""


@pytest.mark.slow
def test_a_disk_without_room_leaves_no_half_record(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path / "records" / "one.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project.root())
    assert done.stdout.splitlines()[-1] == "OSError []", done.stderr[-1000:]
