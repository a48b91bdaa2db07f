"""Configurations of GGUF files: what transformers reads of a header, what it drops, and what nobody can use.

Every key and every tensor of a file is accounted for. transformers reads some keys; of those that it drops the
ones below are applied; a key or tensor that is left would make other numbers in llama.cpp than here, so it is
refused by its name. Meanings are those of the GGUF specification
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

import math
from collections import UserDict
from pathlib import Path

from token_geometry.base import InputError, files
from token_geometry.base.lazy import torch, transformers
from token_geometry.models import families
from token_geometry.models.gguf.header import Header

_NO_NUMBERS = ("general.", "tokenizer.", "split.", "quantize.")  # beginnings of keys that decide no number

_HARMLESS = {
    "attention.causal": lambda value, config: value is True,
    "attention.head_count_kv": lambda value, config: value == config.num_attention_heads,
    "expert_gating_func": lambda value, config: value == (2 if config.model_type == "minimax_m2" else 1),
    "feed_forward_length": lambda value, config: value == 4 * config.hidden_size,
    **dict.fromkeys(("context_length", "rope.scaling.finetuned", "tensor_data_layout"), lambda *_: True),
}
"""Keys that change nothing, if they have such a value."""

_TABLE = files.table(__file__)
_ATTRIBUTES, _SCALING, _CHECKED_HERE = _TABLE["attributes"], _TABLE["scaling"], {*_TABLE["checked_here"]}
_FACTORS = ("rope_freqs.", "rope_factors_")  # beginnings of tensors that scale the rotary embedding

# of 27 B parameters: they divide by the width of a head as if all heads made up the width of the model
_GEMMA_27B = {("gemma2", 46), ("gemma3", 62)}


def read(path: Path, head: Header):
    """The configuration of the model in a GGUF file with this header, a transformers `PreTrainedConfig`;
    `InputError` if the file holds a key or tensor that the model would not use."""
    if head.metadata.get(f"{head.metadata['general.architecture']}.block_count", 0) >= 10_000:
        raise ValueError("it counts too many blocks")  # transformers would lay out each
    config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    families.refuse_other_kinds(config, path.name)
    _Keys(path, head, config).apply()
    _refuse_unused_tensors(path, head, config)
    return config


class _Keys:
    """The keys of a file that transformers leaves, which are taken one by one."""

    def __init__(self, path: Path, head: Header, config):
        self.path, self.config, self.tensors = path, config, head.tensors
        self.architecture = head.metadata["general.architecture"]
        read = _read_by_transformers(self.architecture, head, config) - _CHECKED_HERE
        named = {key.removeprefix(f"{self.architecture}."): key for key in head.metadata}
        left = {name for name, key in named.items() if not key.startswith(_NO_NUMBERS)} - read
        self.values = {name: head.metadata[key] for name, key in named.items() if name in left}
        self.take = self.values.pop

    def apply(self) -> None:
        """Apply what is left to the configuration, and refuse the rest."""
        for attribute, name in (("attention_bias", "attn_output"), ("mlp_bias", "ffn_up")):
            if hasattr(self.config, attribute) and f"blk.0.{name}.bias" in self.tensors:
                setattr(self.config, attribute, True)
        if hasattr(self.config, "num_attention_heads"):
            self._heads()
        pattern = self.values.get("attention.sliding_window_pattern")
        if pattern and hasattr(self.config, "layer_types"):
            numbers = range(self.config.num_hidden_layers)
            slides = pattern if isinstance(pattern, list) else [bool((i + 1) % pattern) for i in numbers]
            self.config.layer_types = [f"{'sliding' if one else 'full'}_attention" for one in slides]
            self.take("attention.sliding_window_pattern")
        if hasattr(self.config, "rope_parameters"):
            self._rope()
        for key, value in self.values.items():
            names = [name for name in _ATTRIBUTES.get(key, ()) if hasattr(self.config, name)]
            # Qwen has the attribute and leaves it alone unless another one is set
            if names and not (key == "attention.sliding_window" and hasattr(self.config, "use_sliding_window")):
                setattr(self.config, names[0], value)
            elif not self._changes_nothing(key, value):
                raise self.unused(key)

    def unused(self, key: str) -> InputError:
        """The error for a key that the model would not use."""
        value = self.values[key]
        return _unused(self.path, f"{self.architecture}.{key}" + ("" if value is None else f" = {value}"))

    def _changes_nothing(self, key: str, value) -> bool:
        if key in _HARMLESS:
            return _HARMLESS[key](value, self.config)
        return value is not None and not value or key.endswith("_scale") and value == 1.0

    def _heads(self) -> None:
        config = self.config
        width = config.hidden_size // config.num_attention_heads
        length = self.take("attention.key_length", width)
        if length != (getattr(config, "head_dim", None) or width):
            config.head_dim = length
        if self.values.get("attention.value_length") == length:
            self.take("attention.value_length")
        scale = self.values.get("attention.scale")
        if hasattr(config, "query_pre_attn_scalar"):
            if (self.architecture, config.num_hidden_layers) in _GEMMA_27B:
                config.query_pre_attn_scalar = width
            if scale and math.isclose(divisor := round(scale**-2), scale**-2, rel_tol=1e-5):
                config.query_pre_attn_scalar = divisor
                self.take("attention.scale")
        elif scale and math.isclose(scale, length**-0.5, rel_tol=1e-6):
            self.take("attention.scale")

    def _rope(self) -> None:
        config, rope = self.config, self.config.rope_parameters
        nested = "full_attention" in rope
        main = rope["full_attention"] if nested else rope
        if "rope.freq_base" in self.values:
            main["rope_theta"] = self.take("rope.freq_base")
        if nested and "rope.freq_base_swa" in self.values:
            rope["sliding_attention"]["rope_theta"] = self.take("rope.freq_base_swa")
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        turned = self.values.get("rope.dimension_count")
        if turned and "partial_rotary_factor" in main:
            main["partial_rotary_factor"] = self.take("rope.dimension_count") / width
        elif turned == width:
            self.take("rope.dimension_count")
        scaling = self._scaling()
        if scaling and nested and "full_attention" not in config.layer_types:
            raise self.unused("rope.scaling.factor")
        for key in _SCALING if scaling else _SCALING[:3]:
            self.take(key, None)
        main |= scaling

    def _scaling(self) -> dict:
        """Scaling of the rotary embedding in transformers' words; nothing, where there is none."""
        said = {key.rpartition(".")[2]: self.values[key] for key in _SCALING if key in self.values}
        # llama.cpp takes a factor without a type for a linear one
        kind, factor = said.get("type", "linear"), said.get("factor") or said.get("scale_linear") or 1.0
        attention = said.get("attn_factor", 1.0)
        original = said.get("original_context_length") or self.config.max_position_embeddings
        if factors := [name for name in self.tensors if name.startswith(_FACTORS)]:
            return self._factors(factors, original, attention)
        if kind == "linear" and factor != 1.0:
            return {"rope_type": "linear", "factor": factor}
        if kind == "yarn":
            return {
                "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original,
                "beta_fast": said.get("yarn_beta_fast", 32.0), "beta_slow": said.get("yarn_beta_slow", 1.0),
                "attention_factor": attention * (0.1 * math.log(factor) + 1),
            }  # fmt: skip
        if kind not in ("none", "linear"):
            raise self.unused("rope.scaling.type")
        return {}

    def _factors(self, names: list[str], original: int, attention: float) -> dict:
        """Factors of the single frequencies, which the file holds as tensors."""
        import gguf

        if "full_attention" in self.config.rope_parameters:
            raise _unused(self.path, names[0])
        found = {t.name: t.data.tolist() for t in gguf.GGUFReader(self.path).tensors if t.name in names}
        long = next(found[name] for name in names if "short" not in name)
        short = next((found[name] for name in names if "short" in name), long)
        self.config.original_max_position_embeddings = original
        return {
            "rope_type": "longrope", "long_factor": long, "short_factor": short,
            "original_max_position_embeddings": original, "attention_factor": attention,
        }  # fmt: skip


def _read_by_transformers(architecture: str, head: Header, config) -> set[str]:
    """Keys, without the architecture before them, that transformers takes into a configuration."""
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS

    if architecture in GGUF_CONFIG_ARCHS:
        seen: set[str] = set()

        class Seen(UserDict):
            def __getitem__(self, key):
                seen.add(key.removeprefix(f"{architecture}."))
                return super().__getitem__(key)

        GGUF_CONFIG_ARCHS[architecture](Seen(head.metadata), tuple(head.tensors))
        return seen
    names = {architecture, architecture.replace("-", "_"), architecture.replace("moe", "_moe")}
    mapping = next((GGUF_CONFIG_MAPPING[name] for name in names if name in GGUF_CONFIG_MAPPING), {})
    # others become attributes that nobody asks for
    known = type(config)().to_dict().keys() | config.attribute_map.keys()
    return {key for key, attribute in mapping.items() if attribute in known}


def _unused(path: Path, what: str) -> InputError:
    problem = f"GGUF file {path} holds {what}, which the model that transformers makes of the file does not use"
    return InputError(f"{problem}: its states would be wrong; take the model in transformers' format")


def _refuse_unused_tensors(path: Path, head: Header, config) -> None:
    from transformers import modeling_gguf_pytorch_utils as reader
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS

    if (architecture := head.metadata["general.architecture"]) in GGUF_CONFIG_ARCHS:
        return  # read by another way, which reports what is left
    with torch.device("meta"):
        sketch = transformers.AutoModelForCausalLM.from_config(config)
    processor = reader.TENSOR_PROCESSORS.get(architecture, reader.TensorProcessor)(config=config.to_dict())
    used = reader.get_gguf_hf_weights_map(sketch, processor).keys() | {"output.weight"}
    for name in head.tensors:
        applied = name.startswith(_FACTORS) and "rope_type" in str(config.rope_parameters)
        if not applied and name not in used and name.removesuffix(".weight") not in used:
            raise _unused(path, name)
