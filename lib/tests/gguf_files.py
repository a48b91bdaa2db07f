"""Tiny GGUF files of random models, as llama.cpp's converter lays them out."""

import gguf
import numpy as np
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

N_PLAIN = 257
VOCABULARY = [*bytes_to_unicode().values(), "ab", "<s>", "</s>", "<pad>"]
SIZES = dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2)
SMALL = dict(
    vocab_size=len(VOCABULARY), bos_token_id=257, eos_token_id=258, pad_token_id=259, max_position_embeddings=512
)


def random_model(kind, config):
    """A model of this class and configuration whose weights all matter, norms and biases included."""
    torch.manual_seed(0)
    model = kind(config).eval()
    kept = [buffer for name, buffer in model.named_buffers() if name.endswith("correction_bias")]
    with torch.no_grad():
        for weights in (*model.parameters(), *kept):
            weights.copy_(weights + 0.15 * torch.randn_like(weights))
    return model


def keys_of(config) -> dict:
    """The keys that describe a network of this configuration, without the architecture before them."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = {"rope.dimension_count": head, "rope.freq_base": 10000.0}
    return {
        "context_length": getattr(config, "max_position_embeddings", SMALL["max_position_embeddings"]),
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": getattr(config, "intermediate_size", 4 * config.hidden_size),
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", config.num_attention_heads),
        "vocab_size": config.vocab_size,
        **(turned if hasattr(config, "rope_parameters") else {}),
    }


def write(
    path, architecture, *, model=None, keys=(), tensors=(), pre="gpt-2", tokens=VOCABULARY, merges=("a b",), **more
):
    """Write a file of `model` (None: of no weights) with these keys and further tensors.

    `more`: keys of the tokenizer, without `tokenizer.ggml.` before them, and `split_max_tensors`.
    """
    split = {"split_max_tensors": more.pop("split_max_tensors")} if "split_max_tensors" in more else {}
    writer = gguf.GGUFWriter(path, architecture, **split)
    writer.add_name("tiny")
    for key, value in dict(keys).items():
        name = key if key.startswith("general.") else f"{architecture}.{key}"
        _add(writer, name, value)
    kind = more.pop("model_kind", "gpt2")
    writer.add_tokenizer_model(kind)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(list(tokens))
    if merges:
        writer.add_token_merges(list(merges))
    defaults = {} if kind == "llama" else {"bos_token_id": 257, "eos_token_id": 258, "padding_token_id": 259}
    types = more.pop("types", [1] * N_PLAIN + [3] * (len(tokens) - N_PLAIN))
    writer.add_token_types(types)
    if "scores" in more:
        writer.add_token_scores(more.pop("scores"))
    for key, value in (defaults | more).items():
        _add(writer, f"tokenizer.ggml.{key}", value)
    for name, values in [
        *({} if model is None else _tensors(model, architecture)).items(),
        *dict(tensors).items(),
    ]:
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer, key, value):
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    add.get(type(value), writer.add_array)(key, value)


def _tensors(model, architecture):
    """Tensors by llama.cpp's names and in its order of rows."""
    config = model.config
    (arch,) = (key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found = {}
    for name, weights in model.state_dict().items():
        name = name.removeprefix("transformer.") if architecture == "bloom" else name
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = weights.float().numpy()
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            # row i of the first and of the second half of a head become neighbors
            halves = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        offset = architecture.startswith(("gemma", "nemotron", "qwen35")) and ".linear_attn." not in name
        if offset and "norm" in name and name.endswith("weight"):
            values = values + 1
        if "conv" in name and values.ndim == 3:
            values = values.squeeze(1)
        if "linear_attn" in name:
            values = _with_tiled_heads(name, values, config)
        if architecture == "gpt2" and any(part in name for part in ("c_attn.w", "c_proj.w", "c_fc.w")):
            values = values.T
        if architecture == "bloom" and "query_key_value" in name:  # of each head together
            parts = values.reshape(config.num_attention_heads, 3, -1, *values.shape[1:])
            values = parts.swapaxes(0, 1).reshape(values.shape)
        if name.endswith("gate_up_proj"):  # of all experts
            block = name.split(".")[2]
            for part, half in zip(("gate", "up"), np.split(values, 2, axis=1), strict=True):
                found[f"blk.{block}.ffn_{part}_exps.weight"] = half
            continue
        if name.endswith("experts.down_proj"):
            name += ".weight"
        name = name.replace(".dt_bias", ".dt_proj.bias").replace("correction_bias", "correction.bias")
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        found[stored] = values[0] if "ffn_gate_inp_shexp" in stored else values
    return found


def _with_tiled_heads(name, values, config):
    """A tensor of linear attention with heads of values in another order, and what llama.cpp makes of decays."""
    groups = config.linear_num_key_heads
    keys = 2 * groups * config.linear_key_head_dim if "qkv" in name or "conv1d" in name else 0
    if "norm" in name:
        return values
    if "A_log" in name:
        values = -np.exp(values)
    axis = int("out_proj" in name)
    kept, moved = np.split(values, [keys], axis=axis)
    moved = np.moveaxis(moved, axis, 0)
    tiles = moved.reshape(groups, config.linear_num_value_heads // groups, -1, *moved.shape[1:])
    return np.concatenate([kept, np.moveaxis(tiles.swapaxes(0, 1).reshape(moved.shape), 0, axis)], axis=axis)
