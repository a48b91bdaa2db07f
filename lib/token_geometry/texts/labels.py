"""Labels of statements: which are false and true, which are names of classes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from token_geometry.base.errors import InputError

TRUTH = {
    ("false", "true"),
    ("incorrect", "correct"),
    ("wrong", "right"),
    ("wrong", "correct"),
    ("no", "yes"),
    ("inaccurate", "accurate"),
    ("untrue", "true"),
    ("not true", "true"),
    ("lie", "truth"),
    ("lie", "honest"),
    ("dishonest", "honest"),
    ("untruthful", "truthful"),
    ("f", "t"),
    ("n", "y"),
}
"""Words for false and true; two words that are no such pair are names of classes."""

MISSING = {"", "nan", "na", "n/a", "<na>", "#n/a", "null", "none", "?"}
"""What stands in the place of a label that is not there."""

LARGEST = 2**53
"""Whole numbers below it are told apart as floating-point numbers."""


def missing(spelled: Sequence[str]) -> np.ndarray:
    """Which labels are not there, shape (n_statements,)."""
    return np.array([label.lower() in MISSING for label in spelled], dtype=bool)


def numbered(spelled: Sequence[str], what: str) -> tuple[np.ndarray, list[str]]:
    """Labels as whole numbers, and as a reader sees them.

    The labels 0 and 1, -1 and 1, and the words of `TRUTH` become 0 (false) and 1 (true). Other whole numbers stay.
    All else are classes, counted from 1 in alphabetical order, so that none is taken for false or true.

    Parameters
    ----------
    spelled
        The labels as the file spells them, shape (n_statements,).
    what
        Name of the data set, for messages.

    Raises
    ------
    InputError
        If numbers and words are mixed, or a number is not finite or too large to be a label.
    """
    spelled, words = list(spelled), [label.lower() for label in spelled]
    numbers = np.asarray(pd.to_numeric(pd.Series(words, dtype=object), errors="coerce"), dtype=np.float64)
    is_word = np.isnan(numbers)
    if is_word.any() and not is_word.all():
        number, word = spelled[is_word.argmin()], spelled[is_word.argmax()]
        raise InputError(f"{what} has numbers and words as labels ({number!r}, {word!r}): spell them alike")
    if is_word.any():
        for false, true in TRUTH:
            if {*words} <= {false, true}:
                return np.array([word == true for word in words], dtype=np.int64), spelled
    elif (outside := ~(np.abs(numbers) < LARGEST)).any():
        raise InputError(
            f"{what} has the label {spelled[outside.argmax()]!r}; accepted: words, and numbers below 2^53"
        )
    elif (numbers == numbers.round()).all():
        values = numbers.astype(np.int64)
        if {*values.tolist()} == {-1, 1}:
            values = (values + 1) // 2
        return values, [str(value) for value in values] if {*values.tolist()} == {0, 1} else spelled
    return np.unique(words, return_inverse=True)[1].astype(np.int64) + 1, spelled
