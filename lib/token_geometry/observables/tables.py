"""Tables of one cloud with names, dimensions and units: all that observables are computed from without the points.

The extraction keeps them in its shards, and `measure` goes through them: there is one way to the observables."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from token_geometry.base import InputError
from token_geometry.geometry import neighbors
from token_geometry.observables import catalog, transfer

# variables of a shard by the fields of a neighbor table, where they have other names
_NAMES = {"redone": "n_float64", "cosine": "cosine_similarity", "cosine_std": "cosine_similarity_std"}
_NAMES |= {field: f"neighbor_{field}" for field in ("distance", "index", "angle")} | {"part": "part_distance"}


def tables(points: torch.Tensor, *, layers: Sequence | None = None) -> xr.Dataset:
    """The variables of a shard that follow from the points of a cloud at every layer, shape (layer, token, width).

    `layers` are the coordinates of the layers, by default 0, 1, 2 …; raises as `neighbors.neighbor_table`."""
    shard = transfer.leave(arrays(points), {}, device=str(points.device)).label()
    return shard if layers is None else shard.assign_coords(layer=np.asarray(layers))


def arrays(points: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same arrays without dimensions; those of tokens are still on the device of the points."""
    return {_NAMES.get(field, field): part for field, part in neighbors.neighbor_tensors(points).items()}


def measure(points, *, layers: Sequence | None = None) -> xr.Dataset:
    """All observables of clouds of points that need no model.

    Parameters
    ----------
    points
        Points of a cloud at every layer, shape (layer, token, width), or at a single one, shape (token, width): a
        NumPy array or a torch tensor of any floating type on any device, in any unit. A layer is whatever the
        first axis counts; token i is the same one in all layers. Half precision becomes float32; float64 stays.
    layers
        Coordinates of the layers, numbers or names, all different; by default 0, 1, 2 …

    Returns
    -------
    xarray.Dataset
        Every variable has `long_name` and `units`; distances are in the unit of the points, angles in degrees, all
        else are pure numbers. For points of shape (token, width) there is no "layer", and nothing between layers.

        - over layer and scale, that is the rank of the farther neighbor, 2 … 256: `intrinsic_dimension` by GRIDE,
          `intrinsic_dimension_error`, `neighbor_distance`
        - over layer and k, 1 … 31: `neighborhood_overlap` with the next layer, NaN at the last; `reciprocity`
        - over layer: `ess` and `tle`, means over points of local dimensions from 10 and 20 neighbors;
          `cosine_similarity`, `cosine_similarity_std`, `neighbor_angle`, `n_points`, which is 1 where all points
          coincide but for rounding
        - over layer and angle, layer and layer_other: `neighbor_angle_histogram`, `layer_overlap` at k = 16

        NaN where there are too few points for a scale, a k or a local dimension.

    Raises
    ------
    InputError
        If the points are no array of floating numbers of two or three axes, hold fewer than two tokens or no layer
        or coordinate, or are not finite; the message names layer and token.

    References
    ----------
    Denti et al., Sci. Rep. 12, 20005 (2022), for GRIDE; for ESS and TLE those of `geometry.local_dimension`;
    Viswanathan et al., arXiv:2501.10573.

    Examples
    --------
    >>> import numpy as np, token_geometry
    >>> plane = np.random.default_rng(0).normal(size=(1000, 2)) @ np.eye(2, 50)
    >>> round(float(token_geometry.measure(plane)["intrinsic_dimension"].sel(scale=2)), 1)
    2.0
    """
    if (clouds := _as_tensor(points)).ndim not in (2, 3):
        accepted = "(layer, token, width) or (token, width); torch.cat joins the hidden_states of one text"
        raise InputError(f"points have shape {(*clouds.shape,)}; accepted: {accepted}")
    single = clouds.ndim == 2
    clouds = clouds[None] if single else clouds
    n_layers, n_tokens, width = clouds.shape
    for axis, length, least in (("layers", n_layers, 1), ("tokens", n_tokens, 2), ("coordinates", width, 1)):
        if length < least:
            raise InputError(f"points have {length} {axis}; accepted: {least} or more")
    if bad := neighbors.first_not_finite(clouds):
        raise InputError(f"points of layer {bad[0]}, token {bad[1]} are not finite; accepted: finite numbers")
    if layers is not None and (np.ndim(layers) != 1 or len(layers) != n_layers or len({*layers}) < n_layers):
        raise InputError(f"layers is {layers!r}; accepted: {n_layers} different numbers or names")
    found = catalog.with_titles(catalog.observables(tables(clouds, layers=layers), of_model=False))
    between = ["neighborhood_overlap", "layer_overlap", "layer_other"]
    return found.drop_vars(between).isel(layer=0, drop=True) if single else found


def _as_tensor(points) -> torch.Tensor:
    if isinstance(points, torch.Tensor):
        if points.layout != torch.strided:
            raise InputError(f"points are of layout {points.layout}; accepted: dense ones: points.to_dense()")
        is_floating, hint = points.dtype.is_floating_point, "points.float()"
    else:
        try:
            points = np.asarray(points)
        except ValueError:
            raise InputError("points have rows of several lengths; accepted: (layer, token, width)") from None
        is_floating, hint = points.dtype.kind == "f", "points.astype('float64')"
    if not is_floating:
        raise InputError(f"points are of type {points.dtype}; accepted: floating numbers, such as {hint}")
    if isinstance(points, torch.Tensor):
        return points.detach()
    # torch knows no longer type, no other order of bytes, no backward strides, and warns of what is read-only
    kind = np.float64 if points.dtype.itemsize >= 8 else np.float32
    return torch.from_numpy(np.require(points, kind, ["C", "W"]))
