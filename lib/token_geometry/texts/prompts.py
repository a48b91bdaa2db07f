"""Prompts: texts of a corpus drawn by a seed or named, and cut to tokens."""

import difflib
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from token_geometry.base import InputError
from token_geometry.texts import corpora, tokens


@dataclass(frozen=True)
class Prompt:
    """A text cut to its first tokens."""

    id: str  # of the text in its corpus
    text_sha256: str  # checksum of the whole text
    token_ids: np.ndarray = field(repr=False)  # shape (n_tokens,), without special tokens
    # whether an earlier prompt has the same text, and an id that differs in the case of letters only
    has_twin: bool = False

    def file_stem(self) -> str:
        """Beginning of the names of its files, which no other prompt's has, in whatever case it is written."""
        name = self.id
        if self.has_twin or not re.fullmatch(r"[A-Za-z0-9._-]{1,80}", name):
            # by its own checksum, since ids may differ in odd characters only; no plain id has a plus
            name = f"{re.sub('[^A-Za-z0-9._-]', '_', name)[:40]}+{corpora.sha256(name)[:32]}"
        return f"{name}-{self.text_sha256[:8]}"


@dataclass(frozen=True)
class Selection:
    """The prompts of an extraction, with the count of what was passed over."""

    prompts: list[Prompt]
    n_examined: int
    n_too_short: int


def select_prompts(
    corpus: corpora.Corpus, tokenizers: Sequence, *, n_prompts: int | None, n_tokens: int, seed: int,
    prompt_ids: Sequence[str] = (),
) -> Selection:  # fmt: skip
    """Draw the prompts of an extraction.

    Texts are drawn in an order that hashes the seed with the text. So a smaller draw is the beginning of a
    larger one, every model draws the same texts, and neither the order of the corpus nor its ids matter. A text
    is passed over when it has fewer than `n_tokens` tokens, special tokens not counted, under any of the
    tokenizers, the first of which makes the token ids. `n_prompts` is None for all texts that are long enough.
    With `prompt_ids` nothing is drawn, and these texts are taken in their order. An `InputError` says if fewer
    than `n_prompts` texts are long enough, or one of `prompt_ids` is not in the corpus or too short."""
    prompts, stems, too_short = [], set(), 0
    keys = _named(corpus, prompt_ids) if prompt_ids else _drawn(corpus, seed)
    for key, text in _read(corpus, keys, len(prompt_ids) or n_prompts or len(keys)):
        if len(prompts) == n_prompts and not prompt_ids:
            break
        encoded = [tokens.beginning(tokenizer, text, n_tokens) for tokenizer in tokenizers]
        length = min(map(len, encoded))
        if length >= n_tokens:
            token_ids = np.asarray(encoded[0], dtype=np.int32)
            prompt = Prompt(id=key, text_sha256=corpora.sha256(text), token_ids=token_ids)
            stem = prompt.file_stem().lower()
            # the first one's name stays, so that a larger draw finds the shards of a smaller one
            prompts.append(replace(prompt, has_twin=stem in stems))
            stems.add(stem)
        elif prompt_ids:
            problem = f"prompt_ids holds {key!r}, which has {length} tokens, and n_tokens is {n_tokens}"
            raise InputError(f"{problem}: lower n_tokens or leave the text out")
        else:
            too_short += 1
    if not prompt_ids and len(prompts) < (1 if n_prompts is None else n_prompts):
        found = f"{len(prompts)} of its {len(corpus.texts)} texts have at least n_tokens = {n_tokens} tokens"
        found += f", {too_short} are shorter" * bool(too_short)
        ways = [f"lower n_prompts = {n_prompts} to that"] * bool(prompts) + ["lower n_tokens"] * bool(too_short)
        raise InputError(f"corpus {corpus.name!r}: {found}: {' or '.join([*ways, 'add longer texts'])}")
    return Selection(prompts=prompts, n_examined=len(prompts) + too_short, n_too_short=too_short)


def _named(corpus: corpora.Corpus, ids: Sequence[str]) -> Sequence[str]:
    """The ids, each of which is one of the corpus."""
    for key in ids:
        if key not in corpus.texts:
            near = "".join(f"; did you mean {one!r}?" for one in difflib.get_close_matches(key, corpus.texts, n=1))
            some = ", ".join(map(repr, itertools.islice(corpus.texts, 3)))
            which = f"which is none of the {len(corpus.texts)} ids of corpus {corpus.name!r}"
            raise InputError(f"prompt_ids holds {key!r}, {which}, such as {some}{near}")
    return ids


def _drawn(corpus: corpora.Corpus, seed: int) -> Sequence[str]:
    """All ids in the order of the draw."""
    order = ((hashlib.sha256(f"{seed}\0{text}".encode()).digest(), key) for key, text in corpus.texts.items())
    return [key for _, key in sorted(order)]


def _read(corpus: corpora.Corpus, keys: Sequence[str], n_prompts: int) -> Iterator[tuple[str, str]]:
    """Ids and texts in this order, of which the caller takes what it needs."""
    # a corpus that is not held in memory is read once for each so many
    size = min(2 * n_prompts + 64, corpus.n_at_a_time)
    for start in range(0, len(keys), size):
        texts = corpus.some(some := keys[start : start + size])
        yield from ((key, texts[key]) for key in some)
