"""Cosine similarity between the tokens of a cloud."""

import torch


def cosine_similarity(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the cosine over all pairs of tokens, the diagonal included.

    The mean over all pairs is |sum_i u_i|^2 / N^2 and the mean square |U U^T|_F^2 / N^2, with unit
    vectors u_i: no matrix of pairs is kept. A zero vector counts as a vector at a right angle to
    all, itself included.

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
    Viswanathan et al., arXiv:2501.10573.
    """
    means, deviations = [], []
    for points in hidden:
        unit = torch.nn.functional.normalize(points.double(), dim=1)
        n_points, width = unit.shape
        mean = unit.sum(0).square().sum() / n_points**2
        gram = unit @ unit.T if n_points <= width else unit.T @ unit
        mean_square = gram.square().sum() / n_points**2
        means.append(mean)
        deviations.append((mean_square - mean**2).clamp(min=0).sqrt())
    return torch.stack(means), torch.stack(deviations)
