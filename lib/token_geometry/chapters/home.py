"""The first page of the book: what the abstract says, and the frame of its figure."""

import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters.frames import by_observable, peak
from token_geometry.chapters.markup import escaped
from token_geometry.chapters.over_layers import effect
from token_geometry.chapters.results import RunResults
from token_geometry.chapters.shuffling.prose import effects_by_scale, reversal

FORM = "Line chart with bands in two panels, one per {facet}: {y_title} against layer, structured against shuffled"
"""Chart type and axes of the figure on the first page."""


def frame(results: RunResults) -> pd.DataFrame:
    """ID of the first model at two scales, structured and shuffled, as of `by_observable`."""
    chosen = {f"scale {n}": ("intrinsic_dimension", {"scale": n}) for n in (2, results.reference_scale)}
    found = by_observable(results.ends, chosen)
    return found[found["model_title"] == results.titles[0]]


def headline(results: RunResults) -> Markdown:
    """The abstract's finding: the first model's ID, structured and shuffled, at two scales."""
    low, high = results.extremes
    (model, title), scale = results.models[0], results.reference_scale
    if not results.is_shuffled:
        return Markdown(
            f"This run ({escaped(results.run.title)}) holds structured prompts only; "
            "what shuffling does is not part of it."
        )
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
