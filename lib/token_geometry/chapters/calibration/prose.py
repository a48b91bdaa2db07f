"""What the chapter on validation says: sentences, a table, alt texts."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import markup, numbers
from token_geometry.chapters.calibration import frames
from token_geometry.chapters.calibration.frames import N_ERRORS, SMALL, CalibrationResults, is_within
from token_geometry.chapters.numbers import Number
from token_geometry.geometry import manifolds


def basis(results: CalibrationResults) -> Markdown:
    """What the calibration was made from."""
    dataset, given = results.dataset, results.dataset.attrs
    samples = f"{dataset.sizes['replicate']} samples of {given['n_points']} points of each of"
    kinds = f"{dataset.sizes['manifold']} kinds of manifolds in dimensions {numbers.span(dataset['dimension'])}"
    prompts = f"{numbers.count(dataset.sizes['prompt'], 'prompt')} of {given['n_tokens']} tokens of the corpus"
    name, corpus, model = map(markup.escaped, (results.run.name, given["corpus"], given["model_title"]))
    return Markdown(f"Run {name}: {samples} {kinds}; {prompts} {corpus}, read by {model}.")


def counts(results: CalibrationResults) -> Markdown:
    """Table: estimate at scale 2 by kind and dimension, below it what is expected, and the samples within."""
    rows = []
    for title, part in frames.manifold_frame(results).query("scale == 2").groupby("title", sort=False):
        for label, value, within in ((title, "estimate", "within"), ("expected", "expected", "as_expected")):
            cells = zip(part["dimension"], part[value], part[within], part["n_samples"], strict=True)
            rows.append({"manifold": label} | {str(d): f"{mean:.1f} ({k}/{n})" for d, mean, k, n in cells})
    return markup.table(pd.DataFrame(rows))


@markup.listed
def local(results: CalibrationResults) -> Iterator[str]:
    """What each estimator finds of the true dimension, on average over the samples without noise."""
    plain = _plain(results)
    found = {f"GRIDE at scale {n}": plain["manifold_id"].sel(scale=n) for n in (2, 16)}
    found |= {"ESS": plain["manifold_ess"], "TLE": plain["manifold_tle"]}
    for side, kept in ((f"up to {SMALL}", plain.dimension <= SMALL), (f"above {SMALL}", plain.dimension > SMALL)):
        if kept.any():
            shares = {name: Number((ids / plain.dimension).where(kept).mean()) for name, ids in found.items()}
            said = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
            yield f"Samples of dimension {side} without noise: of the true dimension the estimators find {said}."


@markup.listed
def within_bars(results: CalibrationResults) -> Iterator[str]:
    """How many samples are within three error bars at scale 2, and the bias where they are not."""
    dataset, at = results.dataset.sel(scale=2), _plain(results).sel(scale=2)
    right = is_within(at, "dimension")
    low, high = (right.where(side, drop=True) for side in (at.dimension <= SMALL, at.dimension > SMALL))
    if low.size:
        which = f"samples of dimension at most {SMALL} without noise"
        yield f"At scale 2, {int(low.sum())} of {low.size} {which} are within {N_ERRORS} error bars of the truth."
    if high.size:
        highest = int(at.dimension.max())
        bias = at["manifold_id"].sel(dimension=highest).mean("replicate") / highest - 1
        spelled = ", ".join(f"{family.manifold_title.item()} {Number(family):+.0%}" for family in bias)
        above = f"Above, {int(high.sum())} of {high.size} are."
        yield f"{above} At dimension {highest} the estimate is off by: {spelled}."
    every = is_within(dataset, "manifold_id_expected")
    which = f"Of all {every.size} samples, of every dimension and with noise, {int(every.sum())}"
    value = f"the value that the estimator has for {dataset.attrs['n_points']} points"
    yield f"{which} are within {N_ERRORS} error bars of {value}."


@markup.listed
def bias(results: CalibrationResults) -> Iterator[str]:
    """Whether the bias has one sign for all kinds of manifolds, and how far apart two of one dimension can be."""
    mean = _plain(results)["manifold_id"].mean("replicate").swap_dims(manifold="manifold_title")
    for scale in (2, 64):
        at = mean.sel(scale=scale).dropna("dimension")
        if at.size:
            n_same = int((abs(np.sign(at - at.dimension).mean("manifold_title")) == 1).sum())
            widest = at.isel(dimension=int(at.std("manifold_title").argmax("dimension")))
            both = widest[np.argsort(widest.values)[[0, -1]]]
            ends = " and ".join(f"{float(value):.1f} ({value.manifold_title.item()})" for value in both)
            alike = f"has one sign in {n_same} of {at.dimension.size} dimensions"
            most = f"Clouds of dimension {int(widest.dimension)} differ most: {ends}."
            yield f"At scale {scale}, the bias of all kinds without noise {alike}. {most}"


def _plain(results: CalibrationResults) -> xr.Dataset:
    """What was found of the manifolds without noise."""
    return results.dataset.sel(manifold=[name for name, family in manifolds.FAMILIES.items() if not family.noisy])


@markup.listed
def scale_findings(results: CalibrationResults) -> Iterator[str]:
    """What the scale does to the ID of the roll and of the noisy torus."""
    estimates, dimensions = results.dataset["manifold_id"], results.dataset["dimension"].values
    dimension = 2 if 2 in dimensions else int(dimensions.min())
    for name in ("torus", "noisy_torus", "roll"):
        curve = estimates.sel(manifold=name, dimension=dimension).mean("replicate").dropna("scale")
        title = curve.manifold_title.item()
        ends = " and ".join(f"{float(end):.2f} at scale {int(end.scale)}" for end in (curve[0], curve[-1]))
        extremes = (curve.isel(scale=int(place)) for place in (curve.argmin("scale"), curve.argmax("scale")))
        between = " and ".join(f"{float(value):.2f} (scale {int(value.scale)})" for value in extremes)
        yield f"{title[0].upper()}{title[1:]} of dimension {dimension}: {ends}, between {between}."


@markup.listed
def agreement(results: CalibrationResults) -> Iterator[str]:
    """Largest differences to DADApy and to brute force."""
    found = frames.differences(results)
    if missing_dadapy := results.dataset.attrs.get("dadapy_missing"):
        yield f"The comparison with DADApy was not run where this was computed. {markup.escaped(missing_dadapy)}."
    for title, limit in () if missing_dadapy else frames.LIMITS.items():
        largest, number = float(found[title].max()), int(found[title].count())
        start = f"The {title} differs from DADApy's by at most {Number(largest):.0e} (relative) over {number}"
        kept = f"the limit of {Number(limit):.0e} is {'kept' if largest <= limit else 'broken'}"
        yield f"{start} combinations of prompt, layer and scale; {kept}."
    overlap, cosine = (Number(found[name].max()) for name in ("neighborhood_overlap", "cosine_similarity"))
    start = "The largest difference of the neighborhood overlap from a count of common neighbors is"
    other = f"that of the mean cosine similarity from the mean of all pairs {cosine:.0e}"
    yield f"{start} {overlap:.0e}, {other}."


def controls(results: CalibrationResults) -> Markdown:
    """Table: ID of the middle third of the layers over scales, and with some of the cloud left out."""
    found = results.dataset["controlled_dimension"].mean("prompt")
    third = (found.sizes["layer"] - 1) / 3
    mean = found.sel(layer=slice(third, 2 * third)).mean("layer").dropna("scale", how="all")
    spelled = mean.to_pandas().map(lambda value: f"{value:.1f}" if value > 0 else "–")
    return markup.table(spelled.reset_index(names="scale"))


@markup.listed
def precision_findings(results: CalibrationResults) -> Iterator[str]:
    """How far the observables move in every precision, in units and in error bars."""
    dataset = results.dataset.isel(layer=slice(1, None))
    change = dataset.isel(precision=slice(1, None)) - dataset.isel(precision=0, drop=True)
    size = abs(change).mean(["prompt", "layer"])
    in_errors = abs(change["intrinsic_dimension"]) / dataset["intrinsic_dimension_error"].isel(precision=0)
    in_errors = in_errors.mean(["prompt", "layer"])
    for precision in change["precision"].values:
        moved = []
        for observable, (name, at) in frames.OBSERVABLES.items():
            here = at | {"precision": precision}
            errors = f" ({Number(in_errors.sel(here)):.2g} error bars)" if name == "intrinsic_dimension" else ""
            moved.append(f"{observable} by {Number(size[name].sel(here)):.2g}{errors}")
        title = dataset["precision_title"].sel(precision=precision).item()
        loss = f"{Number(change['loss'].sel(precision=precision).mean()):+.3f} nats"
        rest = f"on average over prompts and layers, {', '.join(moved)}"
        yield f"With {title}, the mean loss changes by {loss}; {rest}."
