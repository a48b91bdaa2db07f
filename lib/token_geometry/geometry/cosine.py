"""Cosine similarity between the tokens of a cloud."""

import torch

from token_geometry.geometry.parallel import map_layers


def cosine_similarity(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the cosine over all pairs of tokens, the diagonal included.

    With unit vectors u_i, their mean m and v_i = u_i - m, the mean over all pairs is |m|^2 and the
    variance (|V^T V|_F^2 + 2 N sum_i (v_i . m)^2) / N^2: no difference of large numbers, so that float32
    serves for V, and no matrix of pairs is kept. A zero vector counts as a vector at a right angle to all,
    itself included.

    Parameters
    ----------
    hidden
        Shape (layer, token, width).

    Returns
    -------
    mean, deviation
        float64, shape (layer,).

    References
    ----------
    Viswanathan et al., arXiv:2501.10573, for the mean.
    """
    pairs = map_layers(_layer_similarity, hidden)
    means, deviations = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    return means, deviations


def _layer_similarity(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    n_points, width = points.shape
    norms = torch.linalg.vecdot(points, points).sqrt().clamp(min=torch.finfo(points.dtype).tiny)
    unit = points / norms[:, None]
    center = unit.mean(0, dtype=torch.float64)
    rest = unit - center.to(unit.dtype)
    gram = rest @ rest.T if n_points <= width else rest.T @ rest
    along = (rest @ center.to(rest.dtype)).double()
    spread = gram.square().sum(dtype=torch.float64) + 2 * n_points * along.square().sum()
    return center.square().sum(), spread.sqrt() / n_points
