"""The smallest entries of rows against a stable sort."""

import numpy as np
import pytest
import torch

from token_geometry.geometry import selection


def matrices():
    """Matrices by name: with and without ties, with infinite entries, more rows than fit a block."""
    random = np.random.default_rng(0)
    distinct = random.permuted(np.arange(300 * 400.0).reshape(300, 400), axis=1)
    infinite = distinct.copy()
    infinite[:, ::7] = np.inf
    wide = random.integers(0, 500, size=(40, 1025)).astype(float)
    wide[:, ::5] = np.nan
    return {
        "distinct": distinct,
        "tied": random.integers(0, 40, size=(300, 400)).astype(float),
        "tied in one row": np.concatenate([distinct, np.zeros((1, 400))]),
        "equal": np.ones((5, 40)),
        "infinite": infinite,
        "of halves, with no numbers": wide,
        "beyond halves": random.normal(size=(9, 1100)),
    }


@pytest.mark.parametrize("processor", ["AVX2", "AVX512"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", matrices())
def test_the_smallest_entries_are_those_of_a_stable_sort(name, dtype, processor, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    matrix = matrices()[name].astype(dtype)
    order = matrix.argsort(axis=1, kind="stable")
    for n_values, n_columns in ((256, 33), (40, 33), (33, 33), (1, 1), (5, 0), (0, 0), (matrix.shape[1], 12)):
        n_values = min(n_values, matrix.shape[1])
        values, columns = selection.smallest(torch.from_numpy(matrix), n_values, n_columns)
        np.testing.assert_array_equal(columns, order[:, :n_columns])
        np.testing.assert_array_equal(values, np.sort(matrix, axis=1)[:, :n_values])
