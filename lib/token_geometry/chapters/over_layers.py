"""Any observable over layers: its chart, its alt text and what it says, from its entry in the catalog."""

from dataclasses import dataclass

import altair as alt
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import curves, markup, numbers
from token_geometry.chapters.frames import peak, summary
from token_geometry.chapters.numbers import Number
from token_geometry.chapters.results import RunResults
from token_geometry.observables import catalog
from token_geometry.stats import intervals


@dataclass(frozen=True)
class Figure:
    """An observable over layers."""

    chart: alt.TopLevelMixin
    """The chart, with its alt text."""

    sentence: Markdown
    """The finding of each model."""


def by_level(
    results: RunResults, name: str, *, at: int | None = None, shown: slice | list | None = None
) -> Figure:
    """An observable over layers by shuffle level, of the prompts that were run at every level.

    Parameters
    ----------
    results
        The run.
    name
        Name of an observable that has layers.
    at
        Value of its further dimension (scale, k) that the control starts with and that the sentence is about.
    shown
        Values that the control offers; by default all.

    Raises
    ------
    InputError
        If there is no such observable.
    """
    entry = catalog.get(name)
    options = {"y_title": entry.axis_title, "choose": entry.choice, "initial": at}
    what = f"{entry.title_at(at)} against layer, one curve per shuffle level"
    start = f"Line chart with bands, one panel per model: {what}"
    chart = curves.layer_curves(
        _frame(results.shuffled, entry, shown),
        **options,
        description=markup.alt_text(start, _levels(results, entry, at)),
    )
    return Figure(chart, change(results, name, at=at))


def by_model(
    results: RunResults, name: str, *, at: int | None = None, shown: slice | list | None = None
) -> Figure:
    """An observable of structured prompts over layers and relative depth by model; parameters as of `by_level`."""
    entry = catalog.get(name)
    options = {"y_title": entry.axis_title, "choose": entry.choice, "initial": at}
    findings, lines = [], []
    for model, title in results.models:
        values = results.structured[name].sel(model=model, **entry.at(at)).isel(shuffle_level=0)
        top = peak(values)
        depth = float(results.observables["relative_depth"].sel(model=model, layer=top.layer))
        findings.append(f"{title} is highest, {top.mean:.2f}, in layer {top.layer}")
        lines.append(
            f"{title}: the mean {entry.title_at(at, short=True)} is largest in layer {top.layer}, at {depth:.0%} "
            f"of the depth, with {top.mean:.1f} ± {top.std:.1f}."
        )
    if len(lines) == 1:
        lines.append("The run has one model only, so there is nothing to compare it with.")
    what = f"{entry.title_at(at)} of structured prompts against layer and depth, one curve per model"
    start = f"Line chart with bands: {what}"
    chart = curves.by_depth(
        _frame(results.structured, entry, shown), **options, description=markup.alt_text(start, findings)
    )
    return Figure(chart, markup.bullets(lines))


def change(results: RunResults, name: str, *, at: int | None = None) -> Markdown:
    """For each model: how full shuffling changes an observable in the middle layers."""
    entry = catalog.get(name)
    what, (low, high) = _with_unit(entry, at), results.extremes
    if not results.is_shuffled:
        return Markdown(f"The run has one shuffle level only ($S = {low}$): no comparison of {what}.")
    lines = []
    for model, title in results.models:
        values = results.shuffled[name].sel(model=model, **entry.at(at))
        if not bool(values.notnull().any()):
            lines.append(f"{title}: no data for {what}.")
            continue
        layers = results.middle_layers(model)
        before, after = level_means(results, model, name, **entry.at(at))
        lines.append(
            f"{title}: {what} is {before:.2f} at $S = {low}$ and {after:.2f} at $S = {high}$ on average over "
            f"layers {layers.start} to {layers.stop}. {change_by_prompt(values, results.extremes, layers)}"
        )
    return markup.bullets(lines)


def change_by_prompt(variable: xr.DataArray, levels: tuple[int, int], layers: slice) -> str:
    """How shuffling changes the mean over some layers, with the interval and the count of prompts of that sign."""
    found = intervals.paired_difference(
        variable.sel(layer=layers).mean("layer"), first=levels[0], second=levels[1]
    )
    return (
        f"Averaged over these layers, shuffling changes it by {effect(found)}, with this sign in "
        f"{int(found['n_same_sign'])} of {int(found['n_prompts'])} prompts."
    )


def effect(found: xr.Dataset) -> str:
    """A mean with its sign and its interval, from `intervals.mean_interval`."""
    text = numbers.estimate(
        *(float(found[name]) for name in ("mean", "low", "high")), sign="+", name="95% interval "
    )
    return text if bool(found["low"].notnull()) else f"{text} (one prompt, no interval)"


def level_means(results: RunResults, model: str, name: str, **at: int) -> list[Number]:
    """Mean of an observable over prompts and middle layers, at the lowest and the highest shuffle level."""
    values = results.shuffled[name].sel(model=model, layer=results.middle_layers(model), **at)
    return [Number(values.sel(shuffle_level=level).mean()) for level in results.extremes]


def _frame(dataset: xr.Dataset, entry: catalog.Observable, shown: slice | list | None):
    kept = {} if shown is None else {entry.choice: shown}
    return summary(dataset[entry.name].sel(layer=slice(entry.first_layer, None), **kept))


def _levels(results: RunResults, entry: catalog.Observable, at: int | None) -> list[str]:
    low, high = results.extremes
    findings = []
    for model, title in results.models:
        means = level_means(results, model, entry.name, **entry.at(at))
        findings.append(
            f"in the middle layers of {title} it is {means[0]:.2f} at S = {low} and {means[1]:.2f} at S = {high}"
        )
    return findings


def _with_unit(entry: catalog.Observable, at: int | None) -> str:
    title = entry.title_at(at, short=entry.choice is not None).replace(f"k = {at}", f"$k = {at}$")
    return title if entry.unit == "1" else f"{title} in {catalog.UNITS.get(entry.unit, entry.unit)}"
