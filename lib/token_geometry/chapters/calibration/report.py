"""The calibration of a run, as the chapter on validation reads it: frames, sentences, alt texts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import sentences
from token_geometry.geometry import manifolds
from token_geometry.runs import declaration, results

LIMITS = {"intrinsic dimension": 1e-4, "error": 1e-4}
"""Largest relative difference to DADApy that this project allows itself."""

N_ERRORS = 3
"""Error bars within which an estimate counts as right."""

SMALL = 5
"""Dimensions up to which the estimate is expected to be right at scale 2."""

# Powers of ten are spelled without markup, since alt texts have none.
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_OBSERVABLES = {
    "ID at scale 2": ("intrinsic_dimension", {"scale": 2}),
    "ID at scale 64": ("intrinsic_dimension", {"scale": 64}),
    "neighborhood overlap, k = 2": ("neighborhood_overlap", {"k": 2}),
    "mean cosine similarity": ("cosine_similarity", {}),
}


@dataclass(frozen=True)
class Calibrated:
    """A run and its calibration."""

    run: declaration.Run
    """What was declared."""

    dataset: xr.Dataset | None
    """What was computed; None where the run declares no calibration."""


def open_results(run: str = "") -> Calibrated:
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
    return Calibrated(declared, results.read(declared, "calibration"))


def missing(results: Calibrated) -> str:
    """Why there is nothing to show."""
    return (
        f"Run {results.run.name} declares no calibration, so this chapter has no results: add the key "
        f"`calibration` to data/runs/{results.run.name}.yml."
    )


def manifold_frame(results: Calibrated) -> pd.DataFrame:
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


def differences(results: Calibrated) -> xr.Dataset:
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


def difference_frame(results: Calibrated) -> pd.DataFrame:
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


def precision_frame(results: Calibrated) -> pd.DataFrame:
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
    for observable, (name, at) in _OBSERVABLES.items():
        values = results.dataset[name].sel(at).mean("prompt")
        parts = xr.Dataset({"value": values, "change": values - values.isel(precision=0, drop=True)})
        parts["error"] = xr.zeros_like(parts["value"])
        if name == "intrinsic_dimension":
            error = results.dataset["intrinsic_dimension_error"].sel(at).mean("prompt")
            parts["error"] = error.isel(precision=0, drop=True).broadcast_like(parts["value"])
        frame = parts.to_dataframe().reset_index().dropna(subset="value")
        frames.append(frame.assign(observable=observable, title=frame["precision_title"]))
    return pd.concat(frames)[columns].round(6)


def basis(results: Calibrated) -> Markdown:
    """What the calibration was made from."""
    dataset = results.dataset
    if dataset is None:
        return Markdown(missing(results))
    dimensions, n_prompts = dataset["dimension"].values, dataset.sizes["prompt"]
    return Markdown(
        f"Run {results.run.name}: {dataset.sizes['replicate']} samples of {dataset.attrs['n_points']} points of "
        f"each of {dataset.sizes['manifold']} kinds of manifolds in dimensions {dimensions.min()} to "
        f"{dimensions.max()}; {n_prompts} prompt{'s' * (n_prompts > 1)} of {dataset.attrs['n_tokens']} tokens of "
        f"the corpus {dataset.attrs['corpus']}, read by {dataset.attrs['model_title']}."
    )


def counts(results: Calibrated) -> Markdown:
    """Table: estimate at scale 2 by kind and dimension, below it what is expected, and the samples within."""
    if results.dataset is None:
        return sentences.table(pd.DataFrame({"manifold": [missing(results)]}))
    frame = manifold_frame(results).query("scale == 2")
    rows = []
    for title, part in frame.groupby("title", sort=False):
        found, expected = {"manifold": title}, {"manifold": "expected"}
        for one in part.itertuples():
            found[f"{one.dimension}"] = f"{one.estimate:.1f} ({one.within}/{one.n_samples})"
            expected[f"{one.dimension}"] = f"{one.expected:.1f} ({one.as_expected}/{one.n_samples})"
        rows += [found, expected]
    return sentences.table(pd.DataFrame(rows))


def within_bars(results: Calibrated) -> Markdown:
    """How many samples are within three error bars at scale 2, and the bias where they are not."""
    if results.dataset is None:
        return Markdown(missing(results))
    at = results.dataset.sel(scale=2, manifold=_noiseless())
    right = is_within(at)
    low, high = (right.where(side, drop=True) for side in (at.dimension <= SMALL, at.dimension > SMALL))
    lines = []
    if low.size:
        lines.append(
            f"At scale 2, {int(low.sum())} of {low.size} samples of dimension at most {SMALL} without noise are "
            f"within {N_ERRORS} error bars of the truth."
        )
    if high.size:
        highest = int(at.dimension.max())
        bias = at["manifold_id"].sel(dimension=highest).mean("replicate") / highest - 1
        spelled = [f"{family.manifold_title.item()} {float(family):+.0%}" for family in bias]
        lines.append(
            f"Above, {int(high.sum())} of {high.size} are. At dimension {highest} the estimate is off by: "
            + ", ".join(spelled)
            + "."
        )
    every, n_points = is_as_expected(results.dataset.sel(scale=2)), results.dataset.attrs["n_points"]
    lines.append(
        f"Of all {every.size} samples, of every dimension and with noise, {int(every.sum())} are within "
        f"{N_ERRORS} error bars of the value that the estimator has for {n_points} points."
    )
    return sentences.bullets(lines)


def scale_findings(results: Calibrated) -> Markdown:
    """What the scale does to the ID of the roll and of the noisy torus."""
    dataset = results.dataset
    if dataset is None:
        return Markdown(missing(results))
    dimension = _shown_dimension(dataset)
    lines = []
    for name in ("torus", "noisy_torus", "roll"):
        curve = dataset["manifold_id"].sel(manifold=name, dimension=dimension).mean("replicate").dropna("scale")
        top, bottom = curve.idxmax("scale"), curve.idxmin("scale")
        lines.append(
            f"{_capital(curve.manifold_title.item())} of dimension {dimension}: {float(curve[0]):.2f} at scale "
            f"{int(curve.scale[0])} and {float(curve[-1]):.2f} at scale {int(curve.scale[-1])}, between "
            f"{float(curve.min()):.2f} (scale {int(bottom)}) and {float(curve.max()):.2f} (scale {int(top)})."
        )
    return sentences.bullets(lines)


def agreement(results: Calibrated) -> Markdown:
    """Largest differences to DADApy and to brute force."""
    if results.dataset is None:
        return Markdown(missing(results))
    found = differences(results)
    lines = []
    for title, limit in LIMITS.items():
        largest, number = float(found[title].max()), int(found[title].count())
        verdict = "kept" if largest <= limit else "broken"
        lines.append(
            f"The {title} differs from DADApy's by at most {_power(largest)} (relative) over {number} "
            f"combinations of prompt, layer and scale; the limit of {_power(limit)} is {verdict}."
        )
    overlap, cosine = (float(found[name].max()) for name in ("neighborhood_overlap", "cosine_similarity"))
    lines.append(
        f"The largest difference of the neighborhood overlap from a count of common neighbors is "
        f"{_power(overlap)}, that of the mean cosine similarity from the mean of all pairs {_power(cosine)}."
    )
    return sentences.bullets(lines)


def precision_findings(results: Calibrated) -> Markdown:
    """How far the observables move in every precision, in units and in error bars."""
    if results.dataset is None:
        return Markdown(missing(results))
    dataset = results.dataset.isel(layer=slice(1, None))
    change = dataset.isel(precision=slice(1, None)) - dataset.isel(precision=0, drop=True)
    size = abs(change).mean(["prompt", "layer"])
    in_errors = abs(change["intrinsic_dimension"]) / dataset["intrinsic_dimension_error"].isel(precision=0)
    in_errors = in_errors.mean(["prompt", "layer"])
    lines = []
    for precision in change["precision"].values:
        moved = []
        for observable, (name, at) in _OBSERVABLES.items():
            here = at | {"precision": precision}
            text = f"{observable} by {float(size[name].sel(here)):.2g}"
            if name == "intrinsic_dimension":
                text += f" ({float(in_errors.sel(here)):.2g} error bars)"
            moved.append(text)
        title = str(dataset["precision_title"].sel(precision=precision).item())
        loss = float(change["loss"].sel(precision=precision).mean())
        lines.append(
            f"With {title}, the mean loss changes by {loss:+.3f} nats; on average over prompts and layers, "
            + ", ".join(moved)
            + "."
        )
    return sentences.bullets(lines)


def describe_manifolds(results: Calibrated) -> str:
    """Alt text of the ID against the true dimension, with the finding."""
    start = (
        "Points with error bars, one panel a kind of manifold: estimated against true dimension, with the "
        "diagonal where they are equal"
    )
    return _describe(results, start, within_bars)


def describe_scales(results: Calibrated) -> str:
    """Alt text of the ID against scale, with the finding."""
    start = "Line chart: estimated dimension against scale on a logarithmic axis, one curve a manifold"
    return _describe(results, start, scale_findings)


def describe_differences(results: Calibrated) -> str:
    """Alt text of the differences to DADApy, with the finding."""
    start = (
        "Line chart in two panels, intrinsic dimension and its error: relative difference to DADApy on a "
        "logarithmic axis against layer, one curve a scale"
    )
    return _describe(results, start, agreement)


def describe_precisions(results: Calibrated) -> str:
    """Alt text of the observables by precision, with the finding."""
    start = (
        "Two line charts, one above the other: an observable against layer, one curve a precision; "
        "and its change from float32"
    )
    return _describe(results, start, precision_findings)


def _describe(results: Calibrated, start: str, finding) -> str:
    if results.dataset is None:
        return f"{start}."
    return f"{start}. {finding(results).data}".replace("\n- ", " ").replace(". - ", ". ")


def _noiseless() -> list[str]:
    return [name for name, family in manifolds.FAMILIES.items() if not family.noisy]


def _shown_dimension(dataset: xr.Dataset) -> int:
    dimensions = dataset["dimension"].values
    return 2 if 2 in dimensions else int(dimensions.min())


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _power(value: float) -> str:
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if mantissa == "1" else f"{mantissa} × {power}"
