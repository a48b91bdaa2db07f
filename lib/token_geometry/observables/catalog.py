"""The catalog of observables: what a reader needs to know of each variable of the observables dataset.

The attributes of the dataset, the table of the chapter on methods, the titles of axes and the names in alt texts
come from here. A new observable is one entry here and the function that it names in `labelled`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import xarray as xr

from token_geometry.base.errors import one_of
from token_geometry.observables import labelled


@dataclass(frozen=True, kw_only=True)
class Observable:
    """One variable of the observables dataset."""

    name: str
    """Name of the variable."""

    title: str
    """Name on an axis and in a sentence, without the unit."""

    short_title: str
    """Name where there is little room, as in a legend."""

    dims: tuple[str, ...]
    """Dimensions beside `model`, `shuffle_level` and `prompt`."""

    unit: str
    """Unit as UDUNITS spells it; "1" for a number without."""

    definition: str
    """What it is, in one phrase of Markdown."""

    source: str
    """Label of the equation or section of the chapter on methods that defines it."""

    function: Callable[..., xr.Dataset]
    """Function that makes it, perhaps with others, from a shard."""

    first_layer: int = 1
    """Layer that charts begin at: most say nothing at the embeddings, where equal tokens coincide."""

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


UNITS = {"degree": "degrees", "nat": "nats"}
"""Plural of the units, as a title has them."""

CATALOG = {
    entry.name: entry
    for entry in (
        Observable(
            name="intrinsic_dimension",
            title="intrinsic dimension",
            short_title="ID",
            dims=("layer", "scale"),
            unit="1",
            definition="GRIDE estimate",
            source="eq-score",
            function=labelled.intrinsic_dimension,
        ),
        Observable(
            name="intrinsic_dimension_error",
            title="error of the intrinsic dimension",
            short_title="error of the ID",
            dims=("layer", "scale"),
            unit="1",
            definition="its Fisher error",
            source="eq-fisher",
            function=labelled.intrinsic_dimension,
        ),
        Observable(
            name="logit_intrinsic_dimension",
            title="intrinsic dimension of the logits",
            short_title="ID of the logits",
            dims=("scale",),
            unit="1",
            definition="GRIDE estimate for the cloud of logits",
            source="eq-logits",
            function=labelled.logit_intrinsic_dimension,
        ),
        Observable(
            name="neighbor_distance",
            title="mean distance of the neighbors",
            short_title="neighbor distance",
            dims=("layer", "scale"),
            unit="1",
            definition="mean distance of the neighbors involved, in the units of the hidden states",
            source="eq-distance",
            function=labelled.neighbor_distance,
        ),
        Observable(
            name="neighborhood_overlap",
            title="neighborhood overlap",
            short_title="NO",
            dims=("layer", "k"),
            unit="1",
            definition="overlap of layer $l$ with layer $l + 1$",
            source="eq-overlap",
            function=labelled.neighborhood_overlap,
        ),
        Observable(
            name="cosine_similarity",
            title="mean cosine similarity",
            short_title="cosine similarity",
            dims=("layer",),
            unit="1",
            definition="mean over all pairs",
            source="eq-cosine",
            function=labelled.cosine_similarity,
            first_layer=0,
        ),
        Observable(
            name="cosine_similarity_std",
            title="standard deviation of the cosine similarity",
            short_title="deviation of the cosine",
            dims=("layer",),
            unit="1",
            definition="standard deviation over all pairs",
            source="eq-cosine",
            function=labelled.cosine_similarity,
            first_layer=0,
        ),
        Observable(
            name="neighbor_angle",
            title="mean neighbor angle",
            short_title="neighbor angle",
            dims=("layer",),
            unit="degree",
            definition="mean angle between the two nearest neighbors",
            source="eq-angle",
            function=labelled.neighbor_angle,
        ),
        Observable(
            name="neighbor_angle_histogram",
            title="share of points by neighbor angle",
            short_title="share of points",
            dims=("layer", "angle"),
            unit="1",
            definition=f"share of points with an angle in each bin of {labelled.ANGLE_STEP} degrees",
            source="eq-angle",
            function=labelled.neighbor_angle_histogram,
        ),
        Observable(
            name="reciprocity",
            title="reciprocity",
            short_title="reciprocity",
            dims=("layer", "k"),
            unit="1",
            definition="share of mutual edges",
            source="eq-reciprocity",
            function=labelled.reciprocity,
        ),
        Observable(
            name="layer_overlap",
            title="overlap of two layers",
            short_title="layer overlap",
            dims=("layer", "layer_other"),
            unit="1",
            definition="overlap of any two layers at $k = 16$",
            source="eq-overlap",
            function=labelled.layer_overlap,
        ),
        Observable(
            name="n_points",
            title="number of distinct points",
            short_title="points",
            dims=("layer",),
            unit="1",
            definition="distinct points that enter the ID",
            source="sec-methods-duplicates",
            function=labelled.n_points,
            first_layer=0,
        ),
        Observable(
            name="loss",
            title="loss",
            short_title="loss",
            dims=(),
            unit="nat",
            definition="mean cross-entropy of the next token",
            source="eq-loss",
            function=labelled.loss,
        ),
        Observable(
            name="entropy",
            title="entropy",
            short_title="entropy",
            dims=(),
            unit="nat",
            definition="mean entropy of the next token",
            source="eq-entropy",
            function=labelled.entropy,
        ),
    )
}
"""The observables by name, in the order of the table."""

FUNCTIONS = tuple(dict.fromkeys(entry.function for entry in CATALOG.values()))
"""The functions that make them; their names are part of the recipe of an observables dataset."""

_ESTIMATED = (labelled.intrinsic_dimension, labelled.logit_intrinsic_dimension)
_OF_A_MODEL = (labelled.logit_intrinsic_dimension, labelled.loss, labelled.entropy)


def get(name: str) -> Observable:
    """An observable by name.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in CATALOG:
        raise one_of("observable", name, CATALOG)
    return CATALOG[name]


def selections(*chosen: tuple[str, int | None]) -> dict[str, tuple[str, dict[str, int]]]:
    """Observables at values of their further dimension: title → variable, selection."""
    return {
        CATALOG[name].title_at(value, short=value is not None): (name, CATALOG[name].at(value))
        for name, value in chosen
    }


def observables(shard: xr.Dataset, *, estimator: str = "gride") -> xr.Dataset:
    """All observables of one shard, with title and unit; `estimator` is that of the intrinsic dimensions."""
    found = (
        function(shard, estimator=estimator) if function in _ESTIMATED else function(shard)
        for function in FUNCTIONS
    )
    return _described(found)


def without_model(tables: xr.Dataset) -> xr.Dataset:
    """All observables that follow from the tables of hidden states alone."""
    return _described(function(tables) for function in FUNCTIONS if function not in _OF_A_MODEL)


def _described(found: Iterable[xr.Dataset]) -> xr.Dataset:
    dataset = xr.merge(list(found), combine_attrs="override")
    for name, variable in dataset.data_vars.items():
        variable.attrs = {"long_name": CATALOG[name].title, "units": CATALOG[name].unit}
    return dataset


def as_table() -> str:
    """The catalog as a Markdown table."""
    rows = ["| variable | further dimensions | meaning | unit | definition |", "|:------|:----|:------|:---|:---|"]
    for entry in CATALOG.values():
        dims = ", ".join(f"`{name}`" for name in entry.dims) or "none"
        rows.append(f"| `{entry.name}` | {dims} | {entry.definition} | {entry.unit} | @{entry.source} |")
    return "\n".join(rows) + "\n"
