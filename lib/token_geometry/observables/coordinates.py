"""Coordinates: what those of a data set of observables are called."""

import xarray as xr

from token_geometry.base import files

COORDINATES: dict[str, str] = files.table(__file__)


def with_titles(dataset: xr.Dataset) -> xr.Dataset:
    """The data set with title and unit on every coordinate that has none."""
    for name in filter(COORDINATES.__contains__, dataset.coords):
        dataset[name].attrs = {"long_name": COORDINATES[name], "units": "1"} | dataset[name].attrs
    return dataset
