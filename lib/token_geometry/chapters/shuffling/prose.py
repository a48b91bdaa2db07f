"""What the chapter on shuffling says, and the alt texts of its figures."""

import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import markup, numbers
from token_geometry.chapters.frames import BESIDE, FROM_ONE, peak
from token_geometry.chapters.numbers import Number
from token_geometry.chapters.over_layers import change_by_prompt, effect, level_means
from token_geometry.chapters.results import RunResults
from token_geometry.chapters.shuffling.frames import single_prompts
from token_geometry.stats import intervals

_N_LISTED = 20
"""How many prompts a sentence still lists by their ids."""


def peaks_by_level(results: RunResults, *, scale: int) -> Markdown:
    """For each model: where the ID at this scale peaks, structured and shuffled."""
    low, high = results.extremes
    lines = []
    for model, title in results.models:
        dimension = results.shuffled["intrinsic_dimension"].sel(model=model, scale=scale)
        if not bool(dimension.notnull().any()):
            lines.append(f"{title}: the prompts of this run are too short for scale {scale}.")
            continue
        layers = results.middle_layers(model)
        first, last = (peak(dimension.sel(shuffle_level=level), layers=layers) for level in (low, high))
        if not results.is_shuffled:
            lines.append(
                f"{title}: ID peaks at {first.mean:.1f} in layer {first.layer}; "
                "the run has one shuffle level only, so there is nothing to compare it with."
            )
            continue
        lines.append(
            f"{title}: between layers {layers.start} and {layers.stop}, the mean ID at scale {scale} peaks at "
            f"{first.mean:.1f} (layer {first.layer}) for $S = {low}$ and at {last.mean:.1f} "
            f"(layer {last.layer}) for $S = {high}$. {change_by_prompt(dimension, results.extremes, layers)}"
        )
    return markup.bullets(lines)


def scale_reversal(results: RunResults) -> Markdown:
    """Whether the effect of full shuffling on the ID has one sign at the smallest and a larger scale."""
    at = results.reference_scale
    if not results.is_shuffled or at == 2:
        return Markdown("The run has one shuffle level or one scale only: no comparison of the effect by scale.")
    lines = []
    for model, title in results.models:
        layers, small, large, between = effects_by_scale(results, model)
        lines.append(
            f"{title}: shuffling changes the mean ID of layers {layers.start} to {layers.stop} by "
            f"{effect(small)} at scale 2 and by {effect(large)} at scale {at}, with the sign of the "
            f"mean in {int(small['n_same_sign'])} and {int(large['n_same_sign'])} of {int(small['n_prompts'])} "
            f"prompts; the second minus the first is {effect(between)}. {reversal(small, large, between)}"
        )
    return markup.bullets(lines)


def effects_by_scale(results: RunResults, model: str) -> tuple[slice, xr.Dataset, xr.Dataset, xr.Dataset]:
    """Middle layers; effect of full shuffling on their mean ID at scale 2, at the reference scale, and the
    second minus the first."""
    (low, high), at = results.extremes, results.reference_scale
    layers = results.middle_layers(model)
    dimension = results.shuffled["intrinsic_dimension"].sel(model=model, layer=layers).mean("layer")
    by_scale = intervals.paired_difference(dimension.sel(scale=[2, at]), first=low, second=high)
    between = intervals.paired_difference(
        dimension.sel(scale=at, drop=True) - dimension.sel(scale=2, drop=True), first=low, second=high
    )
    return layers, by_scale.sel(scale=2), by_scale.sel(scale=at), between


def reversal(small: xr.Dataset, large: xr.Dataset, between: xr.Dataset) -> str:
    """Whether an effect changes its sign from the smallest to a larger scale, and how sure that is."""
    opposite = float(small["mean"]) * float(large["mean"]) < 0
    *each, differ = (float(part["low"]) * float(part["high"]) > 0 for part in (small, large, between))
    what = "changes its sign" if opposite else "has the same sign"
    verdict = f"The mean effect {what} from one scale to the other"
    if all(each):
        return f"{verdict}."
    verdict += ", but an interval that holds zero leaves the sign open"
    return f"{verdict}; that of the difference of the two effects does not hold zero." if differ else f"{verdict}."


def prompt_spread(results: RunResults) -> Markdown:
    """How much prompts differ in each observable, against how much shuffling changes it."""
    low, high = results.extremes
    dataset = results.shuffled
    n_prompts = dataset.sizes["prompt"]
    if n_prompts < 2:
        return Markdown("The run has one prompt at every shuffle level, so prompts cannot be compared.")
    lines = []
    for model, title in results.models:
        layers = results.middle_layers(model)
        parts = []
        for name, (variable, at) in BESIDE.items():
            values = dataset[variable].sel(at | {"model": model, "layer": layers}).mean("layer")
            part = f"{name} {_short(values.sel(shuffle_level=low).std('prompt', ddof=1))}"
            if results.is_shuffled:
                change = values.sel(shuffle_level=high) - values.sel(shuffle_level=low)
                part += f" ({_short(change.mean(), '+')})"
            parts.append(part)
        lines.append(f"{title}, layers {layers.start} to {layers.stop}: " + ", ".join(parts) + ".")
    shuffling = f" and, in brackets, the mean change by full shuffling ($S = {high}$)" * results.is_shuffled
    return markup.bullets(lines, start=f"Standard deviation over {n_prompts} prompts at $S = {low}${shuffling}:")


def _short(value: xr.DataArray, sign: str = "") -> str:
    return f"{Number(value):{sign}.2g}" if abs(float(value)) < 1 else f"{Number(value):{sign}.1f}"


def effect_by_layer(results: RunResults) -> Markdown:
    """In which layers full shuffling surely raises or lowers the ID, at the smallest and a larger scale."""
    low, high = results.extremes
    if not results.is_shuffled:
        return Markdown(f"The run has one shuffle level only ($S = {low}$), so this figure is empty.")
    lines = []
    for model, title in results.models:
        dimension = results.shuffled["intrinsic_dimension"].sel(model=model, layer=FROM_ONE)
        found = intervals.paired_difference(dimension, first=low, second=high)
        parts = []
        for scale in dict.fromkeys((2, results.reference_scale)):
            at = found.sel(scale=scale)
            raised, lowered = (
                numbers.layers(at["layer"].values[side.values]) for side in (at["low"] > 0, at["high"] < 0)
            )
            parts.append(f"at scale {scale} it raises the ID in {raised} and lowers it in {lowered}")
        lines.append(f"{title}: {'; '.join(parts)}.")
    start = (
        f"Layers in which the interval of the effect of full shuffling ($S = {high}$) is on one side of zero (of "
        f"{results.shuffled.sizes['prompt']} prompts, and layers are not independent):"
    )
    return markup.bullets(lines, start=start)


def angle_modes(results: RunResults, *, layer: int) -> Markdown:
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
    return markup.bullets(lines)


def basis(results: RunResults) -> Markdown:
    """What was run: prompts, tokens, shuffle levels, models and their distinct points."""
    dataset, (low, high) = results.observables, results.extremes
    n_shuffled = results.shuffled.sizes["prompt"]
    n_structured = int(dataset["loss"].sel(shuffle_level=low).notnull().any("model").sum())
    lines = [
        f"Run {results.run.name}: {results.run.title}. {n_structured} prompts of "
        f"{dataset.attrs['n_tokens']} tokens of the corpus {dataset.attrs['corpus']} at $S = {low}$, "
        f"{n_shuffled} of them at every shuffle level up to {high}. {_passed_over(dataset)}",
    ]
    for model, title in results.models:
        points = dataset["n_points"].sel(model=model)
        lines.append(
            f"{title}: {numbers.span(points.where(points.layer > 0))} distinct points per cloud after the "
            f"embeddings, {numbers.span(points.sel(layer=0))} in the embeddings, where a token that "
            "occurs twice is one point."
        )
    return markup.bullets(lines)


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


def describe_losses(results: RunResults) -> str:
    """Alt text of the loss against shuffle level, with the finding."""
    low, high = results.extremes
    findings = []
    for model, title in results.models:
        loss = results.shuffled["loss"].sel(model=model).mean("prompt")
        first, last = (float(loss.sel(shuffle_level=level)) for level in (low, high))
        findings.append(f"{title} goes on average from {first:.2f} at S = {low} to {last:.2f} at S = {high}")
    return markup.alt_text("Line chart: loss in nats against shuffle level", findings)


def describe_prompts(results: RunResults, *, curves: str) -> str:
    """Alt text of observables of single prompts; `curves` says what one curve is."""
    names = list(dict.fromkeys(single_prompts(results)["prompt"]))
    start = (
        f"Line charts, one row per model and one column per observable ({', '.join(BESIDE)}), against layer; one "
        f"curve per {curves}. {len(names)} prompts: {', '.join(names)}"
    )
    return markup.alt_text(start, prompt_spread(results))


def describe_means(results: RunResults) -> str:
    """Alt text of the means of the three observables at the lowest and highest shuffle level."""
    return _grid(results, "observable, against layer, structured and fully shuffled", BESIDE, ".2f")


def describe_scales(results: RunResults, *, scales: list[int]) -> str:
    """Alt text of the ID at some scales by shuffle level."""
    columns = {f"scale {scale}": ("intrinsic_dimension", {"scale": scale}) for scale in scales}
    return _grid(results, "scale: intrinsic dimension against layer, one curve per shuffle level", columns, ".1f")


def _grid(results: RunResults, column: str, columns: dict, spec: str) -> str:
    low, high = results.extremes
    findings = []
    for model, title in results.models:
        for name, (variable, at) in columns.items():
            first, last = level_means(results, model, variable, **at)
            findings.append(f"{title}, {name}: {first:{spec}} and {last:{spec}}")
    start = f"Line charts with bands, one row per model and one column per {column}"
    return f"{start}; means of the middle layers at S = {low} and {high}: " + "; ".join(findings) + "."


def describe_effects(results: RunResults) -> str:
    """Alt text of the effect of full shuffling on the ID by layer and scale."""
    start = (
        "Line chart with bands, one panel per model: change of the intrinsic dimension by full shuffling against "
        "layer, at the scale that the slider chooses, with zero as a dashed line"
    )
    return markup.alt_text(start, effect_by_layer(results))


def describe_angles(results: RunResults, *, layer: int) -> str:
    """Alt text of the distribution of the neighbor angle."""
    start = (
        "Step chart, one panel per model: share of tokens against neighbor angle in degrees, one curve per "
        "shuffle level, at the layer that the slider chooses"
    )
    return markup.alt_text(start, angle_modes(results, layer=layer))
