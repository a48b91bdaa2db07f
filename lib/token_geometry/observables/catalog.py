"""The catalog of observables: what a reader needs to know of each variable of the observables dataset.

The attributes of the dataset, the table of the chapter on methods, the titles of axes and the names in alt texts
come from here. A new observable is one entry here and the function that it names in `labelled`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import xarray as xr

from token_geometry.observables import labelled


@dataclass(frozen=True)
class Observable:
    """One variable of the observables dataset.

    `name` is that of the variable, `title` its name on an axis and in a sentence, without the unit, and
    `short_title` its name where there is little room, as in a legend. `dims` are the dimensions beside `model`,
    `shuffle_level` and `prompt`; `function` makes it, perhaps with others, from a shard. `definition` says in
    one phrase of Markdown what it is, and `source` is the label of the equation or section of the chapter on
    methods that defines it. `unit` is spelled as UDUNITS does; "1" for a number without. Charts begin at the
    layer `first_layer`: most observables say nothing at the embeddings, where equal tokens coincide.
    """

    name: str
    title: str
    short_title: str
    dims: tuple[str, ...]
    function: Callable[..., xr.Dataset]
    definition: str
    source: str
    unit: str = "1"
    first_layer: int = 1

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

_LAYER, _SCALE, _K = ("layer",), ("layer", "scale"), ("layer", "k")

# fields in the order of the class: first what it is called, then what it is
_ENTRIES = (
    Observable("intrinsic_dimension", "intrinsic dimension", "ID",
               _SCALE, labelled.intrinsic_dimension, "GRIDE estimate", "eq-score"),
    Observable("intrinsic_dimension_error", "error of the intrinsic dimension", "error of the ID",
               _SCALE, labelled.intrinsic_dimension, "its Fisher error", "eq-fisher"),
    Observable("ess", "intrinsic dimension by ESS", "ESS",
               _LAYER, labelled.local_dimension,
               "mean local dimension by the expected simplex skewness", "eq-ess"),
    Observable("tle", "intrinsic dimension by TLE", "TLE",
               _LAYER, labelled.local_dimension, "mean local dimension by the tight local estimator", "eq-tle"),
    Observable("subset_dimension", "intrinsic dimension of a part of the points", "ID of a part",
               ("layer", "subset", "n_subset", "scale"), labelled.subset,
               "GRIDE estimate for the first, or for random, n points", "sec-methods-subsets"),
    Observable("subset_distance", "mean distance of the neighbors in a part of the points", "distance in a part",
               ("layer", "subset", "n_subset", "scale"), labelled.subset,
               "mean distance of the neighbors involved among these points", "sec-methods-subsets"),
    Observable("ess_loss_correlation", "correlation of local ESS with the token's loss", "ESS with loss",
               _LAYER, labelled.token_correlation,
               "rank correlation over tokens at fixed position and frequency", "sec-methods-tokens"),
    Observable("tle_loss_correlation", "correlation of local TLE with the token's loss", "TLE with loss",
               _LAYER, labelled.token_correlation,
               "rank correlation over tokens at fixed position and frequency", "sec-methods-tokens"),
    Observable("lens_entropy", "entropy of the latent prediction", "latent entropy",
               _LAYER, labelled.lens, "mean entropy of what the head makes of a layer, over some tokens",
               "eq-lens", unit="nat", first_layer=0),
    Observable("lens_loss", "loss of the latent prediction", "latent loss",
               _LAYER, labelled.lens, "mean cross-entropy of the next token by the same prediction",
               "eq-lens", unit="nat", first_layer=0),
    Observable("mean_state", "mean of the points of the middle layer", "mean state",
               ("coordinate",), labelled.mean_state, "mean hidden state of layer $L / 2$ over tokens",
               "sec-methods-points"),
    Observable("distinct_tokens", "number of different tokens", "different tokens",
               (), labelled.token_statistics, "different token ids of the prompt", "sec-methods-tokens"),
    Observable("token_rarity", "mean logarithm of the token ids", "rarity of tokens",
               (), labelled.token_statistics, "mean of $\\log (1 + t_i)$, $t_i$ token ids", "sec-methods-tokens"),
    Observable("logit_intrinsic_dimension", "intrinsic dimension of the logits", "ID of the logits",
               ("scale",), labelled.logit_intrinsic_dimension,
               "GRIDE estimate for the cloud of logits", "eq-logits"),
    Observable("neighbor_distance", "mean distance of the neighbors", "neighbor distance",
               _SCALE, labelled.neighbor_distance,
               "mean distance of the neighbors involved, in the units of the hidden states", "eq-distance"),
    Observable("neighborhood_overlap", "neighborhood overlap", "NO",
               _K, labelled.neighborhood_overlap, "overlap of layer $l$ with layer $l + 1$", "eq-overlap"),
    Observable("cosine_similarity", "mean cosine similarity", "cosine similarity",
               _LAYER, labelled.cosine_similarity, "mean over all pairs", "eq-cosine", first_layer=0),
    Observable("cosine_similarity_std", "standard deviation of the cosine similarity", "deviation of the cosine",
               _LAYER, labelled.cosine_similarity,
               "standard deviation over all pairs", "eq-cosine", first_layer=0),
    Observable("neighbor_angle", "mean neighbor angle", "neighbor angle",
               _LAYER, labelled.neighbor_angle,
               "mean angle between the two nearest neighbors", "eq-angle", unit="degree"),
    Observable("neighbor_angle_histogram", "share of points by neighbor angle", "share of points",
               ("layer", "angle"), labelled.neighbor_angle_histogram,
               f"share of points with an angle in each bin of {labelled.ANGLE_STEP} degrees", "eq-angle"),
    Observable("reciprocity", "reciprocity", "reciprocity",
               _K, labelled.reciprocity, "share of mutual edges", "eq-reciprocity"),
    Observable("layer_overlap", "overlap of two layers", "layer overlap",
               ("layer", "layer_other"), labelled.layer_overlap,
               "overlap of any two layers at $k = 16$", "eq-overlap"),
    Observable("n_points", "number of distinct points", "points",
               _LAYER, labelled.n_points,
               "distinct points that enter the ID", "sec-methods-duplicates", first_layer=0),
    Observable("loss", "loss", "loss",
               (), labelled.loss, "mean cross-entropy of the next token", "eq-loss", unit="nat"),
    Observable("entropy", "entropy", "entropy",
               (), labelled.entropy, "mean entropy of the next token", "eq-entropy", unit="nat"),
    Observable("bleu", "likeness to the structured prompt (BLEU)", "BLEU",
               (), labelled.bleu, "share of runs of tokens that the structured prompt has as well", "eq-bleu"),
)  # fmt: skip

CATALOG = {entry.name: entry for entry in _ENTRIES}  # the observables by name, in the order of the table

FUNCTIONS = tuple(dict.fromkeys(entry.function for entry in CATALOG.values()))
"""The functions that make them; their names are part of the recipe of an observables dataset."""

_ESTIMATED = (labelled.intrinsic_dimension, labelled.logit_intrinsic_dimension)
_OF_A_MODEL = (
    labelled.logit_intrinsic_dimension, labelled.loss, labelled.entropy, labelled.bleu, labelled.lens,
    labelled.token_correlation, labelled.mean_state, labelled.token_statistics,
)  # fmt: skip


def selections(*chosen: tuple[str, int | None]) -> dict[str, tuple[str, dict[str, int]]]:
    """Observables at values of their further dimension: title → variable, selection."""
    return {
        CATALOG[name].title_at(value, short=value is not None): (name, CATALOG[name].at(value))
        for name, value in chosen
    }


def observables(shard: xr.Dataset, *, estimator: str = "gride") -> xr.Dataset:
    """All observables of one shard, with title and unit; `estimator` is that of the intrinsic dimensions."""
    options = dict.fromkeys(_ESTIMATED, {"estimator": estimator})
    return _described(function(shard, **options.get(function, {})) for function in FUNCTIONS)


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
