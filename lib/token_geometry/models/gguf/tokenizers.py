"""Tokenizers of GGUF files: how a text is split before tokens are looked for.

A file holds a vocabulary and merges, and of the rule of splitting only a name, `tokenizer.ggml.pre`. transformers
knows some of the names and takes GPT-2's rule for the others. The rules in `tokenizers.yml` are those of the
`tokenizer.json` of each family; which name stands for which is llama.cpp's
(https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp)."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers

from token_geometry.base import InputError, files, one_of
from token_geometry.base.lazy import transformers
from token_geometry.models.gguf.header import Header

_TABLE = files.table(__file__)
_NAMES = {name: rule for rule, of_rule in _TABLE["rules"].items() for name in (rule, *of_rule.get("names", ()))}
_READ_RIGHT_BEFORE = {"llama-bpe", "gpt-2", "tekken", "gpt-4o"}


def changed(head: Header) -> str:
    """Name of the rule of splitting, where the tokens are not those of before it was applied; else empty."""
    name = head.metadata.get("tokenizer.ggml.pre", "default")
    if head.metadata.get("tokenizer.ggml.model") != "gpt2":
        return ""
    return "" if _NAMES.get(name) in _READ_RIGHT_BEFORE and name not in _TABLE["composed"] else name


def check(path: Path, head: Header) -> None:
    """Refuse a file whose kind of tokenizer or rule of splitting is not known."""
    kind, name = (head.metadata.get(f"tokenizer.ggml.{key}", "") for key in ("model", "pre"))
    if kind not in ("gpt2", "llama", "gemma4"):
        raise InputError(f"GGUF file {path}: {one_of('tokenizer.ggml.model', kind, ['gpt2', 'llama', 'gemma4'])}")
    if kind == "gpt2" and name and name not in _NAMES:
        known = one_of("tokenizer.ggml.pre", name, sorted(_NAMES))
        raise InputError(f"GGUF file {path}: {known}; or take the model in transformers' format")


def read(path: Path, head: Header):
    """The tokenizer of a GGUF file with this header, a transformers `PreTrainedTokenizerFast`."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    backend, kind = tokenizer.backend_tokenizer, head.metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        name = head.metadata.get("tokenizer.ggml.pre", "default")
        # the steps of its rule, of which tokenizers makes objects as it makes them of a `tokenizer.json`
        split = {"type": "Split", "behavior": "Isolated", "invert": False}
        steps = _TABLE["rules"][_NAMES[name]]["steps"]
        steps = [split | {"pattern": {"Regex": one}} if isinstance(one, str) else one for one in steps]
        whole = json.loads(Tokenizer(models.BPE()).to_str())
        whole["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
        backend.pre_tokenizer = Tokenizer.from_str(json.dumps(whole)).pre_tokenizer
        backend.normalizer = normalizers.NFC() if name in _TABLE["composed"] else None
        backend.model.ignore_merges = name in _TABLE["whole_words"]
    elif kind == "llama" and not head.metadata["general.architecture"].startswith("gemma"):
        backend.normalizer = spaces(before=head.metadata.get("tokenizer.ggml.add_space_prefix", True))
        backend.pre_tokenizer = None
    return tokenizer


def spaces(*, before: bool):
    """SentencePiece's way with spaces, which are a character of the words; `before`: one begins every text,
    where transformers puts one only if there is none."""
    steps = [normalizers.Prepend("\u2581")] if before else []
    return normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
