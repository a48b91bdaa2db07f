"""Correlations of a run with its loss as tidy frames."""

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.chapters.frames import FROM_ONE
from token_geometry.chapters.results import RunResults
from token_geometry.observables import catalog
from token_geometry.stats import correlation

SCALE = 4  # at which the chapter looks, as the published correlation does
LOGIT_SCALES = [2, 4, 8]  # scales of the cloud of logits
RATE = 0.05  # share of false discoveries that is accepted

# names of the correlations over all shuffle levels, of a partial one, and of those with what the layer predicts
POOLED, WITHIN = "all levels", "all levels, their means removed"
AS_IT_IS, AT_FIXED = "as it is", "at fixed cosine similarity"
LATENT, WITH_LOSS = "with latent entropy", "with the loss"
AT_FIXED_LATENT = "with the loss at fixed latent entropy"

_OTHERS = catalog.selections(neighborhood_overlap=(2, 16), cosine_similarity=None, neighbor_angle=None)


def scale(results: RunResults) -> int:
    """`SCALE`, or the largest scale that has data where prompts are too short for it."""
    return min(SCALE, results.reference_scale)


def dimensions(results: RunResults) -> xr.DataArray:
    """ID of structured prompts from layer 1 on, at all scales."""
    return results.structured["intrinsic_dimension"].sel(layer=FROM_ONE)


def quantities(results: RunResults) -> dict[str, xr.DataArray]:
    """What the chapter sets against the loss, each over model, prompt and layer."""
    chosen = catalog.selections(intrinsic_dimension=scale(results)) | _OTHERS
    # dimension and overlap say nothing of the embeddings, where equal tokens coincide
    kept = {title: (name, at | ({"layer": FROM_ONE} if at else {})) for title, (name, at) in chosen.items()}
    return {title: results.structured[name].sel(at, drop=True) for title, (name, at) in kept.items()}


def correlate(values: xr.DataArray, loss: xr.DataArray, **options) -> xr.Dataset:
    """As `correlation.correlate`, with `q_value`: all layers and scales of a model are one family of tests."""
    found = correlation.correlate(values, loss, **options)
    family = [name for name in found["p_value"].dims if name != "model"]
    found["q_value"] = correlation.false_discovery(found["p_value"], over=family) if family else found["p_value"]
    return found


def _curves(every: dict, column: str = "measure", **options) -> pd.DataFrame:
    """Correlations of two quantities at a third, or none, held fixed, with their names in a column."""
    parts = []
    for name, (x, y, *given) in every.items():
        found = correlate(x, y, given=given, **options).to_dataframe().reset_index()
        parts.append(found.dropna(subset="correlation").assign(**{column: name}))
    frame, numbers = pd.concat(parts, ignore_index=True), ["correlation", "low", "high", "q_value"]
    frame[numbers] = frame[numbers].round(4)
    # NaN, where nothing was tested, is no discovery
    frame["discovered"] = np.where(frame["q_value"] <= RATE, "yes", "no")
    kept = ["model_title", "layer", "scale", *numbers, "discovered", "n_prompts", column]
    return frame[[name for name in kept if name in frame]]


def dimension_frame(results: RunResults) -> pd.DataFrame:
    """Correlation of ID and log ID with the loss over layers and scales.

    Columns `model_title`, `layer`, `scale`, `measure`, `correlation`, `low`, `high`, `q_value`, `discovered`,
    `n_prompts`; no rows for less than three prompts."""
    dimension, loss = dimensions(results), results.structured["loss"]
    pearson = _curves({"Pearson, ID": (dimension, loss), "Pearson, log ID": (np.log(dimension), loss)})
    return pd.concat([pearson, _curves({"Spearman": (dimension, loss)}, method="spearman")], ignore_index=True)


def quantity_frame(results: RunResults, every: dict[str, xr.DataArray] | None = None) -> pd.DataFrame:
    """As of `dimension_frame`, of each `quantity`, by default all but the ID, by each `method`, at no scale."""
    loss, every = results.structured["loss"], every or {name: quantities(results)[name] for name in _OTHERS}
    pairs = {name: (values, loss) for name, values in every.items()}
    parts = [_curves(pairs, "quantity", method=m.lower()).assign(method=m) for m in ("Pearson", "Spearman")]
    return pd.concat(parts, ignore_index=True)


def partial_frame(results: RunResults) -> pd.DataFrame:
    """As of `dimension_frame` without `scale`, of the ID as it is and at fixed cosine similarity of the layer."""
    dimension, loss = dimensions(results).sel(scale=scale(results), drop=True), results.structured["loss"]
    cosine = results.structured["cosine_similarity"].sel(layer=FROM_ONE)
    return _curves({AS_IT_IS: (dimension, loss), AT_FIXED: (dimension, loss, cosine)})


def level_frame(results: RunResults) -> pd.DataFrame:
    """Correlation of the ID with the loss within each shuffle level, and over all of them.

    Of the prompts that were run at every level. `measure` names the level; `POOLED` takes a prompt at
    each level as an observation, and `WITHIN` does so with the differences from the mean of the level.
    Columns as of `dimension_frame`, without `scale`."""
    pair = by_level(results)
    levels = pair[0]["shuffle_level"].values
    single = {f"S = {s}": [values.sel(shuffle_level=s, drop=True) for values in pair] for s in levels}
    every = {POOLED: pair, WITHIN: [*map(centered, pair)]} if len(levels) > 1 else {}
    parts = [_curves(single), *([_curves(every, pool="shuffle_level")] if every else [])]
    return pd.concat(parts, ignore_index=True)


def by_level(results: RunResults) -> tuple[xr.DataArray, xr.DataArray]:
    """ID and loss of the prompts that were run at every shuffle level."""
    dimension = results.shuffled["intrinsic_dimension"].sel(scale=scale(results), layer=FROM_ONE, drop=True)
    return dimension, results.shuffled["loss"]


def centered(values: xr.DataArray) -> xr.DataArray:
    """Differences from the mean over prompts."""
    return values - values.mean("prompt")


def scatter_frame(results: RunResults) -> pd.DataFrame:
    """ID and loss of every structured prompt, at the layer where they correlate most in each model (`panel`)."""
    dimension, loss = dimensions(results).sel(scale=scale(results), drop=True), results.structured["loss"]
    columns, rows = ["model_title", "panel", "prompt", "layer", "intrinsic_dimension", "loss"], []
    for model, title, layer in strongest(correlation.correlate(dimension, loss, n_resamples=1)["correlation"]):
        both = {"intrinsic_dimension": dimension.sel(model=model, layer=layer), "loss": loss.sel(model=model)}
        frame = xr.Dataset(both).to_dataframe().reset_index().dropna(subset=[*both])
        rows.append(frame.assign(model_title=title, layer=layer, panel=f"{title}, layer {layer}"))
    return pd.concat(rows, ignore_index=True)[columns].round(4) if rows else pd.DataFrame(columns=columns)


def logit_frame(results: RunResults) -> pd.DataFrame:
    """Columns `model_title`, `prompt` (structured), `scale`, `logit_intrinsic_dimension`, `entropy`, `loss`."""
    names = ["logit_intrinsic_dimension", "entropy", "loss"]
    frame = results.structured[names].sel(scale=LOGIT_SCALES).to_dataframe().reset_index().dropna(subset=names)
    return frame[["model_title", "prompt", "scale", *names]].round(4)


def strongest(correlation: xr.DataArray) -> list[tuple[str, str, int]]:
    """Model, title and layer of the correlation that is largest in absolute value, where there is one."""
    layers = abs(correlation).idxmax("layer").dropna("model")
    titles = layers["model_title"].values.tolist()
    return list(zip(layers["model"].values.tolist(), titles, layers.values.astype(int).tolist(), strict=True))


def latent_frame(results: RunResults) -> pd.DataFrame:
    """As of `dimension_frame`, of the ID with latent entropy, and with the loss, also at fixed latent entropy."""
    dimension, loss = dimensions(results), results.structured["loss"]
    latent = results.structured["lens_entropy"].sel(layer=FROM_ONE)
    every: dict = {LATENT: (dimension, latent), WITH_LOSS: (dimension, loss)}
    return _curves(every | {AT_FIXED_LATENT: (dimension, loss, latent)})
