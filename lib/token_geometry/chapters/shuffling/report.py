"""Sentences and alt texts of the figures on shuffling that show single prompts, distributions and effects."""

import numpy as np
from IPython.display import Markdown

from token_geometry.chapters import observable_frames, sentences
from token_geometry.chapters.frames import Results, middle_layers
from token_geometry.stats import statistics


def prompt_spread(results: Results) -> Markdown:
    """How much prompts differ in each observable, against how much shuffling changes it."""
    low, high = results.extremes
    dataset = results.shuffled
    n_prompts = dataset.sizes["prompt"]
    if n_prompts < 2:
        return Markdown("The run has one prompt at every shuffle level, so prompts cannot be compared.")
    lines = []
    for model, title in results.models:
        layers = middle_layers(results.observables, model)
        parts = []
        for name, (variable, at) in observable_frames.OBSERVABLES.items():
            values = dataset[variable].sel(at | {"model": model, "layer": layers}).mean("layer")
            spread = float(values.sel(shuffle_level=low).std("prompt", ddof=1))
            part = f"{name} {_short(spread)}"
            if low != high:
                change = values.sel(shuffle_level=high) - values.sel(shuffle_level=low)
                part += f" ({_short(float(change.mean()), '+')})"
            parts.append(part)
        lines.append(f"{title}, layers {layers.start} to {layers.stop}: " + ", ".join(parts) + ".")
    shuffling = f" and, in brackets, the mean change by full shuffling ($S = {high}$)" if low != high else ""
    start = f"Standard deviation over {n_prompts} prompts at $S = {low}${shuffling}:"
    return Markdown("\n".join([start, "", *(f"- {line}" for line in lines)]))


def effect_by_layer(results: Results) -> Markdown:
    """In which layers full shuffling surely raises or lowers the ID, at the smallest and a larger scale."""
    low, high = results.extremes
    if low == high:
        return Markdown(f"The run has one shuffle level only ($S = {low}$), so this figure is empty.")
    lines = []
    for model, title in results.models:
        dimension = results.shuffled["intrinsic_dimension"].sel(model=model, layer=observable_frames.FROM_ONE)
        found = statistics.paired_difference(dimension, first=low, second=high)
        parts = []
        for scale in dict.fromkeys((2, results.reference_scale)):
            at = found.sel(scale=scale)
            raised = at["layer"].values[(at["low"] > 0).values]
            lowered = at["layer"].values[(at["high"] < 0).values]
            parts.append(
                f"at scale {scale} it raises the ID in {_layers(raised)} and lowers it in {_layers(lowered)}"
            )
        lines.append(f"{title}: {'; '.join(parts)}.")
    start = (
        f"Layers in which the interval of the effect of full shuffling ($S = {high}$) is on one side of zero (of "
        f"{results.shuffled.sizes['prompt']} prompts, and layers are not independent):"
    )
    return Markdown("\n".join([start, "", *(f"- {line}" for line in lines)]))


def describe_prompts(results: Results, *, curves: str) -> str:
    """Alt text of observables of single prompts; `curves` says what one curve is."""
    names = list(dict.fromkeys(observable_frames.single_prompts(results)["prompt"]))
    return (
        f"Line charts, one row a model and one column an observable (ID at scale 2, NO at k = 2, mean cosine "
        f"similarity), against layer; one curve a {curves}. {len(names)} prompts: {', '.join(names)}. "
        + sentences.plain(prompt_spread(results))
    )


def describe_means(results: Results) -> str:
    """Alt text of the means of the three observables at the lowest and highest shuffle level."""
    low, high = results.extremes
    findings = []
    for model, title in results.models:
        layers = middle_layers(results.observables, model)
        for name, (variable, at) in observable_frames.OBSERVABLES.items():
            values = results.shuffled[variable].sel(at | {"model": model, "layer": layers})
            first, last = (float(values.sel(shuffle_level=s).mean()) for s in (low, high))
            findings.append(f"{title}, {name}: {first:.2f} and {last:.2f}")
    return (
        "Line charts with bands, one row a model and one column an observable, against layer, structured and "
        f"fully shuffled; means of the middle layers at S = {low} and {high}: " + "; ".join(findings) + "."
    )


def describe_scales(results: Results, *, scales: list[int]) -> str:
    """Alt text of the ID at some scales by shuffle level."""
    low, high = results.extremes
    findings = []
    for model, title in results.models:
        layers = middle_layers(results.observables, model)
        for scale in scales:
            values = results.shuffled["intrinsic_dimension"].sel(model=model, layer=layers, scale=scale)
            first, last = (float(values.sel(shuffle_level=s).mean()) for s in (low, high))
            findings.append(f"{title}, scale {scale}: {first:.1f} and {last:.1f}")
    return (
        "Line charts with bands, one row a model and one column a scale: intrinsic dimension against layer, one "
        f"curve a shuffle level; means of the middle layers at S = {low} and {high}: " + "; ".join(findings) + "."
    )


def describe_effects(results: Results) -> str:
    """Alt text of the effect of full shuffling on the ID by layer and scale."""
    return (
        "Line chart with bands, one panel a model: change of the intrinsic dimension by full shuffling against "
        "layer, at the scale that the slider chooses, with zero as a dashed line. "
        + sentences.plain(effect_by_layer(results))
    )


def angle_modes(results: Results, *, layer: int) -> Markdown:
    """Mean and most frequent bin of the neighbor angle at a layer, structured and shuffled."""
    lines = []
    for model, title in results.models:
        at = results.shuffled.sel(model=model, layer=min(layer, results.last_layer(model)))
        parts = []
        for level in dict.fromkeys(results.extremes):
            shares = at["neighbor_angle_histogram"].sel(shuffle_level=level).mean("prompt")
            mean = float(at["neighbor_angle"].sel(shuffle_level=level).mean())
            mode = float(shares.idxmax("angle"))
            step = float(shares["angle"][1] - shares["angle"][0]) / 2
            share = float(shares.sel(angle=slice(60, None)).sum())
            parts.append(
                f"at $S = {level}$ the mean is {mean:.1f}°, the fullest bin {mode - step:.0f}° to "
                f"{mode + step:.0f}°, and {share:.0%} of the angles are above 60°"
            )
        lines.append(f"{title}, layer {int(at['layer'])}: {'; '.join(parts)}.")
    return sentences.bullets(lines)


def describe_angles(results: Results, *, layer: int) -> str:
    """Alt text of the distribution of the neighbor angle."""
    return (
        "Step chart, one panel a model: share of tokens against neighbor angle in degrees, one curve a shuffle "
        "level, at the layer that the slider chooses. " + sentences.plain(angle_modes(results, layer=layer))
    )


def _short(value: float, sign: str = "") -> str:
    return f"{value:{sign}.2g}" if abs(value) < 1 else f"{value:{sign}.1f}"


def _layers(layers: np.ndarray) -> str:
    """Layers as ranges: `layers 2 to 10 and 25 to 30`."""
    if not layers.size:
        return "none"
    runs = np.split(layers, np.flatnonzero(np.diff(layers) > 1) + 1)
    spelled = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    text = " and ".join(filter(None, [", ".join(spelled[:-1]), spelled[-1]]))
    return f"{'layer' if layers.size == 1 else 'layers'} {text}"
