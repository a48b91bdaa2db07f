"""The calibration of a run, as the chapter on validation reads it, and its frames."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.observables import catalog
from token_geometry.runs import declaration, results

LIMITS = {"intrinsic dimension": 1e-4, "error": 1e-4}
"""Largest relative difference to DADApy that this project allows itself."""

N_ERRORS = 3
"""Error bars within which an estimate counts as right."""

SMALL = 5
"""Dimensions up to which the estimate is expected to be right at scale 2."""

OBSERVABLES = catalog.selections(
    ("intrinsic_dimension", 2),
    ("intrinsic_dimension", 64),
    ("neighborhood_overlap", 2),
    ("cosine_similarity", None),
)
"""The observables that are compared between precisions: title → variable, selection."""


@dataclass(frozen=True)
class CalibrationResults:
    """A run and its calibration."""

    run: declaration.Run
    """What was declared."""

    dataset: xr.Dataset | None
    """What was computed; None where the run declares no calibration."""


def open_results(run: str = "") -> CalibrationResults:
    """Open the calibration of a run.

    Parameters
    ----------
    run
        Name of a run; empty for that of the active Quarto profile.

    Raises
    ------
    InputError
        If there is no such run, or it declares a calibration that is missing or stale.
    """
    declared = declaration.load(run)
    return CalibrationResults(declared, results.read(declared, "calibration"))


def manifold_frame(results: CalibrationResults) -> pd.DataFrame:
    """Mean over samples of the ID of each manifold, with error bars.

    Returns
    -------
    pandas.DataFrame
        Columns `title`, `dimension`, `scale`, `estimate` (mean over samples), `error` (mean of the
        error of one sample), `low` and `high` (three errors around the estimate), `within` and
        `n_samples` (samples within three of their own errors of the true dimension, and all), and, at
        scale 2, `expected` and `as_expected` (dimension that the estimator has for so many points, and
        samples within three errors of that).
    """
    columns = ["title", "dimension", "scale", "estimate", "error", "low", "high", "within", "n_samples"]
    columns += ["expected", "as_expected"]
    if results.dataset is None:
        return pd.DataFrame(columns=columns)
    estimate, error = results.dataset["manifold_id"], results.dataset["manifold_id_error"]
    means = xr.Dataset(
        {
            "estimate": estimate.mean("replicate"),
            "error": error.mean("replicate"),
            "within": is_within(results.dataset).sum("replicate"),
            "n_samples": estimate.count("replicate"),
            "expected": results.dataset["manifold_id_expected"].where(estimate.scale == 2),
            "as_expected": is_as_expected(results.dataset).sum("replicate"),
        }
    )
    frame = means.to_dataframe().reset_index().rename(columns={"manifold_title": "title"})
    frame = frame.dropna(subset="estimate")
    frame["low"] = frame["estimate"] - N_ERRORS * frame["error"]
    frame["high"] = frame["estimate"] + N_ERRORS * frame["error"]
    return frame[columns].round(4)


def is_as_expected(dataset: xr.Dataset) -> xr.DataArray:
    """Whether each sample is within three of its error bars of what the estimator has for so many points."""
    deviation = abs(dataset["manifold_id"] - dataset["manifold_id_expected"])
    return deviation <= N_ERRORS * dataset["manifold_id_error"]


def is_within(dataset: xr.Dataset) -> xr.DataArray:
    """Whether each sample of a manifold is within three of its error bars of the true dimension."""
    deviation = abs(dataset["manifold_id"] - dataset["dimension"])
    return deviation <= N_ERRORS * dataset["manifold_id_error"]


def differences(results: CalibrationResults) -> xr.Dataset:
    """Differences to DADApy and to brute force.

    Returns
    -------
    xarray.Dataset
        `intrinsic dimension` and `error` (relative) over prompt, layer and scale;
        `neighborhood_overlap` and `cosine_similarity` (absolute).
    """
    ours, dataset = results.dataset.sel(precision="float32"), results.dataset
    found = {
        title: abs(ours[name] / dataset[f"reference_{name}"] - 1)
        for title, name in zip(LIMITS, ["intrinsic_dimension", "intrinsic_dimension_error"], strict=True)
    }
    for name in ("neighborhood_overlap", "cosine_similarity"):
        found[name] = abs(ours[name] - dataset[f"reference_{name}"])
    return xr.Dataset(found)


def difference_frame(results: CalibrationResults) -> pd.DataFrame:
    """Largest relative difference to DADApy over the prompts.

    Returns
    -------
    pandas.DataFrame
        Columns `quantity`, `layer`, `scale`, `difference`, `limit`; a difference below the rounding
        of float64 is put there, since a logarithmic axis has no zero.
    """
    columns = ["quantity", "layer", "scale", "difference", "limit"]
    if results.dataset is None:
        return pd.DataFrame(columns=columns)
    largest = differences(results)[list(LIMITS)].max("prompt").to_array("quantity", name="difference")
    frame = largest.to_dataframe().reset_index().dropna(subset="difference")
    frame["limit"] = frame["quantity"].map(LIMITS)
    frame["difference"] = frame["difference"].clip(lower=np.finfo(np.float64).eps / 2)
    return frame[columns]


def precision_frame(results: CalibrationResults) -> pd.DataFrame:
    """Mean over prompts of some observables in every precision, and what changes with it.

    Returns
    -------
    pandas.DataFrame
        Columns `observable`, `title`, `layer`, `value`, `change` (to the first precision) and
        `error` (of one estimate of the ID in the first precision, else zero).
    """
    columns = ["observable", "title", "layer", "value", "change", "error"]
    if results.dataset is None:
        return pd.DataFrame(columns=columns)
    frames = []
    for observable, (name, at) in OBSERVABLES.items():
        values = results.dataset[name].sel(at).mean("prompt")
        parts = xr.Dataset({"value": values, "change": values - values.isel(precision=0, drop=True)})
        parts["error"] = xr.zeros_like(parts["value"])
        if name == "intrinsic_dimension":
            error = results.dataset["intrinsic_dimension_error"].sel(at).mean("prompt")
            parts["error"] = error.isel(precision=0, drop=True).broadcast_like(parts["value"])
        frame = parts.to_dataframe().reset_index().dropna(subset="value")
        frames.append(frame.assign(observable=observable, title=frame["precision_title"]))
    return pd.concat(frames)[columns].round(6)
