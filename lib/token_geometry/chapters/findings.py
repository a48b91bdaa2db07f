"""What a run finds: sentences for the first page, each with its bare numbers and the figure that shows it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from IPython.display import Markdown

from token_geometry.base import project
from token_geometry.chapters import effects, estimators, markup, numbers
from token_geometry.chapters.frames import middle, peak
from token_geometry.chapters.loss import frames as loss_frames
from token_geometry.chapters.results import RunResults
from token_geometry.stats.correlation import correlate
from token_geometry.stats.intervals import CONFIDENCE, FEWEST_PROMPTS, mean_interval, pooled, resampled_means

_NAMES = ("mean", "low", "high", "n_prompts")


@dataclass(frozen=True)
class Finding:
    """A sentence without full stop, its numbers by name (of one model: `mean smollm2-135m`), and its figure."""

    sentence: str
    values: dict[str, float]
    figure: str

    def linked(self) -> str:
        """The sentence with a link to the figure, if the book has its chapter."""
        chapters = (project.root() / "_quarto.yml").read_text(encoding="utf-8")
        known = f"{self.figure.split('-')[1]}.ipynb" in chapters
        return f"{self.sentence} (@{self.figure})." if known else f"{self.sentence}."


def text(results: RunResults) -> Markdown:
    """The findings as a list."""
    short = "The prompts of this run are too short for another scale than 2." * (results.reference_scale == 2)
    found = of_run(results)
    known = any(np.isfinite(value) for one in found for name, value in one.values.items() if "low" in name)
    intervals = "with 95% intervals" if known else f"with no intervals below {FEWEST_PROMPTS} prompts"
    return markup.bullets([*map(Finding.linked, found), short], start=f"What the run finds, {intervals}:")


def of_run(results: RunResults) -> list[Finding]:
    """All that a run holds enough for."""
    every = [*(_order, _estimators) * results.is_shuffled, _peaks, _with_loss, _half]
    return [finding for say in every for finding in say(results)]


def _titles(results: RunResults) -> dict[str, str]:
    """Titles by model, without what is in brackets at their ends where they differ without it, too."""
    short = {model: title.partition(" \\(")[0] for model, title in results.models}
    return short if len(set(short.values())) == len(short) else dict(results.models)


def _told(results: RunResults, each: xr.Dataset, spec: str = "+.2f", total: xr.Dataset | None = None):
    """Text and values of an estimate with its interval of each model, or of their mean, where that is known."""
    parts = {f" {model}": each.sel(model=model) for model in _titles(results)}
    parts |= {} if total is None else {"": total}
    values = {f"{name}{of}": float(part[name]) for of, part in parts.items() for name in _NAMES}
    said = {of: numbers.estimate(*(values[f"{n}{of}"] for n in _NAMES[:3]), spec=spec) for of in parts}
    named = zip(parts, _titles(results).values(), strict=False)
    known = [f"{said[of]} in {title}" for of, title in named if np.isfinite(values[f"mean{of}"])]
    text = f"{said['']} on average" if np.isfinite(values.get("mean", np.nan)) else ", ".join(known)
    n_models = f"{each.sizes['model']} models, " * (each.sizes["model"] > 1)
    return f"{text} ({n_models}{numbers.count(int(each['n_prompts'].max()), 'prompt')})" * bool(known), values


def _effect(results: RunResults, change: xr.DataArray, above="above zero", below="below zero", spec="+.2f"):
    """Text, signs and values of an effect over `model` and `prompt`, of the prompts that every model has."""
    each = mean_interval(change := change.dropna("prompt"))
    sides = {above: each["low"] > 0, below: each["high"] < 0}
    sides |= {"open": ~(sides[above] | sides[below])}
    named = {word: [t for m, t in _titles(results).items() if side.sel(model=m)] for word, side in sides.items()}
    several = each.sizes["model"] > 1
    signs = "; ".join(word + f" in {', '.join(models)}" * several for word, models in named.items() if models)
    told, values = _told(results, each, spec, pooled(change))
    return told, signs, values


def _order(results: RunResults) -> Iterator[Finding]:
    """What full shuffling does to the ID at a small and at a large scale, and how the two effects differ."""
    change, scales = effects.change(middle(results.ends["intrinsic_dimension"])), results.scales
    for scale in scales:
        told, signs, values = _effect(results, change.sel(scale=scale), "raised", "lowered")
        others = [effects.changes(one).sel(scale=scale).item() for one in effects.published()]
        values |= {f"published {n}": value for n, value in enumerate(others)}
        beside = f"the three published models have {numbers.interval(min(others), max(others), '+.2f')}"
        what = f"Full shuffling changes the mean ID of the middle layers at scale {scale} by {told}: {signs}"
        yield from [Finding(f"{what}; {beside}", values, "fig-effects-difference")] * bool(told)
    if len(scales) > 1 and told:
        told, signs, values = _effect(results, change.sel(scale=scales[1]) - change.sel(scale=scales[0]))
        what = f"The effect of full shuffling at scale {scales[1]} minus that at {scales[0]} is {told}"
        yield Finding(f"{what}: {signs}", values, "fig-effects-ratio")


def _estimators(results: RunResults) -> Iterator[Finding]:
    """Whether ESS and TLE agree with GRIDE on the direction of full shuffling."""
    names = ["GRIDE at scale 16", "ESS", "TLE"]
    change = effects.change(middle(estimators.dimensions(results.ends))).sel(estimator=names)
    signs = np.sign(change.mean("prompt"))
    told = {name: _effect(results, change.sel(estimator=name)) for name in names[1:]}
    values = {f"{name} {key}": value for name, (*_, found) in told.items() for key, value in found.items()}
    values["n_agree"] = int((signs == signs[0]).all("estimator").sum())
    each = "; ".join(f"{text.rpartition(' (')[0]} by {name}" for name, (text, *_) in told.items())
    n_agree, alone, n = values["n_agree"], len(signs) == 1, told["TLE"][0].rpartition(" (")[2]
    among = f" in {n_agree} of the models" * (not alone)
    agree = f"{'not all ' * (alone > n_agree)}those of GRIDE at scale 16{among}"
    what = f"Full shuffling changes other estimates for these layers, too, by {each}; their signs are"
    if all(text for text, *_ in told.values()):
        yield Finding(f"{what} {agree} ({n}", values, "fig-estimators-effect")


def _peaks(results: RunResults) -> Iterator[Finding]:
    """At which depth the ID of structured text peaks."""
    scale, rows = results.reference_scale, []
    for model in _titles(results):
        curves = loss_frames.dimensions(results).sel(scale=scale, model=model)
        curves = curves.dropna("layer", how="all").dropna("prompt", how="all")
        top, last, ends = peak(curves), results.last_layer(model), [np.nan, np.nan]
        if curves.sizes["prompt"] >= FEWEST_PROMPTS and top.inside:
            layers = resampled_means(curves).idxmax("layer")
            ends = layers.quantile([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).values / last
        rows.append([top.layer / last if top.inside else np.nan, *ends, curves.sizes["prompt"]])
    each = xr.Dataset({n: ("model", [*v]) for n, v in zip(_NAMES, zip(*rows, strict=True), strict=True)})
    told, values = _told(results, each.assign_coords(model=results.observables["model"]), ".0%")
    what = f"As a share of the depth, the mean ID of structured text at scale {scale} peaks at {told}"
    yield from [Finding(what, values, "fig-comparison-id")] * bool(told)


def _with_loss(results: RunResults) -> Iterator[Finding]:
    """How the ID of structured text goes with its loss."""
    scale, structured = loss_frames.scale(results), results.structured
    dimension = middle(structured["intrinsic_dimension"].sel(scale=scale))
    told, values = _told(results, correlate(dimension, structured["loss"]).rename(correlation="mean"), ".2f")
    what = f"The mean ID of the middle layers at scale {scale} goes with the loss of structured text, $r$ = {told}"
    yield from [Finding(what, values, "fig-loss-id")] * bool(told)


def _half(results: RunResults) -> Iterator[Finding]:
    """By which share the ID is another from half of the tokens."""
    one, scale = results.structured, results.reference_scale
    half = int(one.attrs["n_tokens"]) // 2
    if half in one.get("n_subset", ()):
        some = one["subset_dimension"].sel(subset="random", n_subset=half, scale=scale)
        ratio = middle(some) / middle(one["intrinsic_dimension"].sel(scale=scale))
        told, signs, values = _effect(results, ratio - 1, spec="+.0%")
        what = f"Half of the tokens, drawn at random, change the mean ID of the middle layers at scale {scale} by"
        yield from [Finding(f"{what} {told}: {signs}", values, "fig-estimators-number")] * bool(told)
