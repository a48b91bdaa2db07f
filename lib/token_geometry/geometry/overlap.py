"""Observables that compare lists of nearest neighbors."""

import numpy as np


def common_neighbors(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Number of common neighbors within the first k of two lists, for every k at once.

    Rank a of one list and rank b of the other that name the same point count for all k > max(a, b).

    Parameters
    ----------
    first, second
        Indices, nearest first, shape (n_points, n_neighbors); -1 marks a missing neighbor.

    Returns
    -------
    numpy.ndarray
        Sum over points, shape (n_neighbors,), entry k - 1 for neighborhoods of k.
    """
    same = (first[:, :, None] == second[:, None, :]) & (first[:, :, None] >= 0)
    pairs = same.sum(0)
    n_neighbors = len(pairs)
    larger = np.maximum(*np.indices((n_neighbors, n_neighbors)))
    return np.bincount(larger.ravel(), weights=pairs.ravel(), minlength=n_neighbors).cumsum()


def neighborhood_overlap(index: np.ndarray) -> np.ndarray:
    """Neighborhood overlap chi_k of each layer with the next.

    chi_k = (1/N) sum_i |N_k^l(i) intersect N_k^(l+1)(i)| / k, self excluded.

    Parameters
    ----------
    index
        Shape (layer, n_points, n_neighbors).

    Returns
    -------
    numpy.ndarray
        Shape (layer, n_neighbors); NaN at the last layer, and beyond the neighbors there are.

    References
    ----------
    Viswanathan et al., arXiv:2501.10573; Doimo et al., NeurIPS 2020.
    """
    overlap = np.full((index.shape[0], index.shape[2]), np.nan)
    for layer in range(len(index) - 1):
        overlap[layer] = _share(common_neighbors(index[layer], index[layer + 1]), index[layer])
    return overlap


def reciprocity(index: np.ndarray) -> np.ndarray:
    """Share of the edges of the k-neighbor graph that are mutual, shape (layer, n_neighbors).

    r_k = 1/(N k) sum_ij A_ij A_ji. Edge i → j at rank a is mutual within k when i stands in the
    list of j at a rank b with max(a, b) < k.

    Parameters
    ----------
    index
        Shape (layer, n_points, n_neighbors).

    References
    ----------
    Viswanathan et al., arXiv:2501.10573.
    """
    n_points, n_neighbors = index.shape[1:]
    rank = np.arange(n_neighbors)
    shares = np.empty((len(index), n_neighbors))
    for layer, lists in enumerate(index):
        back = lists[lists] == np.arange(n_points)[:, None, None]  # (i, rank a of j, rank b of i)
        back &= (lists >= 0)[:, :, None]
        pairs = back.sum(0)
        larger = np.maximum(rank[:, None], rank[None])
        counts = np.bincount(larger.ravel(), weights=pairs.ravel(), minlength=n_neighbors)
        shares[layer] = _share(counts.cumsum(), lists)
    return shares


def layer_overlap(index: np.ndarray, *, k: int = 16) -> np.ndarray:
    """Overlap of the neighborhoods of k points between any two layers, shape (layer, layer)."""
    n_layers = len(index)
    overlap = np.empty((n_layers, n_layers))
    for first in range(n_layers):
        for second in range(first, n_layers):
            common = common_neighbors(index[first, :, :k], index[second, :, :k])
            overlap[first, second] = overlap[second, first] = _share(common, index[first])[-1]
    return overlap


def _share(counts: np.ndarray, lists: np.ndarray) -> np.ndarray:
    k = np.arange(1, len(counts) + 1)
    missing = (lists[0] < 0).cumsum()[: len(counts)] > 0
    return np.where(missing, np.nan, counts / (len(lists) * k))
