"""The checks behind a GPU and the benchmark of ready-made tables, at their smallest and on a CPU."""

import json
import os
import subprocess
import sys

import program
import pytest
import readme

from token_geometry.base import project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Function that runs a command of the README with options and returns what it wrote."""
    folder = tmp_path_factory.mktemp("results")

    def run(*words, output, options):
        ((_, *command),) = readme.commands(*words) if words[0] == "python" else [("", *words)]
        options = [*map(str, options), "--output", str(folder / output)]
        if words[0] == "python":
            status, printed, errors = program.run(*command, *options)
        else:
            environment = os.environ | {"PYTHON": sys.executable}
            line = ["bash", *command, *options]
            done = subprocess.run(line, cwd=project.root(), env=environment, capture_output=True, text=True)
            status, printed, errors = done.returncode, done.stdout, done.stderr
        assert status == 0, errors[-2000:]
        return json.loads((folder / output).read_text()), printed

    return run


@pytest.fixture(scope="module")
def checks(started):
    assert readme.commands("lib/benchmarks/gpu.sh") == [["lib/benchmarks/gpu.sh"]]
    options = ["--shape", "tiny", "--n-prompts", 4, "--n-tokens", 64, "--device", "cpu"]
    return started("lib/benchmarks/gpu.sh", output="gpu.json", options=options)


def test_the_checks_run_without_a_gpu_and_say_that_they_are_reduced(checks):
    result, printed = checks
    assert "no GPU is used: tiny shapes in float32 on the CPU" in printed
    assert result["reduced"] and result["device"]["gpu"] is None and result["device"]["processor"]
    assert result["correctness"]["passed"] and "random, tiny" in printed
    assert set(result["seconds"]) == {"forward", "geometry", "transfer", "write", "reduce"}
    rates = result["prompts_per_second"]
    assert set(rates) == {"forward", "with_geometry", "written", "reduced_and_written"}
    assert [row["batch_size"] for row in result["batches"]["rows"]] == [1, 4]
    assert result["batches"]["passed"] and min(rates.values()) > 0


HALVING = """
import sys, json
sys.path.insert(0, "lib/benchmarks")
import gpu, gpu_checks
shape = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 4000}
gpu.SHAPES["small"] = shape | {"hidden_size": 512, "intermediate_size": 512}
bench = gpu_checks.Bench("small", dtype="float32", device="cpu", n_prompts=8, n_tokens=256)
bench.tables(bench.keys[:1])
print(json.dumps(gpu_checks.halving(bench, size=8)))
"""


def test_memory_that_is_really_too_small_halves_a_batch():
    # so that an allocator keeps no memory of its own for large arrays
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", HALVING]
    done = subprocess.run(command, cwd=project.root(), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    *said, found = done.stdout.splitlines()
    result = json.loads(found)
    assert result["passed"] and result["ended_at"] < 8
    assert "the memory is too small for 8 prompts at once" in said[0]


def test_the_differences_that_a_check_finds_are_those_that_there_are(monkeypatch):
    monkeypatch.syspath_prepend(project.root() / "lib" / "benchmarks")
    import gpu_checks

    bench = gpu_checks.Bench("tiny", dtype="float32", device="cpu", n_prompts=2, n_tokens=64)
    one, other = (made.label() for made in bench.tables(bench.keys))
    spread = one.copy(deep=True)
    spread["neighbor_distance"] *= 1.01
    same, spread, other = (gpu_checks._differences(made, one) for made in (one, spread, other))
    assert set(same.values()) == {0.0}
    assert spread["distance"] == pytest.approx(0.01, rel=1e-3) and spread["dimension"] < 1e-5
    assert other["neighbors_that_differ"] > 0.5 and other["dimension"] > 1e-2 and other["overlap"] > 1e-3


def test_ready_made_tables_are_written_and_reduced_on_the_cores_that_are_asked_for(started):
    options = ["--n-prompts", 16, "--n-layers", 4, "--n-tokens", 64, "--cores", 1]
    result, printed = started("python", "lib/benchmarks/pipeline.py", output="pipeline.json", options=options)
    (found,) = result["by_cores"]
    rates, seconds = found["prompts_per_second"], found["core_seconds_per_prompt"]
    assert found["cores"] == 1 and "prompts per second, written read and reduced" in printed
    assert set(seconds) == {"write", "reduce", "reduce_behind"} and min(seconds.values()) > 0
    both = 1 / rates["written"] + 1 / rates["read_and_reduced"]
    assert rates["written_read_and_reduced"] == pytest.approx(1 / both, rel=1e-3)
    for by_prompts in found["peak_memory_bytes"].values():
        assert set(by_prompts) == {"4", "16"}
        assert all(peak["this"] > 1e8 and peak["others"] > 5e7 for peak in by_prompts.values())
