"""Calibration: the measurements against shapes of known dimension, other code and other precisions."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from gguf import GGMLQuantizationType, quants
from sklearn.metrics import euclidean_distances

from token_geometry.base import InputError, files, progress, store
from token_geometry.extraction import shards
from token_geometry.extraction.plan import ShardKey
from token_geometry.geometry import dadapy, gride, manifolds, neighbors, table_format
from token_geometry.models import devices, loading
from token_geometry.models.source import ModelSource
from token_geometry.observables import catalog, labelled
from token_geometry.requests.calibration import CONTROLS, N_CLOUDS, PRECISIONS, SHARE, Calibration
from token_geometry.requests.extraction import Extraction
from token_geometry.states.model import LanguageModel
from token_geometry.texts import corpora, prompts
from token_geometry.texts.prompts import Prompt

K = (1, 2, 4, 8, 16, 31)  # neighborhood sizes at which the overlap is counted again by brute force
_BLOCK = 32  # weights that share a scale in Q8_0 and Q4_0

_TABLE = files.table(__file__)
OBSERVED, TITLES = _TABLE["observed"], _TABLE["titles"]


def calibrate(request: Calibration) -> xr.Dataset:
    """Compare, and write `OBSERVED` and `TITLES` to a file; `InputError` if that cannot be done."""
    source, recipe = request.resolve(), request.recipe()
    loading.check_length(source, loading.load_config(source), request.n_tokens)
    corpus = corpora.load_corpus(request.corpus, column=request.column)
    drawn = {name: getattr(request, name) for name in ("n_prompts", "n_tokens", "seed")}
    selected = prompts.select_prompts(corpus, [loading.load_tokenizer(source)], **drawn).prompts
    try:
        made_by = {"version": dadapy.versions()["dadapy"]}
    except InputError as error:
        made_by = {"missing": str(error)}
    parts = [measure_manifolds(request), compare_precisions(request, source, selected)]
    parts.append(compare_with_others(request, source, selected, with_dadapy="version" in made_by))
    dataset = xr.merge(parts, join="exact", combine_attrs="override")
    for name, title in TITLES.items():
        dataset[name].attrs |= {"long_name": title, "units": "1"}
    told = {name: getattr(request, name) for name in ("model", "corpus", "n_tokens", "n_points", "seed")}
    told |= {"model_title": source.title} | {f"dadapy_{key}": text for key, text in made_by.items()}
    dataset.attrs = store.make_attrs(f"Calibration of the measurements, {source.title}", recipe, **told)
    store.write(dataset, Path(request.output))
    return dataset


def measure_manifolds(request: Calibration) -> xr.Dataset:
    """ID of samples of manifolds whose dimension is known, over `manifold, dimension, scale, replicate`."""
    families, dimensions = list(manifolds.FAMILIES), list(request.dimensions)
    shape = (len(families), len(dimensions), len(labelled.SCALES), request.n_replicates)
    estimate, error = np.full((2, *shape), np.nan)
    expected, local = np.full(shape[:2], np.nan), np.full((2, *shape[:2], shape[3]), np.nan)
    device = devices.choose_device(request.device)
    # the seeds of two replicates, or of two requests, must have no sample in common
    seed = request.seed * 2**16
    for row, column in progress.shown(list(np.ndindex(shape[:2])), "Manifolds", unit="shapes"):
        drawn: dict = {"family": families[row], "dimension": dimensions[column], "n_points": request.n_points}
        samples = [manifolds.sample(**drawn, seed=seed + number) for number in range(request.n_replicates)]
        expected[row, column] = manifolds.expected_dimension(**drawn, n_clouds=N_CLOUDS, seed=seed + 2**15)
        # the samples of one manifold take the place of the layers of a prompt and go the same way
        table = neighbors.neighbor_table(torch.from_numpy(np.stack(samples)).to(device))
        found = gride.estimate(np.moveaxis(gride.ratios(table.distance), -1, -2), labelled.SCALES // 2)
        estimate[row, column], error[row, column] = (part.T for part in found)
        local[:, row, column] = table.ess.mean(1), table.tle.mean(1)
    dims = ("manifold", "dimension", "scale", "replicate")
    variables: dict = {"manifold_id": (dims, estimate), "manifold_id_error": (dims, error)}
    of_local = zip(labelled.LOCAL, local, strict=True)
    variables |= {f"manifold_{name}": ((*dims[:2], dims[3]), part) for name, part in of_local}
    titles = ("manifold", [family.title for family in manifolds.FAMILIES.values()])
    coords = {"manifold": families, "manifold_title": titles, "dimension": dimensions, "scale": labelled.SCALES}
    return xr.Dataset(variables | {"manifold_id_expected": (dims[:2], expected)}, coords)


def compare_precisions(request: Calibration, source: ModelSource, selected: Sequence[Prompt]) -> xr.Dataset:
    """`OBSERVED` of the same prompts by the same model, over `precision` and `prompt`."""
    # through the shards that an extraction would store
    plan = Extraction(model=request.model, corpus=request.corpus, output=request.output, seed=request.seed)
    rows = []
    for precision in progress.shown(PRECISIONS, "Precisions", unit="precisions"):
        model = load(source, precision, device=request.device)
        made = [shards.make_shard(model, ShardKey(prompt, 0), plan, {}) for prompt in selected]
        rows.append(xr.concat([catalog.observables(shard)[OBSERVED] for shard in made], "prompt"))
        del model  # the next one needs the memory
    both = xr.concat(rows, "precision").sel(k=list(K))
    titles, ids = ("precision", list(PRECISIONS.values())), [prompt.id for prompt in selected]
    return both.assign_coords(precision=list(PRECISIONS), precision_title=titles, prompt=ids)


def compare_with_others(
    request: Calibration, source: ModelSource, selected: Sequence[Prompt], *, with_dadapy: bool
) -> xr.Dataset:
    """What `reference` makes of the hidden states of the prompts, in the first precision, over `prompt`."""
    model, rows = load(source, "float32", device=request.device), []
    for prompt in progress.shown(selected, "DADApy and brute force", unit="prompts"):
        hidden = model.forward(prompt.token_ids).hidden.cpu().numpy()
        found = reference(hidden.astype(np.float64), with_dadapy=with_dadapy)
        rows.append(found.assign(controlled_dimension=controlled(hidden, prompt.token_ids)))
    return xr.concat(rows, "prompt").assign_coords(prompt=[prompt.id for prompt in selected])


def controlled(hidden: np.ndarray, token_ids: np.ndarray) -> xr.DataArray:
    """ID of clouds of shape (layer, token, width) with some tokens or directions left out, over `CONTROLS`.

    Of the rarer and the frequent tokens only scores are left out: the neighbors are those in the whole cloud."""
    _, which, counts = np.unique(token_ids, return_inverse=True, return_counts=True)
    frequent = counts[which] >= max(len(token_ids) / SHARE, 2)
    largest, widest = np.linalg.norm(hidden, axis=2).argmax(1), np.argsort(hidden.var(1))[:, -2:]

    def ratios(left_out=None, axis: int = 0):
        clouds = hidden
        if left_out is not None:
            clouds = np.stack([np.delete(cloud, some, axis) for cloud, some in zip(hidden, left_out, strict=True)])
        return np.moveaxis(gride.ratios(neighbors.neighbor_table(torch.from_numpy(clouds)).distance), -1, -2)

    every = ratios()
    rarer, others = (np.where(some, every, np.nan) for some in (~frequent, frequent))
    parts = every, ratios(largest), ratios(widest, 1), rarer, others
    found = np.stack([gride.estimate(part, labelled.SCALES // 2)[0] for part in parts])
    return xr.DataArray(found, {"control": list(CONTROLS)}, dims=("control", "layer", "scale"))


def load(source: ModelSource, precision: str, *, device: str) -> LanguageModel:
    """The model in one of `PRECISIONS`."""
    model = LanguageModel(source, dtype="bfloat16" if precision == "bfloat16" else "float32", device=device)
    if precision.startswith("Q"):
        quantize_blocks(model, precision)
    return model


def quantize_blocks(model: LanguageModel, kind: str) -> None:
    """Round the linear weights of a model's blocks, in float32, to what a GGUF quantization can hold, in place.

    The embedding and the head stay as they are. `kind` is a type of GGUF with blocks of 32 weights. An
    `InputError` says if the model has no linear weights, or their rows are not made of whole blocks."""
    quantization = GGMLQuantizationType[kind]
    modules = model.model.base_model.modules()
    weights = [module.weight for module in modules if isinstance(module, torch.nn.Linear)]
    if not weights:
        raise InputError(f"model {model.source.name!r} has no linear layers to quantize; choose another model")
    for weight in weights:
        if weight.shape[1] % _BLOCK:
            rows = f"rows of {weight.shape[1]} values, no multiple of the {_BLOCK} that a block of {kind} holds"
            raise InputError(f"model {model.source.name!r} has weights with {rows}: choose another model")
        with torch.inference_mode():
            rounded = quants.dequantize(quants.quantize(weight.cpu().numpy(), quantization), quantization)
            weight.copy_(torch.from_numpy(rounded))


def reference(hidden: np.ndarray, *, with_dadapy: bool) -> xr.Dataset:
    """ID by DADApy, overlap and cosine similarity by brute force, of one prompt, over `layer`.

    Nothing here is shared with the measurement: distances come from scikit-learn, the ID from DADApy, without
    which it is NaN, common neighbors are counted as sets, cosines are averaged over all pairs. The hidden
    states are float64, of shape (layer, token, width)."""
    tables = np.full((*hidden.shape[:2], len(table_format.RANKS)), np.nan)
    dimension, error = np.full((2, len(hidden), len(labelled.SCALES)), np.nan)
    nearest, cosine = [], []
    for layer, points in enumerate(hidden):
        distinct, place = np.unique(points, axis=0, return_inverse=True)
        distances, place = euclidean_distances(distinct), place.reshape(-1)
        ranks = [rank for rank in table_format.RANKS if rank < len(distances)]
        tables[layer, : len(distances), : len(ranks)] = np.sort(distances, axis=1)[:, ranks]
        of_tokens = distances[np.ix_(place, place)]
        np.fill_diagonal(of_tokens, np.inf)
        # the lower index first in a tie
        nearest.append(np.argsort(of_tokens, axis=1, kind="stable")[:, : max(K)].tolist())
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        cosine.append((unit @ unit.T).mean())
    if with_dadapy:
        dimension, error, _ = dadapy.estimate(tables)
    overlap = np.full((len(hidden), len(K)), np.nan)
    for layer, two in enumerate(itertools.pairwise(nearest)):
        for column, k in enumerate(K):
            if k < len(two[0]):  # else there are fewer neighbors
                n_common = sum(len(set(a[:k]) & set(b[:k])) for a, b in zip(*two, strict=True))
                overlap[layer, column] = n_common / (k * len(two[0]))
    by_scale, by_k = ("layer", "scale"), ("layer", "k")
    found: dict = {"intrinsic_dimension": (by_scale, dimension), "intrinsic_dimension_error": (by_scale, error)}
    found |= {"neighborhood_overlap": (by_k, overlap), "cosine_similarity": ("layer", cosine)}
    coords = {"layer": np.arange(len(hidden)), "scale": labelled.SCALES, "k": list(K)}
    return xr.Dataset({f"reference_{name}": variable for name, variable in found.items()}, coords)
