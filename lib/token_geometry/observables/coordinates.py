"""Coordinates: what those of a data set of observables are called."""

import xarray as xr

COORDINATES = {
    "layer": "layer",
    "scale": "scale: rank of the farther of two neighbors",
    "k": "number of neighbors",
    "layer_other": "the other layer",
    "model": "model, as the extraction names it",
    "shuffle_level": "shuffle level S: 4^S blocks in random order; 0: as the text is",
    "prompt": "id of the text in its corpus; without one its row, from 0",
}
"""What the coordinates of a data set of observables are."""


def with_titles(dataset: xr.Dataset) -> xr.Dataset:
    """The data set with title and unit on every coordinate that has none."""
    for name in filter(COORDINATES.__contains__, dataset.coords):
        dataset[name].attrs = {"long_name": COORDINATES[name], "units": "1"} | dataset[name].attrs
    return dataset
