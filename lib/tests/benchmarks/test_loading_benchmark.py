"""The benchmark of loading, at its smallest, and what the chapter makes of its result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from token_geometry.chapters.performance import loading as loading_report
from token_geometry.chapters.performance import results

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
N_LAYERS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_tiny):
    """Folder with the result of the command."""
    folder = tmp_path_factory.mktemp("loading")
    config = transformers.LlamaConfig(
        vocab_size=600, hidden_size=256, intermediate_size=1024, num_hidden_layers=N_LAYERS, num_attention_heads=4
    )
    model = save_tiny(config, folder / "model")
    command = [sys.executable, str(BENCHMARKS / "loading.py"), "--model", model, "--n-layers", "1"]
    command += ["--second-loads", model, "--n-repeats", "1", "--output", str(folder / "loading.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_bytes_and_memory_are_those_of_the_blocks_that_were_asked_for(folder):
    result = json.loads((folder / "loading.json").read_text())
    block = 4 * 256**2 + 3 * 256 * 1024 + 2 * 256
    ends = 600 * 256
    weights = {"part": 4 * (block + ends + 256), "whole": 4 * (N_LAYERS * block + 2 * ends + 256)}
    for name, expected in weights.items():
        assert result[name]["weight_bytes"] == expected
        added, read = (result[name][f"{what}_bytes"] for what in ("added_memory", "read"))
        # where the system can tell; it may read far ahead of what is wanted
        assert added is None or 0.9 * expected < added < 1.1 * expected + 2e6
        assert read is None or expected <= read <= weights["whole"] + 1e5
    assert result["ratios"]["weight"] == pytest.approx(weights["part"] / weights["whole"], rel=1e-3)
    seconds = result["second_loads"][0]["seconds"]["load"]
    assert 0 < seconds["min"] <= seconds["max"]


def test_the_chapter_reads_the_result(folder, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: folder)
    result = loading_report.open_result()
    parts = [loading_report.table, loading_report.findings, loading_report.second_loads, loading_report.provenance]
    text = "\n".join(part(result).data for part in parts)
    assert "| all |" in text and "| the first 1 |" in text
    assert "a load of 1 blocks" in text and "than 3 s" in text  # which of both, the machine decides


def test_the_chapter_names_the_command_where_there_is_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    assert loading_report.open_result() is None
    for part in (loading_report.findings, loading_report.second_loads, loading_report.provenance):
        assert results.COMMANDS["loading"] in part(None).data
    assert "no measurement" in loading_report.table(None).data


def test_a_damaged_result_is_refused(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    (tmp_path / "loading.json").write_text('{"whole": {}}')
    with refused("loading.json", results.COMMANDS["loading"]):
        loading_report.open_result()


def test_too_many_layers_are_refused_in_one_line(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "loading.py"), "--n-layers", "0"]
    done = subprocess.run([*command, "--output", str(tmp_path / "x.json")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: --n-layers is 0; accepted: 1 or more"
