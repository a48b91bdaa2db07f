"""Files and data sets of texts, a function per format, behind a door that makes each error of reading one line."""

import csv
import gzip
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from token_geometry.base import InputError, files
from token_geometry.base.lazy import datasets

Row = tuple[str | None, str]  # id of a text, None where it has none, and the text

N_ROWS = 1000  # rows of a table that are in memory at a time
LONGEST_NUMBER = 4000  # digits that Python makes a number of; a column that nobody asked for may hold more
SAVED = ("state.json", "dataset_dict.json")  # files by which a folder of `save_to_disk` is known

# a quotation mark behind a backslash that does not end its field
BACKSLASH_QUOTE = re.compile(r'(?:^|,)"(?:[^"]|"")*?\\"(?![,"\r\n]|\Z)', re.MULTILINE)


def csv_table(path: Path, what: str) -> pd.DataFrame:
    """Rows of a CSV file as strings, nothing taken for a number or for missing; an `InputError` refuses what is
    not CSV in UTF-8, a column twice, a NUL, quotation marks behind backslashes."""
    text = files.decode(path, what)
    for pattern, reason in (
        (re.compile("\0"), "a NUL, behind which a text would be lost: remove it"),
        (BACKSLASH_QUOTE, "a quotation mark escaped by a backslash: double it instead, as CSV has it"),
    ):
        if found := pattern.search(text):
            raise InputError(f"{what}, line {text.count(chr(10), 0, found.end()) + 1} holds {reason}")
    try:
        header = next(csv.reader(io.StringIO(text)), [])
        with warnings.catch_warnings():
            # a text with a comma and without quotation marks would lose what is behind it
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, index_col=False)
            table = table.fillna("")  # of rows that are too short
    except pd.errors.ParserWarning:
        reason = "a row has more fields than the first line: a text with a comma needs quotation marks"
        raise InputError(f"{what} is no CSV file ({reason})") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{what} is no CSV file ({str(error).strip().splitlines()[0]})") from None
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise InputError(f"{what} has two columns {twice[0]!r}: rename one of them")
    return table


def batch(what: str, start: int, keys: Sequence, texts: Sequence, column: str, there: Sequence = ()) -> list[Row]:
    """Rows of which the first is number `start`, checked; keys that are None or NaN are none.

    Messages say `what` is read, and where it lacks the `column` of the texts, the names of those that are `there`.
    """
    rows = []
    for number, (key, text) in enumerate(zip(keys, texts, strict=True), start + 1):
        if not isinstance(text, str):
            others = [] if column in there else [repr(str(name))[:40] for name in there][:10]
            hint = f"; its columns are {', '.join(others)}: give the one of the text as `column`" if others else ""
            raise InputError(f"{what}, row {number}: no column {column!r} that holds a string{hint}")
        if isinstance(key, dict | list | bytes):
            raise InputError(f"{what}, row {number}: the id is a {type(key).__name__}; accepted: strings, numbers")
        rows.append((None if key is None or key != key else str(key), text))
    return rows


def columns_of(what: str, names: Sequence[str] | None, column: str) -> list[str]:
    """The columns of a table that are read: the text's, and `id` where there is one."""
    if (names := list(names or ())).count(column) > 1:
        raise InputError(f"{what} has two columns {column!r}: rename one of them")
    if column not in names:
        batch(what, 0, [None], [None], column, names)
    return [column] if "id" not in names or column == "id" else ["id", column]


def _txt(path: Path, column: str) -> Iterator[Row]:
    if column != "text":
        raise InputError(f"column is {column!r}, and {str(path)!r} has no columns: leave `column` out")
    yield None, files.decode(path, repr(str(path))).replace("\r\n", "\n").replace("\r", "\n")


def _open_lines(path: Path) -> io.BufferedIOBase:
    if (suffix := path.suffix.lower()) == ".gz":
        return gzip.open(path)
    if suffix == ".zst":
        import pyarrow  # seconds that most corpora need not

        return io.BufferedReader(pyarrow.input_stream(path.open("rb"), compression="zstd"))
    return path.open("rb")


def _jsonl(path: Path, column: str) -> Iterator[Row]:
    what, number = repr(str(path)), 0
    whole: dict = {"parse_int": lambda digits: int(digits) if len(digits) <= LONGEST_NUMBER else digits.encode()}
    files.check_file(path, what)
    with files.door(what), _open_lines(path) as file:
        for place, line in enumerate(file, 1):
            for part in line.replace(b"\r", b"\n").split(b"\n"):
                where = f"{what}, line {place}"
                with files.door(where):
                    text = part.decode("utf-8-sig")
                    if not text.strip():
                        continue
                    try:
                        row = json.loads(text, **whole)
                    except json.JSONDecodeError as error:
                        raise InputError(f"{where} is not JSON ({error.msg}): json.dumps writes it") from None
                if not isinstance(row, dict):
                    accepted = 'lines {"text": "…"}, one a text'
                    raise InputError(f"{where} is a {type(row).__name__}; accepted: {accepted}")
                yield from batch(what, number, [row.get("id")], [row.get(column)], column, list(row))
                number += 1


def _parquet(path: Path, column: str) -> Iterator[Row]:
    import pyarrow.parquet

    what, number = repr(str(path)), 0
    files.check_file(path, what)
    with files.door(f"{what} as parquet"), pyarrow.parquet.ParquetFile(path) as file:
        columns = columns_of(what, file.schema_arrow.names, column)
        for part in file.iter_batches(N_ROWS, columns=columns):
            with files.door(f"{what} (rows {number + 1} to {number + len(part)})"):
                keys = part["id"].to_pylist() if "id" in columns else [None] * len(part)
                texts = part[column].to_pylist()
            yield from batch(what, number, keys, texts, column, columns)
            number += len(part)


def _csv(path: Path, column: str) -> Iterator[Row]:
    what = repr(str(path))
    table = csv_table(path, what)
    columns = columns_of(what, list(table), column)
    keys = [key or None for key in table["id"]] if "id" in columns else [None] * len(table)
    yield from batch(what, 0, keys, list(table[column]), column)


FORMATS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".txt": _txt, **dict.fromkeys((".jsonl", ".jsonl.gz", ".jsonl.zst"), _jsonl),
    ".parquet": _parquet, ".csv": _csv,
}  # fmt: skip
"""Ending of a file's name → its reader, a function of path and column."""


def format_of(path: Path) -> str:
    """Which of `FORMATS` a file has by its name; empty: none."""
    return next((ending for ending in FORMATS if path.name.lower().endswith(ending)), "")


def from_disk(folder: Path, column: str) -> Iterator[Row]:
    """Rows of a folder that `save_to_disk` has written."""
    what = repr(str(folder))
    with files.door(f"{what}, a folder of save_to_disk,"):
        loaded = _one_split(datasets.load_from_disk(folder), what, f"give the folder of one, as {folder.name}/")
    yield from _rows(loaded, what, column)


def from_hub(
    name: str, hub: str, column: str, *, rows: int | None = None, config: str | None = None, **part: Any
) -> Iterator[Row]:
    """Rows of a data set of the hub, which has the name `hub` there, and the name `name` in messages.

    The first `rows` of them are read without downloading the rest. `config` and `part` (`split`, `revision`) say
    which part and state of the data set; of several splits `train` is taken."""
    try:
        loaded = datasets.load_dataset(hub, config, streaming=rows is not None, **part)
    except Exception as error:  # the hub's client raises many kinds, all of which mean: not to be had
        reason = next(iter(str(error).splitlines()), "")[:200] if isinstance(error, ValueError) else ""
        no_path = " is no path that exists, and" if name == hub else ""
        why = f"could not be loaded from the hub ({type(error).__name__}{reason and ': '}{reason})"
        way_out = "connect to a network, or give a path to a .jsonl or .parquet file"
        raise InputError(f"corpus {name!r}{no_path} {why}: {way_out}") from None
    loaded = _one_split(loaded, f"corpus {name!r}", "name one as `split` in data/corpora.yml, as ")
    yield from _rows(loaded if rows is None else loaded.take(rows), f"corpus {name!r}", column)


def _one_split(loaded, what: str, way_out: str):
    """The only split of a data set, or `train`."""
    if not isinstance(loaded, dict):
        return loaded
    first, *others = loaded
    if others and "train" not in loaded:
        raise InputError(f"{what} has the splits {', '.join(map(repr, loaded))}: {way_out}{first}")
    return loaded.get("train", loaded[first])


def _rows(loaded, what: str, column: str) -> Iterator[Row]:
    number = 0
    with files.door(what):
        names = loaded.column_names or list(next(iter(loaded), {}))  # a stream learns its columns by its first row
        columns = columns_of(what, names, column)
        # other columns, pictures for one, would be decoded
        for part in loaded.select_columns(columns).iter(batch_size=N_ROWS):
            texts = part[column]
            yield from batch(what, number, part.get("id", [None] * len(texts)), texts, column, columns)
            number += len(texts)
