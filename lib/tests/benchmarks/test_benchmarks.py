"""The benchmarks, at their smallest, and the chapter that reads what they leave."""

import json
import os
import subprocess
import sys

import program
import pytest
import readme

from token_geometry.base import project
from token_geometry.chapters import markup
from token_geometry.chapters.numbers import short
from token_geometry.chapters.performance import charts, prose, results
from token_geometry.chapters.performance.results import times

pytestmark = pytest.mark.slow


def run(name, *options):
    ((_, *command),) = readme.commands("python", f"lib/benchmarks/{name}.py")
    return program.run(*command, *options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, live_dadapy):
    """Folder with the results of both commands; other tests run at the same time, so their times mean nothing."""
    folder = tmp_path_factory.mktemp("benchmarks")
    small = {
        "observables": ["--n-prompts", 1, "--n-tokens", 160, "--n-repeats", 1, "--n-jobs", 1]
        + ["--memory-prompts", 1, "--memory-tokens", 64, "--output", folder / "observables-cpu.json"],
        "gpu": ["--shape", "tiny", "--device", "cpu", "--n-tokens", 64, "--n-prompts", 2]
        + ["--batch-size", 2]
        + ["--output", folder / "observables-reduced.json"],
    }
    for name, options in small.items():
        status, _, errors = run(name, *options)
        assert status == 0, errors[-2000:]
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
    assert cpu["parameters"]["n_tokens"] == 160 and cpu["parameters"]["model"] == "smollm2-135m"
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
    beside = ("local_dimensions", "part_distances", "part_estimates", "lens")
    assert set(ours) == {"forward", "head", "neighbors", *beside, "writing", "observables"}
    assert set(theirs) == {"distances", "dimension", "overlap", "cosine"}
    assert all(0 < s["min"] <= s["median"] <= s["max"] for s in [*ours.values(), *theirs.values()])
    forward = sum(ours[stage]["median"] for stage in ("forward", "head"))
    rest = sum(s["median"] for s in ours.values()) - forward
    reference = sum(s["median"] for s in theirs.values())
    beside = {stage: ours[stage]["median"] for stage in beside}  # what the reference does not estimate
    rest -= sum(beside.values())
    expected = {
        "reference_to_library": reference / rest,
        "library_to_forward": rest / forward,
        "local_dimensions_to_forward": beside["local_dimensions"] / forward,
        "parts_to_forward": (beside["part_distances"] + beside["part_estimates"]) / forward,
        "lens_to_forward": beside["lens"] / forward,
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
        "selection", "lookup", "angles", "local_dimensions", "parts", "cosine", "rest",
    }  # fmt: skip
    assert set(geometry["gigaflops"]) == set(geometry["peak_gigaflops"]) == products
    assert min(geometry["peak_gigaflops"].values()) > 0
    operations = 1e9 * geometry["gigaflops"]["product"] * geometry["core_seconds"]["product"]
    of_all_pairs = 31 * 2 * 160**2 * 576
    assert of_all_pairs / 2 <= operations * (1 + 1e-3) and operations <= of_all_pairs * (1 + 1e-3)
    assert cpu["device"]["vector_instructions"].keys() == {"numpy", "torch"}


def test_the_bytes_are_those_of_matrices_of_distances_and_cosines_and_of_a_shard(cpu):
    matrices = 2 * 31 * (160 * 160 * 4 + 128)  # numpy's header is 128 bytes
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


@pytest.fixture
def read_from(monkeypatch):
    """Let the chapter read the results in a folder."""

    def read(folder):
        for module in (results, prose):
            monkeypatch.setattr(module, "folder", lambda: folder)
        return prose.open_benchmarks()

    return read


def chapter(measured):
    """All that the chapter shows of these benchmarks, by name (and which result), and its charts."""
    cpu, shapes = measured["observables-cpu"], measured["observables-gpu"] or measured["observables-reduced"]
    on_cpu = [name for name, (file, _) in prose.SHOWN.items() if file in ("observables", "observables-cpu")]
    shown = {name: prose.show(name, cpu).data for name in on_cpu}
    shown |= {name: prose.show(name, measured["pipeline"]).data for name in ("pipeline",)}
    shown |= {f"{name} of shapes": prose.show(name, shapes).data for name in ("rates", "operations", "bounds")}
    shown["provenance"] = prose.show("provenance", *measured.values()).data
    found = [charts.times(times(one), finding=prose.show("bounds", one)) for one in (cpu, shapes)]
    return shown, [chart.to_dict() for chart in found]


def rows(table):
    """Cells of a Markdown table by the words in its first column."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {words: values for words, *values in cells}


def spread(values):
    return f"{short(values['median'])} ({short(values['min'])} to {short(values['max'])})"


def test_the_chapter_has_every_number_of_the_results(folder, cpu, reduced, read_from):
    shown, specs = chapter(read_from(folder))
    text = "\n".join(shown.values())
    assert "nan" not in text and "None" not in text
    assert "CPU at reduced shapes, which says nothing about a GPU" in shown["rates of shapes"]
    assert all("takes" in spec["description"] for spec in specs)
    for made in (cpu, reduced):
        vectors = made["device"]["vector_instructions"]["torch"]
        for words in (made["device"]["processor"], vectors, made["versions"]["torch"], made["created"][:10]):
            assert words in markup.plain(shown["provenance"])

    ratios = rows(shown["ratios"])
    for name, ratio in cpu["ratios"].items():
        assert ratios[name.replace("_", " ")] == [spread(ratio)]
    for name, words in (("library", "this library"), ("reference", "reference procedure")):
        assert ratios[f"MB per prompt: {words}"] == [short(cpu["bytes_per_prompt"][name] / 1e6)]
        assert ratios[f"added memory MB: {words}"] == [short(cpu["added_memory_bytes"][name] / 1e6)]

    agreement = rows(shown["agreement"])
    for name, value in cpu["agreement"].items():
        assert agreement[results.NAMES.get(name, name.replace("_", " "))] == [short(value)]

    stages = rows(shown["stages"])
    for procedure, words in (("library", "this library"), ("reference", "reference procedure")):
        own = cpu["seconds"][procedure]
        whole = sum(
            s["median"] for s in (cpu["seconds"]["library"] | own if procedure == "library" else own).values()
        )
        if procedure == "reference":
            whole += sum(cpu["seconds"]["library"][stage]["median"] for stage in ("forward", "head"))
        assert stages[f"{words}: together"][1:] == [short(whole), "1"]
        for stage, s in own.items():
            found = stages[f"{words}: {results.NAMES.get(stage, stage)}"]
            assert found == [short(s["min"]), short(s["median"]), short(s["median"] / whole)]

    kernels, geometry = rows(shown["kernels"]), cpu["geometry"]
    assert kernels["quantity"] == ["core seconds", "gigaflops", "peak gigaflops"]
    for name, took in geometry["core_seconds"].items():
        values = [took, *(geometry[rate].get(name) for rate in ("gigaflops", "peak_gigaflops"))]
        words = results.NAMES.get(name, name.replace("_", " "))
        assert kernels[words] == ["–" if value is None else short(value) for value in values]

    bounds, took = rows(shown["operations"]), cpu["seconds"]["library"]["forward"]["median"]
    operations = cpu["model"]["block_parameters"] * 160 + 2 * 160**2 * 576 * 30
    assert bounds["multiply-adds: forward pass: blocks"] == [short(operations)]
    assert bounds["multiply-adds: Gram matrices"] == [short(160**2 * 576 * 31)]
    assert bounds["multiply-adds: blocks, per second"] == [short(operations / took)]
    assert bounds["lists of neighbors: nearest"] == ["160"]
    assert bounds["geometry on one core (s)"] == [short(sum(geometry["core_seconds"].values()))]
    (peak,) = cpu["memory_by_prompts"]
    assert rows(shown["memory"])["peak memory MB"] == [short(peak["peak_memory_bytes"] / 1e6)]

    rates = rows(shown["rates of shapes"])
    assert rates["prompts per second: model alone"] == [short(reduced["prompts_per_second"]["forward"])]
    assert rates["prompts per batch"] == ["2"] and not any("minutes" in words for words in rates)


def test_on_a_gpu_the_chapter_extrapolates_and_has_the_memory_of_the_gpu(reduced, tmp_path, read_from):
    reduced["device"]["gpu"], reduced["peak_gpu_memory_bytes"] = "NVIDIA H100", 31_400_000_000
    (tmp_path / "observables-gpu.json").write_text(json.dumps(reduced))
    rates = rows(prose.show("rates", read_from(tmp_path)["observables-gpu"]).data)
    assert rates["quantity"] == ["NVIDIA H100"]
    assert rates["minutes for 2244 prompts of the paper"] == [short(reduced["extrapolation"]["seconds"] / 60)]
    assert rates["peak gpu memory MB"] == ["31400"]


def test_the_chapter_has_a_column_for_every_model_and_reads_results_of_before(cpu, tmp_path, read_from):
    (tmp_path / "observables-cpu.json").write_text(json.dumps(cpu))
    del cpu["geometry"], cpu["device"]["vector_instructions"], cpu["ratios"]["local_dimensions_to_forward"]
    cpu["agreement"] = {name: value for name, value in cpu["agreement"].items() if "without" not in name}
    del cpu["seconds"]["library"]["local_dimensions"]
    cpu["model"]["title"] = "Another | model"
    (tmp_path / "observables-cpu-other.json").write_text(json.dumps(cpu))
    measured = read_from(tmp_path)
    both = measured["observables-cpu"], measured["observables-cpu-other"]
    assert "Another" in prose.show("ratios", *both).data
    ratios = rows(prose.show("ratios", *both).data.replace("\\|", ""))
    assert ratios["reference to library"] == [spread(cpu["ratios"]["reference_to_library"])] * 2
    assert ratios["local dimensions to forward"][1] == "–"
    assert "Not measured" in prose.show("kernels", both[1]).data


def test_the_chapter_names_the_commands_where_there_are_no_results(tmp_path, read_from):
    shown, specs = chapter(read_from(tmp_path))
    for words, command in (("ratios", "observables"), ("rates of shapes", "gpu"), ("pipeline", "pipeline")):
        assert shown[words] == f"Not measured: `python lib/benchmarks/{command}.py` measures it."
    assert all("No data" in spec["description"] for spec in specs)


@pytest.mark.parametrize("text", ['{"seconds": {}}', "[]", "{", '{"agreement": 3}'])
def test_a_damaged_result_is_refused(tmp_path, refused, read_from, text):
    (tmp_path / "observables-cpu.json").write_text(text)
    with refused("observables-cpu.json", "python lib/benchmarks/observables.py"):
        read_from(tmp_path)


@pytest.mark.parametrize("key", ["seconds", "ratios", "agreement", "bytes_per_prompt", "model", "device"])
def test_a_result_that_lacks_what_is_shown_is_refused(cpu, tmp_path, refused, read_from, key):
    del cpu[key]
    (tmp_path / "observables-cpu-other.json").write_text(json.dumps(cpu))
    with refused("observables-cpu-other.json", "python lib/benchmarks/observables.py --model"):
        read_from(tmp_path)


def test_all_results_of_the_book_are_read():
    measured = prose.open_benchmarks()
    assert [name for name, result in measured.items() if not result] == ["observables-gpu"]
    for cores in measured["pipeline"]["by_cores"]:
        written = short(cores["prompts_per_second"]["written"])
        assert written in rows(prose.show("pipeline", measured["pipeline"]).data)["prompts per second: written"]


def test_memory_stays_where_it_is_over_many_prompts():
    n_prompts = 500 if os.environ.get("ALL_INPUTS") else 60
    command = [sys.executable, str(project.root() / "lib/benchmarks/memory.py"), "--growth", "--tiny"]
    done = subprocess.run([*command, "--n-prompts", str(n_prompts)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["n_prompts"] == n_prompts and found["growth"] <= 0.05


def test_an_option_that_cannot_work_is_refused_in_one_line(tmp_path):
    status, _, errors = run("gpu", "--device", "cuda:7", "--output", tmp_path / "none.json")
    assert status == 1
    assert errors.strip().splitlines()[-1].startswith("error: device 'cuda:7' does not exist here")
    assert not list(tmp_path.iterdir())
