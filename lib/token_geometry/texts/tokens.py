"""The first tokens of a text, without tokenizing all of it where it is long."""

import functools
import unicodedata

from tokenizers.pre_tokenizers import ByteLevel

MARGIN = 64  # characters that normalizers, patterns and added tokens may look ahead or back

# spells a text in the characters by which vocabularies of bytes spell it
BYTES = ByteLevel(add_prefix_space=False, use_regex=False)


def beginning(tokenizer, text: str, n_tokens: int) -> list[int]:
    """The first `n_tokens` token ids of a text, without special tokens; all of them if it has fewer.

    A part of the text is tokenized, and its tokens are taken if behind them, and well before the end of the part,
    is a place that no token of the vocabulary spans: what follows it has no say in what precedes it, since merges
    (BPE) and the choice of pieces (Unigram) make tokens only. Else a longer part is tried, at last the whole."""
    length = 8 * n_tokens + 16 * MARGIN
    while tokenizer.is_fast and length < len(text):
        part = tokenizer(text[:length], add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        if len(part["input_ids"]) > n_tokens:
            end = max(after for _, after in part["offset_mapping"][:n_tokens])
            between = text[end + MARGIN : length - MARGIN]
            if any(not _is_spanned(tokenizer, *pair) for pair in set(zip(between, between[1:], strict=False))):
                return part["input_ids"][:n_tokens]
        length *= 8
    # verbose=False: the warning about a longer text than the context is no concern, it gets cut
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:n_tokens]


@functools.lru_cache(maxsize=100_000)
def _is_spanned(tokenizer, left: str, right: str) -> bool:
    """Whether a token may hold these characters side by side, as far as is known."""
    # it is known of letters and punctuation marks that normalizers leave as they are, before a space or, in a
    # model whose words fall into independent parts, a letter
    model = type(tokenizer.backend_tokenizer.model).__name__
    splits, plain = right.isspace() or (right.isalpha() and model in ("BPE", "Unigram")), left + right.strip()
    known = splits and (left.isalpha() or left in ".,;:!?")
    if not known or unicodedata.normalize("NFKD", plain).casefold() != plain:
        return True
    spellings = {left + right}
    for second in (right, " ") if right.isspace() else right:
        place = len(left.encode())
        in_bytes = "".join(piece for piece, _ in BYTES.pre_tokenize_str(left + second))
        spellings |= {left + second.replace(" ", "▁"), in_bytes[place - 1 : place + 1]}
    return any(spelling in _vocabulary(tokenizer) for spelling in spellings)


@functools.lru_cache(maxsize=4)
def _vocabulary(tokenizer) -> str:
    return "\0".join(tokenizer.get_vocab())
