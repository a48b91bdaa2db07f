"""The chapter on profiles: what the geometry of a prompt tells of its kind, beside its loss and its tokens."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.base import InputError
from token_geometry.chapters import charts, frames, markup
from token_geometry.chapters.numbers import Number, count, estimate
from token_geometry.chapters.results import RunParameters, RunResults
from token_geometry.stats import intervals, probes, ridge
from token_geometry.texts import corpora

N_PERMUTATIONS = 200  # of the labels
_NAMES = ["intrinsic_dimension", "loss", "distinct_tokens", "token_rarity", "mean_state"]


@dataclass(frozen=True, kw_only=True)
class ProfileParameters(RunParameters):
    """Parameters of the chapter on profiles."""

    label: str = ""  # column of the run's corpus that holds a label of each text; empty: none


def tasks(results: RunResults, *, label: str = "") -> dict[str, list[xr.Dataset]]:
    """By what is to be told (shuffled, genre, label) observables of each class, over `model` and `prompt`."""
    found: dict[str, list[xr.Dataset]] = {}
    if results.is_shuffled:
        found["shuffled"] = [results.ends[_NAMES].isel(shuffle_level=end, drop=True) for end in (0, -1)]
    if len(genres := results.genres) > 1:
        found["genre"] = [one[_NAMES] for one in genres.values()]
    if label:
        found[f"label {label!r}"] = _by_label(results, label)
    return found


def _by_label(results: RunResults, column: str) -> list[xr.Dataset]:
    """Prompts by label; an `InputError` says if the corpus has no such column, or it makes no classes."""
    corpus, own = results.run.corpus, results.structured[_NAMES]
    texts = corpora.find_corpus(corpus, column=column).some(own["prompt"].values.tolist())
    labels = np.array([texts[key] for key in own["prompt"].values.tolist()])
    names, counts = np.unique(labels, return_counts=True)
    where = f"column {column!r} of corpus {corpus!r}"
    if "" in names:
        raise InputError(f"{where} has no label for {count(int(counts[0]), 'prompt')}: fill it in")
    if len(names) < 2 or counts.min() < 2:
        found = f"{len(names)} different labels for {len(labels)} prompts, the rarest for {counts.min()}"
        raise InputError(f"{where} has {found}; accepted: two labels or more, each of two prompts or more")
    return [own.isel(prompt=labels == name) for name in names]


def frame(results: RunResults, *, label: str = "") -> pd.DataFrame:
    """Accuracy of each set of features at each task: columns `task`, `model_title`, `features`, `accuracy`,
    `low` and `high` (NaN below `FEWEST_PROMPTS`), `chance` and `p_value` of the permutations, `n_prompts`."""
    every = itertools.product(tasks(results, label=label).items(), results.models)
    return pd.DataFrame([row for (task, classes), (model, _) in every for row in _rows(task, classes, model)])


def _rows(task: str, classes: list[xr.Dataset], model: str) -> Iterator[dict]:
    parts = [one.sel(model=model).dropna("prompt", subset=["loss"]) for one in classes]
    labels = np.repeat(np.arange(len(parts)), [one.sizes["prompt"] for one in parts])
    groups = np.concatenate([one["prompt"].values for one in parts])
    n_prompts = len(set(groups.tolist()))
    if min(one.sizes["prompt"] for one in parts) < 2:
        return
    folds = probes.folds(labels, groups, seed=0)
    labelings = np.vstack([labels[None], ridge.permutations(labels, groups, n=N_PERMUTATIONS, seed=0)])
    kept = [one.sel(layer=frames.FROM_ONE) for one in parts]
    columns = [[one[name].values.reshape(one.sizes["prompt"], -1) for one in kept] for name in _NAMES]
    dimension, loss, distinct, rarity, state = map(np.concatenate, columns)
    profile, tokens = np.log(dimension), np.hstack([distinct, rarity])
    features: dict = {"profile of the ID": (profile, None), "loss": (loss, None), "tokens": (tokens, None)}
    features["mean state"] = (state, None)
    features["profile at fixed loss and tokens"] = (profile, np.hstack([loss, tokens]))
    for name, (points, given) in features.items():
        points = points[:, np.isfinite(points).all(axis=0)]
        if not points.shape[1]:
            continue
        accuracy, *null = ridge.nested_accuracy(points, labelings, folds, given=given)
        ends = probes.interval(np.array(accuracy * n_prompts), np.array(n_prompts))
        low, high = ends if n_prompts >= intervals.FEWEST_PROMPTS else (np.nan, np.nan)
        p_value = (1 + sum(one >= accuracy for one in null)) / (1 + len(null))
        found = {"accuracy": accuracy, "low": low, "high": high, "chance": np.mean(null), "p_value": p_value}
        title = str(parts[0]["model_title"].values)
        yield {"task": task, "model_title": title, "features": name, **found, "n_prompts": n_prompts}


@charts.figure("accuracy", choose="task")
def accuracy(frame: pd.DataFrame) -> alt.FacetChart:
    """Dot plot with intervals, one panel per model: accuracy against what a classifier is given."""
    base = alt.Chart(frame).encode(y=alt.Y("features:N", title=None, sort=charts.unique(frame["features"])))
    axis = alt.Axis(format="%", tickCount=4)
    x = alt.X("accuracy:Q", title="accuracy", scale=alt.Scale(domain=[0, 1]), axis=axis)
    shares = [f"{name}:Q .0%" for name in ("accuracy", "low", "high", "chance")]
    tips = charts.tooltip("features:N", *shares, "p_value:Q .2g", "n_prompts:Q")
    dots = base.mark_circle(size=70, color="#444", opacity=1).encode(x=x, tooltip=tips)
    bars = base.mark_rule(color="#444", strokeWidth=2)
    bars = bars.encode(x="low:Q", x2="high:Q").transform_filter("isValid(datum.low)")
    null = base.mark_tick(color="#888", thickness=2).encode(x="chance:Q")
    return charts.panels(alt.layer(bars, null, dots), frame, width=140, alone=360, height=150, independent=())


def sentence(results: RunResults, frame: pd.DataFrame) -> Markdown:
    """How often each set of features tells the class of a prompt, and permuted labels, from `frame`."""
    said: dict[str, list[str]] = {title: [] for title in results.titles}
    for (title, task), one in frame.groupby(["model_title", "task"], sort=False) if len(frame) else ():
        ends = (100 * one[["accuracy", "low", "high"]]).values
        told = [f"{name} {estimate(*row, digits=0)}%" for name, row in zip(one["features"], ends, strict=True)]
        n, chance, p = one.iloc[0][["n_prompts", "chance", "p_value"]]
        null = f"permuted labels {Number(chance):.0%} by the profile ($p$ = {Number(p):.2g})"
        said[title].append(f"{task}, {count(int(n), 'prompt')}: {', '.join(told)}; {null}")
    texts = {title: ". ".join(parts) or "the run has nothing to be told apart" for title, parts in said.items()}
    return markup.bullets(f"{markup.escaped(title)}: {text}." for title, text in texts.items())
