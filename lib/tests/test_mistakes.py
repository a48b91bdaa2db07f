"""Mistakes of a newcomer: each is one line that names the thing, its value and the way out, and no traceback."""

import json
import re

import numpy as np
import pytest
import torch
import transformers
import yaml

import token_geometry
from token_geometry.__main__ import main
from token_geometry.base import project
from token_geometry.base.errors import InputError
from token_geometry.runs import declaration

RUN = {
    "title": "own",
    "models": ["tiny"],
    "corpus": "texts.jsonl",
    "n_tokens": 16,
    "extractions": {"all": {"n_prompts": 2, "shuffle_levels": [0, 1]}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_tiny):
    """A project with a tiny model, texts of its words, and files that are not what they should be."""
    folder, root = tmp_path_factory.mktemp("mistakes"), project.root()
    (folder / "data" / "runs").mkdir(parents=True)
    for name in ("models.yml", "corpora.yml", "new-run.yml"):
        (folder / "data" / name).write_text((root / "data" / name).read_text())
    for name in ("data/statements", "notebooks"):
        (folder / name).symlink_to(root / name)
    (folder / "_quarto.yml").write_text("project: {type: book}\n")
    (folder / "data" / "runs" / "own.yml").write_text(yaml.safe_dump(RUN))
    config = transformers.LlamaConfig(
        vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=2
    )
    save_tiny(config, folder / "tiny")
    for name, left_out in {"no-weights": ".safetensors", "no-tokenizer": "tokenizer"}.items():
        (folder / name).mkdir()
        for path in (folder / "tiny").iterdir():
            if left_out not in path.name:
                (folder / name / path.name).symlink_to(path)
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in random.permutation(np.arange(2, 200))) for _ in range(5)]
    lines = [json.dumps({"text": text}) for text in texts]
    contents = {
        "texts.jsonl": "\n".join(lines),
        "empty.jsonl": "",
        "broken.jsonl": lines[0] + "\n{'text': 'single quotes'}",
        "other-column.jsonl": json.dumps({"content": "here"}),
        "twice.jsonl": "\n".join(json.dumps({"id": "a", "text": text}) for text in texts),
        "commas.csv": "text,id\nOne, two, three,a\n",
        "paper.docx": "no corpus",
        "no.gguf": "no model",
        "no-labels.csv": "sentence,truth\nSnow is white.,1\n",
        "labels.csv": "statement,label\n" + "".join(f"w{n} w3,1\n" for n in range(4, 12)),
        "pictures/a.png": "no text",
        "nothing/readme.md": "no model",
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    (folder / "latin.txt").write_bytes("déjà vu".encode("latin-1"))
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def told(words, capsys):
    """The line that the command shows, which fails."""
    assert main(words) == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and printed.splitlines()[-1] == lines[0]
    return lines[0]


# option changed in an extraction that works → what the line must hold
EXTRACT = [
    ("model", None, ["'model'", "missing"]),
    ("corpus", None, ["'corpus'", "missing"]),
    ("output", None, ["'output'", "missing"]),
    ("n-prompts", "three", ["'n_prompts'", "'three'", "a whole number"]),
    ("n-prompts", "0", ["n_prompts is 0", "1 or more", "None for all"]),
    ("n-prompts", "-3", ["n_prompts is -3", "1 or more"]),
    ("n-prompts", "2.5", ["'n_prompts'", "2.5", "a whole number"]),
    ("n-prompts", "300", ["its 5 texts", "tokens: lower n_prompts = 300 to that or add"]),
    ("n-tokens", "-128", ["n_tokens is -128", "4 or more"]),
    ("n-tokens", "0", ["n_tokens is 0", "4 or more"]),
    ("n-tokens", "1k", ["'n_tokens'", "'1k'", "a whole number"]),
    ("n-tokens", "100000", ["n_tokens is 100000", "context", "up to 2048"]),
    ("n-tokens", "512", ["0 of its 5 texts", "n_tokens = 512", ": lower n_tokens or add"]),
    ("shuffle-levels", "7", ["4^7", "n_tokens = 16"]),
    ("shuffle-levels", "-1", ["holds -1; accepted: 0 to 2"]),
    ("shuffle-levels", ["0", "0"], ["shuffle_levels is [0, 0]", "different levels"]),
    ("shuffle-levels", "a", ["'shuffle_levels'", "['a']", "whole numbers"]),
    ("shuffle-levels", "[0, x]", ["'shuffle_levels'", "'x'", "whole numbers"]),
    ("seed", "-1", ["seed is -1", "0 or more"]),
    ("seed", "random", ["'seed'", "'random'", "a whole number"]),
    ("dtype", "int8", ["dtype is 'int8'", "float32, bfloat16, float16"]),
    ("device", "gpu", ["device 'gpu'", "auto, cpu"]),
    ("device", "cuda:7", ["device 'cuda:7'", "auto, cpu"]),
    ("model", "smollm", ["model 'smollm'", "did you mean 'smollm2-135m'"]),
    ("model", "./nowhere", ["model './nowhere'", "there is no nowhere", "an alias"]),
    ("model", "nothing", ["model 'nothing'", "no config.json"]),
    ("model", "no-weights", ["model 'no-weights'", "*.safetensors", "@random"]),
    ("model", "no-tokenizer", ["model 'no-tokenizer'", "tokenizer.json"]),
    ("model", "gone.gguf", ["model 'gone.gguf'", "no such file"]),
    ("model", "no.gguf", ["no.gguf", "GGUF"]),
    ("model", "tiny@randm", ["'randm'", "did you mean 'random'"]),
    ("model", "tiny@random@random", ["control of a control", "leave one of them out"]),
    ("corpus", "sotuu", ["corpus 'sotuu'", "did you mean 'sotu'"]),
    ("corpus", "gone.jsonl", ["corpus 'gone.jsonl'", ".jsonl"]),
    ("corpus", "empty.jsonl", ["'empty.jsonl'", "holds no text"]),
    ("corpus", "broken.jsonl", ["broken.jsonl", "line 2", "not JSON"]),
    ("corpus", "other-column.jsonl", ["row 1", "'text'", "'content'", "`column`"]),
    ("column", "body", ["'body'", "'text'", "`column`"]),
    ("corpus", "paper.docx", ["'paper.docx'", "accepted", ".txt"]),
    ("corpus", "pictures", ["'pictures'", "holds no text", "1 .png"]),
    ("corpus", "commas.csv", ["commas.csv", "quotation marks"]),
    ("corpus", "latin.txt", ["latin.txt", "not UTF-8", "convert it"]),
    ("corpus", "twice.jsonl", ["'a'", "occurs twice"]),
    ("corpus", "*.json", ["'*.json'", "no file has such a name"]),
    ("prompt-ids", "9", ["prompt_ids holds '9'", "5 ids"]),
    ("prompt-ids", ["1", "1"], ["prompt_ids holds '1' twice", "different ids"]),
    ("num-processes", "0", ["num_processes is 0", "1 or more"]),
    ("num-processes", "5", ["num_processes is 5", "2 prompts", "1 to 2"]),
    ("n-parts", "0", ["n_parts is 0", "1 or more"]),
    ("part", "3", ["part is 3", "n_parts 1", "0 to 0"]),
    ("batch-size", "0", ["batch_size is 0", "1 or more"]),
    ("gpus-per-model", "2", ["gpus_per_model is 2", "machine with GPUs"]),
    ("overwrite", "maybe", ["'overwrite'", "'maybe'", "true or false"]),
    ("filter-models", "tny", ["model 'tny'", "accepted"]),
    ("output", "paper.docx", ["paper.docx is a file", "choose another"]),
    ("n-promts", "3", ["option '--n-promts'", "did you mean '--n-prompts'"]),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value", "words"), EXTRACT)
def test_a_mistake_in_an_extraction_is_one_line(option, value, words, folder, capsys):
    options = {"model": "tiny", "corpus": "texts.jsonl", "n-prompts": "2", "n-tokens": "16", "output": "refused"}
    options |= {"device": "cpu", option: value}
    given = [
        [f"--{name}", *([value] if isinstance(value, str) else value)] for name, value in options.items() if value
    ]
    line = told(["extract", *sum(given, [])], capsys)
    assert [word for word in words if word not in line] == [], line
    assert not list(folder.glob("refused/*.nc"))


OTHERS = [
    ("", ["COMMAND", "--help"]),
    ("extrct --model tiny", ["'extrct'", "did you mean 'extract'?"]),
    ("extract --model", ["--model", "--help"]),
    ("observables --extraction gone --output o.nc", ["extraction 'gone'", "json", "token-geometry extract"]),
    ("observables --extraction gone --output o.csv", ["output is 'o.csv'", ".nc"]),
    ("observables --extraction gone --output o.nc --estimator twonn", ["estimator 'twonn'", "gride, dadapy"]),
    ("observables --extractions gone --output o.nc", ["'--extractions'", "did you mean '--extraction'"]),
    ("truth --model tiny --layer 12 --datasets cities --output t.nc", ["layer is 12", "last", "0 to 6"]),
    ("truth --model tiny --layer -1 --datasets cities --output t.nc", ["layer is -1", "0 to 6"]),
    ("truth --model tiny --layer mid --datasets cities --output t.nc", ["'layer'", "'mid'", "a whole number"]),
    ("truth --model tiny --layer 3 --last-layer 2 --datasets cities --output t.nc", ["is 2", "3, or more"]),
    ("truth --model tiny --layer 3 --datasets citys --output t.nc", ["'citys'", "did you mean 'cities'"]),
    ("truth --model tiny --layer 3 --datasets gone.csv --output t.nc", ["gone.csv"]),
    ("truth --model tiny --layer 3 --datasets no-labels.csv --output t.nc", ["no-labels.csv", "statement"]),
    ("truth --model tiny --layer 3 --datasets labels.csv --output t.nc", ["labels.csv"]),
    ("truth --model tiny --layer 3 --datasets cities --n-statements 2 --output t.nc", ["is 2", "4 or more"]),
    ("truth --model tiny --layer 3 --datasets cities --output t.csv", ["output is 't.csv'", ".nc"]),
    ("truth --model tiny --datasets cities --output t.nc", ["'layer'", "missing"]),
    ("run owm", ["run 'owm'", "did you mean 'own'"]),
    ("run data/runs/own.yml", ["run 'data/runs/own.yml'", "own"]),
    ("run own --dryrun", ["'--dryrun'", "did you mean '--dry-run'"]),
    ("book own --renderer word", ["'word'", "quarto", "pandoc"]),
    ("new-run own", ["own.yml exists", "another name"]),
    ("new-run a/b", ["'a/b'", "letters, digits, hyphens"]),
    ("new-run", ["name", "--help"]),
    ("new-run next --model gone", ["unknown model 'gone'"]),
    ("new-run next --corpus gone.txt", ["unknown corpus 'gone.txt'"]),
    ("extract --model tiny --corpus texts.jsonl --n-prompts 1 --n-tokens 32 --output o --shuffle-levels 0,x",
     ["shuffle_levels", "x"]),
]  # fmt: skip


@pytest.mark.parametrize(("command", "words"), OTHERS)
def test_a_mistake_in_another_command_is_one_line(command, words, capsys):
    line = told(command.split(), capsys)
    assert [word for word in words if word not in line] == [], line


RUNS = [
    ("title: own\nmodels: [tiny\ncorpus: texts.jsonl\n", ["runs/bad.yml, line 3, column 7", "bracket"]),
    ("title: own\n\tmodels: [tiny]\n", ["line 2, column 1", "indent"]),
    ("title: my: own\n", ["line 1, column 10", "colon"]),
    ("title: 'own\n", ["line 1, column 8", "quotation mark"]),
    ("", ["bad.yml holds no keys", "token-geometry new-run"]),
    ("tiny\n", ["'tiny'", "key: value"]),
    ({"modles": ["tiny"]}, ["'modles'", "did you mean 'models'"]),
    ({"title": None}, ["'title'", "None"]),
    ({"models": "tiny"}, ["'models' is 'tiny'", "a list of strings"]),
    ({"models": []}, ["models is empty", "at least one"]),
    ({"n_tokens": "16"}, ["'n_tokens' is '16'", "a whole number"]),
    ({"extractions": None}, ["'extractions' is empty", "all: {n_prompts: 8"]),
    ({"extractions": {"all": {"n_prompts": 2}}}, ["'all'", "{'n_prompts': 2}", "and shuffle_levels"]),
    ({"extractions": {"all": {"n_prompts": 2, "shuffle_levels": [1]}}}, ["shuffle level 0"]),
    ({"controls": {"models": "tiny@random", "n_prompts": 1, "shuffle_levels": [0]}}, ["'tiny@random'", "a list"]),
    ({"truth": {"datasets": ["cities"], "models": {"tiny": 3}}}, ["'tiny' is 3", "layer"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), RUNS)
def test_a_mistake_in_the_file_of_a_run_is_one_line(content, words, folder, capsys):
    text = content if isinstance(content, str) else yaml.safe_dump(RUN | content)
    (folder / "data" / "runs" / "bad.yml").write_text(text)
    line = told(["run", "bad"], capsys)
    (folder / "data" / "runs" / "bad.yml").unlink()
    assert [word for word in words if word not in line] == [], line


FORECASTS = [
    ({"n_tokens": -128}, "n_tokens is -128; accepted: 4 or more"),
    ({"corpus": "gone.jsonl"}, "unknown corpus 'gone.jsonl'"),
    ({"extractions": {"all": {"n_prompts": 300, "shuffle_levels": [0]}}}, "n_prompts is 300"),
    ({"extractions": {"all": {"n_prompts": 2, "shuffle_levels": [0, 9]}}}, "4^9"),
    ({"truth": {"datasets": ["cities"], "models": {"tiny": {"layer": 12}}}}, "layer is 12"),
    ({"models": ["no-tokenizer"]}, "tokenizer.json"),
    ({"dtype": "int8"}, "dtype is 'int8'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), FORECASTS)
def test_a_dry_run_refuses_what_the_run_would(changes, words, folder, capsys):
    (folder / "data" / "runs" / "bad.yml").write_text(yaml.safe_dump(RUN | changes))
    assert main(["run", "bad", "--dry-run"]) == 1
    printed = capsys.readouterr().out
    (folder / "data" / "runs" / "bad.yml").unlink()
    (problem, *_) = [line for line in printed.splitlines() if line.startswith("    ! ")]
    assert words in problem and "-" not in printed.split("in all about")[1].split(" of disk")[0]


CALLS = [
    (lambda: token_geometry.measure([[1, 2], [3, 4]]), ["type int64", "floating numbers"]),
    (lambda: token_geometry.measure(np.zeros(5)), ["shape (5,)", "(layer, token, width)"]),
    (lambda: token_geometry.measure(np.full((2, 5, 3), np.nan)), ["layer 0, token 0", "finite"]),
    (lambda: token_geometry.measure([[1.0], [1.0, 2.0]]), ["several lengths"]),
    (lambda: token_geometry.measure_texts("tiny", "w2 w3 w4"), ["'w2 w3 w4'", "a list of strings"]),
    (lambda: token_geometry.measure_texts(torch.nn.Linear(2, 2), ["w2 w3"]), ["is a Linear", "save_pretrained"]),
    (lambda: token_geometry.measure_texts("tiny", []), ["'[]'", "at least one"]),
    (lambda: token_geometry.measure_texts("tiny", ["w2 w3 w4 w5", 7]), ["texts[1]", "int", "strings"]),
    (lambda: token_geometry.measure_texts("tiny", ["w2 " * 9, "w2 w3"]), ["texts[1] has 2 tokens", "4 or more"]),
    (lambda: token_geometry.measure_texts("tiny", ["w2 w3 w4"], n_tokens=64), ["texts[0] has 3", "64 or more"]),
    (lambda: token_geometry.measure_texts("tny", ["w2 " * 9]), ["model 'tny'", "accepted"]),
    (lambda: token_geometry.measure_texts("tiny", ["w2 " * 9], shuffle_levels=[2]), ["9 tokens", "16 or more"]),
    (lambda: token_geometry.open_results("owm"), ["run 'owm'", "did you mean 'own'"]),
    (lambda: token_geometry.open_results("own"), ["of run 'own' is missing", "run own"]),
    (lambda: token_geometry.open_results("own", "truth"), ["run 'own': unknown result 'truth'", "observables"]),
    (lambda: token_geometry.open_results("gone.nc"), ["gone.nc", "does not exist"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), CALLS)
def test_a_mistake_in_a_call_is_one_line(call, words):
    with pytest.raises(InputError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and [word for word in words if word not in line] == [], line


def test_there_are_more_than_eighty_mistakes():
    assert sum(map(len, (EXTRACT, OTHERS, RUNS, FORECASTS, CALLS))) > 80


def test_another_extraction_in_the_same_folder_is_refused_by_the_names_that_were_given(capsys):
    given = "extract --model tiny --corpus texts.jsonl --n-prompts 2 --device cpu --output kept --n-tokens".split()
    assert main([*given, "16"]) == 0
    line = told([*given, "32"], capsys)
    assert "another n_tokens (16, not 32)" in line and "set overwrite" in line
    assert main(["observables", "--extraction", "kept", "--output", "kept.nc"]) == 0
    found = token_geometry.open_results("kept.nc")
    assert found.sizes["prompt"] == 2
    for name in ("scale", "k", "prompt", "shuffle_level", "model", "layer", "layer_other", "angle"):
        assert found[name].attrs["long_name"] and found[name].attrs["units"]


def test_a_path_in_a_new_run_is_the_same_from_everywhere(folder, monkeypatch, capsys):
    """What was given from one folder is found from another."""
    monkeypatch.chdir(folder)
    assert main("new-run next --model tiny --corpus texts.jsonl".split()) == 0
    file, tiny = folder / "data" / "runs" / "next.yml", str(folder / "tiny")
    written = declaration.load("next")
    assert written.models == [tiny] and written.corpus == str(folder / "texts.jsonl")
    # what is optional can be taken as it stands
    file.write_text(re.sub(r"^# (?=\w+:( |$)|  )", "", file.read_text(), flags=re.MULTILINE))
    sections = declaration.load("next").sections
    file.unlink()
    assert sections["controls"]["models"] == [f"{tiny}@random"] and set(sections) >= {"genres", "calibration"}
    assert sections["truth"]["models"] == {tiny: {"layer": 2, "last_layer": 4}}
    assert sections["truth_controls"]["models"] == {tiny: {"layer": 2}}


def test_levels_may_stand_with_commas(folder, monkeypatch, capsys):
    words = "extract --model tiny --corpus texts.jsonl --n-prompts 1 --n-tokens 32 --output o --dry-run"
    monkeypatch.chdir(folder)
    printed = []
    for levels in (["0", "2"], ["0,2"], ["[0, 2]"]):
        assert main([*words.split(), "--shuffle-levels", *levels]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2] and "2 forward passes" in printed[0]


@pytest.mark.slow
def test_texts_are_cut_to_the_shortest_and_to_what_the_blocks_need(folder, monkeypatch):
    monkeypatch.chdir(folder)
    texts = [" ".join(f"w{n}" for n in range(2, 2 + length)) for length in (30, 27)]
    for levels, n_tokens in (([0], 27), ([0, 1], 24), ([0, 2], 16)):
        found = token_geometry.measure_texts("tiny", texts, shuffle_levels=levels)
        assert found.attrs["n_tokens"] == n_tokens
