"""What the chapter that compares models says, and the alt texts of its figures."""

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import markup, numbers
from token_geometry.chapters.comparison.frames import control_pairs
from token_geometry.chapters.frames import FROM_ONE
from token_geometry.chapters.over_layers import effect
from token_geometry.chapters.results import RunResults
from token_geometry.stats import correlation, intervals

_AGAINST_SCALE = "intrinsic dimension against scale on a logarithmic axis"


def models(results: RunResults) -> Markdown:
    """Table of the models of a run with their loss on structured prompts."""
    rows = []
    for model, title in results.models:
        values = results.structured["loss"].sel(model=model).values.ravel()
        values = values[np.isfinite(values)]
        deviation = f"{values.std(ddof=1):.2f}" if len(values) > 1 else "–"
        depth = results.observables["relative_depth"].sel(model=model)
        rows.append(
            {
                "model": title,
                "blocks": int(depth.notnull().sum()) - 1,
                "prompts": len(values),
                "loss (nats)": f"{values.mean():.2f}",
                "deviation": deviation,
            }
        )
    return markup.table(pd.DataFrame(rows))


def largest_by_scale(results: RunResults) -> Markdown:
    """For each model: at which scale the ID of its layers is largest."""
    lines = []
    for model, title in results.models:
        mean = results.structured["intrinsic_dimension"].sel(model=model, layer=FROM_ONE)
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
    return markup.bullets(lines)


def scale_order(results: RunResults, *, layer: int) -> Markdown:
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
            found = correlation.correlate(*pair, method="spearman")
            text = numbers.estimate(
                *map(float, (found["correlation"], found["low"], found["high"])), digits=2, name="95% interval "
            )
            parts.append(f"{text} between the scales {first} and {second}")
        if parts:
            lines.append(f"{title}, layer {int(dimension['layer'])}: {', '.join(parts)}.")
    if not lines:
        return Markdown("The prompts of this run are too short for a second scale.")
    start = f"Spearman correlation over {n_prompts} structured prompts of the ID at two scales:"
    return markup.bullets(lines, start=start)


def overlap_findings(results: RunResults) -> Markdown:
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
    return markup.bullets(lines)


def control_findings(results: RunResults) -> Markdown:
    """What the ID is, and what full shuffling does to it, in a trained model and in its control."""
    pairs = control_pairs(results)
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
    return markup.bullets(lines)


def _both(results: RunResults, trained: xr.Dataset, control: xr.Dataset, scale: int) -> list[str]:
    layers = results.middle_layers(str(trained["model"].item()))
    parts = []
    for dataset in (trained, control):
        dimension = dataset["intrinsic_dimension"].sel(layer=layers, scale=scale).mean("layer")
        levels = dimension["shuffle_level"].values.tolist()
        mean = float(dimension.sel(shuffle_level=levels[0]).mean())
        title = dataset["model_title"].item()
        part = f"in {title}, the mean ID of layers {layers.start} to {layers.stop} is {mean:.1f}"
        if len(levels) > 1:
            found = intervals.paired_difference(dimension, first=levels[0], second=levels[-1])
            part += f" and full shuffling changes it by {effect(found)}"
        parts.append(part)
    return parts


def describe_scales(results: RunResults, *, layer: int) -> str:
    """Alt text of the ID against scale at one layer, with the finding."""
    findings = []
    for model, title in results.models:
        values = results.structured["intrinsic_dimension"].sel(model=model, layer=layer)
        values = values.mean(["prompt", "shuffle_level"]).dropna("scale")
        first, last = values.isel(scale=0), values.isel(scale=-1)
        findings.append(
            f"at layer {layer} {title} goes from {float(first):.1f} at scale {int(first.scale)} to "
            f"{float(last):.1f} at scale {int(last.scale)}"
        )
    return markup.alt_text(f"Line chart with bands: {_AGAINST_SCALE}, one curve per model", findings)


def describe_scales_by_layer(results: RunResults) -> str:
    """Alt text of the ID against scale by layer."""
    start = f"Line chart, one panel per model: {_AGAINST_SCALE}, one curve per layer"
    return markup.alt_text(start, largest_by_scale(results))


def describe_scales_by_prompt(results: RunResults, *, layer: int) -> str:
    """Alt text of the ID against scale by prompt."""
    start = (
        f"Line chart, one panel per model: {_AGAINST_SCALE} at the layer that the slider chooses, one curve per "
        "prompt, colored by its loss"
    )
    return markup.alt_text(start, scale_order(results, layer=layer))


def describe_overlap(results: RunResults) -> str:
    """Alt text of the overlap of layers."""
    start = (
        "Heat maps, one per model: share of common 16-neighborhoods for each pair of layers, at the shuffle level "
        "that the control chooses"
    )
    return markup.alt_text(start, overlap_findings(results))


def describe_controls(results: RunResults) -> str:
    """Alt text of trained and untrained models side by side."""
    start = (
        "Line charts with bands, one row per observable, the trained model on the left and its control "
        "on the right: observable against layer, one curve per shuffle level"
    )
    return markup.alt_text(start, control_findings(results))
