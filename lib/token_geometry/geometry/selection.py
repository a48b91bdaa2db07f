"""The smallest entries of each row of a matrix, in order, with their columns."""

import numpy as np
import torch

ROWS_IN_CACHE = 128
"""Rows of a Gram matrix that stay in the cache of a core while all that is wanted of them is taken."""


def smallest(matrix: torch.Tensor, n_values: int, n_columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest entries of each row in order, shape (m, n_values), and the columns of the first of them.

    The matrix has shape (m, n) and may be on any device, the columns (m, n_columns); n_columns ≤ n_values ≤ n.
    Among equal entries the lower column comes first. Several matrices, shape (…, m, n), give as many of both."""
    if matrix.device.type != "cpu" or n_values == 0 or matrix.ndim > 2:
        values, columns = matrix.sort(dim=-1, stable=True)
        return values[..., :n_values], columns[..., :n_columns]
    values, columns = [], []
    for rows in (part.numpy() for part in matrix.split(ROWS_IN_CACHE)):
        # several times as fast as values with their columns, which are then looked up for the few that are wanted
        values.append(_in_order(rows, n_values))
        if n_columns:
            columns.append(_columns(rows, values[-1][:, n_columns - 1 : n_columns], n_columns))
    none = np.empty((len(matrix), 0), np.int64)
    return torch.from_numpy(np.concatenate(values)), torch.from_numpy(np.concatenate(columns) if columns else none)


def _in_order(rows: np.ndarray, n_values: int) -> np.ndarray:
    few, half = rows, rows.shape[1] // 2
    # numpy sorts 2 KB without a branch; to part more by AVX-512 takes longer than by AVX2 on AMD's Zen 4
    if half <= 512 and torch.backends.cpu.get_cpu_capability() == "AVX512":
        if n_values <= half and rows.shape[1] * rows.itemsize > 2048:
            left, right = (_in_order(side, n_values) for side in (rows[:, :half], rows[:, half:]))
            # of two rows in order, one turned round, the smaller of each two entries are the smallest of all
            few = np.fmin(left, right[:, ::-1])
    elif n_values < half:
        few = np.partition(rows, n_values - 1, axis=1)[:, :n_values]
    return np.sort(few, axis=1)[:, :n_values]


def _columns(matrix: np.ndarray, last: np.ndarray, n_columns: int) -> np.ndarray:
    """Columns of the `n_columns` smallest entries of each row, of which `last` is the largest."""
    flat, width = np.flatnonzero(matrix <= last), matrix.shape[1]
    if len(flat) == len(matrix) * n_columns:  # no row has more entries than asked for
        entries = flat.reshape(-1, n_columns)
        return np.take_along_axis(entries, matrix.take(entries).argsort(axis=1, kind="stable"), axis=1) % width
    counts = np.bincount(flat // width, minlength=len(matrix))
    starts, place = counts.cumsum() - counts, np.arange(counts.max())
    present = place < counts[:, None]
    entries = flat[np.where(present, starts[:, None] + place, 0)]
    found = np.where(present, matrix.take(entries), np.inf)
    return np.take_along_axis(entries, found.argsort(axis=1, kind="stable")[:, :n_columns], axis=1) % width
