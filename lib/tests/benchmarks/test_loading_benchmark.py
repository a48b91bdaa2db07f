"""The benchmark of loading, at its smallest, and what the chapter makes of its result."""

import json

import program
import pytest
import transformers

from token_geometry.chapters.numbers import short
from token_geometry.chapters.performance import prose, results

pytestmark = pytest.mark.slow

PROGRAM = "lib/benchmarks/loading.py"
N_LAYERS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_tiny):
    """Folder with the result of the command."""
    folder = tmp_path_factory.mktemp("loading")
    config = transformers.LlamaConfig(
        vocab_size=600, hidden_size=256, intermediate_size=1024, num_hidden_layers=N_LAYERS, num_attention_heads=4
    )
    model = save_tiny(config, folder / "model")
    options = ["--model", model, "--n-layers", 1, "--second-loads", model, "--n-repeats", 1]
    status, _, errors = program.run(PROGRAM, *options, "--output", folder / "loading.json")
    assert status == 0, errors[-2000:]
    return folder


def test_bytes_and_memory_are_those_of_the_blocks_that_were_asked_for(folder):
    result = json.loads((folder / "loading.json").read_text())
    block = 4 * 256**2 + 3 * 256 * 1024 + 2 * 256
    ends = 600 * 256
    weights = {"part": 4 * (block + ends + 256), "whole": 4 * (N_LAYERS * block + 2 * ends + 256)}
    for name, expected in weights.items():
        assert result[name]["weight_bytes"] == expected
        added, read = (result[name][f"{what}_bytes"] for what in ("added_memory", "read"))
        # where the system can tell; it may read far ahead of what is wanted, and have some pages already
        assert added is None or 0.9 * expected < added < 1.1 * expected + 2e6
        assert read is None or expected - 1e5 <= read <= weights["whole"] + 1e5
    assert result["ratios"]["weight"] == pytest.approx(weights["part"] / weights["whole"], rel=1e-3)
    seconds = result["second_loads"][0]["seconds"]["load"]
    assert 0 < seconds["min"] <= seconds["max"]


def test_the_chapter_reads_the_result(folder, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: folder)
    result = prose.open_benchmarks()["loading"]
    text = "\n".join(prose.show(name, result).data for name in ("loads", "limits", "second loads", "provenance"))
    for load in ("whole", "part"):
        assert f"| {load}: weight MB | {short(result[load]['weight_bytes'] / 1e6)} |" in text
        assert f"| {load}: seconds first use | {short(result[load]['seconds_first_use'])} |" in text
    assert f"| ratios: weight | {short(result['ratios']['weight'])} |" in text
    assert "The first 1 blocks take at most" in text and "60% are the limit" in text
    took = result["second_loads"][0]["seconds"]["load"]
    assert f"| seconds: load | {short(took['median'])} (" in text
    assert f"at most {took['max']:.2f} s; 3 s are the limit" in text


def test_the_chapter_names_the_command_where_there_is_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    result = prose.open_benchmarks()["loading"]
    for name in ("loads", "limits", "second loads"):
        assert prose.show(name, result).data == f"Not measured: `{results.COMMANDS['loading']}` measures it."


def test_a_damaged_result_is_refused(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    (tmp_path / "loading.json").write_text('{"whole": {}}')
    with refused("loading.json", results.COMMANDS["loading"]):
        prose.open_benchmarks()


def test_too_many_layers_are_refused_in_one_line(tmp_path):
    status, _, errors = program.run(PROGRAM, "--n-layers", 0, "--output", tmp_path / "x.json")
    assert (status, errors) == (1, "error: --n-layers is 0; accepted: 1 or more\n")
