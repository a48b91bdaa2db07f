"""The first page of the book: what the abstract says, and the frame of its figure."""

import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters.frames import by_observable, peak
from token_geometry.chapters.markup import escaped
from token_geometry.chapters.over_layers import effect
from token_geometry.chapters.results import RunResults
from token_geometry.chapters.shuffling.prose import effects_by_scale, reversal

ADDED = {
    "controls": "an untrained or permuted model to compare with",
    "truth": "true and false statements at a layer",
    "calibration": "the estimators held against what is known",
}
"""Keys of a run that it can do without, and what they add."""

FORM = "Line chart with bands in two panels, one per {facet}: {y_title} against layer, structured against shuffled"
"""Chart type and axes of the figure on the first page."""


def frame(results: RunResults) -> pd.DataFrame:
    """ID of the first model at two scales, structured and shuffled, as of `by_observable`."""
    chosen = {f"scale {n}": ("intrinsic_dimension", {"scale": n}) for n in (2, results.reference_scale)}
    found = by_observable(results.ends, chosen)
    return found[found["model_title"] == results.titles[0]]


def name(results: RunResults) -> Markdown:
    """Name and title of the run."""
    return Markdown(f"This is the book of the run {escaped(results.run.name)}: {escaped(results.run.title)}.")


def about(results: RunResults) -> Markdown:
    """Which run this is: name, title, models, corpus, prompts, its description, and what it leaves out."""
    run, observables = results.run, results.observables
    levels = ", ".join(str(level) for level in observables["shuffle_level"].values)
    lacking = [f"{what} (key `{key}`)" for key, what in ADDED.items() if key not in run.sections]
    lacking += [] if results.is_shuffled else ["shuffled prompts (`shuffle_levels` above 0)"]
    lacking += [] if len(results.models) > 1 else ["a second model to compare with (`models`)"]
    models = " and ".join(title for _, title in results.models)
    more = f"Not part of this run, and to be added in data/runs/{escaped(run.name)}.yml: {'; '.join(lacking)}."
    return Markdown(
        f"{name(results).data} It reads {observables.sizes['prompt']} prompts of {run.n_tokens} tokens, of the "
        f"corpus {escaped(run.corpus)}, at shuffle level $S$ = {levels}, with {models}. {run.description}"
        f"\n\n{more * bool(lacking)}"
    )


def headline(results: RunResults) -> Markdown:
    """The abstract's finding: the first model's ID, structured and shuffled, at two scales."""
    low, high = results.extremes
    (model, title), scale = results.models[0], results.reference_scale
    if not results.is_shuffled:
        run = f"This run ({escaped(results.run.title)})"
        return Markdown(f"{run} holds structured prompts only; what shuffling does is not part of it.")
    if scale == 2:
        return Markdown("The prompts of this run are too short for another scale than 2.")
    layers, small, large, between = effects_by_scale(results, model)
    dimension = results.ends["intrinsic_dimension"].sel(model=model, shuffle_level=low, scale=scale)
    top = peak(dimension, layers=layers)
    return Markdown(
        f"In {title} on {results.ends.sizes['prompt']} prompts, the mean ID at scale {scale} of text in its "
        f"own order peaks at {top.mean:.1f} in layer {top.layer}. Over layers {layers.start} to {layers.stop}, "
        f"full shuffling ($S = {high}$) changes it by {effect(large)}; at scale 2 by "
        f"{effect(small)}. {reversal(small, large, between)}"
    )
