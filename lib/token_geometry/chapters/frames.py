"""Results of a run, as chapters read them: datasets, tidy frames for charts, peaks."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.runs import declaration, results


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """Parameters of a chapter."""

    run: str = ""
    """Name of a run; empty for that of the active Quarto profile."""


@dataclass(frozen=True)
class Results:
    """A run and its observables."""

    run: declaration.Run
    """What was declared."""

    observables: xr.Dataset
    """What was computed; names as fixed for the observables dataset."""

    control: xr.Dataset | None = None
    """The same of the control models; None where the run declares none."""

    @property
    def titles(self) -> list[str]:
        """Titles of the models, in the order of the run."""
        return self.observables["model_title"].values.tolist()

    @property
    def models(self) -> list[tuple[str, str]]:
        """Name and title of each model, in the order of the run."""
        return list(zip(self.observables["model"].values.tolist(), self.titles, strict=True))

    def last_layer(self, model: str) -> int:
        """Index of a model's last layer, that is its number of blocks."""
        return int(self.observables["relative_depth"].sel(model=model).count()) - 1

    @property
    def structured(self) -> xr.Dataset:
        """All prompts in their own order (S = 0)."""
        return self.observables.sel(shuffle_level=[0])

    @cached_property
    def shuffled(self) -> xr.Dataset:
        """The prompts that were run at every shuffle level, by every model."""
        complete = self.observables["loss"].notnull().all(["model", "shuffle_level"])
        return self.observables.isel(prompt=complete.values)

    @property
    def reference_scale(self) -> int:
        """Scale 64, at which the whole course of the ID shows, or the largest one that has data."""
        present = self.observables["intrinsic_dimension"].notnull()
        scales = present.scale[present.any([d for d in present.dims if d != "scale"]).values].values
        return int(scales[scales <= 64].max())

    @property
    def halfway(self) -> int:
        """Layer in the middle of the shallowest model."""
        return int(self.observables["relative_depth"].count("layer").min() - 1) // 2

    @property
    def extremes(self) -> tuple[int, int]:
        """The lowest and highest shuffle level of the run."""
        levels = self.observables["shuffle_level"].values
        return int(levels.min()), int(levels.max())


def open_results(run: str = "") -> Results:
    """Open the results of a run.

    Parameters
    ----------
    run
        Name of a run; empty for that of the active Quarto profile.

    Raises
    ------
    InputError
        If there is no such run, or its results are missing or stale.
    """
    declared = declaration.load(run)
    return Results(
        run=declared, observables=results.read(declared, "observables"), control=results.read(declared, "control")
    )


def summary(variable: xr.DataArray) -> pd.DataFrame:
    """Mean and standard deviation over prompts as a tidy frame.

    Parameters
    ----------
    variable
        With dimension `prompt` and any others.

    Returns
    -------
    pandas.DataFrame
        One row a combination of the other dimensions that has data: their columns, `model_title` and
        `relative_depth` where they apply, `mean`, `std` (of the sample, n − 1), `low`, `high`, `n_prompts`.
    """
    count = variable.count("prompt")
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = xr.Dataset(
            {
                "mean": variable.mean("prompt"),
                "std": variable.std("prompt", ddof=1).where(count > 1, 0.0),
                "n_prompts": count,
            }
        )
    return tidy(parts)


def tidy(parts: xr.Dataset) -> pd.DataFrame:
    """Frame of `mean`, `std` and `n_prompts`, with the columns that `summary` returns."""
    frame = parts.to_dataframe().reset_index()
    frame = frame[frame["n_prompts"] > 0].copy()
    frame["low"] = frame["mean"] - frame["std"]
    frame["high"] = frame["mean"] + frame["std"]
    numbers = ["mean", "std", "low", "high", "relative_depth"]
    present = [column for column in numbers if column in frame]
    # the page carries these: five digits are more than a chart can show
    frame[present] = frame[present].round(5)
    return frame.drop(columns=[c for c in ("model",) if c in frame and "model_title" in frame])


def losses(results: Results) -> pd.DataFrame:
    """Loss of each prompt that was run at every shuffle level, as a tidy frame."""
    frame = results.shuffled["loss"].to_dataframe().reset_index()
    return frame[["model_title", "shuffle_level", "prompt", "loss"]].round(5)


def headline(results: Results) -> pd.DataFrame:
    """ID of the first model at the smallest and the reference scale, structured and shuffled."""
    dimension = results.shuffled["intrinsic_dimension"].isel(model=[0])
    chosen = dimension.sel(
        shuffle_level=list(dict.fromkeys(results.extremes)),
        scale=[2, results.reference_scale],
        layer=slice(1, None),
    )
    return summary(chosen)


@dataclass(frozen=True)
class Peak:
    """Where the mean over prompts of an observable is largest."""

    layer: int
    mean: float
    std: float


def peak(variable: xr.DataArray, *, layers: slice | None = None) -> Peak:
    """Layer at which the mean over prompts is largest.

    Parameters
    ----------
    variable
        Dimensions `prompt` and `layer`.
    layers
        Range of layers to look at; by default 1 … L, since the embeddings repeat tokens.
    """
    within = variable.sel(layer=layers or slice(1, None))
    mean = within.mean("prompt")
    layer = int(mean.idxmax("layer"))
    values = within.sel(layer=layer)
    std = float(values.std("prompt", ddof=1)) if values.sizes["prompt"] > 1 else 0.0
    return Peak(layer=layer, mean=float(mean.max()), std=std)


def middle_layers(dataset: xr.Dataset, model: str) -> slice:
    """Layers from a third to three quarters of a model's depth."""
    depth = dataset["relative_depth"].sel(model=model)
    inside = dataset["layer"].values[((depth >= 1 / 3) & (depth <= 3 / 4)).values]
    return slice(int(inside.min()), int(inside.max()))
