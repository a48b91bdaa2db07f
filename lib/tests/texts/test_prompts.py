"""Prompts: what is drawn from a corpus, and how it is shuffled."""

import hashlib
import json

import numpy as np
import pytest

from token_geometry.models import models
from token_geometry.texts import prompts


@pytest.fixture(scope="module")
def tokenizers():
    return [models.load_tokenizer(models.resolve(name)) for name in ("smollm2-135m", "gemma3-270m")]


def checksum(text):
    return hashlib.sha256(text.encode()).hexdigest()


def draw(corpus, tokenizers, n_prompts, *, n_tokens=64, seed=0):
    return prompts.select_prompts(corpus, tokenizers, n_prompts=n_prompts, n_tokens=n_tokens, seed=seed)


def ids(selection):
    return [prompt.id for prompt in selection.prompts]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def parquet(path, rows):
    import pyarrow.parquet  # here, so that it can fail these tests alone

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


# Shuffling


def test_level_1_permutes_four_blocks_and_keeps_the_order_inside():
    tokens = np.arange(16)
    shuffled = prompts.shuffle_blocks(tokens, np.array([2, 0, 3, 1]))
    assert shuffled.tolist() == [8, 9, 10, 11, 0, 1, 2, 3, 12, 13, 14, 15, 4, 5, 6, 7]


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4, 5])
def test_level_s_permutes_4_to_the_s_blocks(level):
    permutation = prompts.block_permutation(level, seed=0, text_sha256=checksum("text"))
    assert sorted(permutation) == list(range(4**level))
    tokens = np.arange(1024)
    shuffled = prompts.shuffle_blocks(tokens, permutation)
    blocks = shuffled.reshape(4**level, -1)
    assert (np.diff(blocks, axis=1) == 1).all()
    assert (blocks[:, 0] == permutation * (1024 // 4**level)).all()


def test_level_0_is_the_identity():
    tokens = np.arange(64)
    permutation = prompts.block_permutation(0, seed=3, text_sha256=checksum("text"))
    assert (prompts.shuffle_blocks(tokens, permutation) == tokens).all()


def test_a_shuffle_is_decided_by_seed_level_and_text_alone():
    def shuffle(level=3, seed=0, text="text"):
        return prompts.block_permutation(level, seed=seed, text_sha256=checksum(text)).tolist()

    assert shuffle() == shuffle()
    assert shuffle() != shuffle(seed=1)
    assert shuffle() != shuffle(text="another text")
    assert shuffle()[:16] != shuffle(level=2)


def test_blocks_go_everywhere():
    # over 400 texts each of 4 blocks comes first 100 times, within five deviations
    first = [prompts.block_permutation(1, seed=0, text_sha256=checksum(str(text)))[0] for text in range(400)]
    assert (np.abs(np.bincount(first, minlength=4) - 100) < 5 * np.sqrt(400 * 3 / 16)).all()


@pytest.mark.parametrize("level, n_tokens", [(1, 1022), (5, 512), (6, 1024), (-1, 1024)])
def test_a_level_whose_blocks_do_not_divide_the_prompt_is_refused(level, n_tokens, refused):
    with refused("shuffle_levels", f"n_tokens = {n_tokens}", "accepted: 0 to"):
        prompts.check_shuffle_levels([0, level], n_tokens)
    prompts.check_shuffle_levels([0, 1, 5], 1024)


# Drawing


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
            prompts.block_permutation(3, seed=0, text_sha256=prompt.text_sha256).tolist()
            for prompt in (one, other)
        ]
        assert shuffles[0] == shuffles[1]


def test_a_smaller_draw_is_the_beginning_of_a_larger_one(sotu, tokenizers):
    larger = ids(draw(sotu, tokenizers[:1], 12))
    assert ids(draw(sotu, tokenizers[:1], 4)) == larger[:4]
    assert len(set(larger)) == 12


def test_a_draw_depends_on_the_seed_and_not_on_the_order_or_ids_of_the_corpus(sotu, tokenizers):
    texts = dict(reversed(sotu.texts.items()))
    renamed = {f"speech-{number}": text for number, text in enumerate(texts.values())}
    expected = draw(sotu, tokenizers[:1], 6)
    assert ids(draw(prompts.Corpus("c", "c", texts), tokenizers[:1], 6)) == ids(expected)
    found = draw(prompts.Corpus("c", "c", renamed), tokenizers[:1], 6)
    assert [p.text_sha256 for p in found.prompts] == [p.text_sha256 for p in expected.prompts]
    assert ids(draw(sotu, tokenizers[:1], 6, seed=1)) != ids(expected)


def test_texts_that_are_too_short_are_passed_over_and_counted(sotu, tokenizers):
    long = dict(list(sotu.texts.items())[:5])
    short = {f"short-{number}": f"Only {number} words." for number in range(7)}
    corpus = prompts.Corpus("mixed", "Mixed", long | short)
    selection = draw(corpus, tokenizers, None)
    assert sorted(ids(selection)) == sorted(long)
    assert (selection.n_examined, selection.n_too_short) == (12, 7)


def test_a_text_must_be_long_enough_under_every_tokenizer(sotu, tokenizers, refused):
    text = next(iter(sotu.texts.values()))[:3000]
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for tokenizer in tokenizers]
    assert lengths[0] != lengths[1]
    corpus = prompts.Corpus("one", "One", {"a": text})
    for order in (tokenizers, tokenizers[::-1]):
        assert ids(draw(corpus, order, None, n_tokens=min(lengths))) == ["a"]
        with refused("'one'", f"n_tokens = {max(lengths)}"):
            draw(corpus, order, None, n_tokens=max(lengths))


def test_fewer_long_texts_than_asked_for_are_refused(sotu, tokenizers, refused):
    texts = dict(list(sotu.texts.items())[:3]) | {"short": "Too short."}
    corpus = prompts.Corpus("mixed", "Mixed", texts)
    with refused("'mixed'", "3 of its 4 texts", "n_tokens = 64", "1 are shorter", "n_prompts = 4"):
        draw(corpus, tokenizers[:1], 4)


def test_all_of_a_corpus_of_short_texts_is_refused(tokenizers, refused):
    with refused("'short'", "0 of its 1 texts", "n_tokens = 64"):
        draw(prompts.Corpus("short", "Short", {"a": "Too short."}), tokenizers[:1], None)


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
    corpus = prompts.Corpus("c", "c", {"a": "word " * 100, "b": "two words"})
    with refused("prompt_ids", "'b'", "n_tokens is 64"):
        name(corpus, tokenizers, ["a", "b"])


# Reading


def test_sotu_holds_249_addresses_longer_than_1024_tokens(sotu, tokenizers):
    assert len(sotu.texts) == 249
    shortest = sorted(sotu.texts.values(), key=len)[:5]
    for tokenizer in tokenizers:
        assert min(len(tokenizer(text, verbose=False)["input_ids"]) for text in shortest) > 1024


def test_python_docs_are_read_from_the_standard_library():
    texts = prompts.load_corpus("python-docs").texts
    assert "assert" in texts["assert"]


def test_one_corpus_is_read_the_same_from_jsonl_parquet_and_txt(tmp_path):
    texts = {"a": "First text.", "b": "Second text,\nof two lines, é."}
    rows = [{"id": key, "text": f"  {text}\n"} for key, text in texts.items()]
    (tmp_path / "folder").mkdir()
    for key, text in texts.items():
        (tmp_path / "folder" / f"{key}.txt").write_text(text, "utf-8")
    found = [
        prompts.load_corpus(source)
        for source in (
            jsonl(tmp_path / "corpus.jsonl", rows),
            parquet(tmp_path / "corpus.parquet", rows),
            str(tmp_path / "folder"),
        )
    ]
    assert all(corpus.texts == texts for corpus in found)
    assert len({corpus.identity() for corpus in found}) == 1


def test_rows_without_id_are_numbered(tmp_path):
    path = jsonl(tmp_path / "corpus.jsonl", [{"text": "one"}, {"text": "two"}])
    assert prompts.load_corpus(path).texts == {"0": "one", "1": "two"}


def test_a_line_separator_inside_a_string_is_no_line_of_jsonl(tmp_path):
    texts = ["one\u2028two", "three\u2029four\x85five"]
    path = jsonl(tmp_path / "corpus.jsonl", [{"text": text} for text in texts])
    assert "\u2028" in (tmp_path / "corpus.jsonl").read_text("utf-8")
    assert list(prompts.load_corpus(path).texts.values()) == texts


def test_windows_line_ends_and_a_byte_order_mark_are_no_hindrance(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes('\ufeff{"text": "one"}\r\n\r\n{"text": "two"}\r\n'.encode())
    assert list(prompts.load_corpus(str(path)).texts.values()) == ["one", "two"]


def test_the_identity_of_a_corpus_follows_its_texts():
    one = prompts.Corpus("a", "A", {"x": "1", "y": "2"})
    assert one.identity() == prompts.Corpus("b", "B", {"y": "2", "x": "1"}).identity()
    assert one.identity() != prompts.Corpus("a", "A", {"x": "1", "y": "3"}).identity()


def test_the_checksum_of_the_addresses_is_that_of_their_texts(sotu):
    assert prompts.corpus_identity("sotu") == sotu.identity()


def test_texts_of_another_checksum_are_refused(monkeypatch, refused):
    entry = prompts.aliases()["sotu"] | {"files": "sotu/data/speeches/20*.txt"}
    monkeypatch.setattr(prompts, "aliases", lambda: {"sotu": entry})
    with refused("corpus 'sotu'", "checksum of its texts", entry["texts_sha256"], "data/corpora.yml"):
        prompts.load_corpus("sotu")


def test_a_corpus_without_a_checksum_is_known_by_its_texts(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("one")
    before = prompts.corpus_identity(str(tmp_path))
    path.write_text("two")
    assert prompts.corpus_identity(str(tmp_path)) != before


def test_an_unknown_corpus_is_refused_with_the_nearest_alias(refused):
    with refused("corpus 'sotuu'", "did you mean 'sotu'?", ".jsonl", ".parquet", ".txt"):
        prompts.load_corpus("sotuu")
    with refused("nowhere.jsonl"):
        prompts.load_corpus("nowhere.jsonl")


def test_an_empty_corpus_is_refused(tmp_path, refused):
    with refused("empty.jsonl", "no text"):
        prompts.load_corpus(jsonl(tmp_path / "empty.jsonl", []))
    with refused("blank.jsonl", "no text"):
        prompts.load_corpus(jsonl(tmp_path / "blank.jsonl", [{"text": " \n"}]))
    (tmp_path / "folder").mkdir()
    with refused("folder", "no text"):
        prompts.load_corpus(str(tmp_path / "folder"))


def test_an_id_that_occurs_twice_is_refused(tmp_path, refused):
    rows = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}, {"id": "a", "text": "three"}]
    with refused("corpus.jsonl", "'a'", "twice"):
        prompts.load_corpus(jsonl(tmp_path / "corpus.jsonl", rows))


def test_a_file_that_is_not_utf8_is_refused(tmp_path, refused):
    (tmp_path / "latin.jsonl").write_bytes('{"text": "é"}'.encode("latin-1"))
    with refused("latin.jsonl", "not UTF-8", "byte 10"):
        prompts.load_corpus(str(tmp_path / "latin.jsonl"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "latin.txt").write_bytes("é".encode("latin-1"))
    with refused("latin.txt", "not UTF-8"):
        prompts.load_corpus(str(tmp_path / "folder"))


def test_a_line_that_is_not_json_is_refused(tmp_path, refused):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "one"}\n{"text": "tw\n')
    with refused("corpus.jsonl", "line 2", "not JSON"):
        prompts.load_corpus(str(path))


@pytest.mark.parametrize("row", [{"content": "one"}, {"text": 7}, {"text": None}, ["text"], "text"])
def test_a_row_without_text_is_refused(tmp_path, row, refused):
    path = jsonl(tmp_path / "corpus.jsonl", [{"text": "one"}, row])
    with refused("corpus.jsonl", "row 2", "'text'"):
        prompts.load_corpus(path)


def test_a_parquet_file_without_text_or_cut_short_is_refused(tmp_path, refused):
    path = tmp_path / "corpus.parquet"
    parquet(path, [{"content": "one"}])
    with refused("corpus.parquet", "'text'"):
        prompts.load_corpus(str(path))
    path.write_bytes(path.read_bytes()[:-20])
    with refused("corpus.parquet", "parquet"):
        prompts.load_corpus(str(path))
