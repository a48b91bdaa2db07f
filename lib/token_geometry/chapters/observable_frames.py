"""Tidy frames of a run for the figures that show single prompts, several observables or controls."""

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.chapters.frames import Results, summary
from token_geometry.stats import statistics

OBSERVABLES = {
    "ID (scale 2)": ("intrinsic_dimension", {"scale": 2}),
    "NO (k = 2)": ("neighborhood_overlap", {"k": 2}),
    "mean cosine similarity": ("cosine_similarity", {}),
}
"""The three observables that are drawn beside one another, as in the paper: title → variable, selection."""

N_SINGLE = 6
"""Prompts that a figure of single prompts shows."""

N_SCALES = 16
"""Prompts whose ID is shown at every scale."""

FROM_ONE = slice(1, None)
"""Layers without the embeddings, where equal tokens coincide."""


def by_observable(dataset: xr.Dataset) -> pd.DataFrame:
    """`frames.summary` of each of `OBSERVABLES`, with its title in the column `observable`."""
    parts = [
        summary(dataset[variable].sel(at | {"layer": FROM_ONE})).assign(observable=title)
        for title, (variable, at) in OBSERVABLES.items()
    ]
    return pd.concat(parts, ignore_index=True)


def extremes(results: Results) -> pd.DataFrame:
    """`by_observable` at the lowest and the highest shuffle level."""
    return by_observable(results.shuffled.sel(shuffle_level=list(dict.fromkeys(results.extremes))))


def single_prompts(results: Results) -> pd.DataFrame:
    """Observables of the first prompts, those that were shuffled before the others.

    Returns
    -------
    pandas.DataFrame
        Columns `model_title`, `prompt`, `shuffle_level`, `layer`, and one for each of `OBSERVABLES`.
    """
    dataset = results.observables
    shuffled = results.shuffled["prompt"].values.tolist()
    rest = [name for name in dataset["prompt"].values.tolist() if name not in shuffled]
    dataset = dataset.sel(prompt=[*shuffled, *rest][:N_SINGLE])
    parts = {
        title: dataset[variable].sel(at | {"layer": FROM_ONE}).drop_vars(at)
        for title, (variable, at) in OBSERVABLES.items()
    }
    frame = xr.Dataset(parts).to_dataframe().reset_index().dropna(subset=[*parts], how="all")
    frame[[*parts]] = frame[[*parts]].round(4)
    return frame[["model_title", "prompt", "shuffle_level", "layer", *parts]]


def shuffling_effect(results: Results) -> pd.DataFrame:
    """Change of the ID by full shuffling, mean over prompts with its interval.

    Returns
    -------
    pandas.DataFrame
        Columns `model_title`, `layer`, `scale`, `mean`, `low`, `high`, `n_prompts`; no rows without two levels.
    """
    low, high = results.extremes
    columns = ["model_title", "layer", "scale", "mean", "low", "high", "n_prompts"]
    if low == high:
        return pd.DataFrame(columns=columns)
    dimension = results.shuffled["intrinsic_dimension"].sel(layer=FROM_ONE)
    frame = statistics.paired_difference(dimension, first=low, second=high).to_dataframe().reset_index()
    frame = frame.dropna(subset="mean")
    frame[["mean", "low", "high"]] = frame[["mean", "low", "high"]].round(4)
    return frame[columns]


def angles(results: Results) -> pd.DataFrame:
    """Distribution of the neighbor angle, mean over prompts.

    Returns
    -------
    pandas.DataFrame
        Columns `model_title`, `layer`, `angle` (center of the bin), and `S = 0` … with the share of the tokens at
        each shuffle level; one row a bin that is not empty.
    """
    shares = results.shuffled["neighbor_angle_histogram"].sel(layer=FROM_ONE).mean("prompt")
    levels = shares["shuffle_level"].values.tolist()
    columns = [f"S = {level}" for level in levels]
    wide = xr.Dataset(
        {name: shares.sel(shuffle_level=level, drop=True) for name, level in zip(columns, levels, strict=True)}
    )
    frame = wide.to_dataframe().reset_index()
    frame[columns] = frame[columns].round(4)
    return frame[(frame[columns] > 0).any(axis=1)][["model_title", "layer", "angle", *columns]]


def scales_by_prompt(results: Results) -> pd.DataFrame:
    """ID of the first structured prompts at every scale and layer, with their loss.

    Returns
    -------
    pandas.DataFrame
        Columns `model_title`, `prompt`, `layer`, `scale`, `value`, `loss`.
    """
    dataset = results.structured.isel(shuffle_level=0, prompt=slice(N_SCALES))
    frame = _rows(dataset["intrinsic_dimension"].sel(layer=FROM_ONE), "value")
    loss = _rows(dataset["loss"], "loss")[["model_title", "prompt", "loss"]]
    columns = ["model_title", "prompt", "layer", "scale", "value", "loss"]
    return frame.merge(loss, on=["model_title", "prompt"])[columns]


def layer_overlap(results: Results) -> pd.DataFrame:
    """Overlap of any two layers at the lowest and highest shuffle level, mean over prompts.

    Returns
    -------
    pandas.DataFrame
        Columns `model_title`, `shuffle_level`, `layer`, `layer_other`, `overlap`.
    """
    levels = list(dict.fromkeys(results.extremes))
    overlap = results.shuffled["layer_overlap"].sel(shuffle_level=levels).mean("prompt").round(3)
    columns = ["model_title", "shuffle_level", "layer", "layer_other", "overlap"]
    return _rows(overlap, "overlap")[columns]


def controls(results: Results) -> pd.DataFrame:
    """Trained models and their controls on the same prompts and shuffle levels.

    Returns
    -------
    pandas.DataFrame
        Columns of `by_observable`, `model` (name of the control) and `kind` (title of the model or of its
        control); no rows where the run declares no controls.
    """
    if results.control is None:
        return pd.DataFrame(columns=["kind", "model", "observable"])
    parts = []
    for model, trained, control in control_pairs(results):
        for dataset in (trained, control):
            frame = by_observable(dataset)
            parts.append(frame.assign(model=model, kind=str(dataset["model_title"].item())))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["kind", "model", "observable"])


def control_pairs(results: Results) -> list[tuple[str, xr.Dataset, xr.Dataset]]:
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
        both = {"shuffle_level": levels, "prompt": control["prompt"].values}
        trained = trained.reindex(prompt=both["prompt"]).sel(shuffle_level=levels)
        control = control.sel(both)
        complete = (trained["loss"].notnull() & control["loss"].notnull()).all("shuffle_level").values
        pairs.append((name, trained.isel(prompt=complete), control.isel(prompt=complete)))
    return pairs


def _rows(values: xr.DataArray, name: str) -> pd.DataFrame:
    frame = values.rename(name).to_dataframe().reset_index().dropna(subset=name)
    frame[name] = frame[name].round(4)
    return frame
