"""What other code finds for a cloud: brute force in float64, and DADApy.

DADApy runs beside the project, where its environment can be made. What it finds for `clouds` and for `LAYERS` of a
real prompt is pinned in a file, so that there is an oracle everywhere: `python lib/tests/oracles.py` writes it.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import euclidean_distances

from token_geometry.extraction import extraction, plan
from token_geometry.geometry import dadapy
from token_geometry.geometry.table_format import RANKS
from token_geometry.requests.extraction import Extraction

PINNED = Path(__file__).with_name("dadapy.npz")

LAYERS = (0, 1, 8, 15, 22, 30)
"""Layers of the first address to the nation whose tables and estimates are pinned."""


@dataclass(frozen=True)
class Cloud:
    """What brute force finds for the tokens of one layer."""

    nearest: np.ndarray
    """The 32 nearest tokens; among equal distances the lower index first."""
    tied: bool
    """Whether equal distances decide anything among the 32."""
    n_distinct: int
    table: np.ndarray
    """Distances of the distinct tokens to those of `RANKS`, NaN beyond their number, shape (token, rank)."""


def brute_force(points):
    distinct, place = np.unique(points.astype(np.float64), axis=0, return_inverse=True)
    place = place.reshape(-1)
    distances = euclidean_distances(distinct)
    of_tokens = distances[np.ix_(place, place)]  # repeated tokens tie exactly here
    np.fill_diagonal(of_tokens, np.inf)
    order = np.argsort(of_tokens, axis=1, kind="stable")
    ranked = np.take_along_axis(of_tokens, order[:, :33], axis=1)
    return Cloud(
        nearest=order[:, :32],
        tied=bool((np.diff(ranked, axis=1) == 0).any()),
        n_distinct=len(distinct),
        table=rank_table(distances, len(points)),
    )


def rank_table(distances, n_rows):
    """Columns of `RANKS` of sorted distances, NaN in the ranks that are missing and in rows to be left out."""
    table = np.full((n_rows, len(RANKS)), np.nan)
    ranks = [rank for rank in RANKS if rank < len(distances)]
    table[: len(distances), : len(ranks)] = np.sort(distances, axis=1)[:, ranks]
    return table


def gaussian(n_points, dimension):
    return np.random.default_rng([n_points, dimension]).normal(size=(n_points, dimension))


def clouds():
    """Clouds on which the conventions of DADApy decide, by name."""
    cloud = gaussian(600, 5)
    near = cloud[:10] + 1e-9 * np.random.default_rng(2).normal(size=(10, 5))
    return {
        # most points have several nearest neighbors at the same distance
        "grid": np.stack(np.meshgrid(*[np.arange(7.0)] * 3), axis=-1).reshape(-1, 3),
        "near": np.concatenate([cloud, near]),
        **{f"gaussian{n_points}": gaussian(n_points, 3) for n_points in (5, 9, 40, 257)},
    }


def pinned(name):
    """What DADApy found for a cloud: dimension, error and mean distance, shape (3, scale)."""
    with np.load(PINNED) as file:
        return file[name]


def of_points(points):
    """What DADApy finds now; distances are those of differences, which keep what is nearly zero."""
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    return np.concatenate(dadapy.estimate(rank_table(distances, len(points))[None]))


def two_prompts(folder):
    """Two addresses of 1024 tokens."""
    return Extraction(
        model="smollm2-135m",
        corpus="sotu",
        output=str(folder),
        n_prompts=2,
        n_tokens=1024,
        shuffle_levels=[0],
        device="cpu",
    )


def read_shards(directory):
    """The shards of a complete extraction."""
    planned = plan.read_plan(Path(directory))
    return (plan.read_shard(path, planned["recipe_digest"]) for path in plan.shard_files(Path(directory), planned))


def pin():
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        directory = extraction.extract(two_prompts(folder))
        shard = next(iter(read_shards(directory)))
    tables = shard["neighbor_distance"].values[list(LAYERS)]
    found = {name: of_points(points) for name, points in clouds().items()}
    found |= {"tables": tables, "layers": np.stack(dadapy.estimate(tables))}
    np.savez_compressed(PINNED, **found, versions=str(dadapy.versions()))


if __name__ == "__main__":
    sys.exit(pin())
