"""Tuned lenses: latent predictions through an affine map per layer, and what is refused as no lens of a model."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers
import xarray as xr

from token_geometry.base import store
from token_geometry.extraction import extraction
from token_geometry.models import sources
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.reduction import Reduction
from token_geometry.states.model import LanguageModel
from token_geometry.studies import reduction

WIDTH, N_LAYERS = 16, 3
SMALL = {
    "vocab_size": 300, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
GROUPED = SMALL | {"num_key_value_heads": 2}
FAMILIES = {
    "llama": (transformers.LlamaConfig(**GROUPED), "model.norm"),
    "gpt-neox": (transformers.GPTNeoXConfig(**SMALL), "gpt_neox.final_layer_norm"),
    "gemma2": (transformers.Gemma2Config(**GROUPED, head_dim=8, final_logit_softcapping=2.0), "model.norm"),
}


def write_lens(folder, *, scale=0.0, base="tiny", width=WIDTH, n_layers=N_LAYERS, **changes):
    """A lens as tuned-lens writes it: of zeros, which changes nothing, or of random numbers."""
    random = torch.Generator().manual_seed(1)
    state = {}
    for layer in range(n_layers):
        state[f"{layer}.weight"] = scale * torch.randn(width, width, generator=random)
        state[f"{layer}.bias"] = scale * torch.randn(width, generator=random)
    folder.mkdir(exist_ok=True, parents=True)
    torch.save(state | changes, folder / "params.pt")
    told = {"base_model_name_or_path": base, "d_model": width, "num_hidden_layers": n_layers, "bias": True}
    (folder / "config.json").write_text(json.dumps(told | {"lens_type": "linear_tuned_lens"}))
    return str(folder)


def lens_of(folder, lens, ids, **options):
    model = LanguageModel(sources.resolve(folder), device="cpu", tuned_lens=lens, **options)
    return model.forward(ids, logits=True).lens


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lens_that_changes_nothing_is_the_logit_lens(family, tmp_path, save_tiny):
    folder = save_tiny(FAMILIES[family][0], tmp_path / "tiny")
    ids = np.random.default_rng(0).integers(2, 300, size=200)
    lens = write_lens(tmp_path / "lens")
    np.testing.assert_allclose(lens_of(folder, lens, ids), lens_of(folder, "", ids), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tuned_lens_is_the_formula_on_the_hidden_states_of_transformers(family, tmp_path, save_tiny):
    config, norm = FAMILIES[family]
    folder, lens = save_tiny(config, tmp_path / "tiny"), write_lens(tmp_path / "lens", scale=0.2)
    language_model = LanguageModel(sources.resolve(folder), device="cpu", tuned_lens=lens)
    token_ids = np.random.default_rng(0).integers(2, 300, size=200)
    loss, entropy = language_model.forward(token_ids, logits=True).lens
    ids = torch.tensor([0] * language_model.prepend_bos + token_ids.tolist())
    place = language_model.head._lens_positions(len(ids), N_LAYERS + 1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    state = torch.load(f"{lens}/params.pt", weights_only=True)
    cap = getattr(config, "final_logit_softcapping", None)
    with torch.no_grad():
        found = model(ids[None], output_hidden_states=True)
        for layer, hidden in enumerate(found.hidden_states):
            h = hidden[0, place]
            if layer < N_LAYERS:
                translated = h + h @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
                logits = model.get_output_embeddings()(model.get_submodule(norm)(translated))
                logits = cap * torch.tanh(logits / cap) if cap else logits
            else:
                logits = found.logits[0, place]
            log_p = logits.log_softmax(-1)
            assert loss[layer] == pytest.approx(-float(log_p[range(len(place)), ids[place + 1]].mean()), abs=1e-5)
            assert entropy[layer] == pytest.approx(-float((log_p.exp() * log_p).sum(-1).mean()), abs=1e-5)
    plain = lens_of(folder, "", token_ids)
    assert np.abs(plain[:, :-1] - [loss[:-1], entropy[:-1]]).min() > 1e-4


def test_a_lens_is_what_the_package_makes_of_its_files(tmp_path, save_tiny):
    lenses = pytest.importorskip("tuned_lens")
    folder, lens = save_tiny(FAMILIES["gpt-neox"][0], tmp_path / "tiny"), write_lens(tmp_path / "lens", scale=0.2)
    language_model = LanguageModel(sources.resolve(folder), device="cpu", tuned_lens=lens)
    ids = torch.arange(2, 202)
    entropy = language_model.forward(ids.numpy(), logits=True).lens[1]
    place = language_model.head._lens_positions(len(ids), N_LAYERS + 1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    theirs = lenses.TunedLens.from_model_and_pretrained(model, lens, weights_only=True)
    with torch.no_grad():
        for layer, hidden in enumerate(model(ids[None], output_hidden_states=True).hidden_states[:-1]):
            log_p = theirs(hidden[0, place], layer).log_softmax(-1)
            assert entropy[layer] == pytest.approx(-float((log_p.exp() * log_p).sum(-1).mean()), abs=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_lens_takes_the_type_of_the_pass(dtype, tmp_path, save_tiny):
    folder, lens = save_tiny(FAMILIES["llama"][0], tmp_path / "tiny"), write_lens(tmp_path / "lens", scale=0.2)
    ids = np.arange(2, 102)
    exact, rounded = (lens_of(folder, lens, ids, dtype=name) for name in ("float32", dtype))
    np.testing.assert_allclose(rounded, exact, rtol=0.02)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory, save_tiny):
    """Function that makes the request of an extraction of two texts by a tiny model, whose folder it has."""
    folder = tmp_path_factory.mktemp("lenses")
    save_tiny(FAMILIES["llama"][0], folder / "tiny")
    lines = [json.dumps({"text": " ".join(f"w{n}" for n in range(start, start + 40))}) for start in (2, 50)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    given = {"model": str(folder / "tiny"), "corpus": str(folder / "texts.jsonl"), "n_prompts": 2, "n_tokens": 32}
    return folder, lambda **more: Extraction(**(given | {"device": "cpu"} | more))


def test_shards_know_the_bytes_of_their_lens_and_those_without_one_are_as_before(extracted, tmp_path, refused):
    folder, request = extracted
    plain = request(output=str(tmp_path / "plain"))
    assert list(plain.recipe()) == ["model", "corpus", "n_tokens", "seed", "dtype"]
    lens = write_lens(tmp_path / "lens", scale=0.2)
    tuned = request(output=str(tmp_path / "tuned"), tuned_lens=lens)
    directories = [str(extraction.extract(one)) for one in (plain, tuned)]
    found = [reduction.compute(Reduction(extraction=directory, output="x.nc")) for directory in directories]
    beside = [one.drop_vars(["lens_loss", "lens_entropy"]) for one in found]
    xr.testing.assert_equal(*beside)
    assert (abs(found[0]["lens_loss"] - found[1]["lens_loss"]).isel(layer=slice(-1)) > 1e-4).all()
    assert tuned.recipe() != plain.recipe() and tuned.estimate().memory > plain.estimate().memory
    copy = dataclasses.replace(tuned, tuned_lens=write_lens(tmp_path / "elsewhere", scale=0.2))
    assert store.digest(copy.recipe()) == store.digest(tuned.recipe())
    with refused("another tuned_lens", "overwrite"):
        extraction.extract(dataclasses.replace(plain, output=tuned.output))
    with refused("two different models or tuned lenses"):
        reduction.compute(Reduction(extraction=[plain.output, tuned.output], output="x.nc"))
    write_lens(tmp_path / "lens", scale=0.3)
    with refused("another tuned_lens", "is not what it was then"):
        extraction.extract(tuned)


BAD = {
    "no directory": (lambda at: str(at / "nowhere"), ["config.json", "No such file", "a directory with both"]),
    "half of a lens": (lambda at: (at / "params.pt").unlink() or str(at), ["params.pt", "No such file"]),
    "no JSON": (lambda at: (at / "config.json").write_text("{") and str(at), ["config.json cannot be read"]),
    "another JSON": (lambda at: (at / "config.json").write_text("{}") and str(at), ["lacks 'base_model_name"]),
    "a list": (lambda at: (at / "config.json").write_text("[1]") and str(at), ["config.json cannot be read"]),
    "another name": (lambda at: write_lens(at, base="owner/other"), ["model 'owner/other'", "only names"]),
    "no name": (lambda at: write_lens(at, base=""), ["is of model ''"]),
    "another width": (lambda at: write_lens(at, width=8), ["width 8 and 3 blocks", "width 16 and 3;"]),
    "another depth": (lambda at: write_lens(at, n_layers=4), ["width 16 and 4 blocks"]),
    "a tensor more": (lambda at: write_lens(at, more=torch.ones(1)), ["holds no params.pt"]),
    "another shape": (lambda at: write_lens(at, **{"0.bias": torch.ones(8)}), ["holds no params.pt"]),
    "no finite number": (lambda at: write_lens(at, **{"0.bias": torch.full((16,), torch.nan)}), ["finite"]),
    "whole numbers": (lambda at: write_lens(at, **{"0.bias": torch.ones(16).long()}), ["holds no params.pt"]),
    "no file of torch": (lambda at: (at / "params.pt").write_text("x") and str(at), ["holds no params.pt"]),
    "an object": (lambda at: write_lens(at, run=dataclasses.replace), ["without running code"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_lens_of_the_model_is_refused_before_anything_is_made(case, extracted, tmp_path, refused):
    _, request = extracted
    make, words = BAD[case]
    write_lens(tmp_path / "lens")
    lens = make(tmp_path / "lens")
    with refused("tuned_lens", *words):
        request(output=str(tmp_path / "out"), tuned_lens=lens).check()
    assert not (tmp_path / "out").exists()


def test_a_lens_of_the_hub_is_asked_for_where_something_is_made_and_not_in_a_dry_run(
    extracted, tmp_path, refused, monkeypatch
):
    # without a network the hub's own library tries for half a minute
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    request = extracted[1](output=str(tmp_path / "out"), tuned_lens="owner/tiny")
    request.check()
    with refused("tuned_lens 'owner/tiny'", "or an id of the hub's AlignmentResearch/tuned-lens"):
        request.resolve()


def test_a_lens_of_the_hub_lies_in_a_folder_of_its_space(extracted, tmp_path, monkeypatch):
    asked = []

    def download(space, name, *, repo_type, subfolder):
        asked.append((space, repo_type, subfolder))
        return str(tmp_path / "lens" / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    write_lens(tmp_path / "lens", base="owner/tiny")
    extracted[1](output=str(tmp_path / "out"), tuned_lens="owner/tiny").resolve()
    assert set(asked) == {("AlignmentResearch/tuned-lens", "space", "lens/owner/tiny")}


def test_a_model_whose_logits_are_not_those_of_its_head_takes_no_lens(tmp_path, save_tiny, refused):
    folder = save_tiny(transformers.CohereConfig(**GROUPED, logit_scale=0.25), tmp_path / "tiny")
    with refused("tuned_lens is given", folder, "leave it out"):
        lens_of(folder, write_lens(tmp_path / "lens"), np.arange(2, 42))
