"""Tables: what is kept of one prompt, on its way from the device where it is made to a dataset with names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from token_geometry.base import files
from token_geometry.geometry import subsets
from token_geometry.geometry.table_format import N_NEIGHBORS, RANKS
from token_geometry.observables.catalog import CATALOG

if TYPE_CHECKING:  # processes that reduce and write do without torch
    import torch


_KNOWN = {name: {"dims": entry.dims, "title": entry.title, "unit": entry.unit} for name, entry in CATALOG.items()}
_SAID = {name: {"unit": "1"} | _KNOWN.get(name, {}) | own for name, own in files.table(__file__).items()}
VARIABLES = {n: (tuple(one["dims"]), one["title"], one["unit"], one.get("type")) for n, one in _SAID.items()}
"""Dimensions, long name, unit and type of every variable of a shard; None: the type goes with the array."""


@dataclass(frozen=True)
class Tables:
    """What is kept of one prompt, possibly still on its way from a GPU.

    Where it is pickled, to go to another process, it is waited for; so whoever makes it need not wait.

    `arrays` are in memory of the host, by names of `VARIABLES`, `attrs` the attributes of the shard, and
    `arrived` is what the device does when the arrays are there; None: they are."""

    arrays: dict[str, np.ndarray | torch.Tensor]
    attrs: dict
    arrived: torch.cuda.Event | None = None

    def label(self) -> xr.Dataset:
        """The shard: arrays with dimensions, long names and units."""
        arrays = self._wait()
        # estimated here, where a GPU does not wait for it, and kept in their place: they are a thousandth of it
        parts, n_points = arrays.pop("part_distance"), arrays["distinct"].shape[1]
        if sizes := subsets.sizes(n_points):
            arrays["subset_dimension"], arrays["subset_distance"] = subsets.estimates(parts, n_points)
        variables = {}
        for name, (dims, long_name, unit, _) in VARIABLES.items():
            if name in arrays:
                variables[name] = (dims, arrays[name], {"long_name": long_name, "units": unit})
        coords: dict = {"layer": np.arange(len(arrays["cosine_similarity"])), "rank": np.array(RANKS)}
        if sizes:
            coords |= {"subset": list(subsets.KINDS), "n_subset": list(sizes), "scale": np.array(RANKS[1:])}
        return xr.Dataset(variables, coords=coords, attrs=self.attrs)

    def __reduce__(self):
        return Tables, (self._wait(), self.attrs)

    def _wait(self) -> dict[str, np.ndarray]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return {name: np.asarray(array) for name, array in self.arrays.items()}


def leave(arrays: dict[str, np.ndarray | torch.Tensor], attrs: dict, *, device: str) -> Tables:
    """Send arrays, some of them on a device, to the host, in the types of a shard, without waiting for the
    device; `arrays` are by names of `VARIABLES`, `attrs` the attributes of the shard."""
    import torch

    sent = {}
    for name, array in arrays.items():
        dtype = VARIABLES[name][-1]
        if name == "neighbor_index":  # where -1 stands for a neighbor that there is not
            n = array.shape[1]
            dtype = "int32" if n <= N_NEIGHBORS else "uint16" if n < 2**16 - 1 else "uint32"
        if isinstance(array, torch.Tensor):
            # typed on the device, since fewer bytes leave it then; for a copy that is not waited for torch takes
            # pinned memory, and takes it again when nobody holds it
            typed = array if dtype is None else array.to(getattr(torch, dtype))
            sent[name] = typed.to("cpu", non_blocking=True)
        else:
            sent[name] = np.asarray(array, dtype=dtype)
    if torch.device(device).type != "cuda":
        return Tables(sent, attrs)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(device))
    return Tables(sent, attrs, arrived)
