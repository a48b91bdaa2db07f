"""Prompts: what is drawn from a corpus, and which names its files have."""

import hashlib

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from token_geometry.models import loading, sources
from token_geometry.texts import corpora, prompts, shuffling


@pytest.fixture(scope="module")
def tokenizers():
    return [loading.load_tokenizer(sources.resolve(name)) for name in ("smollm2-135m", "gemma3-270m")]


def checksum(text):
    return hashlib.sha256(text.encode()).hexdigest()


def draw(corpus, tokenizers, n_prompts, *, n_tokens=64, seed=0):
    return prompts.select_prompts(corpus, tokenizers, n_prompts=n_prompts, n_tokens=n_tokens, seed=seed)


def ids(selection):
    return [prompt.id for prompt in selection.prompts]


# Drawing


class Words:
    """A tokenizer whose tokens are the lengths of words."""

    is_fast = False

    def __call__(self, text, **_):
        return {"input_ids": [len(word) for word in text.split()]}


class HalfWords(Words):
    """One that has two words in a token."""

    def __call__(self, text, **_):
        return {"input_ids": super().__call__(text)["input_ids"][::2]}


TEXTS = {name: " ".join(["word", name * 7] * n) for n, name in enumerate("abcdef", 1)}


def of_texts(seed=0):
    """A corpus of texts of 2, 4, … 12 words, and their ids in the order in which a seed draws them."""
    corpus = corpora.Corpus("own", "own", lambda: TEXTS.items())
    return corpus, sorted(TEXTS, key=lambda key: checksum(f"{seed}\0{TEXTS[key]}"))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_prompts", [1, 2, 4, None])
def test_the_first_texts_of_the_draw_that_are_long_enough_are_the_prompts(seed, n_prompts):
    corpus, order = of_texts(seed)
    long_enough = [key for key in order if key not in "ab"]
    for tokenizers in ([Words()], [Words(), HalfWords()]):
        n_tokens = 6 if len(tokenizers) == 1 else 3
        found = draw(corpus, tokenizers, n_prompts, n_tokens=n_tokens, seed=seed)
        assert ids(found) == long_enough[:n_prompts]
        assert [prompt.token_ids.tolist() for prompt in found.prompts] == [[4, 7, 4, 7, 4, 7][:n_tokens]] * len(
            ids(found)
        )
        passed = order if n_prompts is None else order[: order.index(ids(found)[-1])]
        assert found.n_too_short == sum(key in "ab" for key in passed)
        assert found.n_examined == found.n_too_short + len(found.prompts)


def test_more_prompts_than_long_texts_are_refused_whatever_is_asked_for(refused):
    corpus, _ = of_texts()
    with refused("4 of its 6 texts", "2 are shorter", "n_prompts = 5"):
        draw(corpus, [Words()], 5, n_tokens=6)
    with refused("0 of its 6 texts", "6 are shorter"):
        draw(corpus, [Words()], None, n_tokens=13)


def test_named_texts_are_the_prompts_in_their_order_or_refused(refused):
    corpus, _ = of_texts()

    def named(*prompt_ids, n_tokens=6, n_prompts=None):
        given = {"n_prompts": n_prompts, "n_tokens": n_tokens, "seed": 0, "prompt_ids": prompt_ids}
        return prompts.select_prompts(corpus, [Words()], **given)

    assert ids(named("f", "c", "d", n_prompts=2)) == ["f", "c", "d"]
    with refused("'b', which has 4 tokens", "n_tokens is 6"):
        named("f", "b")
    with refused("'dd', which is none of the 6 ids", "did you mean 'd'?"):
        named("dd")


def test_a_prompt_is_the_beginning_of_its_text_without_special_tokens(sotu, tokenizers):
    for tokenizer in tokenizers:
        for prompt in draw(sotu, [tokenizer], 2).prompts:
            text = sotu.texts[prompt.id]
            assert text == text.strip()
            expected = tokenizer(text, add_special_tokens=False)["input_ids"][:64]
            assert prompt.token_ids.tolist() == expected
            assert prompt.text_sha256 == checksum(text)


def test_both_models_draw_the_same_texts_with_the_same_shuffles(sotu, tokenizers):
    smollm2, gemma3 = (draw(sotu, [tokenizer], 5).prompts for tokenizer in tokenizers)
    for one, other in zip(smollm2, gemma3, strict=True):
        assert one.id == other.id
        assert one.token_ids.tolist() != other.token_ids.tolist()
        shuffles = [
            shuffling.block_permutation(3, seed=0, text_sha256=prompt.text_sha256).tolist()
            for prompt in (one, other)
        ]
        assert shuffles[0] == shuffles[1]


def test_a_smaller_draw_is_the_beginning_of_a_larger_one(sotu, tokenizers):
    larger = ids(draw(sotu, tokenizers[:1], 12))
    assert ids(draw(sotu, tokenizers[:1], 4)) == larger[:4]
    assert len(set(larger)) == 12


def test_a_draw_depends_on_the_seed_and_not_on_the_order_or_ids_of_the_corpus(sotu, tokenizers):
    texts = dict(reversed([*sotu.texts.items()]))
    renamed = {f"speech-{number}": text for number, text in enumerate(texts.values())}
    expected = draw(sotu, tokenizers[:1], 6)
    assert ids(draw(corpora.Corpus("c", "c", texts.items), tokenizers[:1], 6)) == ids(expected)
    found = draw(corpora.Corpus("c", "c", renamed.items), tokenizers[:1], 6)
    assert [p.text_sha256 for p in found.prompts] == [p.text_sha256 for p in expected.prompts]
    assert ids(draw(sotu, tokenizers[:1], 6, seed=1)) != ids(expected)


def test_texts_that_are_too_short_are_passed_over_and_counted(sotu, tokenizers):
    long = dict(list(sotu.texts.items())[:5])
    short = {f"short-{number}": f"Only {number} words." for number in range(7)}
    corpus = corpora.Corpus("mixed", "Mixed", (long | short).items)
    selection = draw(corpus, tokenizers, None)
    assert sorted(ids(selection)) == sorted(long)
    assert (selection.n_examined, selection.n_too_short) == (12, 7)


def test_a_text_must_be_long_enough_under_every_tokenizer(sotu, tokenizers, refused):
    text = next(iter(sotu.texts.values()))[:3000]
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for tokenizer in tokenizers]
    assert lengths[0] != lengths[1]
    corpus = corpora.Corpus("one", "One", {"a": text}.items)
    for order in (tokenizers, tokenizers[::-1]):
        assert ids(draw(corpus, order, None, n_tokens=min(lengths))) == ["a"]
        with refused("'one'", f"n_tokens = {max(lengths)}"):
            draw(corpus, order, None, n_tokens=max(lengths))


def test_fewer_long_texts_than_asked_for_are_refused(sotu, tokenizers, refused):
    texts = dict(list(sotu.texts.items())[:3]) | {"short": "Too short."}
    corpus = corpora.Corpus("mixed", "Mixed", texts.items)
    with refused("'mixed'", "3 of its 4 texts", "n_tokens = 64", "1 are shorter", "n_prompts = 4"):
        draw(corpus, tokenizers[:1], 4)


def test_all_of_a_corpus_of_short_texts_is_refused(tokenizers, refused):
    with refused("'short'", "0 of its 1 texts", "n_tokens = 64"):
        draw(corpora.Corpus("short", "Short", {"a": "Too short."}.items), tokenizers[:1], None)


# Naming


def name(corpus, tokenizers, prompt_ids, n_tokens=64):
    return prompts.select_prompts(
        corpus, tokenizers, n_prompts=None, n_tokens=n_tokens, seed=0, prompt_ids=prompt_ids
    )


def test_prompts_that_are_named_are_those_that_are_drawn_in_the_order_of_their_names(sotu, tokenizers):
    drawn = draw(sotu, tokenizers[:1], 3).prompts
    named = name(sotu, tokenizers[:1], [prompt.id for prompt in reversed(drawn)]).prompts
    for one, other in zip(named, reversed(drawn), strict=True):
        assert (one.id, one.text_sha256) == (other.id, other.text_sha256)
        assert one.token_ids.tolist() == other.token_ids.tolist()


def test_a_named_prompt_that_is_not_there_is_refused_with_the_nearest_one(sotu, tokenizers, refused):
    key = next(iter(sotu.texts))
    with refused("prompt_ids", f"'{key}x'", "249", "'sotu'", f"did you mean {key!r}?"):
        name(sotu, tokenizers, [f"{key}x"])


def test_a_named_prompt_that_is_too_short_is_refused(tokenizers, refused):
    corpus = corpora.Corpus("c", "c", {"a": "word " * 100, "b": "two words"}.items)
    with refused("prompt_ids", "'b'", "n_tokens is 64"):
        name(corpus, tokenizers, ["a", "b"])


def test_a_corpus_that_memory_does_not_hold_gives_the_same_draw(sotu, tokenizers, monkeypatch):
    texts = dict(list(sotu.texts.items())[:40])
    short = {f"short-{number}": f"Only {number} words." for number in range(400)}

    def read():
        return iter((texts | short).items())

    held = corpora.Corpus("c", "C", read)
    assert held.texts.held == texts | short and held.n_at_a_time > 440
    monkeypatch.setattr(corpora, "HELD", 100_000)
    streamed = corpora.Corpus("c", "C", read)
    assert streamed.texts.held is None and streamed.texts == held.texts
    assert streamed.identity() == held.identity()
    assert 1 < streamed.n_at_a_time < 64
    for n_prompts in (3, None):  # of so many short ones the draw needs several goes
        expected, found = (draw(corpus, tokenizers[:1], n_prompts) for corpus in (held, streamed))
        assert ids(found) == ids(expected) and found.n_too_short == expected.n_too_short
        for one, other in zip(expected.prompts, found.prompts, strict=True):
            assert one.token_ids.tolist() == other.token_ids.tolist() and one.text_sha256 == other.text_sha256
    assert ids(name(streamed, tokenizers[:1], ids(found)[::-1])) == ids(found)[::-1]


# Names of files

ODD = [
    "a/b",
    "a_b",
    "a b",
    "a:b",
    "林" * 76,
    "林" * 77,
    "x" * 80,
    "x" * 81,
    "x" * 82,
    "é",
    "e\u0301",
    "",
    "..",
    "a\nb",
    "/",
]
URL = "https://example.org/articles/archive/2023/a-very-long-section-name/index.html?view=print&page="


def stems(ids, text="text"):
    return [prompts.Prompt(key, checksum(text), None).file_stem() for key in ids]


def test_no_two_ids_share_a_name_and_every_file_system_takes_it(tmp_path):
    keys = [*ODD, *(f"{URL}{page}" for page in range(9))]
    # an id that looks like the name that was made of another one
    keys += [stem.rsplit("-", 1)[0] for stem in stems(keys) if stem.rsplit("-", 1)[0] not in keys]
    assert len(set(stems(keys))) == len(set(keys))
    for number, stem in enumerate(stems(keys)):
        assert stem.isascii() and len(stem) < 120
        (tmp_path / f"{stem}-s5.nc").write_text(str(number))
    assert len(list(tmp_path.iterdir())) == len(keys)


def test_texts_alike_whose_ids_differ_in_case_only_share_no_file_where_case_does_not_count():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"text": 0}, unk_token="text")))
    corpus = corpora.Corpus("c", "C", {"Ab": "text", "aB": "text", "ab": "text", "AB": "another"}.items)
    found = draw(corpus, [tokenizer], 4, n_tokens=1).prompts
    assert len({prompt.file_stem().lower() for prompt in found}) == 4
    # those of before, which a larger draw must not rename
    plain = [prompt.file_stem() for prompt in found if "+" not in prompt.file_stem()]
    first = next(prompt for prompt in found if prompt.id != "AB")
    assert {*plain} == {f"{first.id}-{checksum('text')[:8]}", f"AB-{checksum('another')[:8]}"}
    for number in (1, 2, 3):
        fewer = draw(corpus, [tokenizer], number, n_tokens=1).prompts
        assert [one.file_stem() for one in fewer] == [one.file_stem() for one in found[:number]]


def test_plain_ids_keep_the_names_that_shards_of_before_have(sotu):
    assert stems(["1790-a.b_C"]) == [f"1790-a.b_C-{checksum('text')[:8]}"]
    assert stems(["x" * 80]) == ["x" * 80 + f"-{checksum('text')[:8]}"]
    assert stems(sotu.texts) == [f"{key}-{checksum('text')[:8]}" for key in sotu.texts]
