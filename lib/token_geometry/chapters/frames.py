"""Tidy frames that several chapters draw, and the peaks of curves."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.chapters.numbers import Number
from token_geometry.observables import catalog

BESIDE = catalog.selections(intrinsic_dimension=2, neighborhood_overlap=2, cosine_similarity=None)
"""The three observables that are drawn beside one another, as in the paper: title → variable, selection."""

FROM_ONE = slice(1, None)  # layers without the embeddings, where equal tokens coincide

MIDDLE = (1 / 3, 2 / 3)
"""Part of the depth over which an observable is averaged: the declared summary (`sec-methods-summary`)."""


def window(depth: xr.DataArray, part: tuple[float, float] = MIDDLE) -> slice:
    """Layers from 1 on at a part of the relative depth, of dimension `layer`; the nearest where none is inside."""
    depth = depth.sel(layer=FROM_ONE).dropna("layer")
    outside = abs(depth - sum(part) / 2) - (part[1] - part[0]) / 2
    inside = depth["layer"].values[(outside <= max(float(outside.min()), 1e-6)).values]  # float32 rounds a third
    return slice(int(inside.min()), int(inside.max()))


def middle(values: xr.DataArray) -> xr.DataArray:
    """The declared summary of a quantity over `model` and `layer`: its mean over each model's middle layers."""
    each = (values.sel(model=model) for model in values["model"].values)
    means = [one.sel(layer=window(one["relative_depth"])).mean("layer").reset_coords(drop=True) for one in each]
    return xr.concat(means, values["model"])


def summary(variable: xr.DataArray) -> pd.DataFrame:
    """Mean and standard deviation over the dimension `prompt` as a tidy frame.

    It has one row per combination of the other dimensions that has data: their columns, `model_title` and
    `relative_depth` where they apply, `mean`, `std` (of the sample, n − 1), `low`, `high`, `n_prompts`."""
    count = variable.count("prompt")
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, std = variable.mean("prompt"), variable.std("prompt", ddof=1).where(count > 1, 0.0)
    return tidy(xr.Dataset({"mean": mean, "std": std, "n_prompts": count}))


def tidy(parts: xr.Dataset) -> pd.DataFrame:
    """Frame of `mean`, `std` and `n_prompts`, with the columns that `summary` returns."""
    frame = parts.to_dataframe().reset_index().query("n_prompts > 0")
    frame = frame.assign(low=frame["mean"] - frame["std"], high=frame["mean"] + frame["std"])
    return frame.drop(columns="model", errors="ignore") if "model_title" in frame else frame


@dataclass(frozen=True)
class Peak:
    """Where the mean over prompts of an observable is largest, and whether layers on both sides are lower."""

    layer: int
    mean: Number
    std: Number
    inside: bool

    def __str__(self) -> str:
        end = "" if self.inside else ", where the layers end, so there is no peak"
        return f"{'peaks' if self.inside else 'is largest'} at {self.mean:.1f} in layer {self.layer}{end}"


def peak(variable: xr.DataArray) -> Peak:
    """Layer from 1 on at which the mean over prompts of a variable, over `prompt` and `layer`, is largest."""
    within = variable.sel(layer=FROM_ONE)
    mean = within.mean("prompt").dropna("layer")
    layer, ends = int(mean.idxmax("layer")), mean["layer"].values[[0, -1]]
    values = within.sel(layer=layer)
    std = values.std("prompt", ddof=1) if values.sizes["prompt"] > 1 else 0
    return Peak(layer=layer, mean=Number(mean.max()), std=Number(std), inside=layer not in ends)


def long(values: xr.DataArray, name: str, *, decimals: int = 4) -> pd.DataFrame:
    """Frame with one row per value that there is, rounded, in the column `name`."""
    frame = values.rename(name).to_dataframe().reset_index().dropna(subset=name)
    frame[name] = frame[name].round(decimals)
    return frame


def by_observable(dataset: xr.Dataset, chosen: dict[str, tuple[str, dict]] = BESIDE) -> pd.DataFrame:
    """`summary` of each observable of `chosen`, with its title in the column `observable`."""
    kept = {title: dataset[name].sel(at | {"layer": FROM_ONE}) for title, (name, at) in chosen.items()}
    parts = [summary(values).assign(observable=title) for title, values in kept.items()]
    return pd.concat(parts, ignore_index=True)
