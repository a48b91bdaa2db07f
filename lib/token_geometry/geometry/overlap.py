"""Observables that compare lists of nearest neighbors.

Lists are turned into a table of ranks once: entry (i, j) is the place of j among the neighbors of i. Then
each neighbor of one list is looked up in the other, and counts for every k that reaches both places."""

import numpy as np


def neighborhood_overlap(index: np.ndarray) -> np.ndarray:
    """Neighborhood overlap chi_k of each layer with the next, shape (layer, n_neighbors).

    chi_k = (1/N) sum_i |N_k^l(i) intersect N_k^(l+1)(i)| / k, self excluded (Viswanathan et al., arXiv:2501.10573;
    Doimo et al., NeurIPS 2020). `index` are the indices of neighbors, nearest first, shape (layer, n_points,
    n_neighbors); -1 marks a missing one. NaN at the last layer, and beyond the neighbors there are."""
    overlap = np.full((index.shape[0], index.shape[2]), np.nan)
    for layer in range(len(index) - 1):
        overlap[layer] = _shares(_ranks(index[layer + 1]), index[layer])
    return overlap


def reciprocity(index: np.ndarray) -> np.ndarray:
    """Share of the edges of the k-neighbor graph that are mutual; shapes as of `neighborhood_overlap`.

    r_k = 1/(N k) sum_ij A_ij A_ji. The edge from i to its neighbor j is mutual within k when i stands in the
    list of j, and both places are within k (Garlaschelli & Loffredo, Phys. Rev. Lett. 93, 268701 (2004);
    Viswanathan et al., arXiv:2501.10573)."""
    shares = np.empty((index.shape[0], index.shape[2]))
    for layer, lists in enumerate(index):
        # entry (i, j) of the transpose: the place of i in the list of j
        shares[layer] = _shares(_ranks(lists).T, lists)
    return shares


def layer_overlap(index: np.ndarray, *, k: int = 16) -> np.ndarray:
    """Overlap of the neighborhoods of k points of any two layers, shape (layer, layer); NaN if there are fewer."""
    n_layers, n_points, _ = index.shape
    lists, overlap = index[:, :, :k], np.empty((n_layers, n_layers))
    # neighbors of all layers as one list of flat addresses, looked up in each layer's table in turn
    addresses = np.where(lists >= 0, lists, 0) + n_points * np.arange(n_points)[None, :, None]
    missing = lists < 0
    for layer in range(n_layers):
        found = (_ranks(lists[layer]) < lists.shape[2]).ravel()[addresses[layer:]] & ~missing[layer:]
        overlap[layer, layer:] = overlap[layer:, layer] = found.sum((1, 2)) / (n_points * k)
    return np.full_like(overlap, np.nan) if missing.any() else overlap


def _ranks(lists: np.ndarray) -> np.ndarray:
    """Place of every point in the list of every point, less than 255 long; the length of the list if not in it."""
    n_points, n_neighbors = lists.shape
    # the column that -1 points at takes the entries of missing neighbors, and is cut off
    ranks = np.full((n_points, n_points + 1), n_neighbors, dtype=np.uint8)
    np.put_along_axis(ranks, lists.astype(np.int64), np.arange(n_neighbors, dtype=np.uint8)[None], axis=1)
    return ranks[:, :-1]


def _shares(ranks: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Share of entries whose place in the list and rank in the table are within k, for k = 1 … n_neighbors."""
    n_points, n_neighbors = lists.shape
    found = np.take_along_axis(ranks, np.where(lists >= 0, lists, 0).astype(np.int64), axis=1)
    larger = np.maximum(found, np.arange(n_neighbors, dtype=np.uint8))
    counts = np.bincount(np.where(lists >= 0, larger, n_neighbors).ravel(), minlength=n_neighbors + 1)
    missing, k = (lists < 0).any(0).cumsum() > 0, np.arange(1, n_neighbors + 1)
    return np.where(missing, np.nan, counts[:n_neighbors].cumsum() / (n_points * k))
