"""A layer means the same in every family, or the family is refused in one line."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from token_geometry.models import loading, sources
from token_geometry.states.model import LanguageModel

N_LAYERS = 3
VOCABULARY = 96
TOKENS = np.random.default_rng(0).integers(2, VOCABULARY, size=24)

WIDE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": N_LAYERS,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
SMALL = {**WIDE, "intermediate_size": 48, "num_attention_heads": 4, "max_position_embeddings": 128}
SMALL["initializer_range"] = 0.3
GEMMA = {"num_key_value_heads": 2, "head_dim": 8}
LLAMA = transformers.LlamaConfig(**SMALL)

STATE_SPACES = {
    "mamba": transformers.MambaConfig(**WIDE, state_size=8, initializer_range=0.3),
    "mamba2": transformers.Mamba2Config(
        **WIDE, state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=8, initializer_range=0.3
    ),
    "falcon-mamba": transformers.FalconMambaConfig(**WIDE, state_size=8, initializer_range=0.3),
    "rwkv": transformers.RwkvConfig(**WIDE, attention_hidden_size=32, context_length=64),
}
"""Families whose `hidden_states` begin after the first block."""

STREAMS = {
    "gpt1": transformers.OpenAIGPTConfig(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=N_LAYERS, n_head=4, initializer_range=0.3
    ),
    "llama4 is its own trunk": transformers.Llama4TextConfig(
        **{**SMALL, "pad_token_id": None}, **GEMMA, intermediate_size_mlp=48, num_local_experts=2
    ),
    "bart has fewer blocks in its encoder": transformers.BartConfig(
        vocab_size=VOCABULARY, d_model=32, encoder_layers=1, decoder_layers=N_LAYERS, decoder_attention_heads=4,
        decoder_ffn_dim=48, max_position_embeddings=128, init_std=0.3,
    ),
    "bert as a decoder": transformers.BertConfig(**SMALL, is_decoder=True),
    "zamba shares weights between blocks": transformers.ZambaConfig(
        **SMALL, layers_block_type=["linear_attention", "hybrid", "hybrid"], attention_hidden_size=64,
        attention_head_dim=16, mamba_d_state=8, num_key_value_heads=4,
    ),
}  # fmt: skip
"""Families whose blocks are kept or give their states in other ways than most."""


def load(folder, **options):
    return LanguageModel(sources.resolve(str(folder)), device="cpu", **options)


def hidden_states(folder, dtype=torch.float32):
    """transformers' own, its embeddings of the tokens, and its loss."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    ids = torch.from_numpy(TOKENS)[None]
    with torch.inference_mode():
        output = model(ids, labels=ids, output_hidden_states=True, use_cache=False)
        return torch.cat(output.hidden_states).float(), model.get_input_embeddings()(ids)[0], float(output.loss)


@pytest.fixture
def save(save_tiny, tmp_path):
    return lambda config: save_tiny(config, tmp_path / "tiny")


# One meaning of a layer


@pytest.mark.parametrize("family", STATE_SPACES)
def test_layers_of_models_with_a_state_begin_at_the_embeddings_and_end_after_the_norm(family, save):
    folder = save(STATE_SPACES[family])
    theirs, embeddings, loss = hidden_states(folder)
    states = load(folder).forward(TOKENS)
    assert torch.equal(states.hidden, torch.cat([embeddings[None], theirs[:-2], theirs[-1:]]))
    assert states.loss == pytest.approx(loss, abs=1e-5)
    before = load(folder).forward(TOKENS, final_norm=False).hidden
    assert torch.equal(before[-1], theirs[-2]) and torch.equal(before[:-1], states.hidden[:-1])


@pytest.mark.parametrize("family", STREAMS)
def test_states_of_models_that_keep_their_blocks_otherwise_are_those_of_transformers(family, save):
    folder = save(STREAMS[family])
    theirs, *_ = hidden_states(folder)
    assert torch.equal(load(folder).forward(TOKENS).hidden, theirs)


@pytest.mark.parametrize("family", STATE_SPACES | STREAMS)
def test_a_layer_of_the_first_blocks_alone_is_that_of_the_whole_model(family, save):
    folder = save((STATE_SPACES | STREAMS)[family])
    whole = load(folder).forward(TOKENS).hidden
    assert whole.shape == (N_LAYERS + 1, 24, 32)
    for n_layers in range(N_LAYERS):
        assert torch.equal(load(folder, n_layers=n_layers).forward(TOKENS).hidden, whole[: n_layers + 1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_head_in_half_precision_takes_states_that_the_family_keeps_in_float32(dtype, save):
    folder = save(STATE_SPACES["mamba"])
    _, _, loss = hidden_states(folder, getattr(torch, dtype))
    states = load(folder, dtype=dtype).forward(TOKENS, logits=True)
    assert states.loss == pytest.approx(loss, abs=1e-5)
    assert states.logits.isfinite().all()


def test_the_blocks_count_where_the_configuration_counts_their_halves(save):
    config = transformers.LongcatFlashConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_attention_heads=4, ffn_hidden_size=48,
        expert_ffn_hidden_size=48, q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8,
        v_head_dim=8, head_dim=8, qk_head_dim=16, moe_topk=2, n_routed_experts=4, zero_expert_num=2,
        max_position_embeddings=128, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    folder = save(config)
    assert config.num_hidden_layers == 4
    theirs, *_ = hidden_states(folder)
    assert torch.equal(load(folder).forward(TOKENS).hidden, theirs) and len(theirs) == 3
    assert torch.equal(load(folder, n_layers=1).forward(TOKENS).hidden, theirs[:2])


def test_threads_that_share_a_model_get_the_states_of_their_own_prompts(save):
    model = load(save(LLAMA))
    prompts = [np.roll(TOKENS, n) for n in range(40)]
    expected = [model.forward(prompt, final_norm=False).hidden for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda prompt: model.forward(prompt, final_norm=False).hidden, prompts)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


# Models that see more than what stands before


def encoder(**more):
    return transformers.BertConfig(**SMALL, **more)


@pytest.mark.parametrize("n_layers", [None, 1])
@pytest.mark.parametrize(
    "config",
    [
        encoder(),
        transformers.Gemma3TextConfig(**SMALL, **GEMMA, sliding_window=8, use_bidirectional_attention=True),
    ],
    ids=["bert", "embedding-gemma"],
)
def test_a_model_that_sees_the_tokens_behind_a_token_is_refused(config, n_layers, save, refused):
    model = load(save(config), n_layers=n_layers)
    with refused(model.source.name, "sees the tokens behind a token", "choose a causal language model"):
        model.forward(TOKENS)
    with refused("sees the tokens behind a token"):
        model.read_texts([[5, 6, 7], [5, 6]], losses=False)[0]


@pytest.mark.parametrize("dtype", loading.DTYPES)
def test_a_causal_family_whose_configuration_says_otherwise_is_refused(dtype, save, refused):
    folder = save(LLAMA)
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"is_causal": False}))
    with refused("LlamaForCausalLM", "sees the tokens behind a token"):
        load(folder, dtype=dtype).forward(np.full(4, 7))  # all tokens alike


def test_a_model_that_is_changed_by_the_texts_beside_a_text_reads_each_alone(save):
    model = load(save(LLAMA))
    middle = model.model.model.layers[1].mlp
    middle.register_forward_hook(lambda block, given, output: output - output.mean(0) * (len(output) > 1))
    prompts = np.stack([TOKENS, TOKENS[::-1]])
    for one, prompt in zip(model.forward_batch(prompts), prompts, strict=True):
        torch.testing.assert_close(one.hidden, model.forward(prompt.copy()).hidden)
    texts = [TOKENS[:9].tolist(), TOKENS[3:5].tolist()]
    model._shares_prefixes = False
    for found, text in zip(model.read_texts(texts, losses=False)[0].transpose(0, 1), texts, strict=True):
        torch.testing.assert_close(found, model.forward(np.array(text)).hidden[:, -1])


def test_statements_longer_than_the_window_of_a_model_do_not_share_what_lies_outside(save):
    model = load(save(transformers.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=8)))
    model.read_texts([[5, 6, 7], [5, 6, 8]], losses=False)[0]
    assert model._shares_prefixes
    text = TOKENS.tolist()
    found = model.read_texts([text, text[:20]], losses=False)[0][:, 0]
    torch.testing.assert_close(found, model.forward(TOKENS).hidden[:, -1], rtol=1e-4, atol=1e-4)


# Refused in one line


def test_streams_that_are_no_vector_per_token_are_refused(save, refused):
    config = transformers.Gemma3nTextConfig(
        **{**SMALL, "intermediate_size": [48] * N_LAYERS}, **GEMMA, num_kv_shared_layers=0, laurel_rank=8,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCABULARY, sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
        activation_sparsity_pattern=[0.0] * N_LAYERS,
    )  # fmt: skip
    model = load(save(config))
    with refused(model.source.name, "Gemma3nForCausalLM", "(4, ", "one vector per token"):
        model.forward(TOKENS)


def test_blocks_that_are_no_chain_are_refused(save, refused):
    config = transformers.XLMConfig(
        vocab_size=VOCABULARY, emb_dim=32, n_layers=N_LAYERS, n_heads=4, causal=True, max_position_embeddings=128,
        bos_index=0, eos_index=1, pad_index=1, use_lang_emb=False,
    )  # fmt: skip
    with refused("XLMWithLMHeadModel", "no residual stream"):
        load(save(config)).forward(TOKENS)


def test_a_last_state_of_another_width_is_refused_and_the_layers_before_it_are_not(save, refused):
    config = transformers.OPTConfig(
        **{k: v for k, v in SMALL.items() if k not in ("intermediate_size", "initializer_range")},
        ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False,
    )  # fmt: skip
    folder = save(config)
    with refused(folder, "another width (16, not 32)", "take layers 0 to 2", "in an extraction"):
        load(folder).read_texts([[5, 6, 7]], losses=False)[0]
    assert load(folder, n_layers=2).read_texts([[5, 6, 7]], losses=False)[0].shape == (3, 1, 32)


def test_a_context_is_found_by_the_names_that_families_give_it_or_not_at_all(save, refused):
    mpt = save(transformers.MptConfig(vocab_size=VOCABULARY, d_model=32, n_layers=2, n_heads=4, max_seq_len=16))
    with refused("n_tokens is 24", "accepted: up to 16"):
        load(mpt).forward(TOKENS)
    with refused("a text has 24 tokens", "reads 16"):
        load(mpt).read_texts([TOKENS.tolist()], losses=False)[0]
    xlnet = transformers.XLNetConfig(vocab_size=VOCABULARY, d_model=32, n_layer=2, n_head=4, d_inner=48)
    with refused("xlnet", "take a causal language model"):
        load(save(xlnet)).forward(TOKENS)


def test_a_family_that_fails_in_half_precision_is_refused_with_its_reason(save, refused):
    config = transformers.xLSTMConfig(**WIDE, embedding_dim=32, num_blocks=N_LAYERS, num_heads=4, chunk_size=8)
    folder = save(config)
    assert np.isfinite(load(folder).forward(TOKENS).loss)
    with refused(folder, "bfloat16", "take another dtype"):
        load(folder, dtype="bfloat16").forward(TOKENS)


def test_models_that_are_no_language_models_are_refused(tmp_path, refused):
    transformers.ViTConfig().save_pretrained(tmp_path)
    with refused("vit", "take a causal language model"):
        load(f"{tmp_path}@random")
