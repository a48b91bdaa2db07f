"""The smallest entries of each row of a matrix, in order, with their columns."""

import numpy as np
import torch

# Rows that stay in the cache of a core while they are selected from.
_ROWS_IN_CACHE = 128


def smallest(matrix: torch.Tensor, n_values: int, n_columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest entries of each row in order, and the columns of the first of them.

    Parameters
    ----------
    matrix
        Shape (m, n), on any device.
    n_values
        How many entries of each row are wanted, at most n.
    n_columns
        Of how many the column is wanted too, at most `n_values`.

    Returns
    -------
    values, columns
        Shape (m, n_values), and (m, n_columns); among equal entries the lower column comes first.
    """
    if matrix.device.type != "cpu" or n_columns == 0:
        values, columns = matrix.sort(dim=1, stable=True)
        return values[:, :n_values], columns[:, :n_columns]
    parts = [_of_rows(rows.numpy(), n_values, n_columns) for rows in matrix.split(_ROWS_IN_CACHE)]
    values, columns = (np.concatenate(each) for each in zip(*parts, strict=True))
    return torch.from_numpy(values), torch.from_numpy(columns)


def _of_rows(matrix: np.ndarray, n_values: int, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
    # numpy partitions and sorts values by vector instructions, several times as fast as values together with
    # their columns; the columns are then looked up for the few entries up to the last one wanted
    values = np.sort(np.partition(matrix, n_values - 1, axis=1)[:, :n_values], axis=1)
    return values, _columns(matrix, values[:, n_columns - 1 : n_columns], n_columns)


def _columns(matrix: np.ndarray, last: np.ndarray, n_columns: int) -> np.ndarray:
    """Columns of the `n_columns` smallest entries of each row, of which `last` is the largest."""
    n_rows, width = matrix.shape
    flat = np.flatnonzero(matrix <= last)
    if len(flat) == n_rows * n_columns:  # no row has more entries than asked for
        entries = flat.reshape(n_rows, n_columns)
        found = matrix.take(entries)
    else:  # some equal the last one of their row
        counts = np.bincount(flat // width, minlength=n_rows)
        starts = counts.cumsum() - counts
        place = np.arange(counts.max())
        present = place < counts[:, None]
        entries = flat[np.where(present, starts[:, None] + place, 0)]
        found = np.where(present, matrix.take(entries), np.inf)
    order = found.argsort(axis=1, kind="stable")[:, :n_columns]
    return np.take_along_axis(entries, order, axis=1) % width
