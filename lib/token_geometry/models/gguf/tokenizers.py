"""Tokenizers of GGUF files: how a text is split before tokens are looked for.

A file holds a vocabulary and merges, and of the rule of splitting only a name, `tokenizer.ggml.pre`. transformers
knows some of the names and takes GPT-2's rule for the others. The rules are those of the `tokenizer.json` of each
family; which name stands for which is llama.cpp's
(https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp).
"""

from collections.abc import Callable
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

from token_geometry.base.errors import InputError, one_of
from token_geometry.base.lazy import transformers
from token_geometry.models.gguf.header import Header

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CL100K = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(contractions: str, digits: str) -> str:
    """Words by their case, as of o200k and Tekken."""
    begin = r"[^\r\n\p{L}\p{N}]?"
    words = f"{begin}{_UPPER}*{_LOWER}+{contractions}|{begin}{_UPPER}+{_LOWER}*{contractions}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


def _gpt2(*first):
    """GPT-2's rule, after the steps that come first."""
    return pre_tokenizers.Sequence([*first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def _split(*patterns: str, digits: bool = False):
    """Splitting by patterns, one after the other."""
    steps: list = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    steps += [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _falcon():
    rule = _gpt2(pre_tokenizers.Punctuation("contiguous"))
    digits = [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex("[0-9]{3}"), "isolated")]
    return pre_tokenizers.Sequence([rule, *digits])


_QWEN2 = _CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = _QWEN2.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
_SEED = _QWEN2.replace(r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}\r\n]+")

_RULES: dict[str, Callable] = {
    "gpt-2": _gpt2,
    "smollm": lambda: _gpt2(pre_tokenizers.Digits(individual_digits=True)),
    "llama-bpe": lambda: _split(_CL100K),
    "qwen2": lambda: _split(_QWEN2),
    "qwen35": lambda: _split(_QWEN35),
    "seed-coder": lambda: _split(_SEED),
    "tekken": lambda: _split(_cased("", r"\p{N}")),
    "gpt-4o": lambda: _split(_cased(f"{_CONTRACTIONS}?", r"\p{N}{1,3}")),
    "deepseek-coder": lambda: _split(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", digits=True),
    "falcon": _falcon,
    "bloom": lambda: _split(r" ?[^(\s|.,!?…。，、।۔،)]+"),
}

_WHOLE_WORDS = ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "llama-bpe", "tekken")
"""Families that take a word which is a token as it is, whatever the merges say."""

_NAMES = {name: name for name in _RULES} | {
    # a file that names no rule is read as transformers reads it
    **dict.fromkeys(("default", "phi-2", "mpt", "olmo", "jais", "trillion", "exaone4", "a.x-4.0"), "gpt-2"),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), "smollm"),
    **dict.fromkeys((*_WHOLE_WORDS[:-2], "dbrx", "smaug-bpe"), "llama-bpe"),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2"), "qwen2"),
    **dict.fromkeys(("llama4", "kanana2", "minimax-m2"), "gpt-4o"),
}
"""Name in a file → name of the rule."""

_COMPOSED = ("qwen2", "qwen35", "stablelm2", "olmo", "mpt", "command-r")
"""Families that compose characters (NFC) before anything else."""

_READ_RIGHT_BEFORE = {"llama-bpe", "gpt-2", "tekken", "gpt-4o"}


def changed(head: Header) -> str:
    """Name of the rule of splitting, where the tokens are not those of before it was applied; else empty."""
    name = head.metadata.get("tokenizer.ggml.pre", "default")
    if head.metadata.get("tokenizer.ggml.model") != "gpt2":
        return ""
    return "" if _NAMES.get(name) in _READ_RIGHT_BEFORE and name not in _COMPOSED else name


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
        backend.pre_tokenizer = _RULES[_NAMES[name]]()
        backend.normalizer = normalizers.NFC() if name in _COMPOSED else None
        backend.model.ignore_merges = name in _WHOLE_WORDS
    elif kind == "llama" and not head.metadata["general.architecture"].startswith("gemma"):
        backend.normalizer = spaces(before=head.metadata.get("tokenizer.ggml.add_space_prefix", True))
        backend.pre_tokenizer = None
    return tokenizer


def spaces(*, before: bool):
    """SentencePiece's way with spaces, which are a character of the words; `before`: one begins every text.

    transformers puts one only where there is none.
    """
    steps = [normalizers.Prepend("\u2581")] if before else []
    return normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
