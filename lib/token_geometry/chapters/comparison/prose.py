"""What the chapter that compares models says, and the alt texts of its figures."""

import itertools

import numpy as np
import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters import effects, frames, markup, numbers
from token_geometry.chapters.comparison.frames import N_SCALES, control_pairs
from token_geometry.chapters.over_layers import effect
from token_geometry.chapters.results import RunResults
from token_geometry.stats.correlation import correlate
from token_geometry.stats.intervals import mean_interval


def models(results: RunResults) -> Markdown:
    """Table of the models of a run with their loss on structured prompts."""
    rows = []
    for model, title in results.models:
        values = results.structured["loss"].sel(model=model).dropna("prompt").values
        deviation = f"{values.std(ddof=1):.2f}" if len(values) > 1 else "–"
        rows.append((title, results.last_layer(model), len(values), f"{values.mean():.2f}", deviation))
    return markup.table(pd.DataFrame(rows, columns=["model", "blocks", "prompts", "loss (nats)", "deviation"]))


@markup.per_model
def largest_by_scale(results: RunResults, model: str, title: str) -> str:
    """At which scale the ID of the layers is largest."""
    mean = results.structured["intrinsic_dimension"].sel(model=model, layer=frames.FROM_ONE)
    mean = mean.mean("prompt").dropna("layer", how="all").dropna("scale", how="any")
    if not mean.size:
        return f"{title}: too few points for an estimate."
    best = mean.idxmax("scale")
    scales, counts = np.unique(best.values, return_counts=True)
    spelled = [f"{scale:.0f} in {count}" for scale, count in zip(scales, counts, strict=True)]
    top = mean.where(mean == mean.max(), drop=True)
    where = f"{float(mean.max()):.1f}, in layer {int(top['layer'][0])} at scale {int(top['scale'][0])}"
    most = f"{', '.join(spelled)} of {numbers.count(best.size, 'layer')}"
    return f"{title}: the mean ID is largest at scale {most}; the largest of all is {where}."


@markup.per_model
def scales_at(results: RunResults, model: str, title: str, *, layer: int) -> str:
    """ID of a layer at the smallest and the largest scale."""
    values = results.structured["intrinsic_dimension"].sel(model=model, layer=layer).mean("prompt").dropna("scale")
    ends = dict.fromkeys(f"{float(end):.1f} at scale {int(end.scale)}" for end in (values[0], values[-1]))
    return f"{title}, layer {layer}: the ID is {' and '.join(ends)}."


def scale_order(results: RunResults, *, layer: int) -> Markdown:
    """Whether the prompts with the larger ID at one scale have it at another, at a layer."""
    every, lines = results.structured["intrinsic_dimension"], []
    if (n_prompts := every.sizes["prompt"]) < 3:
        return Markdown(f"With {numbers.count(n_prompts, 'prompt')}, nothing can be said about their order.")
    for model, title in results.models:
        dimension = every.sel(model=model, layer=min(layer, results.last_layer(model))).dropna("scale")
        scales, parts = [s for s in (2, 4, results.reference_scale) if s in dimension["scale"]], []
        for first, second in itertools.pairwise(scales):
            found = correlate(*(dimension.sel(scale=s, drop=True) for s in (first, second)), method="spearman")
            text = numbers.told(found, "correlation", name="95% interval ")
            parts.append(f"{text} between the scales {first} and {second}")
        lines.append(f"{title}, layer {int(dimension['layer'])}: {', '.join(parts) or 'no second scale'}.")
    drawn = f"Drawn are {N_SCALES} of {n_prompts} structured prompts. " * (n_prompts > N_SCALES)
    which = f"Spearman correlation over {n_prompts} structured prompts of the ID at two scales"
    return markup.bullets(lines, start=f"{drawn}{which}:")


@markup.per_model
def overlap_findings(results: RunResults, model: str, title: str) -> str:
    """Overlap of layers next to one another and half the depth apart."""
    last, parts = results.last_layer(model), []
    for level in dict.fromkeys(results.extremes):
        overlap = results.shuffled["layer_overlap"].sel(model=model, shuffle_level=level).mean("prompt")
        overlap = overlap.values[1 : last + 1, 1 : last + 1]
        means = [np.diagonal(overlap, step).mean() for step in (1, last // 2)[: 1 + (last > 3)]]
        parts.append(f"{' and '.join(f'{mean:.0%}' for mean in means)} at $S = {level}$")
    which = f"two layers next to one another{f' and of two that are {last // 2} layers apart' * (last > 3)}"
    return f"{title}: the shares of common neighbors of {which} are, on average, {'; '.join(parts)}."


def control_findings(results: RunResults) -> Markdown:
    """What the ID is, and what full shuffling does to it, in a trained model and in its control."""
    lines = []
    for name, *pair in control_pairs(results):
        titles = [markup.escaped(one["model_title"].item()) for one in pair]
        if not pair[0].sizes["prompt"]:
            lines.append(f"No prompt was read both by {titles[0]} and by {markup.escaped(name)}.")
            continue
        layers = results.middle_layers(str(pair[0]["model"].item()))
        for scale in results.scales:
            parts = []
            for title, one in zip(titles, pair, strict=True):
                dimension = one["intrinsic_dimension"].sel(layer=layers, scale=scale).mean("layer")
                mean = float(dimension.isel(shuffle_level=0).mean())
                text = f"in {title}, the mean ID of {numbers.layers(layers)} is {mean:.1f}"
                if one.sizes["shuffle_level"] > 1:
                    text += f" and full shuffling changes it by {effect(mean_interval(effects.change(dimension)))}"
                parts.append(text)
            lines.append(f"At scale {scale}: {'; '.join(parts)}.")
    return markup.bullets(lines or ["The run has no control."])
