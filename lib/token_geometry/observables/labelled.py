"""Observables with names, dimensions and units, from one shard of an extraction.

Every function maps a shard (``xarray.Dataset``) to a dataset, and returns the variables
of the observables dataset that it is named for; `OBSERVABLES` lists them all.
"""

import numpy as np
import xarray as xr

from token_geometry.geometry import gride, overlap
from token_geometry.geometry.table_format import RANKS

SCALES = np.array(RANKS[1:])
"""Scales n2 of GRIDE."""

ESTIMATORS = ("gride", "dadapy")
"""Estimators of the intrinsic dimension; both give the same digits."""

K = np.arange(1, 32)
"""Neighborhood sizes."""

ANGLE_STEP = 5
"""Width in degrees of the bins of the neighbor angle, which go from 0 to 180."""


def _variable(dims, values, long_name, units="1") -> xr.Variable:
    return xr.Variable(dims, values, attrs={"long_name": long_name, "units": units})


def _with_k(name: str, values: np.ndarray, long_name: str) -> xr.Dataset:
    variable = _variable(("layer", "k"), values[:, : len(K)], long_name)
    return xr.Dataset({name: variable}, coords={"k": K})


def intrinsic_dimension(shard: xr.Dataset, *, estimator: str = "gride") -> xr.Dataset:
    """GRIDE estimate and its Fisher error, over layer and scale.

    `estimator` is one of `ESTIMATORS`: `gride` solves all layers and scales at once (see `gride.estimate`),
    `dadapy` asks DADApy for each layer.
    """
    dimension, error = _dimension(shard["neighbor_distance"].values, estimator)
    dims = ("layer", "scale")
    return xr.Dataset(
        {
            "intrinsic_dimension": _variable(dims, dimension, f"intrinsic dimension ({estimator})"),
            "intrinsic_dimension_error": _variable(dims, error, "standard error of the intrinsic dimension"),
        },
        coords={"scale": SCALES},
    )


def logit_intrinsic_dimension(shard: xr.Dataset, *, estimator: str = "gride") -> xr.Dataset:
    """GRIDE estimate for the cloud of the logits of all tokens, over scale; `estimator` as above."""
    dimension, _ = _dimension(shard["logit_neighbor_distance"].values[None], estimator)
    variable = _variable("scale", dimension[0], f"intrinsic dimension of the logits ({estimator})")
    return xr.Dataset({"logit_intrinsic_dimension": variable}, coords={"scale": SCALES})


def _dimension(distance: np.ndarray, estimator: str) -> tuple[np.ndarray, np.ndarray]:
    distance = distance.astype(np.float64)
    if estimator == "dadapy":
        results = [gride.estimate_by_dadapy(layer)[:2] for layer in distance]
        return tuple(np.stack(parts) for parts in zip(*results, strict=True))
    return gride.estimate(np.moveaxis(gride.ratios(distance), -1, -2), SCALES // 2)


def neighbor_distance(shard: xr.Dataset) -> xr.Dataset:
    """Mean distance of the neighbors of rank n1 and n2 that enter the estimate at each scale."""
    distance = shard["neighbor_distance"].values.astype(np.float64)
    present = np.isfinite(distance)
    count = present.sum(1)
    with np.errstate(invalid="ignore"):
        mean = np.where(present, distance, 0).sum(1) / np.where(count, count, np.nan)
    variable = _variable(("layer", "scale"), (mean[:, 1:] + mean[:, :-1]) / 2, "mean distance of the neighbors")
    return xr.Dataset({"neighbor_distance": variable}, coords={"scale": SCALES})


def neighborhood_overlap(shard: xr.Dataset) -> xr.Dataset:
    """Share of common k-neighbors of layer l and l + 1; see `overlap.neighborhood_overlap`."""
    values = overlap.neighborhood_overlap(shard["neighbor_index"].values)
    return _with_k("neighborhood_overlap", values, "neighborhood overlap with the next layer")


def reciprocity(shard: xr.Dataset) -> xr.Dataset:
    """Share of mutual edges of the k-neighbor graph; see `overlap.reciprocity`."""
    values = overlap.reciprocity(shard["neighbor_index"].values)
    return _with_k("reciprocity", values, "share of mutual k-neighbor edges")


def layer_overlap(shard: xr.Dataset) -> xr.Dataset:
    """Overlap of 16-neighborhoods between any two layers; see `overlap.layer_overlap`."""
    values = overlap.layer_overlap(shard["neighbor_index"].values)
    long_name = "overlap of 16-neighborhoods of two layers"
    return xr.Dataset(
        {"layer_overlap": _variable(("layer", "layer_other"), values, long_name)},
        coords={"layer_other": shard["layer"].values},
    )


def neighbor_angle(shard: xr.Dataset) -> xr.Dataset:
    """Mean angle between the vectors to the first and second neighbor."""
    values = shard["neighbor_angle"].values.astype(np.float64)
    count = np.isfinite(values).sum(1)
    mean = np.nansum(values, axis=1) / np.where(count, count, np.nan)
    long_name = "mean angle between the vectors to the first and second neighbor"
    return xr.Dataset({"neighbor_angle": _variable("layer", mean, long_name, "degree")})


def neighbor_angle_histogram(shard: xr.Dataset) -> xr.Dataset:
    """Share of the distinct points by bin of their neighbor angle, float32, over layer and angle.

    The coordinate `angle` holds the centers of the bins; a bin has its lower edge, the last one both.
    """
    edges = np.arange(0, 180 + ANGLE_STEP, ANGLE_STEP)
    values = shard["neighbor_angle"].values.astype(np.float64)
    bins = np.minimum(values // ANGLE_STEP, len(edges) - 2)
    counts = np.stack([np.bincount(row[np.isfinite(row)].astype(int), minlength=len(edges) - 1) for row in bins])
    total = counts.sum(1, keepdims=True)
    shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    variable = _variable(("layer", "angle"), shares.astype(np.float32), "share of points with this neighbor angle")
    angle = xr.Variable(
        "angle", edges[:-1] + ANGLE_STEP / 2, {"long_name": "center of the bin", "units": "degree"}
    )
    return xr.Dataset({"neighbor_angle_histogram": variable}, coords={"angle": angle})


def n_points(shard: xr.Dataset) -> xr.Dataset:
    """Number of distinct points of each layer."""
    count = shard["distinct"].values.astype(bool).sum(1).astype(np.float64)
    return xr.Dataset({"n_points": _variable("layer", count, "number of distinct points")})


def cosine_similarity(shard: xr.Dataset) -> xr.Dataset:
    """Mean and standard deviation over all pairs of tokens, taken in the extraction."""
    return shard[["cosine_similarity", "cosine_similarity_std"]]


def loss(shard: xr.Dataset) -> xr.Dataset:
    """Mean cross-entropy of the next token, taken in the extraction."""
    return shard[["loss"]]


def entropy(shard: xr.Dataset) -> xr.Dataset:
    """Mean entropy of the predictions that the loss counts, taken in the extraction."""
    return shard[["entropy"]]


OBSERVABLES = (
    intrinsic_dimension,
    logit_intrinsic_dimension,
    neighbor_distance,
    neighborhood_overlap,
    cosine_similarity,
    neighbor_angle,
    neighbor_angle_histogram,
    reciprocity,
    layer_overlap,
    n_points,
    loss,
    entropy,
)

_OF_A_MODEL = (logit_intrinsic_dimension, loss, entropy)
_ESTIMATED = (intrinsic_dimension, logit_intrinsic_dimension)


def without_model(tables: xr.Dataset) -> xr.Dataset:
    """All observables that follow from the tables of hidden states alone."""
    found = [observable(tables) for observable in OBSERVABLES if observable not in _OF_A_MODEL]
    return xr.merge(found, combine_attrs="override")


def observables(shard: xr.Dataset, *, estimator: str = "gride") -> xr.Dataset:
    """All observables of one shard; `estimator` is that of the intrinsic dimensions."""
    found = [
        observable(shard, estimator=estimator) if observable in _ESTIMATED else observable(shard)
        for observable in OBSERVABLES
    ]
    return xr.merge(found, combine_attrs="override")
