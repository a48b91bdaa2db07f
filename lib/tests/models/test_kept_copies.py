"""Dequantized copies in the cache: what is loaded is what was written, and what is not is noticed in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf_files
import numpy as np
import pytest
import torch
import transformers

from token_geometry.base import project
from token_geometry.models import loading, sources
from token_geometry.models.gguf import dequantized

BASE = {**gguf_files.SMALL, **gguf_files.SIZES, "num_hidden_layers": 3, "rms_norm_eps": 1e-4}
RMS = {"attention.layer_norm_rms_epsilon": 1e-4}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path, seed=0):
    """A GGUF file of a tiny LLaMA; the seed moves its weights."""
    model = gguf_files.random_model(transformers.LlamaForCausalLM, transformers.LlamaConfig(**BASE))
    with torch.no_grad():
        model.lm_head.weight += seed
    gguf_files.write(path, "llama", model=model, keys=gguf_files.keys_of(model.config) | RMS)
    return sources.resolve(str(path))


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "tiny.gguf")


def load(source, n_layers=None):
    model = loading.load_model(source, dtype="float32", device="cpu", n_layers=n_layers)
    return {name: weights.numpy().copy() for name, weights in model.state_dict().items()}


def header_of(path):
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length, json.loads(file.read(length))


def flip(path, place):
    """Flip one bit of a file, without moving its times: as a disk does, not a program."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.layers.2.mlp.up_proj.weight", "lm_head.weight"]
)
def test_a_flipped_bit_in_a_weight_is_noticed_before_it_becomes_a_number(name, source, refused):
    load(source)
    kept = Path(source.directory())
    start, header = header_of(kept / dequantized.WEIGHTS)
    flip(kept / dequantized.WEIGHTS, start + header[name]["data_offsets"][1] - 1)
    with refused("tiny.gguf", f"{name} is not as it was written", f"delete the folder {kept}"):
        load(source)
    shutil.rmtree(kept)
    assert np.isfinite(load(source)["lm_head.weight"]).all()


def test_a_part_of_a_model_answers_for_what_it_reads_and_no_more(source, refused):
    kept = Path(source.directory())
    start, header = header_of(kept / dequantized.WEIGHTS)
    flip(kept / dequantized.WEIGHTS, start + header["model.layers.2.mlp.up_proj.weight"]["data_offsets"][0])
    assert load(source, n_layers=2)
    with refused("model.layers.2.mlp.up_proj.weight"):
        load(source)


def test_tensors_that_change_places_in_the_header_are_noticed(source, refused):
    kept = Path(source.directory())
    path = kept / dequantized.WEIGHTS
    start, header = header_of(path)
    one, two = (header[f"model.layers.0.self_attn.{name}_proj.weight"] for name in "kv")
    one["data_offsets"], two["data_offsets"] = two["data_offsets"], one["data_offsets"]
    text = json.dumps(header).encode().ljust(start - 8)
    path.write_bytes((start - 8).to_bytes(8, "little") + text + path.read_bytes()[start:])
    with refused("not as it was written", f"delete the folder {kept}"):
        load(source)


@pytest.mark.parametrize("n_bytes", [0, 7, 100_000])
def test_weights_that_are_cut_short_are_refused_with_the_folder_to_delete(n_bytes, source, refused):
    kept = Path(source.directory())
    os.truncate(kept / dequantized.WEIGHTS, n_bytes)
    for find in (lambda: source.check_files(), lambda: load(source)):
        with refused("tiny.gguf", f"delete the folder {kept}"):
            find()


def test_a_copy_of_another_model_in_its_place_is_made_again(source, tmp_path, capsys):
    expected = load(source)
    other = write(tmp_path / "other.gguf", seed=1)
    shutil.rmtree(source.directory())
    shutil.copytree(other.directory(), source.kept())
    assert not source.is_made()
    found = load(source)
    assert all(np.array_equal(found[name], weights) for name, weights in expected.items())
    (line,) = capsys.readouterr().out.splitlines()
    assert str(source.kept()) in line and "made again" in line
    assert other.is_made()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", dequantized.SUMS])
@pytest.mark.parametrize("damage", ["gone", "short", "changed"])
def test_a_copy_whose_description_is_damaged_is_made_again(name, damage, source, capsys):
    tokenizer, path = loading.load_tokenizer(source), Path(source.directory()) / name
    content = path.read_bytes()
    changes = {"short": content[:-20], "changed": content.replace(b"1", b"2", 1)}
    path.write_bytes(changes[damage]) if damage in changes else path.unlink()
    dequantized.read_tokenizer.cache_clear()
    assert loading.load_config(sources.resolve(source.name)).num_hidden_layers == 3
    assert loading.load_tokenizer(source).get_vocab() == tokenizer.get_vocab()
    assert path.read_bytes() == content or name == dequantized.SUMS
    assert capsys.readouterr().out.count("made again") <= 1
    assert source.is_made()


def test_a_file_that_is_put_beside_is_noticed(source, capsys):
    (Path(source.directory()) / "modeling_tiny.py").write_text("raise SystemExit")
    load(source)
    assert "made again" in capsys.readouterr().out
    assert not (source.kept() / "modeling_tiny.py").exists()


def test_a_file_that_changes_behind_its_times_has_another_identity(source, tmp_path):
    before = source.identity()
    flip(tmp_path / "tiny.gguf", -1)
    assert sources.resolve(source.name).identity() != before


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_works_on_is_not(source, cache):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = cache / "models" / f"{source.kept().name}-partial-{done.stdout.strip()}-abc"
    living = cache / "models" / f"{source.kept().name}-partial-{os.getppid()}-abc"
    for folder in (dead, living):
        folder.mkdir(parents=True)
        (folder / "model.gguf").write_bytes(bytes(1000))
    source.directory()
    assert not dead.exists() and living.is_dir()


@pytest.mark.parametrize(("mode", "n_lines"), [(0o700, 0), (0o755, 0), (0o777, 1), (0o1777, 1)])
def test_a_cache_that_others_can_write_is_said_once(mode, n_lines, tmp_path, monkeypatch, capsys):
    for part in (".", "models", "checksums"):
        monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(tmp_path / f"{mode}{part}"))
        (tmp_path / f"{mode}{part}" / part).mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{mode}{part}" / part).chmod(mode)
        project.cache()
        project.cache()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == n_lines and all(
            "other users" in line and "TOKEN_GEOMETRY_CACHE" in line for line in lines
        )
