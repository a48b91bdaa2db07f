"""Observables that compare lists of nearest neighbors.

Lists are turned into a table of ranks once: entry (i, j) is the place of j among the neighbors of i. Then
each neighbor of one list is looked up in the other, and counts for every k that reaches both places.
"""

import numpy as np


def neighbor_ranks(lists: np.ndarray) -> np.ndarray:
    """Place of every point in the list of every point.

    Parameters
    ----------
    lists
        Indices, nearest first, shape (n_points, n_neighbors), less than 255 neighbors; -1 marks a missing
        one.

    Returns
    -------
    numpy.ndarray
        Shape (n_points, n_points), uint8, 0 for the nearest; n_neighbors where a point is not in the list.
    """
    n_points, n_neighbors = lists.shape
    # the column that -1 points at takes the entries of missing neighbors, and is cut off
    ranks = np.full((n_points, n_points + 1), n_neighbors, dtype=np.uint8)
    places = np.arange(n_neighbors, dtype=np.uint8)[None]
    np.put_along_axis(ranks, lists.astype(np.int64), places, axis=1)
    return ranks[:, :-1]


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
        ranks = neighbor_ranks(index[layer + 1])
        overlap[layer] = _shares(_look_up(ranks, index[layer]), index[layer])
    return overlap


def reciprocity(index: np.ndarray) -> np.ndarray:
    """Share of the edges of the k-neighbor graph that are mutual, shape (layer, n_neighbors).

    r_k = 1/(N k) sum_ij A_ij A_ji. The edge from i to its neighbor j is mutual within k when i stands in the
    list of j, and both places are within k.

    Parameters
    ----------
    index
        Shape (layer, n_points, n_neighbors).

    References
    ----------
    Garlaschelli & Loffredo, Phys. Rev. Lett. 93, 268701 (2004); Viswanathan et al., arXiv:2501.10573.
    """
    shares = np.empty((index.shape[0], index.shape[2]))
    for layer, lists in enumerate(index):
        # entry (i, j) of the transpose: the place of i in the list of j
        shares[layer] = _shares(_look_up(neighbor_ranks(lists).T, lists), lists)
    return shares


def layer_overlap(index: np.ndarray, *, k: int = 16) -> np.ndarray:
    """Overlap of the neighborhoods of k points between any two layers, shape (layer, layer)."""
    n_layers, n_points, _ = index.shape
    lists = index[:, :, :k]
    overlap = np.empty((n_layers, n_layers))
    # neighbors of all layers as one list of flat addresses, looked up in each layer's table in turn
    addresses = np.where(lists >= 0, lists, 0) + n_points * np.arange(n_points)[None, :, None]
    missing = lists < 0
    for layer in range(n_layers):
        member = (neighbor_ranks(lists[layer]) < lists.shape[2]).ravel()
        found = member[addresses[layer:]] & ~missing[layer:]
        overlap[layer, layer:] = overlap[layer:, layer] = found.sum((1, 2)) / (n_points * k)
    return np.full_like(overlap, np.nan) if missing.any() else overlap


def _look_up(ranks: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """For each entry of the lists the larger of its own place and its rank in the table."""
    found = np.take_along_axis(ranks, np.where(lists >= 0, lists, 0).astype(np.int64), axis=1)
    larger = np.maximum(found, np.arange(lists.shape[1], dtype=np.uint8))
    return np.where(lists >= 0, larger, lists.shape[1])


def _shares(places: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Share of entries whose place is within k, for k = 1 … n_neighbors."""
    n_points, n_neighbors = lists.shape
    counts = np.bincount(places.ravel(), minlength=n_neighbors + 1)[:n_neighbors].cumsum()
    k = np.arange(1, n_neighbors + 1)
    missing = (lists < 0).any(0).cumsum() > 0
    return np.where(missing, np.nan, counts / (n_points * k))
