"""Frames of the chapter on shuffling: single prompts, distributions, effects."""

import pandas as pd
import xarray as xr

from token_geometry.chapters import charts, effects, frames
from token_geometry.chapters.loss.frames import RATE
from token_geometry.chapters.results import RunResults
from token_geometry.stats import intervals
from token_geometry.stats.correlation import false_discovery

N_SINGLE = 6  # prompts that a figure of single prompts shows


def losses(results: RunResults) -> pd.DataFrame:
    """Loss of each prompt that was run at every shuffle level."""
    frame = frames.long(results.shuffled["loss"], "loss", decimals=5)
    return frame[["model_title", "shuffle_level", "prompt", "loss"]]


def extremes(results: RunResults, chosen: dict[str, tuple[str, dict]] = frames.BESIDE) -> pd.DataFrame:
    """Observables at the lowest and the highest shuffle level, as of `frames.by_observable`."""
    return frames.by_observable(results.shuffled.sel(shuffle_level=charts.unique(results.extremes)), chosen)


def single_prompts(results: RunResults) -> pd.DataFrame:
    """Observables of the first prompts, those that were shuffled before the others; a column for each."""
    dataset = results.observables
    prompts = charts.unique([*results.shuffled["prompt"].values, *dataset["prompt"].values])
    dataset = dataset.sel(prompt=prompts[:N_SINGLE])
    inner = dataset.sel(layer=frames.FROM_ONE)
    parts = {title: inner[name].sel(at, drop=True) for title, (name, at) in frames.BESIDE.items()}
    frame = xr.Dataset(parts).to_dataframe().reset_index().dropna(subset=[*parts], how="all")
    return frame.round(dict.fromkeys(parts, 4))[["model_title", "prompt", "shuffle_level", "layer", *parts]]


def shuffling_effect(results: RunResults, values: xr.DataArray | None = None, *, by="scale") -> pd.DataFrame:
    """Change of the ID, or of other values of `results.ends`, by full shuffling: mean with its interval.

    Columns `model_title`, `layer`, that of `by`, `mean`, `low`, `high`, `n_prompts`, `discovered` (all rows of a
    model are one family of tests); no rows without two levels."""
    values = results.ends["intrinsic_dimension"].sel(layer=frames.FROM_ONE) if values is None else values
    found = intervals.mean_interval(effects.change(values))
    found["discovered"] = xr.where(false_discovery(found["p_value"], over=["layer", by]) <= RATE, "yes", "no")
    frame = found.to_dataframe().reset_index()
    frame = frame.dropna(subset="mean") if results.is_shuffled else frame.iloc[:0]
    return frame[["model_title", "layer", by, "mean", "low", "high", "n_prompts", "discovered"]].round(4)


def severities(results: RunResults) -> xr.Dataset:
    """`bleu` by prompt and level above the lowest, and `change` of the mean ID of the middle layers from that."""
    dimension = frames.middle(results.observables["intrinsic_dimension"])
    found = results.observables[["bleu"]].assign(change=dimension - dimension.isel(shuffle_level=0, drop=True))
    return found.where(found["change"].notnull()).isel(shuffle_level=slice(1, None))


def severity(results: RunResults) -> pd.DataFrame:
    """`severities` of each model, scale, level and prompt, and means over prompts, which all rows of a level have.

    Columns `model_title`, `scale`, `shuffle_level`, `prompt`, `bleu`, `change`, `mean_bleu`, and `mean`, `low`,
    `high`, `n_prompts` of `intervals.mean_interval` of the change."""
    found = severities(results)
    means = intervals.mean_interval(found["change"])[["mean", "low", "high", "n_prompts"]]
    frame = found.assign(means.assign(mean_bleu=found["bleu"].mean("prompt"))).to_dataframe().reset_index()
    return frame.dropna(subset="bleu").drop(columns="model").round(4)


def angles(results: RunResults) -> pd.DataFrame:
    """Distribution of the neighbor angle, mean over prompts.

    Columns `model_title`, `layer`, `angle` (center of the bin), and `S = 0` … with the share of the tokens at
    each shuffle level; one row per bin that is not empty."""
    shares = results.shuffled["neighbor_angle_histogram"].sel(layer=frames.FROM_ONE).mean("prompt")
    levels = shares["shuffle_level"].values
    columns = {f"S = {level}": shares.sel(shuffle_level=level, drop=True) for level in levels}
    frame = xr.Dataset(columns).to_dataframe().reset_index().round(dict.fromkeys(columns, 4))
    return frame[(frame[[*columns]] > 0).any(axis=1)][["model_title", "layer", "angle", *columns]]
