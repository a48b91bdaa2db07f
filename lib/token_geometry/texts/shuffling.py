"""Block shuffles: the tokens of a prompt cut into 4^S equal blocks, which a seed puts in another order."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from token_geometry.base import InputError


def check_shuffle_levels(levels: Sequence[int], n_tokens: int) -> None:
    """Refuse levels S at which 4^S blocks do not divide a prompt evenly."""
    largest = max(s for s in range(16) if n_tokens % 4**s == 0)
    for level in levels:
        if not 0 <= level <= largest:
            problem = f", but 4^{level} blocks do not divide n_tokens = {n_tokens}" * (level > 0)
            other = f", or n_tokens a multiple of {4 ** max(levels)}" if largest < max(levels) < 7 else ""
            raise InputError(f"shuffle_levels holds {level}{problem}; accepted: 0 to {largest}{other}")


def block_permutation(level: int, *, seed: int, text_sha256: str, number: int = 0) -> np.ndarray:
    """Order of the K = 4^S blocks of a prompt at shuffle level S: a permutation of 0 … K − 1, shape (K,).

    The same for every model, given seed, level, text and `number`, so that prompts are permuted independently;
    numbers beyond 0 give further permutations of the same prompt. Level 0 is the identity (Viswanathan et al.,
    arXiv:2501.10573, Algorithm 1)."""
    random = np.random.default_rng([seed, level, int(text_sha256, 16), *([number] if number else [])])
    return random.permutation(4**level).astype(np.int32)


def shuffle_blocks(tokens: np.ndarray, permutation: np.ndarray) -> np.ndarray:
    """Tokens with their K equal blocks in the order of `permutation`, shape (n_tokens,)."""
    return tokens.reshape(len(permutation), -1)[permutation].reshape(-1)


def bleu(shuffled: np.ndarray, tokens: np.ndarray, *, n: int = 4) -> float:
    """BLEU of shuffled tokens: how many of their runs of 1 to n tokens the original has as well.

    Geometric mean of the shares; a run counts as often as the original has it (Papineni et al., ACL 2002)."""
    shares = []
    for size in range(1, n + 1):
        found, given = (Counter(map(tuple, sliding_window_view(ids, size).tolist())) for ids in (shuffled, tokens))
        shares.append((found & given).total() / found.total())
    return math.prod(shares) ** (1 / n)
