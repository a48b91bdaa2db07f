"""Cosine similarity between the tokens of a cloud: mean and standard deviation over all pairs, diagonal included.

A zero vector is at a right angle to all, also to itself. Mean: Viswanathan et al., arXiv:2501.10573."""

import torch

# A sum of more terms than this in float32 is taken in parts, which are added in float64.
_TERMS_IN_FLOAT32 = 128


def similarity(points: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the cosine over all pairs of points of one cloud, shape (token, width).

    With unit vectors u_i, their mean m and v_i = u_i - m, the mean over all pairs is |m|^2 and the variance
    (|V^T V|_F^2 + 2 N sum_i (v_i . m)^2) / N^2: no difference of large numbers, so that float32 serves for V."""
    n_points, width = points.shape
    norms = torch.linalg.vecdot(points, points).sqrt().clamp(min=torch.finfo(points.dtype).tiny)
    unit = points / norms[:, None]
    center = unit.mean(0, dtype=torch.float64)
    rest = unit - center.to(unit.dtype)
    gram = rest @ rest.T if n_points <= width else rest.T @ rest
    along = (rest @ center.to(rest.dtype)).double()
    spread = gram.square().sum(dtype=torch.float64) + 2 * n_points * along.square().sum()
    return float(center.square().sum()), float(spread.sqrt()) / n_points


def of_clouds(points, centered, center, gram) -> torch.Tensor:
    """Mean and standard deviation of several clouds, float64, shape (2, cloud), from Gram matrices as below."""
    lengths = torch.linalg.vector_norm(points, dim=2)
    mean = (points / lengths[:, :, None]).mean(1).square().sum(1)
    shift = (centered @ center.mT)[..., 0] + center.square().sum(2) / 2
    cosines = (gram + shift[:, :, None]).add_(shift[:, None]).div_(lengths[:, :, None]).div_(lengths[:, None])
    return torch.stack([mean, cosines.sub_(mean[:, None, None]).square().mean((1, 2)).sqrt()])


class FromGram:
    """The same from a Gram matrix that is made anyway, one block of rows after another.

    The Gram matrix is that of the centered points c_i = x_i - m. With s_i = c_i . m + |m|^2 / 2 the product of two
    points is c_i . c_j + s_i + s_j; the mean over all pairs is the squared length of the mean of the unit vectors.
    `points`, of which none is zero, and `centered` have shape (token, width), `center` (width,), and `norms`,
    those of the points, (token,)."""

    def __init__(self, points: torch.Tensor, centered: torch.Tensor, center: torch.Tensor, norms: torch.Tensor):
        self._norms, self._inverse = norms, 1 / norms
        self._shift = centered @ center + center.square().sum() / 2
        parts = zip(self._inverse.split(_TERMS_IN_FLOAT32), points.split(_TERMS_IN_FLOAT32), strict=True)
        unit = torch.stack([inverse @ part for inverse, part in parts]).sum(0, dtype=torch.float64) / len(points)
        self._mean = unit.square().sum()
        self._squares = torch.zeros((), dtype=torch.float64, device=points.device)

    def add(self, gram: torch.Tensor, start: int) -> None:
        """Count the pairs of a block of whole rows that begins at row `start`, and their mirror images."""
        rows, rest = slice(start, start + len(gram)), slice(start, None)
        # |x_i| times the cosine's difference from the mean; pairs before the block came with earlier blocks
        product = torch.add(gram[:, start:], self._shift[rest]).add_(self._shift[rows, None])
        difference = product.mul_(self._inverse[rest]).sub_(self._mean.to(gram.dtype) * self._norms[rows, None])
        parts = difference[:, : len(gram)], difference[:, len(gram) :]
        inside, beyond = (torch.linalg.vector_norm(part, dim=1).square().double() for part in parts)
        self._squares += ((inside + 2 * beyond) * self._inverse[rows].double().square()).sum()

    def result(self) -> tuple[float, float]:
        """Mean and standard deviation, once all rows were added."""
        return float(self._mean), float(self._squares.sqrt()) / len(self._norms)
