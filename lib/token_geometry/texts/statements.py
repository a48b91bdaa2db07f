"""Statements with labels: CSV files read, checked, and drawn from."""

import dataclasses
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from token_geometry.base import InputError, files, one_of, project, store
from token_geometry.texts import reading

_TABLE = files.table(__file__)
TRUTH, MISSING, OPPOSITES = _TABLE["truth"], _TABLE["missing"], _TABLE["opposites"]  # which the file describes
TOPICS, NEGATION = _TABLE["topics"], "neg_"

LARGEST = 2**53  # whole numbers below it are told apart as floating-point numbers
N_CLASSES = 50  # classes that a label may have; more are measurements and no classes
GROUP_SHARE = 10  # one part in so many of the statements is as much as a group of them holds


class LabelsError(InputError):
    """Labels that no probe can learn from."""


@dataclass(frozen=True)
class Statements:
    """A data set, or a draw from one, in the order of its file.

    `texts` are as the file has them: a label may concern the last token, were it a space. `labels` are whole
    numbers, and `label_names` as the file spells them, -1 and 1.0 as 0 and 1 where they are false and true. Of
    the file, whose rows count from 0, `n_repeated` rows were left out since an earlier one has the same statement
    and label, and `n_contradictory` since their statements stand there with several labels."""

    name: str  # that of the file without suffix
    texts: tuple[str, ...]
    labels: np.ndarray  # shape (n_statements,)
    label_names: tuple[str, ...]
    rows: np.ndarray  # of the statements in the file, shape (n_statements,)
    n_rows: int
    n_repeated: int
    n_contradictory: int

    def identity(self) -> dict[str, str]:
        """What decides the numbers: a checksum of statements and labels."""
        content = [[text, int(label)] for text, label in zip(self.texts, self.labels, strict=True)]
        return {"name": self.name, "digest": store.digest({"statements": content})}

    @property
    def classes(self) -> list[int]:
        """The labels that occur."""
        return sorted(set(self.labels.tolist()))

    @property
    def is_binary(self) -> bool:
        """Whether the labels are 0 and 1, and so false and true."""
        return self.classes == [0, 1]

    def groups(self) -> np.ndarray:
        """Number of the group of each statement, shape (n_statements,): a group is to be in one fold.

        Neighbors of a file, which keeps the true and the false statement on one thing side by side, and those that
        share a word, rarest words first, up to one part in `GROUP_SHARE`: a word of one true and one false
        statement misleads a probe that learned from either about the other."""
        group, members, places = (self.rows // 2).tolist(), defaultdict(list), defaultdict(list)
        for place, text in enumerate(self.texts):
            members[group[place]].append(place)
            for word in dict.fromkeys(re.findall(r"\w+", text.lower())):
                places[word].append(place)
        for found in sorted(places.values(), key=len):
            first, *others = dict.fromkeys(group[place] for place in found)
            if sum(len(members[one]) for one in (first, *others)) <= len(group) // GROUP_SHARE:
                for place in itertools.chain(*map(members.pop, others)):
                    group[place] = first
                    members[first].append(place)
        return np.array(group)

    def draw(self, n_statements: int | None, *, seed: int) -> "Statements":
        """At most so many of the statements, each class in the proportion that it has.

        A row is drawn or not whatever its label, so that the same rows come from a data set and from its negation.
        """
        if n_statements is None or n_statements >= len(self.texts):
            return self
        order = np.argsort(np.random.default_rng(seed).random(self.n_rows)[self.rows], kind="stable")
        # the classes in the order in which the file has them: the negation has the other labels there
        share = n_statements / len(self.texts)
        members = [order[self.labels[order] == label] for label in dict.fromkeys(self.labels.tolist())]
        counts = [int(share * len(member)) for member in members]
        rest = sorted(range(len(members)), key=lambda i: counts[i] - share * len(members[i]))
        for i in rest[: n_statements - sum(counts)]:
            counts[i] += 1
        chosen = np.sort(np.concatenate([m[:count] for m, count in zip(members, counts, strict=True)]))
        return self.some(chosen, f"{n_statements} statements drawn from data set {self.name!r}")

    def some(self, chosen: np.ndarray, what: str) -> "Statements":
        """Those at some places; an error calls them `what`."""
        texts, names = (tuple(part[i] for i in chosen) for part in (self.texts, self.label_names))
        given = {"texts": texts, "label_names": names, "labels": self.labels[chosen], "rows": self.rows[chosen]}
        found = dataclasses.replace(self, **given)
        different, counts = np.unique(found.labels, return_counts=True)
        if len(different) < 2:
            only = f"the label {names[0]!r} only" if names else "no statements"
            raise LabelsError(f"{what}: {only}; accepted: statements of two classes or more")
        if len(different) > N_CLASSES:
            raise LabelsError(f"{what}: {len(different)} different labels; accepted: 2 to {N_CLASSES} classes")
        if counts.min() < 2:
            rare = names[found.labels.tolist().index(different[counts.argmin()])]
            only = f"one statement only has the label {rare!r}"
            raise LabelsError(f"{what}: {only}; accepted: two or more of each class")
        return found


def names() -> list[str]:
    """Names of the data sets of `data/statements`."""
    return sorted(path.stem for path in (project.root() / "data" / "statements").glob("*.csv"))


def load(dataset: str) -> Statements:
    """Read a data set: a file of `data/statements` by its name, or any CSV file by its path.

    Columns are `statement` and `label`; others are left alone. The labels 0 and 1, -1 and 1, and the words of
    `TRUTH` become 0 (false) and 1 (true). Other whole numbers stay. All else are classes, counted from 1 in
    alphabetical order, so that none is taken for false or true. An `InputError` says if there is no such file,
    or it is not of this form."""
    path, what = Path(os.path.expanduser(dataset)), f"data set {dataset!r}"
    if dataset in names():
        path = project.root() / "data" / "statements" / f"{dataset}.csv"
    elif path.suffix.lower() != ".csv" or not os.path.lexists(path):
        raise InputError(f"{one_of('data set', dataset, names())}; or the path of a .csv file that exists")
    table = reading.csv_table(path, what)
    if lacking := [column for column in ("statement", "label") if column not in table]:
        problem = f"{what} has no column {lacking[0]!r}, only {', '.join(map(repr, table)) or 'none'}"
        apart = ", with commas between them" if any(c in "".join(table) for c in ";\t") else ""
        raise InputError(f"{problem}: its first line must name the columns statement and label{apart}")
    texts, spelled = table["statement"], table["label"].str.strip()
    for column, empty in (("statement", texts.str.strip() == ""), ("label", spelled.map(str.lower).isin(MISSING))):
        if empty.any():
            row = int(np.argmax(empty))
            value = str(table[column].iloc[row]).strip()
            found = f"row {row + 1} after the first line: the {column} is {value and repr(value) or 'empty'}"
            raise InputError(f"{what}, {found}; {empty.sum()} such rows: fill them in or take them out")
    values, shown = _numbered(list(spelled), what)
    # a statement that is there twice would be one point of the cloud, and in train and test at a time
    contradictory = pd.Series(values).groupby(texts).transform("nunique").gt(1)
    repeated = texts.duplicated() & ~contradictory
    rows, n_out = np.arange(len(table)), (int(repeated.sum()), int(contradictory.sum()))
    read = Statements(path.stem, tuple(texts), values, tuple(shown), rows, len(table), *n_out)
    return read.some(np.flatnonzero(~(contradictory | repeated)), what)


def draw_all(datasets: Sequence[str], n: int | None, *, seed: int) -> tuple[list[Statements], list[str]]:
    """Draw from several data sets, whose names must differ, and say of which labels nothing can be learned.

    Those are left out, but for the first, without which there is nothing to compare with: an error."""
    if not datasets:
        raise InputError("datasets is empty; accepted: at least one data set")
    found, lines = [], []
    for dataset in datasets:
        try:
            found.append(load(dataset).draw(n, seed=seed))
        except LabelsError as error:
            if not found:
                raise
            lines.append(f"{error}; it is left out")
    named = [one.name for one in found]
    if twice := [name for name in named if named.count(name) > 1]:
        raise InputError(f"datasets holds two of the name {twice[0]!r}; accepted: different names")
    return found, lines


def opposites(sets: Sequence[Statements]) -> dict[str, str]:
    """Names of the data sets that are the same statements turned into their opposite, both ways.

    A pair is known by its names (`neg_x` and `x`; `OPPOSITES`), and counts if the rows are the same and
    every label is the other one."""
    by_name, found = {statements.name: statements for statements in sets}, {}
    for name, one in by_name.items():
        other = by_name.get(name.removeprefix(NEGATION) if name.startswith(NEGATION) else OPPOSITES.get(name, ""))
        if other and one.is_binary and other.is_binary and np.array_equal(one.rows, other.rows):
            if np.array_equal(one.labels, 1 - other.labels):
                found |= {name: other.name, other.name: name}
    return found


def kind(name: str) -> tuple[str, int]:
    """Topic of a data set by its name, and its polarity: 1 if affirmative, -1 if negated or opposite."""
    topic, polarity = TOPICS.get(name.removeprefix(NEGATION), (name.removeprefix(NEGATION), 1))
    return topic, -polarity if name.startswith(NEGATION) else polarity


def _numbered(spelled: list[str], what: str) -> tuple[np.ndarray, list[str]]:
    """Labels as whole numbers, shape (n_statements,), as `load` says, and as a reader sees them."""
    words = [label.lower() for label in spelled]
    numbers = np.asarray(pd.to_numeric(pd.Series(words, dtype=object), errors="coerce"), dtype=np.float64)
    is_word = np.isnan(numbers)
    if is_word.any() and not is_word.all():
        number, word = spelled[is_word.argmin()], spelled[is_word.argmax()]
        raise InputError(f"{what} has numbers and words as labels ({number!r}, {word!r}): spell them alike")
    if is_word.any():
        for true, others in TRUTH.items():
            if any({*words} <= {true, false} for false in others):
                return np.array([word == true for word in words], dtype=np.int64), spelled
    elif (outside := ~(np.abs(numbers) < LARGEST)).any():
        raise InputError(f"{what}: the label {spelled[outside.argmax()]!r}; accepted: words, numbers below 2^53")
    elif (numbers == numbers.round()).all():
        values = numbers.astype(np.int64)
        if {*values.tolist()} == {-1, 1}:
            values = (values + 1) // 2
        return values, [str(value) for value in values] if {*values.tolist()} == {0, 1} else spelled
    return np.unique(words, return_inverse=True)[1].astype(np.int64) + 1, spelled
