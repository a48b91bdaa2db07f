# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-dimension==0.5.0"]
# ///
"""Local dimensions as scikit-dimension finds them, pinned for the tests: ``uv run lib/tests/skdim_values.py``."""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("skdim.npz")

NEIGHBORS = {"ESS": 10, "TLE": 20}


def clouds() -> dict[str, np.ndarray]:
    """Four clouds of 300 points of known dimension, turned at random within 32 coordinates."""
    random = np.random.default_rng(0)
    angles = random.uniform(0, 2 * np.pi, (300, 4))
    sphere = random.normal(size=(300, 4))
    flat = {
        "cube of dimension 5": random.uniform(size=(300, 5)),
        "sphere of dimension 3": sphere / np.linalg.norm(sphere, axis=1, keepdims=True),
        "torus of dimension 4": np.concatenate([np.cos(angles), np.sin(angles)], axis=1),
        "Gaussian of dimension 20": random.normal(size=(300, 20)),
    }
    turn = np.linalg.qr(random.normal(size=(32, 32)))[0]
    return {name: 10 * points @ turn[: points.shape[1]] for name, points in flat.items()}


def pin() -> None:
    """Write the file that the tests read."""
    import skdim

    found = {
        f"{method} {name}": getattr(skdim.id, method)().fit(points, n_neighbors=number).dimension_pw_
        for name, points in clouds().items()
        for method, number in NEIGHBORS.items()
    }
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    pin()
