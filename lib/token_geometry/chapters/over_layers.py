"""Any observable over layers: its chart, its alt text and what it says, from its entry in the catalog."""

from collections.abc import Callable
from dataclasses import dataclass

import altair as alt
import xarray as xr
from IPython.display import Markdown

from token_geometry.base import one_of
from token_geometry.chapters import curves, effects, frames, markup, numbers
from token_geometry.chapters.results import RunResults
from token_geometry.observables.catalog import CATALOG, UNITS
from token_geometry.stats import intervals

Values = slice | list | None  # values of a further dimension; None: all


@dataclass(frozen=True)
class Figure:
    """An observable over layers."""

    chart: alt.TopLevelMixin  # the chart, with its alt text
    sentence: Markdown  # the finding of each model


def by_level(results: RunResults, name: str, *, at: int | None = None, shown: Values = None) -> Figure:
    """An observable over layers by shuffle level, of the prompts that were run at every level.

    `at` is the value of its further dimension (scale, k) that the control starts with and the sentence is about,
    `shown` those that it offers, by default all. An `InputError` says if no observable of this name has layers."""
    return _figure(results, name, at, shown, results.shuffled, change, curves.layer_curves)


def by_model(results: RunResults, name: str, *, at: int | None = None, shown: Values = None) -> Figure:
    """An observable of structured prompts over layers and relative depth by model; parameters as of `by_level`."""
    return _figure(results, name, at, shown, results.structured, largest, curves.by_depth)


def _figure(results, name, at, shown, dataset: xr.Dataset, say: Callable, draw: Callable) -> Figure:
    accepted = [entry.name for entry in CATALOG.values() if "layer" in entry.dims and len(entry.dims) < 3]
    if name not in accepted:
        raise one_of("observable over layers", name, accepted)
    entry, finding = CATALOG[name], say(results, name=name, at=at)
    kept = {} if shown is None else {entry.choice: shown}
    frame = frames.summary(dataset[name].sel(layer=slice(entry.first_layer, None), **kept))
    return Figure(draw(frame, y_title=entry.axis_title, choose=entry.choice, initial=at, finding=finding), finding)


def one_level(results: RunResults) -> str:
    """What is said where there is nothing to compare shuffled prompts with."""
    text = f"The run has one shuffle level only ($S = {results.extremes[0]}$), so there is nothing to compare."
    return text * (not results.is_shuffled)


@markup.unless(one_level)
@markup.per_model
def change(results: RunResults, model: str, title: str, *, name: str, at: int | None = None) -> str:
    """How full shuffling changes an observable in the middle layers."""
    entry, (low, high) = CATALOG[name], results.extremes
    what = entry.title_at(at, short=entry.choice is not None).replace(f"k = {at}", f"$k = {at}$")
    if entry.unit != "1":
        what += f" in {UNITS.get(entry.unit, entry.unit)}"
    values = results.shuffled[name].sel(model=model, **entry.at(at))
    if not bool(values.notnull().any()):
        return f"{title}: no data for {what}."
    before, after = level_means(results, model, name, **entry.at(at))
    means = f"{what} is {before:.2f} at $S = {low}$ and {after:.2f} at $S = {high}$ in the middle layers"
    return f"{title}: {means}. {change_by_prompt(values, results.middle_layers(model))}"


@markup.per_model
def largest(results: RunResults, model: str, title: str, *, name: str, at: int | None = None) -> str:
    """Where the mean of an observable over structured prompts is largest."""
    what = CATALOG[name].title_at(at, short=CATALOG[name].choice is not None).removeprefix("mean ")
    top = frames.peak(results.structured[name].sel(model=model, **CATALOG[name].at(at)))
    depth, spec = top.layer / results.last_layer(model), ".1f" if top.mean >= 2 else ".2f"
    where = f"in layer {top.layer}, at {depth:.0%} of the depth"
    return f"{title}: the mean {what} is largest {where}, with {top.mean:{spec}} ± {top.std:{spec}}."


def change_by_prompt(values: xr.DataArray, layers: slice) -> str:
    """How shuffling changes the mean over some layers, with the interval and the count of prompts of that sign."""
    found = intervals.mean_interval(effects.change(values.sel(layer=layers).mean("layer")))
    where = f"{'In' if layers.start == layers.stop else 'Averaged over'} {numbers.layers(layers)}"
    return f"{where}, shuffling changes it by {effect(found)}{alike(found)}."


def alike(found: xr.Dataset) -> str:
    """How many prompts have the sign of their mean, from `intervals.mean_interval`; nothing of a single one."""
    n_same, n_prompts = (int(found[part]) for part in ("n_same_sign", "n_prompts"))
    return f", with this sign in {n_same} of {n_prompts} prompts" * (n_prompts > 1)


def effect(found: xr.Dataset) -> str:
    """A mean with its sign and its interval, from `intervals.mean_interval`."""
    text = numbers.told(found, sign="+", digits=None, name="95% interval ")
    n_prompts = numbers.count(int(found["n_prompts"]), "prompt")
    return text if bool(found["low"].notnull()) else f"{text} ({n_prompts}, no interval)"


def level_means(results: RunResults, model: str, name: str, **at: int) -> list[numbers.Number]:
    """Mean of an observable over prompts and middle layers at the extreme levels, which may be one."""
    values = results.shuffled[name].sel(model=model, layer=results.middle_layers(model), **at)
    return [numbers.Number(values.sel(shuffle_level=s).mean()) for s in dict.fromkeys(results.extremes)]
