"""Sentences, tables and alt texts of the chapters, computed from a run's results."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters.frames import Results, middle_layers, peak
from token_geometry.stats import statistics


def peaks_by_level(results: Results, *, scale: int) -> Markdown:
    """For each model: where the ID at this scale peaks, structured and shuffled."""
    low, high = results.extremes
    lines = []
    for model, title in results.models:
        dimension = results.shuffled["intrinsic_dimension"].sel(model=model, scale=scale)
        if not bool(dimension.notnull().any()):
            lines.append(f"{title}: the prompts of this run are too short for scale {scale}.")
            continue
        layers = middle_layers(results.observables, model)
        first = peak(dimension.sel(shuffle_level=low), layers=layers)
        if low == high:
            lines.append(
                f"{title}: ID peaks at {first.mean:.1f} in layer {first.layer}; "
                "the run has one shuffle level only, so there is nothing to compare it with."
            )
            continue
        last = peak(dimension.sel(shuffle_level=high), layers=layers)
        lines.append(
            f"{title}: between layers {layers.start} and {layers.stop}, the mean ID at scale {scale} peaks at "
            f"{first.mean:.1f} (layer {first.layer}) for $S = {low}$ and at {last.mean:.1f} "
            f"(layer {last.layer}) for $S = {high}$. {_change_by_prompt(dimension, low, high, layers)}"
        )
    return bullets(lines)


def _change_by_prompt(variable: xr.DataArray, low: int, high: int, layers: slice) -> str:
    found = statistics.paired_difference(variable.sel(layer=layers).mean("layer"), first=low, second=high)
    return (
        f"Averaged over these layers, shuffling changes it by {with_interval(found)}, with this sign in "
        f"{int(found['n_same_sign'])} of {int(found['n_prompts'])} prompts."
    )


def change(results: Results, variable: str, what: str, **at: int) -> Markdown:
    """For each model: how full shuffling changes an observable in the middle layers."""
    low, high = results.extremes
    if low == high:
        return Markdown(f"The run has one shuffle level only ($S = {low}$): no comparison of {what}.")
    lines = []
    for model, title in results.models:
        values = results.shuffled[variable].sel(model=model, **at)
        if not bool(values.notnull().any()):
            lines.append(f"{title}: no data for {what}.")
            continue
        layers = middle_layers(results.observables, model)
        before, after = (float(values.sel(shuffle_level=s, layer=layers).mean()) for s in (low, high))
        lines.append(
            f"{title}: {what} is {before:.2f} at $S = {low}$ and {after:.2f} at $S = {high}$ on average over "
            f"layers {layers.start} to {layers.stop}. {_change_by_prompt(values, low, high, layers)}"
        )
    return bullets(lines)


def scale_reversal(results: Results) -> Markdown:
    """Whether the effect of full shuffling on the ID has one sign at the smallest and a larger scale."""
    low, high = results.extremes
    at = results.reference_scale
    if low == high or at == 2:
        return Markdown("The run has one shuffle level or one scale only: no comparison of the effect by scale.")
    lines = []
    for model, title in results.models:
        layers, small, large, between = _effects(results, model)
        lines.append(
            f"{title}: shuffling changes the mean ID of layers {layers.start} to {layers.stop} by "
            f"{with_interval(small)} at scale 2 and by {with_interval(large)} at scale {at}, with the sign of the "
            f"mean in {int(small['n_same_sign'])} and {int(large['n_same_sign'])} of {int(small['n_prompts'])} "
            f"prompts; the second minus the first is {with_interval(between)}. {_reversal(small, large, between)}"
        )
    return bullets(lines)


def _effects(results: Results, model: str) -> tuple[slice, xr.Dataset, xr.Dataset, xr.Dataset]:
    """Middle layers; effect of full shuffling on their mean ID at scale 2, at the reference scale, and the
    second minus the first."""
    (low, high), at = results.extremes, results.reference_scale
    layers = middle_layers(results.observables, model)
    dimension = results.shuffled["intrinsic_dimension"].sel(model=model, layer=layers).mean("layer")
    by_scale = statistics.paired_difference(dimension.sel(scale=[2, at]), first=low, second=high)
    between = statistics.paired_difference(
        dimension.sel(scale=at, drop=True) - dimension.sel(scale=2, drop=True), first=low, second=high
    )
    return layers, by_scale.sel(scale=2), by_scale.sel(scale=at), between


def with_interval(found: xr.Dataset) -> str:
    """A mean with its sign and its interval, from `statistics.mean_interval`."""
    mean, low, high = (float(found[name]) for name in ("mean", "low", "high"))
    number = f"+.{digits(mean)}f"
    if not np.isfinite(low):
        return f"{mean:{number}} (one prompt, no interval)"
    return f"{mean:{number}} (95 % interval {low:{number}} to {high:{number}})"


def digits(value: float) -> int:
    """Digits behind the point with which a result is stated: two, and more where it is small."""
    return 2 if abs(value) >= 0.1 or value == 0 else 3 if abs(value) >= 0.01 else 4


def _reversal(small: xr.Dataset, large: xr.Dataset, between: xr.Dataset) -> str:
    opposite = float(small["mean"]) * float(large["mean"]) < 0
    *each, differ = (float(part["low"]) * float(part["high"]) > 0 for part in (small, large, between))
    what = "changes its sign" if opposite else "has the same sign"
    verdict = f"The mean effect {what} from one scale to the other"
    if all(each):
        return f"{verdict}."
    verdict += ", but an interval that holds zero leaves the sign open"
    return f"{verdict}; that of the difference of the two effects does not hold zero." if differ else f"{verdict}."


def table(frame: pd.DataFrame) -> Markdown:
    """A frame as a Markdown table: names in the first column, numbers as the frame spells them."""
    cells = [[str(value).replace("|", "\\|") for value in row] for row in frame.values.tolist()]
    header = [str(column) for column in frame.columns]
    rule = [":--"] + ["--:"] * (len(header) - 1)
    return Markdown("\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *cells]))


def bullets(lines: Iterable[str]) -> Markdown:
    """A Markdown list; a single line stands as a paragraph."""
    lines = list(lines)
    return Markdown(lines[0] if len(lines) == 1 else "\n".join(f"- {line}" for line in lines))


def plain(text: Markdown) -> str:
    """A computed text without its markup, for an alt text."""
    return " ".join(text.data.replace("$", "").replace("\n- ", " ").removeprefix("- ").split())


def headline(results: Results) -> Markdown:
    """The abstract's finding: the first model's ID, structured and shuffled, at two scales."""
    low, high = results.extremes
    title, scale = results.titles[0], results.reference_scale
    if low == high:
        return Markdown(
            f"This run ({results.run.title}) holds structured prompts only; what shuffling does is not part of it."
        )
    if scale == 2:
        return Markdown("The prompts of this run are too short for another scale than 2.")
    model = str(results.observables["model"].values[0])
    layers, small, large, between = _effects(results, model)
    dimension = results.shuffled["intrinsic_dimension"].sel(model=model, shuffle_level=low, scale=scale)
    top = peak(dimension, layers=layers)
    return Markdown(
        f"In {title} on {results.shuffled.sizes['prompt']} prompts, the mean ID at scale {scale} of text in its "
        f"own order peaks at {top.mean:.1f} in layer {top.layer}. Over layers {layers.start} to {layers.stop}, "
        f"full shuffling ($S = {high}$) changes it by {with_interval(large)}; at scale 2 by "
        f"{with_interval(small)}. {_reversal(small, large, between)}"
    )


def basis(results: Results) -> Markdown:
    """What was run: prompts, tokens, shuffle levels, models and their distinct points."""
    dataset, low_high = results.observables, results.extremes
    n_shuffled = results.shuffled.sizes["prompt"]
    n_structured = int(dataset["loss"].sel(shuffle_level=low_high[0]).notnull().any("model").sum())
    lines = [
        f"Run {results.run.name}: {results.run.title}. {n_structured} prompts of "
        f"{dataset.attrs['n_tokens']} tokens of the corpus {dataset.attrs['corpus']} at $S = {low_high[0]}$, "
        f"{n_shuffled} of them at every shuffle level up to {low_high[1]}. {_passed_over(dataset)}",
    ]
    for model, title in results.models:
        points = dataset["n_points"].sel(model=model)
        lines.append(
            f"{title}: {_range(points.where(points.layer > 0))} distinct points a cloud after the embeddings, "
            f"{_range(points.sel(layer=0))} in the embeddings, where a token that occurs twice is one point."
        )
    return bullets(lines)


_N_LISTED = 20
"""How many prompts a sentence still lists by their ids."""


def _passed_over(dataset: xr.Dataset) -> str:
    """What the filter by length left of the texts that were examined."""
    n_tokenizers, ids = dataset.sizes["model"], dataset["prompt"].values.tolist()
    too_short = int(dataset.attrs["n_texts_too_short"])
    examined = len(ids) + too_short
    return (
        f"Of {examined} texts that were examined, {too_short or 'none'} had fewer tokens under "
        f"{'the tokenizer of the model' if n_tokenizers == 1 else 'one of the tokenizers of the models'}. Those "
        f"taken are {', '.join(f'`{key}`' for key in ids) if len(ids) <= _N_LISTED else 'listed in the data set'}."
    )


def _range(values: xr.DataArray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}"


def models(results: Results) -> Markdown:
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
    return table(pd.DataFrame(rows))


def model_peaks(results: Results, *, scale: int) -> Markdown:
    """For each model: where the ID of structured prompts peaks."""
    lines = []
    for model, title in results.models:
        dimension = results.structured["intrinsic_dimension"].sel(model=model, scale=scale)
        dimension = dimension.isel(shuffle_level=0)
        top = peak(dimension)
        depth = float(results.observables["relative_depth"].sel(model=model, layer=top.layer))
        lines.append(
            f"{title}: the mean ID at scale {scale} is largest in layer {top.layer}, at {depth:.0%} of the depth, "
            f"with {top.mean:.1f} ± {top.std:.1f}."
        )
    if len(lines) == 1:
        lines.append("The run has one model only, so there is nothing to compare it with.")
    return bullets(lines)


_NAMES = {
    "intrinsic_dimension": "intrinsic dimension",
    "neighborhood_overlap": "neighborhood overlap",
    "cosine_similarity": "mean cosine similarity",
    "neighbor_angle": "mean neighbor angle in degrees",
    "reciprocity": "reciprocity",
}


def describe_levels(results: Results, variable: str, **at: int) -> str:
    """Alt text of curves over layers by shuffle level, with the finding."""
    low, high = results.extremes
    what = _NAMES[variable] + "".join(f" at {key} {value}" for key, value in at.items())
    findings = []
    for model, title in results.models:
        layers = middle_layers(results.observables, model)
        values = results.shuffled[variable].sel(model=model, layer=layers, **at)
        means = [float(values.sel(shuffle_level=s).mean()) for s in (low, high)]
        findings.append(
            f"in the middle layers of {title} it is {means[0]:.2f} at S = {low} and {means[1]:.2f} at S = {high}"
        )
    return (
        f"Line chart with bands, one panel a model: {what} against layer, one curve a shuffle level; "
        + "; ".join(findings)
        + "."
    )


def describe_models(results: Results, variable: str, *, axis: str = "layer", **at: int) -> str:
    """Alt text of curves over layers by model, with the finding."""
    what = _NAMES[variable] + "".join(f" at {key} {value}" for key, value in at.items())
    findings = []
    for model, title in results.models:
        values = results.structured[variable].sel(model=model, **at).isel(shuffle_level=0)
        top = peak(values)
        findings.append(f"{title} is highest, {top.mean:.2f}, in layer {top.layer}")
    return (
        f"Line chart with bands: {what} of structured prompts against {axis}, one curve a model; "
        + "; ".join(findings)
        + "."
    )


def describe_losses(results: Results) -> str:
    """Alt text of the loss against shuffle level, with the finding."""
    low, high = results.extremes
    findings = []
    for model, title in results.models:
        loss = results.shuffled["loss"].sel(model=model).mean("prompt")
        findings.append(
            f"{title} goes from {float(loss.sel(shuffle_level=low)):.2f} at S = {low} to "
            f"{float(loss.sel(shuffle_level=high)):.2f} at S = {high}"
        )
    return "Line chart: loss in nats against shuffle level; on average " + "; ".join(findings) + "."


def describe_scales(results: Results, *, layer: int) -> str:
    """Alt text of the ID against scale at one layer, with the finding."""
    findings = []
    for model, title in results.models:
        values = results.structured["intrinsic_dimension"].sel(model=model, layer=layer)
        values = values.mean(["prompt", "shuffle_level"]).dropna("scale")
        first, last = values.isel(scale=0), values.isel(scale=-1)
        findings.append(
            f"{title} goes from {float(first):.1f} at scale {int(first.scale)} to "
            f"{float(last):.1f} at scale {int(last.scale)}"
        )
    return (
        "Line chart with bands: intrinsic dimension against scale on a logarithmic axis, one curve a "
        f"model; at layer {layer} " + "; ".join(findings) + "."
    )


def describe_headline(results: Results) -> str:
    """Alt text of the headline figure, with the finding."""
    return (
        "Line chart with bands in two panels, one a scale: intrinsic dimension against layer, structured "
        "against shuffled. " + headline(results).data.replace("$", "")
    )
