"""Hidden states and loss are transformers' own, for real models and for families of tiny ones."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers
import xarray as xr
from oracles import brute_force

from token_geometry.geometry import gride, neighbors
from token_geometry.models import loading, sources
from token_geometry.observables import labelled
from token_geometry.states.model import LanguageModel
from token_geometry.texts import prompts

VOCABULARY = 600
"""More entries than one prompt of the tiny models has tokens."""


def forward_of_transformers(model, ids):
    """Hidden states (layer, token, width) and loss of token ids, by transformers alone."""
    ids = torch.as_tensor(np.asarray(ids, dtype=np.int64))[None]
    with torch.inference_mode():
        output = model(ids, labels=ids, output_hidden_states=True)
    return torch.cat(output.hidden_states).float(), float(output.loss)


def first_prompt(corpus, language_model, n_tokens):
    selection = prompts.select_prompts(corpus, [language_model.tokenizer], n_prompts=1, n_tokens=n_tokens, seed=0)
    return selection.prompts[0].token_ids


def logits_of_transformers(model, ids):
    """Logits of token ids by transformers alone, float64, shape (token, vocabulary)."""
    with torch.inference_mode():
        return model(torch.as_tensor(np.asarray(ids, dtype=np.int64))[None]).logits[0].double()


def entropy(logits):
    return torch.distributions.Categorical(logits=logits).entropy().numpy()


def distances(points):
    return torch.cdist(points.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist").numpy()


# SmolLM2


def test_loss_of_real_prompts_is_that_of_transformers(readings):
    for reading in readings:
        assert float(reading.observed["loss"]) == pytest.approx(reading.loss, abs=1e-5)
        token_loss = reading.shard["token_loss"].values
        assert np.isnan(token_loss[0])  # nothing precedes the first token
        assert token_loss[1:].mean() == pytest.approx(reading.loss, abs=1e-5)


def test_hidden_states_of_smollm2_are_those_of_transformers(smollm2, sotu):
    token_ids = first_prompt(sotu, smollm2, 300)
    states = smollm2.forward(token_ids)
    hidden, loss = forward_of_transformers(smollm2.model, token_ids)
    assert states.hidden.shape == (31, 300, 576)
    assert states.hidden.dtype == torch.float32
    torch.testing.assert_close(states.hidden, hidden, rtol=1e-6, atol=1e-6)
    assert states.loss == pytest.approx(loss, abs=1e-5)


def test_the_cloud_of_logits_has_the_dimension_of_the_logits_themselves(smollm2, sotu):
    token_ids = first_prompt(sotu, smollm2, 256)[:128]
    states = smollm2.forward(token_ids, logits=True)
    logits = logits_of_transformers(smollm2.model, token_ids)
    assert states.logits.shape == (128, 576) and logits.shape == (128, 49152)
    table = neighbors.neighbor_table(states.logits[None])
    shard = xr.Dataset({"logit_neighbor_distance": (("token", "rank"), table.distance[0])})
    found = labelled.logit_intrinsic_dimension(shard)["logit_intrinsic_dimension"]
    exact = gride.ratios(brute_force(logits.numpy()).table)
    expected, _ = gride.estimate(exact.T[:3], np.array([1, 2, 4]))  # which agrees with DADApy, see test_gride
    np.testing.assert_allclose(found.sel(scale=[2, 4, 8]), expected, rtol=1e-3)
    np.testing.assert_allclose(states.token_entropy[1:], entropy(logits)[:-1], atol=1e-4)
    assert states.entropy == pytest.approx(entropy(logits)[:-1].mean(), abs=1e-5)
    assert np.isnan(states.token_entropy[0])  # as of the loss, nothing predicts the first token


# Gemma


@pytest.fixture(scope="module")
def gemma3_prompt(gemma3, sotu):
    """One prompt of 256 tokens: its ids, its states, and transformers' with BOS before it."""
    token_ids = first_prompt(sotu, gemma3, 256)
    with_bos = [gemma3.tokenizer.bos_token_id, *token_ids]
    return token_ids, gemma3.forward(token_ids), forward_of_transformers(gemma3.model, with_bos)


def test_gemma_reads_its_bos_and_the_cloud_leaves_it_out(gemma3, gemma3_prompt):
    token_ids, states, (hidden, loss) = gemma3_prompt
    assert token_ids[0] != gemma3.tokenizer.bos_token_id
    assert states.hidden.shape == (19, 256, 640)
    torch.testing.assert_close(states.hidden, hidden[:, 1:], rtol=1e-6, atol=1e-6)
    assert states.loss == pytest.approx(loss, abs=5e-5)  # of 262144 terms, which transformers adds up in float32
    assert np.isfinite(states.token_loss).all()  # BOS precedes the first token
    logits = logits_of_transformers(gemma3.model, [gemma3.tokenizer.bos_token_id, *token_ids])[:-1]
    exact = [float(row.double().logsumexp(0) - row[token]) for row, token in zip(logits, token_ids, strict=True)]
    assert states.loss == pytest.approx(np.mean(exact), abs=2e-6)


def test_gemma_predicts_the_same_tokens_much_worse_without_its_bos(gemma3, gemma3_prompt):
    token_ids, states, _ = gemma3_prompt
    _, without_bos = forward_of_transformers(gemma3.model, token_ids)
    assert states.token_loss[1:].mean() < without_bos - 0.3


def test_logits_and_entropy_of_gemma_leave_its_bos_out_of_the_cloud(gemma3, sotu):
    token_ids = first_prompt(sotu, gemma3, 256)[:64]
    states = gemma3.forward(token_ids, logits=True)
    logits = logits_of_transformers(gemma3.model, [gemma3.tokenizer.bos_token_id, *token_ids])
    assert logits.shape == (65, 262144)
    np.testing.assert_allclose(distances(states.logits), distances(logits[1:]), rtol=1e-4)
    np.testing.assert_allclose(states.token_entropy, entropy(logits)[:-1], atol=1e-4)


def test_bos_of_gemma_is_no_point_of_the_cloud(gemma3_prompt):
    _, states, _ = gemma3_prompt
    middle = neighbors.neighbor_table(states.hidden[9:10])
    assert middle.distinct.shape == (1, 256)
    assert middle.distinct.sum() == 256
    # its norm is many times that of any token, so the farthest neighbor would show it
    assert states.hidden[9].norm(dim=1).max() < 20 * states.hidden[9].norm(dim=1).median()


# Families


SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,  # so that logits are far from zero
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
GEMMA = {"num_key_value_heads": 2, "head_dim": 8}

FAMILIES = {
    "llama": transformers.LlamaConfig(**SMALL, tie_word_embeddings=False),
    "gpt-neox": transformers.GPTNeoXConfig(**SMALL),
    "gemma2 caps its logits": transformers.Gemma2Config(**SMALL, **GEMMA, final_logit_softcapping=2.0),
    "gemma3": transformers.Gemma3TextConfig(**SMALL, **GEMMA),
    "cohere scales its logits": transformers.CohereConfig(**SMALL, logit_scale=0.25),
    "granite divides its logits": transformers.GraniteConfig(**SMALL, logits_scaling=4.0),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_loss_of_every_family_are_those_of_transformers(family, tmp_path, save_tiny):
    folder = save_tiny(FAMILIES[family], tmp_path)
    language_model = LanguageModel(sources.resolve(folder), device="cpu")
    assert language_model.prepend_bos == family.startswith("gemma")
    # longer than one chunk of the head
    token_ids = np.random.default_rng(0).integers(2, VOCABULARY, size=300)
    states = language_model.forward(token_ids)
    bos = [0] if language_model.prepend_bos else []
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder)
    hidden, loss = forward_of_transformers(reference.eval(), [*bos, *token_ids])
    assert states.hidden.shape == (4, 300, 32)
    torch.testing.assert_close(states.hidden, hidden[:, len(bos) :], rtol=1e-6, atol=1e-6)
    assert states.loss == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_every_family_are_as_far_apart_as_those_of_transformers(family, tmp_path, save_tiny):
    language_model = LanguageModel(sources.resolve(save_tiny(FAMILIES[family], tmp_path)), device="cpu")
    token_ids = np.random.default_rng(0).integers(2, VOCABULARY, size=300)
    assert language_model.forward(token_ids).logits is None
    states = language_model.forward(token_ids, logits=True)
    n_dropped = int(language_model.prepend_bos)
    logits = logits_of_transformers(language_model.model, [0] * n_dropped + token_ids.tolist())
    np.testing.assert_allclose(distances(states.logits), distances(logits[n_dropped:]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(states.token_entropy[1 - n_dropped :], entropy(logits)[:-1], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_latent_prediction_is_that_of_the_model_that_ends_at_the_layer(family, tmp_path, save_tiny):
    folder = save_tiny(FAMILIES[family], tmp_path)
    language_model = LanguageModel(sources.resolve(folder), device="cpu")
    bos = [0] * language_model.prepend_bos
    token_ids = np.random.default_rng(0).integers(2, VOCABULARY, size=300)
    loss, entropies = language_model.forward(token_ids, logits=True).lens
    if "logits" in family and "caps" not in family:  # what scales them stands behind the head
        assert np.isnan([loss, entropies]).all()
        return
    ids = np.array([*bos, *token_ids])
    place = language_model.head._lens_positions(len(ids), 4).numpy()
    assert 4 < len(set(place)) < 300 and place.min() > 0
    for layer in (1, 2, 3):
        kept = {"num_hidden_layers": layer}
        if hasattr(FAMILIES[family], "layer_types"):
            kept["layer_types"] = FAMILIES[family].layer_types[:layer]
        cut = transformers.AutoModelForCausalLM.from_pretrained(folder, **kept).eval()
        logits = logits_of_transformers(cut, ids)[place]
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids[place + 1]))
        assert loss[layer] == pytest.approx(float(expected), abs=1e-4)
        assert entropies[layer] == pytest.approx(entropy(logits).mean(), abs=1e-4)
    assert np.isfinite([loss[0], entropies[0]]).all()


def test_a_bias_of_the_head_moves_no_distance_and_is_counted_under_a_cap():
    for cap in (None, 2.0):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(FAMILIES["gemma2 caps its logits"])
        model.lm_head.bias = torch.nn.Parameter(torch.randn(VOCABULARY))
        model.config.final_logit_softcapping = cap
        source = dataclasses.replace(sources.resolve("smollm2-135m"), prepend_bos=False)
        language_model = LanguageModel(source, device="cpu", loaded=(model.eval(), None))
        token_ids = np.arange(2, 42)
        states = language_model.forward(token_ids, logits=True)
        logits = logits_of_transformers(model, token_ids)
        np.testing.assert_allclose(distances(states.logits), distances(logits), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", loading.DTYPES)
def test_states_are_float32_and_the_loss_that_of_transformers_in_every_dtype(dtype, tmp_path, save_tiny):
    folder = save_tiny(FAMILIES["llama"], tmp_path)
    language_model = LanguageModel(sources.resolve(folder), dtype=dtype, device="cpu")
    token_ids = np.arange(2, 102)
    states = language_model.forward(token_ids)
    _, loss = forward_of_transformers(language_model.model, token_ids)
    assert states.hidden.dtype == torch.float32
    assert language_model.model.dtype == getattr(torch, dtype)
    assert states.loss == pytest.approx(loss, abs=1e-5)


def test_a_token_outside_of_the_vocabulary_is_refused(tmp_path, refused, save_tiny):
    folder = save_tiny(FAMILIES["llama"], tmp_path)
    language_model = LanguageModel(sources.resolve(folder), device="cpu")
    with refused("token id 600", folder, "600 entries"):
        language_model.forward(np.array([5, 600, 7]))


def test_a_gemma_whose_tokenizer_has_no_bos_is_refused(tmp_path, refused, save_tiny):
    folder = save_tiny(FAMILIES["gemma3"], tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)
    with refused(folder, "BOS", "prepend_bos"):
        LanguageModel(sources.resolve(folder), device="cpu")
