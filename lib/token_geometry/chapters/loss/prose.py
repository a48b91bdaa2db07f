"""What the chapter on geometry and loss says: sentences, a table, alt texts."""

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import markup, numbers
from token_geometry.chapters.loss import frames
from token_geometry.chapters.numbers import Number
from token_geometry.chapters.over_layers import alike, effect, one_level
from token_geometry.chapters.results import RunResults
from token_geometry.stats.correlation import correlate
from token_geometry.stats.intervals import CONFIDENCE, FEWEST_PROMPTS, mean_interval


def basis(results: RunResults) -> Markdown:
    """What the correlations rest on, and what the run is too small for."""
    n_structured = int(results.structured["loss"].notnull().any("model").sum())
    n_levels, n_all = results.observables.sizes["shuffle_level"], results.shuffled.sizes["prompt"]
    said = [f"The run has {numbers.count(n_structured, 'structured prompt')}.", _enough(n_structured)]
    several = [f"At all {n_levels} shuffle levels it has {numbers.count(n_all, 'prompt')}.", _enough(n_all)]
    said += several if n_levels > 1 else []
    return Markdown(" ".join(text for n, text in enumerate(said) if text not in said[n + 1 :]))


def _enough(n_prompts: int) -> str:
    if n_prompts < 3:
        return "A correlation needs three: the figures that follow from them are empty."
    if n_prompts < FEWEST_PROMPTS:
        return f"Their correlations get no interval, for which {FEWEST_PROMPTS} are needed."
    return f"Intervals are at {CONFIDENCE:.0%} confidence."


@markup.per_model
def middle(results: RunResults, model: str, title: str) -> str:
    """How the mean ID of the middle layers correlates with the loss."""
    layers, near, far = results.middle_layers(model), frames.scale(results), results.reference_scale
    dimension = frames.dimensions(results).sel(model=model, layer=layers)
    loss = results.structured["loss"].sel(model=model)
    found = {s: correlate(dimension.sel(scale=s).mean("layer"), loss) for s in (near, far)}
    curve = correlate(dimension.sel(scale=near), loss, n_resamples=1)["correlation"]
    if bool(curve.isnull().all()):
        return f"{title}: too few prompts for a correlation."
    each = f" with $r$ = {numbers.span(curve, '.2f')}; its mean over these layers does so" * (len(curve) > 1)
    where = f"in {numbers.layers(layers)} the ID at scale {near} correlates with the loss{each}"
    here = f"{spell(found[near])}, {_verdict(found[near])}."
    other = f" At scale {far} it has {spell(found[far])}, {_verdict(found[far])}." * (far != near)
    return f"{title}: {where} with {here}{other}"


def spell(found: xr.Dataset, symbol: str = "$r$", *, value: str = "correlation") -> str:
    """A correlation and its interval."""
    text = f"{symbol}{' = ' if symbol else ''}{numbers.told(found, value)}"
    lacking = f" (no interval from {numbers.count(int(found['n_prompts']), 'prompt')})"
    return text + lacking * bool(np.isnan(found["low"]))


def _verdict(found: xr.Dataset) -> str:
    if np.isnan(found["low"]):
        return "which decides nothing"
    side = "a positive" if found["low"] > 0 else "a negative" if found["high"] < 0 else ""
    return f"{side} correlation" if side else "an interval that includes zero"


def strongest_table(results: RunResults) -> Markdown:
    """Table: where each quantity correlates most with the loss, and in how many layers it does."""
    loss, rows = results.structured["loss"], []
    for name, values in frames.quantities(results).items():
        found = frames.correlate(values, loss)
        ranks = correlate(values, loss, method="spearman", n_resamples=1)["correlation"]
        for model, title, layer in frames.strongest(found["correlation"]):
            here, n_tested = found.sel(model=model, layer=layer), int(found["p_value"].sel(model=model).count())
            n_found = int((found["q_value"].sel(model=model) <= frames.RATE).sum())
            rank, q = f"{Number(ranks.sel(model=model, layer=layer)):.2f}", f"{Number(here['q_value']):.2g}"
            title = markup.escaped(title)
            rows.append((title, name, layer, spell(here, ""), rank, q, f"{n_found} of {n_tested}"))
    if not rows:
        return Markdown("No correlation can be taken from so few prompts.")
    rows.sort(key=lambda row: [title for _, title in results.models].index(row[0]))
    columns = ["model", "quantity", "layer", "Pearson", "Spearman", "q", f"layers with q ≤ {frames.RATE}"]
    return markup.table(pd.DataFrame(rows, columns=columns))


@markup.unless(one_level)
@markup.per_model
def levels(results: RunResults, model: str, title: str) -> str:
    """The correlation over all shuffle levels, of their means, and within them."""
    dimension, loss = (values.sel(model=model) for values in frames.by_level(results))
    layers = results.middle_layers(model)
    dimension = dimension.sel(layer=layers).mean("layer")
    pooled = correlate(dimension, loss, pool="shuffle_level")
    within = correlate(frames.centered(dimension), frames.centered(loss), pool="shuffle_level")
    if not np.isfinite(pooled["correlation"]):
        return f"{title}: too few prompts were run at all levels."
    means = correlate(*(values.mean("prompt").rename(shuffle_level="prompt") for values in (dimension, loss)))
    single = correlate(dimension, loss, n_resamples=1)["correlation"]
    every = f"the mean ID of {numbers.layers(layers)} correlates with the loss with {spell(pooled)}"
    n_means, r = int(means["n_prompts"]), Number(means["correlation"])
    alone = f"The {n_means} means of the levels alone have $r$ = {r:.2f}"
    rest = f"taken away, they leave {spell(within)}. Within single levels, $r$ = {numbers.span(single, '.2f')}"
    return f"{title}: over all levels, {every}. {alone}; {rest}."


@markup.per_model
def latent(results: RunResults, model: str, title: str) -> str:
    """How the ID of the middle layers goes with their latent entropy, and what is left of the loss beside it."""
    dataset, layers = results.structured.sel(model=model), results.middle_layers(model)
    one = frames.dimensions(results).sel(model=model, layer=layers, scale=frames.scale(results))
    dimension, entropy = one.mean("layer"), dataset["lens_entropy"].sel(layer=layers).mean("layer")
    if not bool(entropy.notnull().any()):
        return f"{title}: it has no latent predictions, or they were not taken."
    pairs = (dimension, entropy, None), (dimension, dataset["loss"], None), (dimension, dataset["loss"], entropy)
    found = [correlate(x, y, given=given) for x, y, given in pairs]
    if not np.isfinite(found[0]["correlation"]):
        return f"{title}: too few prompts for a correlation."
    curve = dataset["lens_entropy"].mean("prompt")
    middle, last = (Number(curve.sel(layer=some).mean()) for some in (layers, results.last_layer(model)))
    start = f"the mean ID of {numbers.layers(layers)} correlates with the latent entropy with"
    rest = f"with the loss with {spell(found[1])}, and at fixed latent entropy with {spell(found[2])}"
    end = f"That entropy is {middle:.2f} nats there and {last:.2f} at the end."
    return f"{title}: {start} {spell(found[0])}, {_verdict(found[0])}; {rest}. {end}"


@markup.per_model
def tokens(results: RunResults, model: str, title: str) -> str:
    """Whether within a prompt the local dimension of a token goes with its loss."""
    dataset, layers, parts = results.structured.sel(model=model), results.middle_layers(model), []
    for name in ("ess", "tle"):
        found = mean_interval(dataset[f"{name}_loss_correlation"].sel(layer=layers).mean("layer"))
        if bool(found["mean"].isnull()):
            return f"{title}: the prompts are too short."
        parts.append(f"{name.upper()} {effect(found)}{alike(found)}")
    what = f"rank correlation of a token's local dimension in {numbers.layers(layers)} with its loss"
    return f"{title}: {what}, at fixed position and frequency, mean over prompts: {'; '.join(parts)}."


@markup.per_model
def partial(results: RunResults, model: str, title: str) -> str:
    """The strongest correlation of the ID, and what is left of it at fixed cosine similarity."""
    frame = markup.with_text_titles(frames.partial_frame(results)).query("model_title == @title")
    names = (frames.AS_IT_IS, frames.AT_FIXED)
    plain, fixed = (frame[frame["measure"] == name].set_index("layer") for name in names)
    if fixed.empty:
        return f"{title}: too few prompts for a partial correlation."
    layer = int(plain["correlation"].abs().idxmax())
    n_plain, n_fixed = (len(part.query("discovered == 'yes' and correlation > 0")) for part in (plain, fixed))
    ends = (spell(xr.Dataset.from_dataframe(part.loc[[layer]]).squeeze()) for part in (plain, fixed))
    there = f"in layer {layer}, where the correlation is strongest, it goes from {' to '.join(ends)}"
    counts = f"in {n_plain} of {len(plain)} layers without, and in {n_fixed} with the cosine similarity held fixed"
    above = f"With $q$ ≤ {frames.RATE} it is above zero {counts}"
    return f"{title}: {there} when the cosine similarity is held fixed. {above}."


@markup.per_model
def logits(results: RunResults, model: str, title: str) -> str:
    """ID of the logits against entropy, and entropy against loss."""
    dataset = results.structured.sel(model=model)
    entropy = correlate(dataset["entropy"], dataset["loss"])
    if not np.isfinite(entropy["correlation"]):
        return f"{title}: too few prompts for a correlation."
    dimension = dataset["logit_intrinsic_dimension"].sel(scale=frames.LOGIT_SCALES)
    known = correlate(dimension, dataset["entropy"]).dropna("scale", subset=["correlation"])
    each = [f"{spell(known.sel(scale=s))} at scale {s}" for s in known["scale"].values]
    of_loss = correlate(dimension.sel(scale=frames.scale(results)), dataset["loss"])
    mean, mean_loss = (f"{Number(dataset[name].mean()):.2f}" for name in ("entropy", "loss"))
    with_loss = f"with the loss with {spell(of_loss)} at scale {frames.scale(results)}"
    start = f"the ID of the logits correlates with the entropy with {', '.join(each)}, and {with_loss}"
    end = f"The mean entropy is {mean} nats, the mean loss {mean_loss}"
    return f"{title}: {start}; the entropy with the loss with {spell(entropy)}. {end}."


def strongest(results: RunResults, frame: pd.DataFrame, *, measure: str | None = None) -> Markdown:
    """Where the correlation of each model is strongest in what a chart of the frame opens with."""
    named = next((name for name in ("measure", "quantity") if name in frame), None)
    kept = frame if measure is None else frame[frame[named] == measure]
    for column, first in (("scale", frames.scale(results)), ("method", "Pearson")):
        kept = kept[kept[column] == first] if column in kept else kept
    lines = []
    for title, part in kept.groupby("model_title", sort=False):
        row = part.loc[part["correlation"].abs().idxmax()]
        what, value = f" ({row[named]})" if named and measure is None else "", Number(row["correlation"])
        lines.append(f"{title}: it is strongest in layer {row['layer']}{what}, with $r$ = {value:.2f}.")
    return markup.bullets(lines or ["No correlation."])


def scatter(frame: pd.DataFrame, x: str, y: str) -> Markdown:
    """Correlation of the points of each model."""
    parts = {title: part for title, part in frame.groupby("model_title", sort=False) if len(part) > 2}
    r = {title: Number(np.corrcoef(part[x], part[y])[0, 1]) for title, part in parts.items()}
    return markup.bullets([f"{title}: $r$ = {one:.2f}." for title, one in r.items()] or ["Too few prompts."])
