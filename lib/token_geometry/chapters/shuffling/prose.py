"""What the chapter on shuffling says, and the alt texts of its figures."""

import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import markup, numbers
from token_geometry.chapters.frames import BESIDE, middle, peak
from token_geometry.chapters.loss.frames import RATE
from token_geometry.chapters.loss.prose import spell
from token_geometry.chapters.over_layers import change_by_prompt, effect, level_means, one_level
from token_geometry.chapters.results import RunResults
from token_geometry.chapters.shuffling import frames
from token_geometry.observables import labelled
from token_geometry.stats import correlation, intervals

_N_LISTED = 20  # how many prompts a sentence still lists by their ids


@markup.per_model
def peaks_by_level(results: RunResults, model: str, title: str, *, scale: int) -> str:
    """Where the ID at this scale peaks, structured and shuffled."""
    dimension = results.ends["intrinsic_dimension"].sel(model=model, scale=scale)
    if not bool(dimension.notnull().any()):
        return f"{title}: the prompts of this run are too short for scale {scale}."
    tops = (f"{peak(dimension.sel(shuffle_level=s))} for $S = {s}$" for s in dict.fromkeys(results.extremes))
    line = f"{title}: over all layers, the mean ID at scale {scale} {' and '.join(tops)}"
    if not results.is_shuffled:
        return f"{line}; the run has one shuffle level only, so there is nothing to compare it with."
    return f"{line}. {change_by_prompt(dimension, results.middle_layers(model))}"


def prompt_spread(results: RunResults) -> Markdown:
    """How much prompts differ in each observable, against how much shuffling changes it."""
    n_all, few = results.observables.sizes["prompt"], frames.N_SINGLE
    drawn = f"The figures show {few} of {n_all} prompts. " * (n_all > few)
    if (n_prompts := results.shuffled.sizes["prompt"]) < 2:
        return Markdown(f"{drawn}The run has one prompt at every shuffle level, so prompts cannot be compared.")
    found = {name: middle(results.shuffled[variable].sel(at)) for name, (variable, at) in BESIDE.items()}
    (low, high), lines = results.extremes, []
    for model, title in results.models:
        layers, parts = results.middle_layers(model), []
        for name, values in found.items():
            first, last = (values.sel(model=model, shuffle_level=level) for level in (low, high))
            change = f" ({_short((last - first).mean(), '+')})" * results.is_shuffled
            parts.append(f"{name}: {_short(first.std('prompt', ddof=1))}{change}")
        lines.append(f"{title}, {numbers.layers(layers)}; {'; '.join(parts)}.")
    shuffling = f" and, in brackets, the mean change by full shuffling ($S = {high}$)" * results.is_shuffled
    start = f"{drawn}Standard deviation over {n_prompts} prompts at $S = {low}${shuffling}:"
    return markup.bullets(lines, start=start)


def _short(value: xr.DataArray, sign: str = "") -> str:
    return f"{numbers.Number(value):{sign}.2g}" if abs(float(value)) < 1 else f"{numbers.Number(value):{sign}.1f}"


@markup.unless(one_level)
def effect_by_layer(results: RunResults) -> Markdown:
    """In which layers full shuffling raises or lowers the ID, under control of false discoveries."""
    every, lines = markup.with_text_titles(frames.shuffling_effect(results)), []
    for title, one in every.groupby("model_title", sort=False):
        parts = []
        for scale in results.scales:
            at = one[(one["scale"] == scale) & (one["discovered"] == "yes")]
            signs = (at["mean"] > 0, at["mean"] < 0)
            raised, lowered = (numbers.layers(at["layer"].values[side]) for side in signs)
            parts.append(f"at scale {scale} it raises the ID in {raised} and lowers it in {lowered}")
        few = f"no intervals from less than {intervals.FEWEST_PROMPTS} prompts" * bool(one["low"].isnull().all())
        lines.append(f"{title}: {few or '; '.join(parts)}.")
    start = f"Layers in which full shuffling ($S = {results.extremes[1]}$) raises or lowers the ID"
    family = f"over all layers and scales of a model (of {numbers.count(results.ends.sizes['prompt'], 'prompt')})"
    return markup.bullets(lines, start=f"{start}, with $q$ ≤ {RATE} {family}:")


@markup.per_model
def angle_modes(results: RunResults, model: str, title: str, *, layer: int) -> str:
    """Mean and most frequent bin of the neighbor angle at a layer, structured and shuffled."""
    at = results.shuffled.sel(model=model, layer=min(layer, results.last_layer(model)))
    parts, half = [], labelled.ANGLE_STEP / 2
    for level in dict.fromkeys(results.extremes):
        found = at[["neighbor_angle", "neighbor_angle_histogram"]].sel(shuffle_level=level).mean("prompt")
        shares = found["neighbor_angle_histogram"]
        mode, above = float(shares.idxmax("angle")), float(shares.sel(angle=slice(60, None)).sum())
        mean = f"the mean is {float(found['neighbor_angle']):.1f}°"
        bins = f"the fullest bin {mode - half:.0f}° to {mode + half:.0f}°"
        parts.append(f"at $S = {level}$ {mean}, {bins}, and {above:.0%} of the angles are above 60°")
    return f"{title}, layer {int(at['layer'])}: {'; '.join(parts)}."


@markup.per_model
def losses(results: RunResults, model: str, title: str) -> str:
    """Loss, BLEU and change of the ID of the middle layers at each level, mean over prompts."""
    values, low, scale = results.shuffled.sel(model=model), results.extremes[0], results.reference_scale
    dimension = values["intrinsic_dimension"].sel(scale=scale, layer=results.middle_layers(model)).mean("layer")
    changes, parts = intervals.mean_interval(dimension - dimension.sel(shuffle_level=low, drop=True)), []
    for at in values[["loss", "bleu"]].mean("prompt").to_dataframe().reset_index().itertuples():
        change = effect(changes.sel(shuffle_level=at.shuffle_level))
        changed = f", ID at scale {scale} {change}" if at.shuffle_level > low else ""
        parts.append(f"$S = {at.shuffle_level}$ (BLEU {at.bleu:.2f}): loss {at.loss:.2f}{changed}")
    return f"{title}, loss and change of the ID of the middle layers: {'; '.join(parts)}."


@markup.unless(one_level)
@markup.per_model
def severity(results: RunResults, model: str, title: str) -> str:
    """Whether the ID changes the more, the less of the order of a prompt is left."""
    found, scales = frames.severities(results).sel(model=model), results.scales
    r = correlation.correlate(found["bleu"], found["change"], method="spearman", pool="shuffle_level")
    if not bool(r["correlation"].sel(scale=scales).notnull().all()):
        return f"{title}: too few prompts for a correlation."
    each = " and ".join(f"{spell(r.sel(scale=n))} at scale {n}" for n in scales)
    return f"{title}, rank correlation of BLEU with the change of the ID over prompts and levels: {each}."


@markup.per_model
def means(results: RunResults, model: str, title: str, *, columns: dict[str, tuple[str, dict]] = BESIDE) -> str:
    """Means of observables (title → variable, selection) in the middle layers, structured and shuffled."""
    found = {name: level_means(results, model, variable, **at) for name, (variable, at) in columns.items()}
    each = {name: " and ".join(f"{mean:.2f}" for mean in means) for name, means in found.items()}
    spelled = "; ".join(f"{name}: {told}" for name, told in each.items() if "nan" not in told)
    levels = " and ".join(f"$S = {level}$" for level in dict.fromkeys(results.extremes))
    return f"{title}, mean of the middle layers at {levels}; {spelled}."


def basis(results: RunResults) -> Markdown:
    """What was run: prompts, tokens, shuffle levels, models and their distinct points."""
    dataset, (low, high) = results.observables, results.extremes
    n_shuffled = results.shuffled.sizes["prompt"]
    n_structured = int(dataset["loss"].sel(shuffle_level=low).notnull().any("model").sum())
    ids, too_short = dataset["prompt"].values.tolist(), int(dataset.attrs["n_texts_too_short"])
    tokenizer = "one of the tokenizers of the models" if len(results.models) > 1 else "the tokenizer of the model"
    taken = ", ".join(map(markup.escaped, ids)) if len(ids) <= _N_LISTED else "listed in the data set"
    name, title, corpus = map(markup.escaped, (results.run.name, results.run.title, dataset.attrs["corpus"]))
    prompts = f"{numbers.count(n_structured, 'prompt')} of {dataset.attrs['n_tokens']} tokens"
    ends = f"{n_shuffled} of them at every shuffle level up to {high} and {results.ends.sizes['prompt']}"
    short = f"Of {len(ids) + too_short} texts that were examined, {too_short or 'none'} had fewer tokens"
    start = f"Run {name}: {title}. {prompts} of the corpus {corpus} at $S = {low}$, {ends} at $S = {high}$."
    lines = [f"{start} {short} under {tokenizer}. Those taken are {taken}."]
    for model, title in results.models:
        points = dataset["n_points"].sel(model=model)
        after, before = (numbers.span(some) for some in (points.where(points.layer > 0), points.sel(layer=0)))
        there = f"{before} in the embeddings, where tokens of equal embeddings are one point"
        lines.append(f"{title}: {after} distinct points per cloud after the embeddings, {there}.")
    return markup.bullets(lines)
