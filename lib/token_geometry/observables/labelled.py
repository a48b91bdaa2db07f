"""Labelled observables: each function makes those it is named for from a shard; `catalog` lists them all."""

import numpy as np
import xarray as xr

from token_geometry.geometry import dadapy, gride, overlap, subsets, table_format
from token_geometry.stats import correlation
from token_geometry.texts import shuffling

SCALES = np.array(table_format.RANKS[1:])  # scales n2 of GRIDE
ESTIMATORS = ("gride", "dadapy")  # estimators of the intrinsic dimension; both give the same digits
LOCAL = ("ess", "tle")  # local dimensions, which a shard holds for each token
K = np.arange(1, 32)  # neighborhood sizes
ANGLE_STEP = 5  # width in degrees of the bins of the neighbor angle, which go from 0 to 180

_EDGES = np.arange(0, 180 + ANGLE_STEP, ANGLE_STEP)
_ANGLE = xr.Variable("angle", _EDGES[:-1] + ANGLE_STEP / 2, {"long_name": "center of the bin", "units": "degree"})
_COORDS = {"scale": SCALES, "k": K, "angle": _ANGLE}


def _over(*dims: str, **values: np.ndarray | float) -> xr.Dataset:
    """Arrays as variables over these dimensions, with the coordinates that do not depend on the shard."""
    variables = {name: (dims, array) for name, array in values.items()}
    return xr.Dataset(variables, coords={name: _COORDS[name] for name in dims if name in _COORDS})


def not_taken(shard: xr.Dataset) -> list[str]:
    """Variables that a shard was made before: what follows from them is NaN."""
    of_parts = ["subset_dimension"] * bool(subsets.sizes(shard.sizes["token"]))
    return [name for name in [*LOCAL, "lens_entropy", "mean_state", *of_parts] if name not in shard]


def intrinsic_dimension(shard: xr.Dataset, *, estimator: str = "gride") -> xr.Dataset:
    """GRIDE estimate and its Fisher error, over layer and scale.

    `estimator` is one of `ESTIMATORS`: `gride` solves all layers and scales at once (see `gride.estimate`),
    `dadapy` asks DADApy itself, and is refused where that cannot be had."""
    dimension, error = _dimension(shard["neighbor_distance"].values, estimator)
    return _over("layer", "scale", intrinsic_dimension=dimension, intrinsic_dimension_error=error)


def logit_intrinsic_dimension(shard: xr.Dataset, *, estimator: str = "gride") -> xr.Dataset:
    """GRIDE estimate for the cloud of the logits of all tokens, over scale; `estimator` as above."""
    dimension, _ = _dimension(shard["logit_neighbor_distance"].values[None], estimator)
    return _over("scale", logit_intrinsic_dimension=dimension[0])


def _dimension(distance: np.ndarray, estimator: str) -> tuple[np.ndarray, np.ndarray]:
    distance = distance.astype(np.float64)
    if estimator == "dadapy":
        return dadapy.estimate(distance)[:2]
    return gride.estimate(np.moveaxis(gride.ratios(distance), -1, -2), SCALES // 2)


def local_dimension(shard: xr.Dataset) -> xr.Dataset:
    """Means of both local dimensions over the distinct points; NaN for a shard that was made before these were."""
    none = np.full(shard["distinct"].shape, np.nan)
    values = {name: shard[name].values.astype(np.float64) if name in shard else none for name in LOCAL}
    return _over("layer", **{name: subsets.mean_of_present(value, 1) for name, value in values.items()})


def subset(shard: xr.Dataset) -> xr.Dataset:
    """Dimension and mean neighbor distance of parts of the cloud, over layer, kind, size and scale."""
    names, sizes = ["subset_dimension", "subset_distance"], subsets.sizes(shard.sizes["token"])
    if names[0] in shard or not sizes:
        return shard[[name for name in names if name in shard]].drop_vars("rank", errors="ignore")
    none = np.full((shard.sizes["layer"], len(subsets.KINDS), len(sizes), len(SCALES)), np.nan)
    found = _over("layer", "subset", "n_subset", "scale", **dict.fromkeys(names, none))
    return found.assign_coords(subset=list(subsets.KINDS), n_subset=list(sizes))


def token_correlation(shard: xr.Dataset) -> xr.Dataset:
    """Rank correlation of a token's local dimension with its loss, at fixed position and count in the prompt."""
    ids, loss = shard["token_id"].values, shard["token_loss"].values
    _, place, counts = np.unique(ids, return_inverse=True, return_counts=True)
    given, none = np.stack([np.arange(len(ids)), counts[place]]), np.full(shard["distinct"].shape, np.nan)
    local = {name: shard[name].values if name in shard else none for name in LOCAL}
    found = {f"{name}_loss_correlation": correlation.partial_rank(local[name], loss, given) for name in LOCAL}
    return _over("layer", **found)


def lens(shard: xr.Dataset) -> xr.Dataset:
    """Entropy and loss of what each layer predicts by the model's own head; NaN where they were not taken."""
    names, none = ("lens_entropy", "lens_loss"), np.full(shard.sizes["layer"], np.nan)
    return _over("layer", **{name: shard[name].values if name in shard else none for name in names})


def mean_state(shard: xr.Dataset) -> xr.Dataset:
    """Mean of the points of the middle layer, taken in the extraction; without coordinates where it was not."""
    return shard[["mean_state"]] if "mean_state" in shard else _over("coordinate", mean_state=np.empty(0))


def token_statistics(shard: xr.Dataset) -> xr.Dataset:
    """Number of different tokens and mean logarithm of the ids, of which frequent tokens have the lower ones."""
    ids = shard["token_id"].values.astype(np.int64)
    return _over(distinct_tokens=float(len(np.unique(ids))), token_rarity=float(np.log1p(ids).mean()))


def neighbor_distance(shard: xr.Dataset) -> xr.Dataset:
    """Mean distance of the neighbors of rank n1 and n2 that enter the estimate at each scale."""
    distance = shard["neighbor_distance"].values.astype(np.float64)
    return _over("layer", "scale", neighbor_distance=subsets.mean_distance(distance))


def neighborhood_overlap(shard: xr.Dataset) -> xr.Dataset:
    """Share of common k-neighbors of layer l and l + 1; see `overlap.neighborhood_overlap`."""
    values = overlap.neighborhood_overlap(shard["neighbor_index"].values)
    return _over("layer", "k", neighborhood_overlap=values[:, : len(K)])


def reciprocity(shard: xr.Dataset) -> xr.Dataset:
    """Share of mutual edges of the k-neighbor graph; see `overlap.reciprocity`."""
    return _over("layer", "k", reciprocity=overlap.reciprocity(shard["neighbor_index"].values)[:, : len(K)])


def layer_overlap(shard: xr.Dataset) -> xr.Dataset:
    """Overlap of 16-neighborhoods between any two layers; see `overlap.layer_overlap`."""
    values = overlap.layer_overlap(shard["neighbor_index"].values)
    return _over("layer", "layer_other", layer_overlap=values).assign_coords(layer_other=shard["layer"].values)


def neighbor_angle(shard: xr.Dataset) -> xr.Dataset:
    """Mean angle between the vectors to the first and second neighbor."""
    angles = shard["neighbor_angle"].values.astype(np.float64)
    return _over("layer", neighbor_angle=subsets.mean_of_present(angles, 1))


def neighbor_angle_histogram(shard: xr.Dataset) -> xr.Dataset:
    """Share of the distinct points by bin of their neighbor angle, float32, over layer and angle, of which the
    coordinate holds the centers of the bins; a bin has its lower edge, the last one both."""
    angles = shard["neighbor_angle"].values.astype(np.float64)
    counts = np.stack([np.histogram(row[np.isfinite(row)], _EDGES)[0] for row in angles])
    total = counts.sum(1, keepdims=True)
    shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return _over("layer", "angle", neighbor_angle_histogram=shares.astype(np.float32))


def n_points(shard: xr.Dataset) -> xr.Dataset:
    """Number of distinct points of each layer."""
    return _over("layer", n_points=shard["distinct"].values.astype(bool).sum(1).astype(np.float64))


def cosine_similarity(shard: xr.Dataset) -> xr.Dataset:
    """Mean and standard deviation over all pairs of tokens, taken in the extraction."""
    return shard[["cosine_similarity", "cosine_similarity_std"]]


def loss(shard: xr.Dataset) -> xr.Dataset:
    """Mean cross-entropy of the next token, taken in the extraction."""
    return shard[["loss"]]


def entropy(shard: xr.Dataset) -> xr.Dataset:
    """Mean entropy of the predictions that the loss counts, taken in the extraction."""
    return shard[["entropy"]]


def bleu(shard: xr.Dataset) -> xr.Dataset:
    """Likeness of the tokens to those of the structured prompt; see `shuffling.bleu`."""
    ids, permutation = shard["token_id"].values, shard["block_permutation"].values
    return _over(bleu=shuffling.bleu(ids, shuffling.shuffle_blocks(ids, permutation.argsort())))
