"""Sentences and alt texts of the chapter that compares models: scales, overlap of layers, controls."""

import numpy as np
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import observable_frames, sentences
from token_geometry.chapters.frames import Results, middle_layers
from token_geometry.stats import statistics


def largest_by_scale(results: Results) -> Markdown:
    """For each model: at which scale the ID of its layers is largest."""
    lines = []
    for model, title in results.models:
        mean = results.structured["intrinsic_dimension"].sel(model=model, layer=observable_frames.FROM_ONE)
        mean = mean.isel(shuffle_level=0).mean("prompt").dropna("layer", how="all").dropna("scale", how="any")
        if not mean.size:
            lines.append(f"{title}: too few points for an estimate.")
            continue
        best = mean.idxmax("scale")
        scales, counts = np.unique(best.values, return_counts=True)
        spelled = [f"{scale:.0f} in {count}" for scale, count in zip(scales, counts, strict=True)]
        top = mean.where(mean == mean.max(), drop=True)
        lines.append(
            f"{title}: the mean ID is largest at scale {', '.join(spelled)} of {best.size} layers; the largest of "
            f"all is {float(mean.max()):.1f}, in layer {int(top['layer'][0])} at scale {int(top['scale'][0])}."
        )
    return sentences.bullets(lines)


def scale_order(results: Results, *, layer: int) -> Markdown:
    """For each model: whether the prompts with the larger ID at one scale have it at another, at a layer."""
    n_prompts = results.structured.sizes["prompt"]
    if n_prompts < 3:
        return Markdown(f"With {n_prompts} prompts, nothing can be said about their order.")
    lines = []
    for model, title in results.models:
        dimension = results.structured["intrinsic_dimension"].sel(model=model).isel(shuffle_level=0)
        dimension = dimension.sel(layer=min(layer, results.last_layer(model))).dropna("scale", how="any")
        scales = [s for s in (2, 4, results.reference_scale) if s in dimension["scale"]]
        parts = []
        for first, second in zip(scales, scales[1:], strict=False):
            pair = (dimension.sel(scale=s).reset_coords(drop=True) for s in (first, second))
            found = statistics.correlate(*pair, method="spearman")
            text = f"{float(found['correlation']):.2f}"
            if np.isfinite(found["low"]):
                text += f" (95 % interval {float(found['low']):.2f} to {float(found['high']):.2f})"
            parts.append(f"{text} between the scales {first} and {second}")
        if parts:
            lines.append(f"{title}, layer {int(dimension['layer'])}: {', '.join(parts)}.")
    if not lines:
        return Markdown("The prompts of this run are too short for a second scale.")
    start = f"Spearman correlation over {n_prompts} structured prompts of the ID at two scales:"
    return Markdown("\n".join([start, "", *(f"- {line}" for line in lines)]))


def overlap_findings(results: Results) -> Markdown:
    """For each model: overlap of layers next to one another and half the depth apart."""
    lines = []
    for model, title in results.models:
        last = results.last_layer(model)
        parts = []
        for level in dict.fromkeys(results.extremes):
            overlap = results.shuffled["layer_overlap"].sel(model=model, shuffle_level=level).mean("prompt")
            overlap = overlap.values[1 : last + 1, 1 : last + 1]
            near, far = (float(np.diagonal(overlap, step).mean()) for step in (1, last // 2))
            parts.append(f"{near:.0%} and {far:.0%} at $S = {level}$")
        lines.append(
            f"{title}: the shares of common neighbors of two layers that are next to one another and of two that "
            f"are {last // 2} layers apart are, on average, {'; '.join(parts)}."
        )
    return sentences.bullets(lines)


def control_findings(results: Results) -> Markdown:
    """What the ID is, and what full shuffling does to it, in a trained model and in its control."""
    pairs = observable_frames.control_pairs(results)
    if not pairs:
        return Markdown(
            f"Run {results.run.name} declares no controls of its models: add the key `controls` to "
            f"data/runs/{results.run.name}.yml."
        )
    lines = []
    for name, trained, control in pairs:
        if not trained.sizes["prompt"]:
            lines.append(f"No prompt was read both by {trained['model_title'].item()} and by {name}.")
            continue
        for scale in dict.fromkeys((2, results.reference_scale)):
            lines.append(f"At scale {scale}: " + "; ".join(_both(results, trained, control, scale)) + ".")
    return sentences.bullets(lines)


def _both(results: Results, trained: xr.Dataset, control: xr.Dataset, scale: int) -> list[str]:
    layers = middle_layers(results.observables, str(trained["model"].item()))
    parts = []
    for dataset in (trained, control):
        dimension = dataset["intrinsic_dimension"].sel(layer=layers, scale=scale).mean("layer")
        levels = dimension["shuffle_level"].values.tolist()
        mean = float(dimension.sel(shuffle_level=levels[0]).mean())
        title = dataset["model_title"].item()
        part = f"in {title}, the mean ID of layers {layers.start} to {layers.stop} is {mean:.1f}"
        if len(levels) > 1:
            found = statistics.paired_difference(dimension, first=levels[0], second=levels[-1])
            part += f" and full shuffling changes it by {sentences.with_interval(found)}"
        parts.append(part)
    return parts


def describe_scales_by_layer(results: Results) -> str:
    """Alt text of the ID against scale by layer."""
    return (
        "Line chart, one panel a model: intrinsic dimension against scale on a logarithmic axis, one curve a "
        "layer. " + sentences.plain(largest_by_scale(results))
    )


def describe_scales_by_prompt(results: Results, *, layer: int) -> str:
    """Alt text of the ID against scale by prompt."""
    return (
        "Line chart, one panel a model: intrinsic dimension against scale on a logarithmic axis at the layer that "
        "the slider chooses, one curve a prompt, colored by its loss. "
        + sentences.plain(scale_order(results, layer=layer))
    )


def describe_overlap(results: Results) -> str:
    """Alt text of the overlap of layers."""
    return (
        "Heat maps, one a model: share of common 16-neighborhoods for each pair of layers, at the shuffle level "
        "that the control chooses. " + sentences.plain(overlap_findings(results))
    )


def describe_controls(results: Results) -> str:
    """Alt text of trained and untrained models side by side."""
    return (
        "Line charts with bands, one row an observable, the trained model on the left and its control "
        "on the right: observable against layer, one curve a shuffle level. "
        + sentences.plain(control_findings(results))
    )
