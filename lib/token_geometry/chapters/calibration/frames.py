"""The calibration of a run, as the chapter on validation reads it, and its frames."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.observables import catalog
from token_geometry.runs import declaration, results

LIMITS = {"intrinsic dimension": 1e-4, "error": 1e-4}  # largest relative differences to DADApy that are allowed
N_ERRORS = 3  # error bars within which an estimate counts as right
SMALL = 5  # dimensions up to which the estimate is expected to be right at scale 2

OBSERVABLES = catalog.selections(intrinsic_dimension=(2, 64), neighborhood_overlap=2, cosine_similarity=None)
"""The observables that are compared between precisions: title → variable, selection."""


@dataclass(frozen=True)
class CalibrationResults:
    """A run as it was declared, and its calibration."""

    run: declaration.Run
    dataset: xr.Dataset


def open_results(run: str = "") -> CalibrationResults:
    """Calibration of a run, by default of the active profile; `InputError` if there is none, or it is stale."""
    declared = declaration.load(run)
    return CalibrationResults(declared, results.open_results(declared.name, "calibration"))


def manifold_frame(results: CalibrationResults) -> pd.DataFrame:
    """Mean over samples of the ID of each manifold, with error bars.

    Columns `title`, `dimension`, `scale`, `estimate` (mean over samples), `error` (mean of that of a sample),
    `low` and `high` (three errors around the estimate), `within` and `n_samples` (samples within three of their
    errors of the true dimension, and all), and, at scale 2, `expected` and `as_expected` (dimension that the
    estimator has for so many points, and samples within three errors of that)."""
    dataset = results.dataset
    samples, expected = dataset["manifold_id"], "manifold_id_expected"
    estimate, error = samples.mean("replicate"), dataset["manifold_id_error"].mean("replicate")
    columns = {"estimate": estimate, "error": error}
    columns |= {"low": estimate - N_ERRORS * error, "high": estimate + N_ERRORS * error}
    n_within, n_expected = (is_within(dataset, of).sum("replicate") for of in ("dimension", expected))
    columns |= {"within": n_within, "n_samples": samples.count("replicate")}
    columns |= {"expected": dataset[expected].where(samples.scale == 2), "as_expected": n_expected}
    frame = xr.Dataset(columns).to_dataframe().reset_index().rename(columns={"manifold_title": "title"})
    return frame.dropna(subset="estimate")[["title", "dimension", "scale", *columns]].round(4)


def is_within(dataset: xr.Dataset, of: str) -> xr.DataArray:
    """Whether each sample of a manifold is within three of its error bars of the value of a variable."""
    return abs(dataset["manifold_id"] - dataset[of]) <= N_ERRORS * dataset["manifold_id_error"]


def differences(results: CalibrationResults) -> xr.Dataset:
    """Differences to DADApy (relative) and to brute force (absolute), over prompt, layer, and scale or k."""
    ours = results.dataset.sel(precision="float32")
    named = zip(LIMITS, ("intrinsic_dimension", "intrinsic_dimension_error"), strict=True)
    found = {title: abs(ours[name] / ours[f"reference_{name}"] - 1) for title, name in named}
    counted = ("neighborhood_overlap", "cosine_similarity")
    return xr.Dataset(found | {name: abs(ours[name] - ours[f"reference_{name}"]) for name in counted})


def difference_frame(results: CalibrationResults) -> pd.DataFrame:
    """Largest relative difference to DADApy over prompts, and at least the rounding of float64."""
    largest = differences(results)[list(LIMITS)].max("prompt").to_array("quantity", name="difference")
    largest = largest.clip(min=np.finfo(np.float64).eps / 2)
    frame = largest.to_dataframe().reset_index().dropna(subset="difference")
    return frame.assign(limit=frame["quantity"].map(LIMITS))[["quantity", "layer", "scale", "difference", "limit"]]


def precision_frame(results: CalibrationResults) -> pd.DataFrame:
    """Mean over prompts in every precision, its change from the first, and the error of an ID there."""
    frames = []
    for observable, (name, at) in OBSERVABLES.items():
        values = results.dataset[name].sel(at).mean("prompt")
        of_dimension = results.dataset["intrinsic_dimension_error"].mean("prompt")
        error = of_dimension.sel(at) if name == "intrinsic_dimension" else xr.zeros_like(values)
        first, error = (part.isel(precision=0, drop=True) for part in (values, error))
        parts = xr.Dataset({"value": values, "change": values - first, "error": error})
        frames.append(parts.to_dataframe().reset_index().dropna(subset="value").assign(observable=observable))
    columns = ["observable", "title", "layer", "value", "change", "error"]
    return pd.concat(frames).rename(columns={"precision_title": "title"})[columns].round(6)
