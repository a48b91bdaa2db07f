"""The chapter on three estimators of the intrinsic dimension: which they are, and what it says."""

from collections.abc import Callable

import pandas as pd
import xarray as xr

from token_geometry.chapters import markup
from token_geometry.chapters.frames import FROM_ONE
from token_geometry.chapters.loss import frames as loss_frames
from token_geometry.chapters.loss.prose import spell
from token_geometry.chapters.over_layers import effect, one_level
from token_geometry.chapters.results import RunResults
from token_geometry.stats import correlation, intervals

CHOSEN = {f"GRIDE at scale {scale}": ("intrinsic_dimension", {"scale": scale}) for scale in (4, 16)}
CHOSEN |= {"ESS": ("ess", {}), "TLE": ("tle", {})}
"""Estimators: title → variable, selection. The larger scale of GRIDE takes as many neighbors as the others do."""


def dimensions(dataset: xr.Dataset) -> xr.DataArray:
    """ID from layer 1 on, over `estimator` and the dimensions of the data set."""
    parts = [dataset[name].sel(at | {"layer": FROM_ONE}, drop=True) for name, at in CHOSEN.values()]
    return xr.concat(parts, pd.Index([*CHOSEN], name="estimator"))


@markup.unless(one_level)
@markup.per_model()
def shuffled(results: RunResults, model: str, title: str) -> str:
    """Effect of full shuffling on the ID of the middle layers, and whether the estimators agree on its sign."""
    (low, high), layers = results.extremes, results.middle_layers(model)
    mean = dimensions(results.ends).sel(model=model, layer=layers).mean("layer")
    found = intervals.paired_difference(mean, first=low, second=high).dropna("estimator", subset=["mean"])
    what = f"{title}, change of the mean ID of layers {layers.start} to {layers.stop} by full shuffling"
    return _compared(what, found, effect)


@markup.per_model()
def with_loss(results: RunResults, model: str, title: str) -> str:
    """Correlation of the ID of the middle layers with the loss, and whether the estimators agree on its sign."""
    layers, dataset = results.middle_layers(model), loss_frames.structured(results).sel(model=model)
    found = correlation.correlate(dimensions(dataset).sel(layer=layers).mean("layer"), dataset["loss"])
    found = found.dropna("estimator", subset=["correlation"])
    what = f"{title}, correlation of the mean ID of layers {layers.start} to {layers.stop} with the loss"
    return _compared(what, found, spell)


def _compared(what: str, found: xr.Dataset, say: Callable[[xr.Dataset], str]) -> str:
    """What each estimator finds, and which signs the intervals leave."""
    names = found["estimator"].values
    if not names.size:
        return f"{what}: the prompts are too few or too short."
    above, below = found["low"].values > 0, found["high"].values < 0
    sides = {"is positive by": above, "is negative by": below, "has an open sign by": ~(above | below)}
    parts = [f"{side} {', '.join(names[chosen])}" for side, chosen in sides.items() if chosen.any()]
    verdict = "agree" if above.all() or below.all() else "leave it open whether they agree"
    verdict = "contradict one another" if above.any() and below.any() else verdict
    each = "; ".join(f"{name} {say(found.sel(estimator=name))}" for name in names)
    return f"{what}: {each}. It {' and '.join(parts)}: the estimators {verdict}."
