"""Calibration: the measurements against shapes of known dimension, other code and other precisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from tqdm import tqdm

from token_geometry.base import store
from token_geometry.base.errors import InputError
from token_geometry.extraction import extraction
from token_geometry.geometry import gride, manifolds
from token_geometry.models import models
from token_geometry.observables import labelled
from token_geometry.texts import prompts

if TYPE_CHECKING:  # chapters that only read results come by here, and torch takes seconds to import
    from token_geometry.states.model import LanguageModel

K = (1, 2, 4, 8, 16, 31)
"""Neighborhood sizes at which the overlap is counted again by brute force."""

N_CLOUDS = 16
"""Clouds over which the expected dimension of a manifold is taken; its error is then a quarter of a sample's."""

PRECISIONS = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "Q8_0": "8-bit weights (Q8_0)",
    "Q4_0": "4-bit weights (Q4_0)",
}
"""Precisions of the same model, and the names that a reader sees; the first is the reference."""

_BLOCK = 32  # weights that share a scale in Q8_0 and Q4_0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What to check, and on what. Field names are the parameters of `notebooks/calibration.ipynb`."""

    model: str
    """Alias, hub id, directory or GGUF file."""

    corpus: str
    """Alias, or path of a corpus, as for an extraction."""

    output: str
    """File of the dataset."""

    n_prompts: int = 2
    """How many prompts to compare on."""

    n_tokens: int = 1024
    """Tokens of each prompt, special tokens not counted."""

    seed: int = 0
    """Seed of the draw of prompts and of the manifolds."""

    n_points: int = 1024
    """Points of each sample of a manifold."""

    n_replicates: int = 4
    """Samples of each manifold."""

    dimensions: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
    """True dimensions of the manifolds."""

    device: str = "auto"
    """Torch device."""

    def check(self) -> None:
        """Refuse what cannot work, before anything is loaded.

        Raises
        ------
        InputError
            Naming the parameter, its value and what is accepted.
        """
        if Path(self.output).suffix != ".nc":
            raise InputError(f"output is {self.output!r}; accepted: the path of a file that ends in .nc")
        # below 8 points there is hardly a scale to compare at
        lowest = {"n_prompts": 1, "n_tokens": 8, "n_points": 8, "n_replicates": 1, "seed": 0}
        for name, bound in lowest.items():
            if getattr(self, name) < bound:
                raise InputError(f"{name} is {getattr(self, name)}; accepted: {bound} or more")
        chosen = list(self.dimensions)
        inside = all(1 <= dimension <= manifolds.HIGHEST_DIMENSION for dimension in chosen)
        if not chosen or not inside or len(set(chosen)) < len(chosen):
            raise InputError(
                f"dimensions is {chosen}; accepted: different whole numbers from 1 to "
                f"{manifolds.HIGHEST_DIMENSION}, at least one"
            )
        models.choose_device(self.device)

    def recipe(self) -> dict:
        """What decides the numbers."""
        return {
            "model": models.resolve(self.model).identity(),
            "corpus": prompts.corpus_identity(self.corpus),
            "n_prompts": self.n_prompts,
            "n_tokens": self.n_tokens,
            "seed": self.seed,
            "n_points": self.n_points,
            "n_replicates": self.n_replicates,
            "dimensions": list(self.dimensions),
            "families": list(manifolds.FAMILIES),
            "noise": manifolds.NOISE,
            "n_clouds": N_CLOUDS,
            "precisions": list(PRECISIONS),
        }


def calibrate(request: Calibration) -> xr.Dataset:
    """Compare, and write the dataset to a file.

    Returns
    -------
    xarray.Dataset
        The variables of `measure_manifolds`, `compare_with_dadapy` and `compare_precisions`.

    Raises
    ------
    InputError
        If the request cannot be carried out or the file cannot be written.
    """
    request.check()
    recipe = request.recipe()
    source = models.resolve(request.model)
    models.check_length(source, models.load_config(source), request.n_tokens)
    selection = prompts.select_prompts(
        prompts.load_corpus(request.corpus),
        [models.load_tokenizer(source)],
        n_prompts=request.n_prompts,
        n_tokens=request.n_tokens,
        seed=request.seed,
    )
    parts = [
        measure_manifolds(request),
        compare_precisions(request, selection.prompts),
        compare_with_dadapy(request, selection.prompts),
    ]
    dataset = xr.merge(parts, join="exact", combine_attrs="drop")
    dataset.attrs = store.make_attrs(
        f"Calibration of the measurements, {source.title}",
        recipe,
        model=request.model,
        model_title=source.title,
        corpus=request.corpus,
        n_tokens=request.n_tokens,
        n_points=request.n_points,
        seed=request.seed,
    )
    store.write(dataset, Path(request.output))
    return dataset


def measure_manifolds(request: Calibration) -> xr.Dataset:
    """ID of samples of manifolds whose dimension is known.

    The samples of one manifold take the place of the layers of a prompt and go the same way.

    Returns
    -------
    xarray.Dataset
        `manifold_id` and `manifold_id_error` over `manifold, dimension, scale, replicate`, and
        `manifold_id_expected`, which the estimator has at scale 2, over `manifold, dimension`.
    """
    import torch

    from token_geometry.geometry import neighbors

    families, dimensions = list(manifolds.FAMILIES), list(request.dimensions)
    shape = (len(families), len(dimensions), len(labelled.SCALES), request.n_replicates)
    estimate, error = np.full(shape, np.nan), np.full(shape, np.nan)
    expected = np.full(shape[:2], np.nan)
    device = models.choose_device(request.device)
    cells = [(row, column) for row in range(shape[0]) for column in range(shape[1])]
    for row, column in tqdm(cells, desc="Manifolds", mininterval=10.0):
        # the seeds of two replicates, or of two requests, must have no sample in common
        seed = request.seed * 2**16
        drawn = {"dimension": dimensions[column], "n_points": request.n_points}
        samples = [
            manifolds.sample(families[row], seed=seed + replicate, **drawn)
            for replicate in range(request.n_replicates)
        ]
        expected[row, column] = manifolds.expected_dimension(
            families[row], n_clouds=N_CLOUDS, seed=seed + 2**15, **drawn
        )
        table = neighbors.neighbor_table(torch.from_numpy(np.stack(samples)).to(device))
        mu = np.moveaxis(gride.ratios(table.distance), -1, -2)
        found = gride.estimate(mu, labelled.SCALES // 2)
        estimate[row, column], error[row, column] = (part.T for part in found)
    dims = ("manifold", "dimension", "scale", "replicate")
    return xr.Dataset(
        {
            "manifold_id": (dims, estimate, _attrs("intrinsic dimension of a sample (GRIDE)")),
            "manifold_id_error": (dims, error, _attrs("standard error of the intrinsic dimension")),
            "manifold_id_expected": (
                dims[:2],
                expected,
                _attrs("dimension that the estimator of scale 2 has for so many points, by brute force"),
            ),
        },
        coords={
            "manifold": families,
            "manifold_title": ("manifold", [family.title for family in manifolds.FAMILIES.values()]),
            "dimension": ("dimension", dimensions, _attrs("true dimension")),
            "scale": labelled.SCALES,
        },
    )


def compare_precisions(request: Calibration, selected: Sequence[prompts.Prompt]) -> xr.Dataset:
    """Observables of the same prompts by the same model in every one of `PRECISIONS`.

    Returns
    -------
    xarray.Dataset
        `intrinsic_dimension`, `intrinsic_dimension_error`, `neighborhood_overlap`,
        `cosine_similarity` and `loss`, with the dimensions that they have for a prompt, over
        `precision` and `prompt`.
    """
    names = [
        "intrinsic_dimension",
        "intrinsic_dimension_error",
        "neighborhood_overlap",
        "cosine_similarity",
        "loss",
    ]
    rows = []
    for precision in tqdm(PRECISIONS, desc="Precisions", mininterval=10.0):
        model = load(request, precision)
        rows.append(xr.concat([observe(model, prompt, request)[names] for prompt in selected], "prompt"))
        del model  # the next one needs the memory
    both = xr.concat(rows, "precision").sel(k=list(K))
    return both.assign_coords(
        precision=list(PRECISIONS),
        precision_title=("precision", list(PRECISIONS.values())),
        prompt=[prompt.id for prompt in selected],
    )


def compare_with_dadapy(request: Calibration, selected: Sequence[prompts.Prompt]) -> xr.Dataset:
    """What DADApy and brute force make of the hidden states of the prompts, in the first precision.

    Returns
    -------
    xarray.Dataset
        `reference_intrinsic_dimension`, `reference_intrinsic_dimension_error`,
        `reference_neighborhood_overlap` and `reference_cosine_similarity` over `prompt, layer`, and
        `scale` or `k`.
    """
    model = load(request, "float32")
    rows = []
    for prompt in tqdm(selected, desc="DADApy and brute force", mininterval=10.0):
        hidden = model.forward(prompt.token_ids).hidden.cpu().numpy().astype(np.float64)
        rows.append(reference(hidden))
    return xr.concat(rows, "prompt").assign_coords(prompt=[prompt.id for prompt in selected])


def load(request: Calibration, precision: str) -> "LanguageModel":
    """The model in one of `PRECISIONS`."""
    from token_geometry.states.model import LanguageModel

    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    model = LanguageModel(models.resolve(request.model), dtype=dtype, device=request.device)
    if precision.startswith("Q"):
        quantize_blocks(model, precision)
    return model


def quantize_blocks(model: "LanguageModel", kind: str) -> None:
    """Round the linear weights of the blocks to what a GGUF quantization can hold, in place.

    The embedding and the head stay as they are.

    Parameters
    ----------
    model
        Loaded in float32.
    kind
        A type of GGUF with blocks of 32 weights, such as `Q8_0` or `Q4_0`.

    Raises
    ------
    InputError
        If the model has no linear weights, or their rows are not made of whole blocks.
    """
    import torch
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType[kind]
    modules = model.model.base_model.modules()
    weights = [module.weight for module in modules if isinstance(module, torch.nn.Linear)]
    if not weights:
        raise InputError(f"model {model.source.name!r} has no linear layers to quantize; choose another model")
    for weight in weights:
        if weight.shape[1] % _BLOCK:
            raise InputError(
                f"model {model.source.name!r} has weights with rows of {weight.shape[1]} values, no multiple "
                f"of the {_BLOCK} that a block of {kind.name} holds: choose another model"
            )
        with torch.inference_mode():
            rounded = quants.dequantize(quants.quantize(weight.cpu().numpy(), kind), kind)
            weight.copy_(torch.from_numpy(rounded))


def observe(model: "LanguageModel", prompt: prompts.Prompt, request: Calibration) -> xr.Dataset:
    """Observables of one prompt, through the shard that an extraction would store."""
    plan = extraction.Extraction(
        model=request.model, corpus=request.corpus, output=request.output, seed=request.seed
    )
    key = extraction.ShardKey(prompt, 0)
    return labelled.observables(extraction.make_shard(model, key, plan, request.recipe()))


def reference(hidden: np.ndarray) -> xr.Dataset:
    """ID by DADApy, overlap and cosine similarity by brute force, of one prompt.

    Nothing here is shared with the measurement: distances come from scikit-learn, the ID from
    DADApy, common neighbors are counted as sets, cosines are averaged over all pairs.

    Parameters
    ----------
    hidden
        Hidden states, float64, shape (layer, token, width).
    """
    shape = (len(hidden), len(labelled.SCALES))
    dimension, error = np.full(shape, np.nan), np.full(shape, np.nan)
    nearest, cosine = [], []
    for layer, points in enumerate(hidden):
        distances, place = distinct_distances(points)
        found = dadapy_gride(distances)
        dimension[layer, : len(found[0])], error[layer, : len(found[0])] = found
        nearest.append(nearest_tokens(distances[np.ix_(place, place)]))
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        cosine.append((unit @ unit.T).mean())
    overlap = np.full((len(hidden), len(K)), np.nan)
    for layer in range(len(hidden) - 1):
        overlap[layer] = [count_overlap(nearest[layer], nearest[layer + 1], k) for k in K]
    by_scale, by_k = ("layer", "scale"), ("layer", "k")
    return xr.Dataset(
        {
            "reference_intrinsic_dimension": (by_scale, dimension, _attrs("ID by DADApy")),
            "reference_intrinsic_dimension_error": (by_scale, error, _attrs("its error by DADApy")),
            "reference_neighborhood_overlap": (by_k, overlap, _attrs("overlap, counted as sets")),
            "reference_cosine_similarity": ("layer", cosine, _attrs("mean of all pairs")),
        },
        coords={"layer": np.arange(len(hidden)), "scale": labelled.SCALES, "k": list(K)},
    )


def distinct_distances(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n, n) of the distinct points, and the place of every token among them."""
    from sklearn.metrics import euclidean_distances

    distinct, place = np.unique(points, axis=0, return_inverse=True)
    return euclidean_distances(distinct), place.reshape(-1)


def dadapy_gride(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ID and error by DADApy, at all scales that the number of points allows."""
    from dadapy import Data

    # DADApy caps the range at its default of maxk = 100 and only warns
    farthest = min(2 * labelled.SCALES[-1], len(distances) - 1)
    if farthest < labelled.SCALES[0]:
        return np.empty(0), np.empty(0)
    data = Data(distances=distances, maxk=int(farthest))
    found = data.return_id_scaling_gride(range_max=int(min(labelled.SCALES[-1], farthest)))
    return found[0], found[1]


def nearest_tokens(distances: np.ndarray) -> np.ndarray:
    """Indices of the nearest tokens, the token itself left out; the lower index first in a tie."""
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, : max(K)]


def count_overlap(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Share of common k-neighbors, token by token; NaN where there are fewer neighbors."""
    if k >= len(first):
        return np.nan
    common = [len(set(a[:k]) & set(b[:k])) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return sum(common) / (k * len(common))


def _attrs(long_name: str) -> dict[str, str]:
    return {"long_name": long_name, "units": "1"}
