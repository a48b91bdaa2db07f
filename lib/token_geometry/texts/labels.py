"""Labels of statements: which are false and true, which are names of classes."""

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


def missing(spelled: pd.Series) -> np.ndarray:
    """Which labels are not there, shape (n_statements,)."""
    return spelled.str.lower().isin(MISSING).to_numpy()


def numbered(spelled: pd.Series, what: str) -> tuple[np.ndarray, pd.Series]:
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
    words = spelled.str.lower()
    numbers = pd.to_numeric(words, errors="coerce").astype(float)
    is_number = numbers.notna()
    if is_number.any() and not is_number.all():
        pair = [spelled[is_number].iloc[0], spelled[~is_number].iloc[0]]
        raise InputError(f"{what} has numbers and words as labels ({pair[0]!r}, {pair[1]!r}): spell them alike")
    if not is_number.all():
        for false, true in TRUTH:
            if {*words} <= {false, true}:
                return (words == true).to_numpy(dtype=np.int64), spelled
    elif (outside := ~(numbers.abs() < LARGEST)).any():
        large = spelled[outside].iloc[0]
        raise InputError(f"{what} has the label {large!r}; accepted: words, and numbers below 2^53")
    elif (numbers == numbers.round()).all():
        values = numbers.to_numpy(dtype=np.int64)
        if {*values} == {-1, 1}:
            values = (values + 1) // 2
        if {*values} == {0, 1}:
            spelled = pd.Series(values.astype(str), index=spelled.index)
        return values, spelled
    return words.astype("category").cat.codes.to_numpy(dtype=np.int64) + 1, spelled
