"""GGUF files: what is made of them is transformers' model of the same configuration, or refused by a name."""

import json
import math

import gguf_files
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from token_geometry.models import loading, sources
from token_geometry.models.gguf import dequantized, header
from token_geometry.models.gguf import tokenizers as gguf_tokenizers
from token_geometry.requests.extraction import Extraction
from token_geometry.states.model import LanguageModel
from token_geometry.texts import corpora

IDS = np.random.default_rng(0).integers(0, 256, size=100)  # beyond the windows and original contexts of below
BASE = {**gguf_files.SMALL, **gguf_files.SIZES, "num_hidden_layers": 3}
RMS, NORM = {"attention.layer_norm_rms_epsilon": 1e-4}, {"attention.layer_norm_epsilon": 1e-4}
HEADS = {"attention.key_length": 32, "attention.value_length": 32}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(tmp_path / "cache"))


def llama(**options):
    return transformers.LlamaForCausalLM, transformers.LlamaConfig(**BASE, rms_norm_eps=1e-4, **options)


def gemma2(**options):
    config = transformers.Gemma2Config(**BASE, rms_norm_eps=1e-4, head_dim=32, sliding_window=16, **options)
    return transformers.Gemma2ForCausalLM, config


def gemma3(n_layers, **full):
    rope = {"full_attention": {"rope_theta": 1e6, **full}, "sliding_attention": {"rope_theta": 2e4}}
    for one in rope.values():
        one.setdefault("rope_type", "default")
    base = BASE | {"num_hidden_layers": n_layers, "rms_norm_eps": 1e-4, "head_dim": 32, "sliding_window": 16}
    return transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(**base, rope_parameters=rope)


def phi3(**options):
    return transformers.Phi3ForCausalLM, transformers.Phi3Config(**BASE, rms_norm_eps=1e-4, **options)


def rope(kind, **options):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **options}}


SHORT, LONG = [1.0, 1.1, 1.2, 1.5], [1.0, 2.0, 4.0, 8.0]
WINDOW = {"attention.sliding_window": 16}
GEMMA3 = RMS | HEADS | WINDOW | {"rope.freq_base": 1e6, "rope.freq_base_swa": 2e4}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
MOE = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 48}
IDS_OF = {key: gguf_files.SMALL[key] for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
FALCON = {**gguf_files.SMALL, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
FALCON |= {"layer_norm_epsilon": 1e-4}

# what is written → architecture, class and configuration, keys
FILES = {
    "plain": ("llama", llama(), RMS),
    "heads wider than the model": ("llama", llama(head_dim=32), RMS | {"attention.key_length": 32}),
    "biases in attention": ("llama", llama(attention_bias=True), RMS),
    "linear rope": (
        "llama",
        llama(**rope("linear", factor=4.0)),
        RMS | {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "linear rope without its type": (
        "llama",
        llama(**rope("linear", factor=2.0)),
        RMS | {"rope.scaling.factor": 2.0},
    ),
    "linear rope by its old key": ("llama", llama(**rope("linear", factor=2.0)), RMS | {"rope.scale_linear": 2.0}),
    "no rope scaling, said in words": ("llama", llama(), RMS | {"rope.scaling.type": "none"}),
    "yarn": ("llama", llama(**rope("yarn", factor=4.0, original_max_position_embeddings=64)), RMS | YARN),
    "yarn with a factor for attention": (
        "llama",
        llama(
            **rope(
                "yarn",
                factor=4.0,
                original_max_position_embeddings=64,
                attention_factor=1.5 * (0.1 * math.log(4) + 1),
            )
        ),
        RMS | YARN | {"rope.scaling.attn_factor": 1.5},
    ),
    "qwen2": ("qwen2", (transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**BASE, rms_norm_eps=1e-4)), RMS),
    "qwen3": (
        "qwen3",
        (transformers.Qwen3ForCausalLM, transformers.Qwen3Config(**BASE, rms_norm_eps=1e-4, head_dim=32)),
        RMS | {"attention.key_length": 32, "attention.value_length": 32},
    ),
    "qwen2 of experts": (
        "qwen2moe",
        (
            transformers.Qwen2MoeForCausalLM,
            transformers.Qwen2MoeConfig(
                **BASE, rms_norm_eps=1e-4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48,
                shared_expert_intermediate_size=56,
            ),
        ),
        RMS | MOE | {"expert_shared_feed_forward_length": 56},
    ),
    "gemma2 with other caps than 50 and 30": (
        "gemma2",
        gemma2(attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
        RMS | HEADS | WINDOW | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    ),
    "gemma2 with its scale of attention": (
        "gemma2",
        gemma2(query_pre_attn_scalar=64),
        RMS | HEADS | WINDOW | {"attention.scale": 0.125},
    ),
    "gemma3": ("gemma3", gemma3(7), GEMMA3),
    "gemma3 of 4 B and more": (
        "gemma3",
        gemma3(7, rope_type="linear", factor=8.0),
        GEMMA3 | {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
    "phi3 with a window": ("phi3", phi3(sliding_window=16), RMS | WINDOW),
    "stablelm turns a part": (
        "stablelm",
        (
            transformers.StableLmForCausalLM,
            transformers.StableLmConfig(**BASE, layer_norm_eps=1e-4, rope_theta=2e4, partial_rotary_factor=0.5),
        ),
        NORM | {"rope.freq_base": 2e4, "rope.dimension_count": 8},
    ),
    "starcoder2 with another base": (
        "starcoder2",
        (
            transformers.Starcoder2ForCausalLM,
            transformers.Starcoder2Config(**BASE, norm_epsilon=1e-4, rope_theta=1e5),
        ),
        NORM | {"rope.freq_base": 1e5},
    ),
    "yarn with other borders": (
        "llama",
        llama(
            **rope("yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=16.0, beta_slow=2.0)
        ),
        RMS | YARN | {"rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_beta_slow": 2.0},
    ),
    "qwen2 with yarn": (
        "qwen2",
        (
            transformers.Qwen2ForCausalLM,
            transformers.Qwen2Config(
                **BASE, rms_norm_eps=1e-4, **rope("yarn", factor=4.0, original_max_position_embeddings=64)
            ),
        ),
        RMS | YARN,
    ),
    "qwen3 of experts": (
        "qwen3moe",
        (
            transformers.Qwen3MoeForCausalLM,
            transformers.Qwen3MoeConfig(
                **BASE, rms_norm_eps=1e-4, head_dim=32, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True,
                moe_intermediate_size=48,
            ),
        ),
        RMS | HEADS | MOE,
    ),
    "phi3 turns a part": (
        "phi3",
        phi3(**rope("default", partial_rotary_factor=0.5)),
        RMS | {"rope.dimension_count": 8},
    ),
    "nemotron turns a part": (
        "nemotron",
        (transformers.NemotronForCausalLM, transformers.NemotronConfig(**BASE, norm_eps=1e-4)),
        NORM | {"rope.dimension_count": 8},
    ),
    "nemotron turns a part, linearly slower": (
        "nemotron",
        (
            transformers.NemotronForCausalLM,
            transformers.NemotronConfig(
                **BASE, norm_eps=1e-4, **rope("linear", factor=4.0, partial_rotary_factor=0.5)
            ),
        ),
        NORM | {"rope.dimension_count": 8, "rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "minimax-m2 turns a part and has experts": (
        "minimax-m2",
        (
            transformers.MiniMaxM2ForCausalLM,
            transformers.MiniMaxM2Config(
                **BASE, rms_norm_eps=1e-4, head_dim=32, rotary_dim=16, num_local_experts=4, num_experts_per_tok=2,
                **rope("default"),
            ),
        ),
        RMS | HEADS | MOE
        | {"expert_feed_forward_length": 96, "expert_gating_func": 2, "rope.dimension_count": 16},
    ),
    "lfm2 turns in one block of three": (
        "lfm2",
        (
            transformers.Lfm2ForCausalLM,
            transformers.Lfm2Config(
                **BASE, norm_eps=1e-4, layer_types=["conv", "full_attention", "conv"],
                block_auto_adjust_ff_dim=False, **rope("default"),
            ),
        ),
        RMS | {"attention.head_count_kv": [0, 2, 0], "shortconv.l_cache": 3},
    ),
    "qwen3.5 turns by sections in one block of four": (
        "qwen35",
        (
            transformers.Qwen3_5ForCausalLM,
            transformers.Qwen3_5TextConfig(
                **BASE | {"num_hidden_layers": 4}, rms_norm_eps=1e-4, head_dim=32, full_attention_interval=4,
                linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4,
                **rope("default", partial_rotary_factor=0.25, mrope_section=[2, 1, 1], mrope_interleaved=True),
            ),
        ),
        RMS | HEADS | {
            "rope.dimension_count": 8, "rope.dimension_sections": [2, 1, 1, 0], "full_attention_interval": 4,
            "ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 2, "ssm.time_step_rank": 4,
            "ssm.inner_size": 64,
        },
    ),
    "falcon, one head of keys": (
        "falcon",
        (transformers.FalconForCausalLM, transformers.FalconConfig(**FALCON)),
        NORM | {"attention.head_count_kv": 1, "tensor_data_layout": "jploski"},
    ),
    "gpt2 learns positions": (
        "gpt2",
        (
            transformers.GPT2LMHeadModel,
            transformers.GPT2Config(
                **IDS_OF, n_positions=512, n_embd=64, n_layer=3, n_head=4, layer_norm_epsilon=1e-4
            ),
        ),
        NORM,
    ),
    "bloom attends by distance": (
        "bloom",
        (
            transformers.BloomForCausalLM,
            transformers.BloomConfig(**IDS_OF, hidden_size=64, n_layer=3, n_head=4, layer_norm_epsilon=1e-4),
        ),
        NORM,
    ),
}  # fmt: skip

ROUNDED = {"qwen3.5 turns by sections in one block of four": 5e-4}
"""Where a file holds what was rounded when it was written (of decays the exponentials): largest difference."""


def written(folder, architecture, pair, keys, **options):
    model = gguf_files.random_model(*pair)
    described = gguf_files.keys_of(model.config) | keys
    return model, gguf_files.write(folder / "tiny.gguf", architecture, model=model, keys=described, **options)


def load(path):
    return LanguageModel(sources.resolve(str(path)), device="cpu")


def states_of(model, *, bos):
    ids = torch.from_numpy(np.concatenate([[257], IDS] if bos else [IDS]))[None]
    with torch.inference_mode():
        output = model(ids, labels=ids, output_hidden_states=True)
    return torch.cat(output.hidden_states)[:, int(bos) :], float(output.loss)


@pytest.mark.slow
@pytest.mark.parametrize("what", FILES)
def test_states_of_a_file_are_those_of_the_model_that_was_written_bit_for_bit(what, tmp_path):
    model, path = written(tmp_path, *FILES[what])
    found = load(path)
    states = found.forward(IDS)
    expected, loss = states_of(model, bos=found.prepend_bos)
    torch.testing.assert_close(states.hidden, expected, rtol=0, atol=ROUNDED.get(what, 0))
    assert states.loss == pytest.approx(loss, abs=1e-5)
    # the header alone says the same
    of_header = dequantized.read_config(path).to_dict()
    kept = found.model.config.to_dict()
    assert of_header.get("rope_parameters") == kept.get("rope_parameters")


def test_factors_of_single_frequencies_are_applied(tmp_path):
    # Llama 3.1 and later: the file holds what transformers computes from four numbers
    options = rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
    )
    kind, config = llama(**options)
    plain = 10000.0 ** (-np.arange(0, 16, 2) / 16)
    factors = plain / kind(config).model.rotary_emb.inv_freq.numpy()
    assert factors.max() == pytest.approx(8)
    model, path = written(tmp_path, "llama", (kind, config), RMS, tensors={"rope_freqs.weight": factors})
    expected, _ = states_of(model, bos=False)
    # the factors were rounded when they were written
    torch.testing.assert_close(load(path).forward(IDS).hidden, expected, rtol=1e-4, atol=1e-5)


def test_factors_of_long_and_short_texts_are_applied(tmp_path):
    options = rope(
        "longrope", partial_rotary_factor=0.5, short_factor=SHORT, long_factor=LONG,
        original_max_position_embeddings=64, attention_factor=1.2,
    )  # fmt: skip
    keys = {"rope.dimension_count": 8, "rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.2}
    tensors = {"rope_factors_long.weight": LONG, "rope_factors_short.weight": SHORT}
    pair = phi3(original_max_position_embeddings=64, **options)
    model, path = written(tmp_path, "phi3", pair, RMS | keys, tensors=tensors)
    for n_tokens in (40, 100):  # within the original context and beyond
        found = load(path).forward(IDS[:n_tokens]).hidden
        ids = torch.from_numpy(IDS[:n_tokens])[None]
        with torch.inference_mode():
            expected = torch.cat(model(ids, output_hidden_states=True).hidden_states)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


REFUSED = {
    "scaling of a kind that is not known": ({"rope.scaling.type": "alien", "rope.scaling.factor": 2.0}, "alien"),
    "a part of the heads is turned": ({"rope.dimension_count": 8}, "llama.rope.dimension_count = 8"),
    "experts": ({"expert_count": 8}, "llama.expert_count = 8"),
    "a cap": ({"final_logit_softcapping": 30.0}, "llama.final_logit_softcapping = 30.0"),
    "a window": ({"attention.sliding_window": 16}, "llama.attention.sliding_window = 16"),
    "a scale of the logits": ({"logit_scale": 0.0625}, "llama.logit_scale = 0.0625"),
    "a scale of the residuals": ({"residual_scale": 0.22}, "llama.residual_scale"),
    "a scale of the embeddings": ({"embedding_scale": 12.0}, "llama.embedding_scale = 12.0"),
    "a scale of attention": ({"attention.scale": 0.5}, "llama.attention.scale = 0.5"),
    "a limit of keys and queries": ({"attention.clamp_kqv": 8.0}, "llama.attention.clamp_kqv = 8.0"),
    "no causal attention": ({"attention.causal": False}, "llama.attention.causal = False"),
    "values of another width": ({"attention.value_length": 8}, "llama.attention.value_length = 8"),
    "a key of days to come": ({"hyperspace.factor": [1.0, 2.0]}, "llama.hyperspace.factor = [1.0, 2.0]"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_key_that_the_model_would_not_use_is_refused_by_its_name(what, tmp_path, refused):
    keys, words = REFUSED[what]
    _, path = written(tmp_path, "llama", llama(), RMS | keys)
    with refused(path, words, "transformers' format"):
        loading.load_config(sources.resolve(str(path)))
    with refused(path, words):
        load(path)


@pytest.mark.parametrize("keys", [{"expert_count": 0}, {"logit_scale": 1.0}, {"attention.causal": True}])
def test_a_key_that_changes_nothing_is_no_matter(keys, tmp_path):
    _, path = written(tmp_path, "llama", llama(), RMS | keys)
    assert loading.load_config(sources.resolve(str(path))).num_hidden_layers == 3


def test_a_falcon_whose_heads_share_keys_in_groups_is_refused(tmp_path, refused):
    # llama.cpp has the rows of queries, keys and values in another order, which transformers would not undo
    config = transformers.FalconConfig(**FALCON, num_kv_heads=2, new_decoder_architecture=True)
    pair = transformers.FalconForCausalLM, config
    _, path = written(tmp_path, "falcon", pair, NORM | {"attention.head_count_kv": 2})
    with refused(path, "blk.0.attn_norm_2.weight", "transformers' format"):
        loading.load_config(sources.resolve(str(path)))


def test_scaling_that_no_layer_of_a_gemma_would_use_is_refused(tmp_path, refused):
    _, path = written(tmp_path, "gemma3", gemma3(3), GEMMA3 | {"rope.scaling.factor": 8.0})
    with refused("gemma3.rope.scaling.factor = 8.0"):
        load(path)


@pytest.mark.parametrize("name", ["blk.0.attn_q.bias", "blk.1.ffn_gate_exps.weight", "blk.2.attn_rot_embd.weight"])
def test_a_tensor_that_the_model_would_not_use_is_refused_by_its_name(name, tmp_path, refused):
    _, path = written(tmp_path, "llama", llama(), RMS, tensors={name: np.ones(64)})
    with refused(path, name, "transformers' format"):
        loading.load_config(sources.resolve(str(path)))


def test_the_largest_gemmas_divide_by_another_width(tmp_path):
    # as published: 46 blocks of 32 heads, of which the width of the model would be 144 each
    keys = {"block_count": 46, "embedding_length": 4608, "feed_forward_length": 8, "attention.head_count": 32}
    keys |= {"attention.head_count_kv": 16, "attention.key_length": 128, "attention.value_length": 128}
    path = gguf_files.write(tmp_path / "27b.gguf", "gemma2", keys=RMS | keys)
    config = loading.load_config(sources.resolve(str(path)))
    assert (config.query_pre_attn_scalar, config.head_dim) == (144, 128)


def test_a_part_of_a_split_model_is_refused_at_once_with_the_way_to_merge(tmp_path, refused):
    written(tmp_path, "llama", llama(), RMS, split_max_tensors=10)
    for number in (1, 2, 3):
        part = tmp_path / f"tiny-{number:05d}-of-00003.gguf"
        request = Extraction(model=str(part), corpus="sotu", output=str(tmp_path / "o"), device="cpu")
        with refused(part, f"part {number} of 3", "--merge tiny-00001-of-00003.gguf"):
            request.check()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"no model at all", "it does not begin with GGUF"),
        (lambda content: content[:200], "it has 200 of 20"),
        (lambda content: content.replace(b"block_count", b"block_other"), "it lacks 'llama.block_count'"),
    ],
)
def test_what_is_wrong_with_a_damaged_file_is_said(damage, reason, tmp_path, refused):
    _, path = written(tmp_path, "llama", llama(), RMS)
    path.write_bytes(damage(path.read_bytes()))
    with refused(path, f"could not be read ({reason}", "take the whole file"):
        sources.resolve(str(path)).known_shape()


@pytest.mark.parametrize("architecture", ["gemma4", "cohere2", "rwkv6", "bert"])
def test_of_a_whole_file_that_transformers_makes_no_model_of_it_is_not_said_that_it_is_damaged(
    architecture, tmp_path, refused
):
    keys = gguf_files.keys_of(llama()[1]) | RMS
    path = gguf_files.write(
        tmp_path / "tiny.gguf", architecture, keys=keys, tensors={"token_embd.weight": np.ones(9)}
    )
    words = f"architecture {architecture!r}", "makes no model of it", "transformers' format"
    for read in (loading.load_config, lambda source: loading.load_model(source, dtype="float32", device="cpu")):
        with refused(path, *words):
            read(sources.resolve(str(path)))


def test_a_layer_beyond_the_last_is_refused_before_anything_is_dequantized(tmp_path, refused):
    _, path = written(tmp_path, "llama", llama(), RMS)
    source = sources.resolve(str(path))
    assert source.title == "tiny.gguf"
    with refused("layer 4", path, "0 to 3"):
        loading.load_model(source, dtype="float32", device="cpu", n_layers=4)
    assert not source.is_made()


# How texts are split

TEXTS = [
    "In 1863, 42 ships of 1,234,567 t — it's   WE'LL\n\n\n  done\t ",
    "def f(x):\n    return x**2  # $100\r\n\r\n\tpass",
    "日本語のテキスト、漢字。 한국어 ½ ³ Ⅷ ١٢٣ 🦙🦙🏽 é e\u0301",
    "HTTPServer camelCase don’t l'État ÀÉ\u00a0x",
]


def trained(rule, texts, normalizer=None):
    """A tokenizer with merges that cross every border which the rule does not draw."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = rule
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def steps(*first):
    return pre_tokenizers.Sequence([*first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
QWEN = CONTRACTIONS + (r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
# the rules of the families' own tokenizer.json
FAMILIES = {
    "gpt-2": (GPT2, None),
    "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(True), GPT2]), None),
    "starcoder": (pre_tokenizers.Sequence([pre_tokenizers.Digits(True), GPT2]), None),
    "qwen2": (steps(split(QWEN)), normalizers.NFC()),
    "llama-bpe": (steps(split(QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|"))), None),
    "falcon": (
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Punctuation("contiguous"),
                GPT2,
                pre_tokenizers.Digits(False),
                pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
            ]
        ),
        None,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("pre", FAMILIES)
def test_a_text_is_split_as_the_family_that_the_file_names_splits_it(pre, tmp_path):
    rule, normalizer = FAMILIES[pre]
    texts = [*TEXTS, *(text[:5000] for text in corpora.load_corpus("python-docs").texts.values())]
    # merges of longer pieces than any rule leaves, so that a border which is not drawn shows
    expected = trained(steps(split(r"\S+\s*")), texts, normalizer)
    vocabulary = [token for token, _ in sorted(expected.get_vocab().items(), key=lambda item: item[1])]
    merges = [" ".join(pair) for pair in json.loads(expected.to_str())["model"]["merges"]]
    path = gguf_files.write(
        tmp_path / "t.gguf", "llama", keys={"block_count": 1}, pre=pre, tokens=[*vocabulary, "<s>"], merges=merges,
        types=[1] * len(vocabulary) + [3], bos_token_id=len(vocabulary), eos_token_id=len(vocabulary),
        padding_token_id=len(vocabulary),
    )  # fmt: skip
    found = gguf_tokenizers.read(path, header.read(path))
    expected.pre_tokenizer = rule
    for text in texts:
        assert found(text, add_special_tokens=False)["input_ids"] == expected.encode(text).ids


def test_a_rule_that_is_not_known_is_refused_by_its_name(tmp_path, refused):
    path = gguf_files.write(
        tmp_path / "t.gguf", "llama", keys=gguf_files.keys_of(llama()[1]) | RMS, pre="lama-bpe"
    )
    for refuse in (lambda source: source.check_files(), loading.load_tokenizer):
        with refused(path, "tokenizer.ggml.pre 'lama-bpe'", "did you mean 'llama-bpe'?", "transformers' format"):
            refuse(sources.resolve(str(path)))
    path = gguf_files.write(tmp_path / "t.gguf", "llama", model_kind="rwkv", pre=None)
    with refused(path, "tokenizer.ggml.model 'rwkv'"):
        sources.resolve(str(path)).check_files()


@pytest.mark.parametrize("space_before", [True, False])
def test_a_sentencepiece_vocabulary_splits_as_sentencepiece_does(space_before, sentencepiece_model, tmp_path):
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_proto=sentencepiece_model)
    count = range(pieces.vocab_size())
    kinds = (pieces.is_unknown, 2), (pieces.is_control, 3), (pieces.is_byte, 6)
    path = gguf_files.write(
        tmp_path / "t.gguf", "llama", keys=gguf_files.keys_of(llama()[1]) | RMS, model_kind="llama", pre="default",
        tokens=[pieces.id_to_piece(n) for n in count], merges=(), scores=[pieces.get_score(n) for n in count],
        types=[next((kind for known, kind in kinds if known(n)), 1) for n in count],
        bos_token_id=1, eos_token_id=2, unknown_token_id=0, add_space_prefix=space_before,
    )  # fmt: skip
    found = gguf_tokenizers.read(path, header.read(path))
    space = pieces.encode("")  # a text of which nothing is left but the space before it
    for text in [
        *TEXTS,
        "  two",
        " one",
        *(text[:5000] for text in corpora.load_corpus("python-docs").texts.values()),
    ]:
        ids = found(text, add_special_tokens=False)["input_ids"]
        assert found.decode(ids, skip_special_tokens=True).strip() == text.strip() and not space
        if space_before:
            assert ids == pieces.encode(text)
