"""The catalog of observables: what a reader needs to know of each variable of the observables dataset.

The attributes of the dataset, the table of the chapter on methods, the titles of axes and the names in alt texts
come from here. A new observable is one entry in `catalog.yml` and the function that it names in `labelled`."""

from collections.abc import Callable
from dataclasses import dataclass

import xarray as xr

from token_geometry.base import files
from token_geometry.observables import labelled


@dataclass(frozen=True)
class Observable:
    """One variable of the observables dataset: its name and its entry in `catalog.yml`, which says what all is."""

    name: str
    title: str
    short_title: str
    dims: tuple[str, ...]
    function: Callable[..., xr.Dataset]
    definition: str
    source: str
    unit: str = "1"
    first_layer: int = 1
    of_model: bool = False

    @property
    def choice(self) -> str | None:
        """The dimension beside `layer`, of which a chart shows one value at a time."""
        return next((name for name in self.dims if name != "layer"), None)

    @property
    def axis_title(self) -> str:
        """Title with the unit."""
        return self.title if self.unit == "1" else f"{self.title} ({UNITS.get(self.unit, self.unit)})"

    def at(self, value: int | None) -> dict[str, int]:
        """Selection of one value of `choice`; None for an observable that has no further dimension."""
        return {} if value is None or self.choice is None else {self.choice: value}

    def title_at(self, value: int | None, *, short: bool = False) -> str:
        """Title at one value of `choice`: `intrinsic dimension at scale 2`, `NO at k = 2`."""
        title = self.short_title if short else self.title
        return title if value is None else f"{title} at {self.choice}{' =' * (self.choice == 'k')} {value}"


UNITS = {"degree": "degrees", "nat": "nats"}  # plural of the units, as a title has them

_TABLE = files.table(__file__)
COORDINATES: dict[str, str] = _TABLE.pop("coordinates")  # titles of the coordinates of a data set

CATALOG = {
    name: Observable(name, **one | {"dims": tuple(one["dims"]), "function": getattr(labelled, one["function"])})
    for name, one in _TABLE.items()
}
"""The observables by name, in the order of the table."""

FUNCTIONS = tuple(dict.fromkeys(entry.function for entry in CATALOG.values()))
"""The functions that make them; their names are part of the recipe of an observables dataset."""

_ESTIMATED = (labelled.intrinsic_dimension, labelled.logit_intrinsic_dimension)


def selections(**chosen: int | tuple[int, ...] | None) -> dict[str, tuple[str, dict[str, int]]]:
    """Observables at one or several values of their further dimension, if any: title → variable, selection."""
    lists = {CATALOG[name]: one if isinstance(one, tuple) else (one,) for name, one in chosen.items()}
    pairs = [(entry, value) for entry, values in lists.items() for value in values]
    return {entry.title_at(at, short=at is not None): (entry.name, entry.at(at)) for entry, at in pairs}


def observables(shard: xr.Dataset, *, estimator: str = "gride", of_model: bool = True) -> xr.Dataset:
    """All observables of one shard, or without `of_model` those that follow from the hidden states alone, with
    title and unit; `estimator` is that of the intrinsic dimensions."""
    options = dict.fromkeys(_ESTIMATED, {"estimator": estimator})
    functions = dict.fromkeys(entry.function for entry in CATALOG.values() if of_model or not entry.of_model)
    found = [function(shard, **options.get(function, {})) for function in functions]
    dataset = xr.merge(found, combine_attrs="override")
    for name, variable in dataset.data_vars.items():
        variable.attrs = {"long_name": CATALOG[name].title, "units": CATALOG[name].unit}
    return dataset


def with_titles(dataset: xr.Dataset) -> xr.Dataset:
    """The data set with title and unit on every coordinate that has none."""
    for name in filter(COORDINATES.__contains__, dataset.coords):
        dataset[name].attrs = {"long_name": COORDINATES[name], "units": "1"} | dataset[name].attrs
    return dataset


def as_table() -> str:
    """The catalog as a Markdown table."""
    rows = ["| variable | further dimensions | meaning | unit | definition |", "|:------|:----|:------|:---|:---|"]
    for entry in CATALOG.values():
        dims = ", ".join(f"`{name}`" for name in entry.dims) or "none"
        rows.append(f"| `{entry.name}` | {dims} | {entry.definition} | {entry.unit} | @{entry.source} |")
    return "\n".join(rows) + "\n"
