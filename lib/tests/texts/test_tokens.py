"""The first tokens of a text: those of the whole text, whatever follows."""

import random

import pytest
import transformers
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as kinds

from token_geometry.models import loading, sources
from token_geometry.texts import corpora, tokens

WORDS = "the of and government people nation year public treaty congress".split()
N_CHARACTERS = 40_000


def from_letters(*ranges):
    draw = random.Random(0)
    letters = [chr(code) for first, last in ranges for code in range(ord(first), ord(last) + 1)]
    return "".join(draw.choice(letters) for _ in range(N_CHARACTERS))


ODD = {
    "letters": from_letters("az"),
    "Chinese": from_letters("一龥"),
    "hiragana": from_letters("ぁゔ"),
    "hangul": from_letters("가힣"),
    "base64": from_letters("az", "AZ", "09", "++", "//"),
    "digits": from_letters("09"),
    "punctuation": from_letters("!/", ":@", "[`", "{~"),
    "one letter": "a" * N_CHARACTERS,
    "two letters": "ab" * N_CHARACTERS,
    "spaces": " " * N_CHARACTERS + "end",
    "blank lines": "\n\n \t\r\n" * (N_CHARACTERS // 6),
    "accents": ("e" + "\u0301" * 30) * (N_CHARACTERS // 31),
    "families": "\U0001f469\u200d\U0001f469\u200d\U0001f467" * (N_CHARACTERS // 5),
    "marks of dialog": "<|im_start|>user\nIt is.<|im_end|>\n<end_of_turn>" * (N_CHARACTERS // 45),
    "words": " ".join(random.Random(0).choice(WORDS) for _ in range(N_CHARACTERS // 6)),
}


@pytest.fixture(scope="module", params=["smollm2-135m", "gemma3-270m"])
def tokenizer(request):
    return loading.load_tokenizer(sources.resolve(request.param))


def whole(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


@pytest.mark.parametrize("name", ODD)
def test_the_beginning_of_an_odd_text_has_the_tokens_of_the_whole(tokenizer, name):
    expected = whole(tokenizer, ODD[name])
    for n_tokens in (1, 64, 1000):
        assert tokens.beginning(tokenizer, ODD[name], n_tokens) == expected[:n_tokens]


@pytest.mark.parametrize(("corpus", "step"), [("python-docs", 4), ("sotu", 40)])
def test_the_beginning_of_every_text_has_the_tokens_of_the_whole(tokenizer, corpus, step):
    for text in list(corpora.load_corpus(corpus).texts.values())[::step]:
        expected = whole(tokenizer, text)
        for n_tokens in (16, 1024, len(expected) + 1):
            assert tokens.beginning(tokenizer, text, n_tokens) == expected[:n_tokens]


class Counting:
    """A tokenizer that counts the characters that it is given."""

    def __init__(self, tokenizer):
        self.tokenizer, self.n_characters = tokenizer, 0

    def __call__(self, text, **more):
        self.n_characters += len(text)
        return self.tokenizer(text, **more)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@pytest.mark.parametrize("name", ["words", "Chinese", "letters"])
def test_a_long_text_is_not_tokenized_whole(tokenizer, name):
    text = ODD[name] * 8
    counting = Counting(tokenizer)
    assert tokens.beginning(counting, text, 64) == tokens.beginning(tokenizer, text, 64)
    assert 0 < counting.n_characters < len(text) / 10


def fast(model, pre_tokenizer=None):
    tokenizer = Tokenizer(model)
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def letters(*more, kind=kinds.BPE):
    """A tokenizer of single letters and these tokens."""
    vocabulary = {token: number for number, token in enumerate(["[UNK]", *"abc 1.é一", *more])}
    given = {"merges": []} if kind is kinds.BPE else {"unk_token": "[UNK]"}
    return fast(kind(vocab=vocabulary, **given))


@pytest.mark.parametrize("n_texts", [2, 4000])
def test_no_special_token_is_among_them(n_texts):
    tokenizer = letters("<s>")
    start = tokenizer.convert_tokens_to_ids("<s>")
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    tokenizer.backend_tokenizer.post_processor = template
    text = "ab c" * n_texts
    assert tokenizer(text)["input_ids"][0] == start
    assert tokens.beginning(tokenizer, text, 6) == whole(tokenizer, text)[:6] and start not in whole(
        tokenizer, text
    )


def test_no_more_of_a_long_text_is_tokenized_than_its_beginning_takes():
    counting = Counting(letters())
    text = "ab c" * 20_000
    assert tokens.beginning(counting, text, 64) == whole(letters(), text)[:64]
    assert counting.n_characters < 2000
    assert len(tokens.beginning(counting, "ab c" * 20, 64)) == 64


@pytest.mark.parametrize(
    ("pair", "more", "is_spanned"),
    [
        ("a ", (), False), ("ab", (), False), (". ", (), False), ("a ", ("a ",), True), ("ab", ("cab",), True),
        ("a ", ("a▁",), True), ("a ", ("aĠ",), True), ("a ", ("aĊ",), False), ("a\n", ("aĊ",), True),
        ("a\n", ("aĠ",), True), ("1 ", (), True), ("a1", (), True), ("é ", (), True), ("A ", (), True),
        ("ﬁ ", (), True), (" a", (), True), ("一丁", (), False), ("一丁", ("Ģä",), True), ("一丁", ("äģ",), False),
    ],
)  # fmt: skip
def test_two_characters_that_no_token_spans_are_known(pair, more, is_spanned):
    assert tokens._is_spanned(letters(*more), *pair) == is_spanned


def test_letters_of_a_word_that_is_looked_up_whole_are_never_apart():
    assert tokens._is_spanned(letters(kind=kinds.WordPiece), "a", "b")
    assert not tokens._is_spanned(letters(kind=kinds.WordPiece), "a", " ")


def test_merges_that_depend_on_the_end_of_a_text_are_seen():
    # the later a pair comes in the alphabet, the earlier it merges: so each pair waits for the one behind it
    letters = [chr(ord("一") + number) for number in range(3000)]
    pairs = list(zip(letters, letters[1:], strict=False))[::-1]
    vocabulary = {token: i for i, token in enumerate([*letters, *map("".join, pairs)])}
    chain = fast(kinds.BPE(vocab=vocabulary, merges=pairs))
    for text in ("".join(letters), "".join(letters[:-1])):
        assert tokens.beginning(chain, text, 16) == whole(chain, text)[:16]
    # so a beginning of another length has other tokens: it is no matter of course
    assert whole(chain, "".join(letters[:2000]))[:16] != whole(chain, "".join(letters[:2001]))[:16]


def test_a_word_that_is_known_or_unknown_as_a_whole_is_read_to_its_end():
    vocabulary = {"[UNK]": 0, "a": 1, "##a": 2, "b": 3}
    wordpiece = fast(kinds.WordPiece(vocab=vocabulary, max_input_chars_per_word=2000), pre_tokenizers.Whitespace())
    for text in ("a" * 1500 + " b", "a" * 2500 + " b", "b " * 2500):
        assert tokens.beginning(wordpiece, text, 16) == whole(wordpiece, text)[:16]


def test_pieces_chosen_by_their_probability_are_those_of_the_whole():
    pieces = [
        ("<unk>", 0.0),
        *((letter, -3.0) for letter in "abcdefgh "),
        ("ab", -4.0),
        ("ba", -4.1),
        ("aba", -5.0),
    ]
    unigram = fast(kinds.Unigram(pieces, 0, False))
    draw = random.Random(1)
    for text in ("".join(draw.choice("abc") for _ in range(5000)), "ab" * 3000, "ab" * 3000 + "a"):
        assert tokens.beginning(unigram, text, 16) == whole(unigram, text)[:16]
