"""The benchmarks, at their smallest, and the chapter that reads what they leave."""

import json
import subprocess
import sys

import pytest
import readme

from token_geometry.base import project
from token_geometry.chapters.performance import charts, frames, prose, results
from token_geometry.chapters.performance.results import median, open_benchmarks

pytestmark = pytest.mark.slow


def start(name, *arguments):
    ((_, *command),) = readme.commands("python", f"lib/benchmarks/{name}.py")
    line = [sys.executable, *command, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, cwd=project.root(), **pipes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, live_dadapy):
    """Folder with the results of both commands; they run at the same time, so their times mean nothing."""
    folder = tmp_path_factory.mktemp("benchmarks")
    small = {
        "observables": ["--n-prompts", 1, "--n-tokens", 96, "--n-repeats", 1, "--n-jobs", 1]
        + ["--memory-prompts", 1, "--memory-tokens", 64, "--output", folder / "observables-cpu.json"],
        "gpu": ["--shape", "tiny", "--device", "cpu", "--n-tokens", 64, "--n-prompts", 2]
        + ["--batch-size", 2]
        + ["--output", folder / "observables-reduced.json"],
    }
    for process in [start(name, *arguments) for name, arguments in small.items()]:
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-2000:]
    return folder


@pytest.fixture
def cpu(folder):
    return json.loads((folder / "observables-cpu.json").read_text())


@pytest.fixture
def reduced(folder):
    return json.loads((folder / "observables-reduced.json").read_text())


def test_a_result_says_on_what_device_with_what_versions_when_and_how_it_was_made(cpu, reduced):
    for result in (cpu, reduced):
        assert result["device"]["processor"] and result["device"]["cores"] >= 1
        assert result["device"]["gpu"] is None
        assert {"torch", "transformers", "python", "token_geometry"} <= set(result["versions"])
        assert result["created"].startswith("20")
    assert {"scikit-learn", "joblib", "dadapy"} <= set(cpu["versions"])
    assert cpu["parameters"]["n_tokens"] == 96 and cpu["parameters"]["model"] == "smollm2-135m"
    assert reduced["parameters"] == {
        "shape": "tiny", "dtype": "float32", "n_prompts": 2, "n_tokens": 64, "batch_size": 2,
    }  # fmt: skip


def test_the_two_procedures_agree_on_the_same_hidden_states(cpu):
    agreement = cpu["agreement"]
    assert agreement["layers_compared"] + agreement["layers_left_out"] == 30
    assert agreement["layers_compared"] >= 25
    assert 0 < agreement["dimension_relative"] < 1e-4
    assert 0 < agreement["dimension_error_relative"] < 1e-3
    assert agreement["cosine"] < 1e-6
    assert agreement["overlap"] < 5e-3  # what ties in single precision can make
    assert agreement["layers_without_ties"] >= 10
    for name in ("overlap", "reciprocity", "layer_overlap"):
        assert agreement[f"{name}_without_ties"] < 1e-6
    assert agreement["angle_without_ties"] < 1e-3
    assert agreement["lists_without_ties"] > 2500
    assert agreement["lists_without_ties_that_differ"] == 0


def test_every_stage_is_timed_and_the_ratios_follow_from_the_times(cpu):
    ours, theirs = cpu["seconds"]["library"], cpu["seconds"]["reference"]
    assert set(ours) == {"forward", "head", "neighbors", "local_dimensions", "writing", "observables"}
    assert set(theirs) == {"distances", "dimension", "overlap", "cosine"}
    assert all(0 < s["min"] <= s["median"] <= s["max"] for s in [*ours.values(), *theirs.values()])
    forward, rest = (median(cpu, "library", forward=part) for part in (True, False))
    reference = median(cpu, "reference", forward=False)
    local = ours["local_dimensions"]["median"]  # which the reference does not estimate
    rest -= local
    expected = {
        "reference_to_library": reference / rest,
        "library_to_forward": rest / forward,
        "local_dimensions_to_forward": local / forward,
        "reference_to_library_with_forward": (forward + reference) / (forward + rest),
    }
    found = {name: ratio["median"] for name, ratio in cpu["ratios"].items()}
    by_sets = found.pop("reference_by_sets_to_library")
    assert found == pytest.approx(expected, rel=1e-3)
    # there the time of the overlap is another one, of whatever length
    assert by_sets > (1 - 1e-3) * (reference - theirs["overlap"]["median"]) / rest > 0


def test_the_geometry_is_split_and_its_product_is_held_against_the_peak_of_the_machine(cpu):
    geometry = cpu["geometry"]
    products = {"product", "product_float64"}
    assert set(geometry["core_seconds"]) == products | {
        "selection", "lookup", "angles", "local_dimensions", "cosine", "rest",
    }  # fmt: skip
    assert set(geometry["gigaflops"]) == set(geometry["peak_gigaflops"]) == products
    assert min(geometry["peak_gigaflops"].values()) > 0
    operations = 1e9 * geometry["gigaflops"]["product"] * geometry["core_seconds"]["product"]
    of_all_pairs = 31 * 2 * 96**2 * 576
    assert of_all_pairs / 2 <= operations * (1 + 1e-3) and operations <= of_all_pairs * (1 + 1e-3)
    assert cpu["device"]["vector_instructions"].keys() == {"numpy", "torch"}


def test_the_bytes_are_those_of_matrices_of_distances_and_cosines_and_of_a_shard(cpu):
    matrices = 2 * 31 * (96 * 96 * 4 + 128)  # numpy's header is 128 bytes
    assert cpu["bytes_per_prompt"]["reference"] == matrices
    assert 100_000 < cpu["bytes_per_prompt"]["library"] < matrices / 2


def test_memory_is_measured_in_a_process_of_its_own(cpu):
    (entry,) = cpu["memory_by_prompts"]
    assert entry["n_prompts"] == 1
    assert 2e8 < entry["peak_memory_bytes"] < 4e9
    assert cpu["peak_memory_bytes"] > 2e8


def test_the_shapes_benchmark_gives_rates_and_an_extrapolation(reduced):
    rate = reduced["prompts_per_second"]
    seconds = reduced["seconds_per_prompt"]
    assert rate.keys() == seconds.keys() == {"forward", "whole"} and min(seconds.values()) > 0
    assert rate == pytest.approx({name: 1 / taken for name, taken in seconds.items()}, rel=1e-3)
    rest = seconds["whole"] - seconds["forward"]  # below 0 where the machine had more to do meanwhile
    assert reduced["share_outside_forward"] == pytest.approx(rest / seconds["whole"], abs=1e-3)
    outside = reduced["ratios"]["library_to_forward_unsynchronised"]
    assert outside == pytest.approx(rest / seconds["forward"], rel=1e-3, abs=1e-3)
    assert reduced["extrapolation"]["n_prompts"] == 2244
    assert reduced["extrapolation"]["seconds"] == pytest.approx(2244 / rate["whole"], rel=1e-3)
    assert reduced["peak_gpu_memory_bytes"] is None
    assert reduced["model"]["layers"] == 2 and reduced["model"]["width"] == 64


def chapter(measured):
    """All that the chapter shows."""
    cpu, shapes = measured.cpu, measured.shapes
    shown = [prose.availability(measured), prose.run_cost(cpu, run=measured.run), prose.throughput(shapes)]
    shown += [part(cpu) for part in (prose.stage_table, prose.ratios, prose.agreement)]
    shown += [part(cpu) for part in (prose.memory, prose.bounds)]
    shown.append(prose.other_models(measured))
    specs = [charts.times(frames.times(one), finding=prose.longest(one)).to_dict() for one in (cpu, shapes)]
    return "\n".join(part.data for part in shown), specs


def test_the_chapter_reads_the_results(folder, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: folder)
    text, specs = chapter(open_benchmarks("demo"))
    assert "what they took this library" in text
    assert "python lib/benchmarks/gpu.py` makes it. Figures at reduced shapes" in text
    assert "No GPU was at hand" in text
    assert "nan" not in text and "None" not in text
    assert all("takes" in spec["description"] for spec in specs)


def test_the_chapter_has_the_ratios_and_the_agreement_of_every_other_model(cpu, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    for name in ("observables-cpu", "observables-cpu-other"):
        (tmp_path / f"{name}.json").write_text(json.dumps(cpu))
    measured = open_benchmarks("demo")
    shown = prose.other_models(measured).data
    assert cpu["model"]["title"] in shown
    assert prose.ratios(cpu).data in shown and prose.agreement(cpu).data in shown


def test_the_chapter_names_the_commands_where_there_are_no_results(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    measured = open_benchmarks("demo")
    assert measured.missing == ("observables-cpu", "observables-gpu")
    text, specs = chapter(measured)
    assert "`python lib/benchmarks/observables.py`" in text and "`python lib/benchmarks/gpu.py`" in text
    assert all("No data" in spec["description"] for spec in specs)


def test_a_damaged_result_is_refused(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    (tmp_path / "observables-cpu.json").write_text('{"seconds": {}}')
    with refused("observables-cpu.json", "python lib/benchmarks/observables.py"):
        open_benchmarks("demo")


def test_an_option_that_cannot_work_is_refused_in_one_line(tmp_path):
    process = start("gpu", "--device", "cuda:7", "--output", tmp_path / "none.json")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.strip().splitlines()[-1].startswith("error: device 'cuda:7' does not exist here")
    assert not list(tmp_path.iterdir())
