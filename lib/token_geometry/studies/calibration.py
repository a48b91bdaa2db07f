"""Calibration: the measurements against shapes of known dimension, other code and other precisions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

from token_geometry.base import store
from token_geometry.base.errors import InputError
from token_geometry.extraction import shards
from token_geometry.extraction.plan import ShardKey
from token_geometry.geometry import dadapy, gride, manifolds, neighbors
from token_geometry.geometry.table_format import RANKS
from token_geometry.models import devices, loading
from token_geometry.models.source import ModelSource
from token_geometry.observables import catalog, labelled
from token_geometry.requests.calibration import N_CLOUDS, PRECISIONS, Calibration
from token_geometry.requests.extraction import Extraction
from token_geometry.states.model import LanguageModel
from token_geometry.texts import corpora, prompts

K = (1, 2, 4, 8, 16, 31)
"""Neighborhood sizes at which the overlap is counted again by brute force."""

_BLOCK = 32  # weights that share a scale in Q8_0 and Q4_0


def calibrate(request: Calibration) -> xr.Dataset:
    """Compare, and write the dataset to a file.

    Returns
    -------
    xarray.Dataset
        The variables of `measure_manifolds`, `compare_with_others` and `compare_precisions`.

    Raises
    ------
    InputError
        If the request cannot be carried out or the file cannot be written.
    """
    source, recipe = request.resolve(), request.recipe()
    loading.check_length(source, loading.load_config(source), request.n_tokens)
    selection = prompts.select_prompts(
        corpora.load_corpus(request.corpus, column=request.column),
        [loading.load_tokenizer(source)],
        n_prompts=request.n_prompts,
        n_tokens=request.n_tokens,
        seed=request.seed,
    )
    made_by = _dadapy()
    parts = [
        measure_manifolds(request),
        compare_precisions(request, source, selection.prompts),
        compare_with_others(request, source, selection.prompts, with_dadapy="version" in made_by),
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
        **{f"dadapy_{key}": text for key, text in made_by.items()},
    )
    store.write(dataset, Path(request.output))
    return dataset


def _dadapy() -> dict[str, str]:
    """Its `version`, or why it is `missing`."""
    try:
        return {"version": dadapy.versions()["dadapy"]}
    except InputError as error:
        return {"missing": str(error)}


def measure_manifolds(request: Calibration) -> xr.Dataset:
    """ID of samples of manifolds whose dimension is known.

    The samples of one manifold take the place of the layers of a prompt and go the same way.

    Returns
    -------
    xarray.Dataset
        `manifold_id` and `manifold_id_error` over `manifold, dimension, scale, replicate`, and
        `manifold_id_expected`, which the estimator has at scale 2, over `manifold, dimension`.
    """
    families, dimensions = list(manifolds.FAMILIES), list(request.dimensions)
    shape = (len(families), len(dimensions), len(labelled.SCALES), request.n_replicates)
    estimate, error = np.full(shape, np.nan), np.full(shape, np.nan)
    expected = np.full(shape[:2], np.nan)
    device = devices.choose_device(request.device)
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


def compare_precisions(
    request: Calibration, source: ModelSource, selected: Sequence[prompts.Prompt]
) -> xr.Dataset:
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
        model = load(source, precision, device=request.device)
        rows.append(xr.concat([observe(model, prompt, request)[names] for prompt in selected], "prompt"))
        del model  # the next one needs the memory
    both = xr.concat(rows, "precision").sel(k=list(K))
    return both.assign_coords(
        precision=list(PRECISIONS),
        precision_title=("precision", list(PRECISIONS.values())),
        prompt=[prompt.id for prompt in selected],
    )


def compare_with_others(
    request: Calibration, source: ModelSource, selected: Sequence[prompts.Prompt], *, with_dadapy: bool
) -> xr.Dataset:
    """What DADApy and brute force make of the hidden states of the prompts, in the first precision.

    Returns
    -------
    xarray.Dataset
        `reference_intrinsic_dimension`, `reference_intrinsic_dimension_error`,
        `reference_neighborhood_overlap` and `reference_cosine_similarity` over `prompt, layer`, and
        `scale` or `k`; the first two are NaN without DADApy.
    """
    model = load(source, "float32", device=request.device)
    rows = []
    for prompt in tqdm(selected, desc="DADApy and brute force", mininterval=10.0):
        hidden = model.forward(prompt.token_ids).hidden.cpu().numpy().astype(np.float64)
        rows.append(reference(hidden, with_dadapy=with_dadapy))
    return xr.concat(rows, "prompt").assign_coords(prompt=[prompt.id for prompt in selected])


def load(source: ModelSource, precision: str, *, device: str) -> LanguageModel:
    """The model in one of `PRECISIONS`."""
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    model = LanguageModel(source, dtype=dtype, device=device)
    if precision.startswith("Q"):
        quantize_blocks(model, precision)
    return model


def quantize_blocks(model: LanguageModel, kind: str) -> None:
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
    from gguf import GGMLQuantizationType, quants

    quantization = GGMLQuantizationType[kind]
    modules = model.model.base_model.modules()
    weights = [module.weight for module in modules if isinstance(module, torch.nn.Linear)]
    if not weights:
        raise InputError(f"model {model.source.name!r} has no linear layers to quantize; choose another model")
    for weight in weights:
        if weight.shape[1] % _BLOCK:
            raise InputError(
                f"model {model.source.name!r} has weights with rows of {weight.shape[1]} values, no multiple "
                f"of the {_BLOCK} that a block of {kind} holds: choose another model"
            )
        with torch.inference_mode():
            rounded = quants.dequantize(quants.quantize(weight.cpu().numpy(), quantization), quantization)
            weight.copy_(torch.from_numpy(rounded))


def observe(model: LanguageModel, prompt: prompts.Prompt, request: Calibration) -> xr.Dataset:
    """Observables of one prompt, through the shard that an extraction would store."""
    plan = Extraction(model=request.model, corpus=request.corpus, output=request.output, seed=request.seed)
    return catalog.observables(shards.make_shard(model, ShardKey(prompt, 0), plan, {}))


def reference(hidden: np.ndarray, *, with_dadapy: bool) -> xr.Dataset:
    """ID by DADApy, overlap and cosine similarity by brute force, of one prompt.

    Nothing here is shared with the measurement: distances come from scikit-learn, the ID from
    DADApy, common neighbors are counted as sets, cosines are averaged over all pairs.

    Parameters
    ----------
    hidden
        Hidden states, float64, shape (layer, token, width).
    with_dadapy
        Without, the ID is NaN.
    """
    tables = np.full((*hidden.shape[:2], len(RANKS)), np.nan)
    dimension, error = np.full((2, len(hidden), len(labelled.SCALES)), np.nan)
    nearest, cosine = [], []
    for layer, points in enumerate(hidden):
        distances, place = distinct_distances(points)
        ranks = [rank for rank in RANKS if rank < len(distances)]
        tables[layer, : len(distances), : len(ranks)] = np.sort(distances, axis=1)[:, ranks]
        nearest.append(nearest_tokens(distances[np.ix_(place, place)]))
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        cosine.append((unit @ unit.T).mean())
    if with_dadapy:
        dimension, error, _ = dadapy.estimate(tables)
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
