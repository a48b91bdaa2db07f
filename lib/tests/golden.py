"""The golden data set: what small models and two prompts of a real one gave once, to which all is held.

`python lib/tests/golden.py` writes it anew, for a change of numbers that is meant and stands in CHANGELOG.md.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import transformers
import xarray as xr
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from token_geometry.extraction import extraction
from token_geometry.requests.calibration import Calibration
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.reduction import Reduction
from token_geometry.requests.truth import Truth
from token_geometry.stats import probes
from token_geometry.studies import calibration, reduction, truth
from token_geometry.texts import corpora, prompts, shuffling, statements

GOLDEN = Path(__file__).with_name("golden.npz")

SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, num_key_value_heads=1, max_position_embeddings=128),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SIZES, max_position_embeddings=128),
}

EXACT = "draws"
"""Beginning of the names of what is drawn, whole numbers that nothing may move."""

COUNTS = ("neighborhood_overlap", "reciprocity", "layer_overlap", "histogram", "accuracy", "separation", "redone")
"""Parts of names of what counts points: rounding may move a point or two of them across a border."""

UNIT = ("seconds", "reference_intrinsic_dimension", "n_float64", "versions")
"""Parts of names of what is left out: timings, and what another program finds, where there is one."""


def tolerances(name: str) -> dict[str, float]:
    """What another version of a library, another processor or device may move."""
    if name.startswith(EXACT):
        return {"rtol": 0, "atol": 0}
    if any(part in name for part in COUNTS):
        return {"rtol": 0, "atol": 0.05}
    return {"rtol": 2e-3, "atol": 2e-4}


def moved(name: str, found: np.ndarray, expected: np.ndarray) -> str:
    """How an array differs from the golden one, in one line; empty where it does not."""
    if found.shape != expected.shape:
        return f"{name} has shape {found.shape}, not {expected.shape}"
    is_close = np.isclose(found, expected, **tolerances(name), equal_nan=True)
    if is_close.all():
        return ""
    where = np.unravel_index(np.argmax(np.where(is_close, -1, np.abs(found - expected))), found.shape)
    place = tuple(map(int, where))
    values = f"from {expected[place]:.9g} to {found[place]:.9g}"
    return f"{name}: {(~is_close).sum()} of {found.size} moved, at {place} {values}"


def words(start: int, n: int) -> str:
    """A text of words of the small models."""
    draw = np.random.default_rng(start).integers(2, 200, n)
    return " ".join(f"w{number}" for number in draw)


def save_model(kind: str, folder: Path) -> None:
    """A model whose weights numpy draws, since torch may draw others one day."""
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]())
    random = np.random.default_rng(0)
    with torch.no_grad():
        for name, weights in sorted(model.named_parameters()):
            drawn = random.normal(size=tuple(weights.shape)) / np.sqrt(weights.shape[-1])
            weights.copy_(torch.from_numpy(drawn + (weights.ndim == 1 and "norm" in name and "bias" not in name)))
    model.save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({f"w{number}": number for number in range(200)}, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)


def arrays(dataset: xr.Dataset, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """The numbers of a data set under names of their own."""
    for key, variable in dataset.variables.items():
        if variable.dtype.kind in "fiub" and not any(part in key for part in UNIT):
            yield f"{name}/{key}", variable.values


def of_small_models() -> dict[str, np.ndarray]:
    """Observables, truth and calibration of the small models."""
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        Path("texts.jsonl").write_text("\n".join(json.dumps({"text": words(n, 70)}) for n in range(4)))
        for name, sign in (("own", 0), ("neg_own", 1)):
            rows = [
                f"{words(100 + n, 3)} w{7 + 10 * ((n + sign) % 2)} w{sign + 3},{(n + sign) % 2}" for n in range(40)
            ]
            Path(f"{name}.csv").write_text("\n".join(["statement,label", *rows]))
        for kind in CONFIGS:
            save_model(kind, Path(kind))
            same = {"model": kind, "corpus": "texts.jsonl", "device": "cpu", "n_tokens": 64, "n_prompts": 2}
            extraction.extract(Extraction(**same, output=f"{kind}-shards", shuffle_levels=[0, 1, 3]))
            observed = reduction.compute(Reduction(extraction=f"{kind}-shards", output="x.nc"))
            found |= arrays(observed, f"{kind}, observables")
            data = {"datasets": ["own.csv", "neg_own.csv"], "device": "cpu", "output": "x.nc"}
            found |= arrays(truth.measure(Truth(model=kind, layer=2, last_layer=3, **data)), f"{kind}, truth")
        small = {"n_points": 64, "n_replicates": 2, "dimensions": [1, 3]}
        found |= arrays(
            calibration.calibrate(Calibration(**same | {"model": "llama"}, **small, output="y.nc")), "calibration"
        )
    return found


def of_draws() -> dict[str, np.ndarray]:
    """What seeds draw: permutations, prompts, statements, folds."""
    found = {}
    for level in range(5):
        for seed in (0, 1, 2**40):
            order = shuffling.block_permutation(level, seed=seed, text_sha256=corpora.sha256("a text"))
            found[f"{EXACT}/permutation of level {level}, seed {seed}"] = order
    corpus = corpora.Corpus("own", "own", lambda: [(str(n), words(n, 30)) for n in range(50)])

    for seed in (0, 7):
        drawn = prompts._drawn(corpus, seed)
        found[f"{EXACT}/prompts, seed {seed}"] = np.array([int(key) for key in drawn])
        for name in ("cities", "maths"):
            one = statements.load(name).draw(61, seed=seed)
            found[f"{EXACT}/statements of {name}, seed {seed}"] = one.rows
            parts = probes.folds(one.labels, one.groups(), seed=seed)
            fold = np.full(len(one.labels), -1)
            for number, (_, test) in enumerate(parts):
                fold[test] = number
            found[f"{EXACT}/folds of {name}, seed {seed}"] = fold
    return found


def of_two_prompts() -> dict[str, np.ndarray]:
    """Observables of two prompts of SmolLM2, of the size of the run `ci`."""
    with tempfile.TemporaryDirectory() as folder:
        same = {"model": "smollm2-135m", "corpus": "sotu", "device": "cpu", "n_tokens": 256, "n_prompts": 2}
        extraction.extract(Extraction(**same, output=folder, shuffle_levels=[0, 4]))
        return dict(arrays(reduction.compute(Reduction(extraction=folder, output="x.nc")), "smollm2-135m"))


def main() -> None:
    """Write the data set."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = of_draws() | of_small_models() | of_two_prompts()
    rounded = {name: part.astype(np.float32) if part.dtype.kind == "f" else part for name, part in found.items()}
    np.savez_compressed(GOLDEN, **{name.replace("/", "|"): part for name, part in rounded.items()})


def read(*beginnings: str) -> dict[str, np.ndarray]:
    """The golden arrays whose names begin so."""
    with np.load(GOLDEN) as file:
        names = {name.replace("|", "/"): name for name in file.files}
        return {name: file[key] for name, key in names.items() if name.startswith(beginnings)}


if __name__ == "__main__":
    sys.exit(main())
