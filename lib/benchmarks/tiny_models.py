"""Tiny random models of every family that transformers registers, made from the family's own defaults."""

import re
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 96
LAYERS = 3

# Sizes by the names that families give them; the first pattern that a whole name fits counts.
_SIZES: list[tuple[str, int]] = [
    (r"vocab_size|vocab_size_per_layer_input|.*_vocab_size|n_words", VOCABULARY),
    (r"num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|num_(en|de)coder_layers", LAYERS),
    (r"num_kv_shared_layers", LAYERS),
    (r"num_key_value_heads|num_kv_heads|.*_num_key_value_heads|n_head_kv", 2),
    (r"linear_num_key_heads|index_n_heads", 2),
    (r"mamba_n_heads|mamba_num_heads|n_mamba_heads", 8),
    (r".*attention_heads|n_heads?|num_heads|.*_num_heads|linear_num_value_heads", 4),
    (r"hidden_size_per_layer_input|laurel_rank", 8),
    (r"hidden_size|d_model|n_embd|emb_dim|embedding_size|.*_embed_proj_dim|attention_hidden_size|lru_width", 32),
    (r".*embedding_dim|.*put_embedding_size|.*_hidden_size|hidden_size_global|embed_dim", 32),
    (r"adapter_(in|out)_dim|adapter_input_size", 32),
    (r".*intermediate_size|.*ffn_dim|n_inner|d_ff|dff|d_inner|dim_ff|ffn_hidden_size|mlp_dim", 48),
    (r"num_experts|num_local_experts|n_routed_experts|moe_num_experts|num_moe_experts", 4),
    (r"num_experts_per_tok(en)?|moe_top_?k|top_?k_experts|moe_topk|num_selected_experts", 2),
    (r"n_group|num_expert_groups?", 2),
    (r"topk_group", 1),
    (r"zero_expert_num|n_zero_experts", 2),
    (r"qk_head_dim", 16),
    (r"(kv|q|o)_lora_rank|.*_lora_rank|index_head_dim|gated_norm_rank", 8),
    (r"qk_rope_head_dim|qk_nope_head_dim|v_head_dim|.*head_dim|dim_head|d_kv|d_head|mamba_d_head", 8),
    (r"state_size|mamba_d_state|ssm_state_size|linear_(key|value)_head_dim", 8),
    (r"chunk_size|mamba_chunk_size", 8),
    (r"n_groups|mamba_n_groups|mamba_ngroups", 1),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|context_length|max_source_positions", 128),
    (r"max_target_positions|model_max_length|max_length", 128),
    (r"(.*_)?sliding_window(_size)?|attention_window_size|local_attention|window_size", 8),
    (r"index_topk", 8),
    (r"image_size", 16),
    (r"patch_size", 8),
]


def config_of(model_type: str, **more):
    """A tiny configuration of a family, by its defaults but for the sizes."""
    kind = CONFIG_MAPPING[model_type]
    defaults = kind(**_NEEDED.get(model_type, {})).to_dict()
    return kind(**_shrunk(kind, defaults) | SPECIAL.get(model_type, {}) | more)


def save(config, folder: Path) -> Path:
    """Save a random model of a configuration with a tokenizer of the words w3, w4, …"""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(3)  # as drawn, blocks hardly change the states
    model.save_pretrained(folder)
    save_files(config, folder)  # as it is published: a few classes save a part of it
    return folder


def save_files(config, folder: Path) -> None:
    """Save a configuration with a tokenizer, and no weights."""
    config.save_pretrained(folder)
    words = {"<s>": 0, "</s>": 1, "<unk>": 2} | {f"w{n}": n for n in range(3, VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)


def _shrunk(kind: type, defaults: dict) -> dict:
    """The defaults of a configuration that are too large, made small."""
    depth = defaults.get("num_hidden_layers") or defaults.get("n_layer") or 0
    small: dict = {}
    for name, value in defaults.items():
        if name in kind.sub_configs and isinstance(value, dict):
            sub = kind.sub_configs[name]
            sub = CONFIG_MAPPING[value["model_type"]] if sub.__name__ == "AutoConfig" else sub
            more = SPECIAL.get(value.get("model_type"), {})
            needed = _NEEDED.get(kind.model_type, {}).get(name, {})
            small[name] = needed | _shrunk(sub, sub(**value).to_dict()) | more
            small[name] |= {"model_type": value["model_type"]} if value.get("model_type") else {}
        elif name.endswith(("token_id", "token_index")):
            if isinstance(value, int) or name in _SPECIAL_TOKENS:
                small[name] = _SPECIAL_TOKENS.get(name, VOCABULARY - 1 - len(name) % 5)
        elif isinstance(value, list) and depth > LAYERS and len(value) == depth:
            small[name] = _few(value, name)
        elif isinstance(value, int) and not isinstance(value, bool):
            size = _size(name)
            if size is not None and (value > size or value < 0):
                small[name] = size
            if name == "num_key_value_heads" and value == defaults.get("num_attention_heads"):
                small[name] = 4
    return small


def _size(name: str) -> int | None:
    return next((size for pattern, size in _SIZES if re.fullmatch(pattern, name)), None)


def _few(values: list, name: str) -> list:
    """Entries of a list of one per layer: every kind is kept, as far as there is room."""
    if isinstance(values[0], int) and _size(name):
        return [_size(name)] * LAYERS
    kinds: list = []
    for value in values:
        if value not in kinds:
            kinds.append(value)
    return (kinds + [values[0]] * LAYERS)[:LAYERS]


_SPECIAL_TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}

_NO_LAYER_INPUT = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
_NEEDED = {"gemma4_assistant": {"text_config": {"model_type": "gemma4_text", **_NO_LAYER_INPUT}}}
"""Without which a family has no default configuration."""

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}

SPECIAL: dict[str, dict] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 100},
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots3_note_text": {"per_layer_config": {}, "head_dim": 16},
    "ernie4_5_moe": {"moe_k": 2},
    "gemma3n_text": {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.95, 0.95, 0.0]},
    "gemma4_unified_text": {"per_layer_config": {}},
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]]},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 4},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "hc_lowrank": 8,
    },
    "reformer": {"is_decoder": True, "axial_pos_shape": [8, 16], "axial_pos_embds_dim": [8, 24]},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_headdim": 8,
    },
}
"""What single families need besides."""
