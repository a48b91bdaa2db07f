"""Frames of the chapter that compares models: scales by prompt, overlap of layers, controls."""

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.chapters.charts import unique
from token_geometry.chapters.frames import FROM_ONE, by_observable, long
from token_geometry.chapters.results import RunResults

N_SCALES = 16  # prompts whose ID is shown at every scale


def scales_by_prompt(results: RunResults) -> pd.DataFrame:
    """ID (`value`) of the first structured prompts at every scale and layer, with their loss."""
    dataset = results.structured[["intrinsic_dimension", "loss"]].isel(prompt=slice(N_SCALES))
    frame = dataset.rename(intrinsic_dimension="value").sel(layer=FROM_ONE).to_dataframe().reset_index()
    return frame.dropna()[["model_title", "prompt", "layer", "scale", "value", "loss"]].round(4)


def layer_overlap(results: RunResults) -> pd.DataFrame:
    """Overlap of any two layers at the lowest and highest shuffle level, mean over prompts."""
    overlap = results.shuffled["layer_overlap"].sel(shuffle_level=unique(results.extremes)).mean("prompt")
    frame = long(overlap, "overlap", decimals=3)
    return frame[["model_title", "shuffle_level", "layer", "layer_other", "overlap"]]


def controls(results: RunResults) -> pd.DataFrame:
    """A trained model and its control (`kind`) on the same prompts, as of `by_observable`, for every `control`."""
    named = [(name, one) for name, *both in control_pairs(results) for one in both]
    parts = [by_observable(one).assign(control=name, kind=str(one["model_title"].item())) for name, one in named]
    columns = ["kind", "control", "observable"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def control_pairs(results: RunResults) -> list[tuple[str, xr.Dataset, xr.Dataset]]:
    """For each control its name, and its model's and its own observables on the prompts and levels of both."""
    if results.control is None:
        return []
    pairs = []
    for name in results.control["model"].values.tolist():
        model = name.rpartition("@")[0]
        if model not in results.observables["model"].values:
            continue
        trained, control = results.observables.sel(model=model), results.control.sel(model=name)
        # layers are those of each; prompts and levels those that both have
        levels = np.intersect1d(trained["shuffle_level"], control["shuffle_level"])
        trained = trained.reindex(prompt=control["prompt"].values).sel(shuffle_level=levels)
        control = control.sel(shuffle_level=levels)
        complete = (trained["loss"].notnull() & control["loss"].notnull()).all("shuffle_level").values
        pairs.append((name, trained.isel(prompt=complete), control.isel(prompt=complete)))
    return pairs
