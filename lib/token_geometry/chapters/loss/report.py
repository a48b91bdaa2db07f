"""Geometry and loss: correlations of a run as tidy frames, and the sentences, table and alt texts on them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import sentences
from token_geometry.chapters.frames import Results, middle_layers
from token_geometry.stats import statistics

SCALE = 4
"""Scale at which the chapter looks, as the published correlation does."""

LOGIT_SCALES = [2, 4, 8]
"""Scales of the cloud of logits."""

RATE = 0.05
"""Share of false discoveries that is accepted."""

POOLED, WITHIN = "all levels", "all levels, their means removed"
"""Names of the correlations over all shuffle levels."""

_METHODS = {"pearson": "Pearson", "spearman": "Spearman"}
_NEIGHBORS = (2, 16)


def scale(results: Results) -> int:
    """`SCALE`, or the largest scale that has data where prompts are too short for it."""
    return min(SCALE, results.reference_scale)


def _structured(results: Results) -> xr.Dataset:
    return results.structured.isel(shuffle_level=0, drop=True)


def _dimension(results: Results) -> xr.DataArray:
    return _structured(results)["intrinsic_dimension"].sel(layer=slice(1, None))


def _quantities(results: Results) -> dict[str, xr.DataArray]:
    """What the chapter sets against the loss, each over model, prompt and layer."""
    dataset = _structured(results)
    overlap = dataset["neighborhood_overlap"].sel(layer=slice(1, None))
    dimension = _dimension(results).sel(scale=scale(results), drop=True)
    named = {f"ID, scale {scale(results)}": dimension}
    named |= {f"NO, k = {k}": overlap.sel(k=k, drop=True) for k in _NEIGHBORS}
    return named | {"cosine similarity": dataset["cosine_similarity"], "neighbor angle": dataset["neighbor_angle"]}


def correlate(values: xr.DataArray, loss: xr.DataArray, **options) -> xr.Dataset:
    """As `statistics.correlate`, with `q_value`: all layers and scales of a model are one family of tests."""
    found = statistics.correlate(values, loss, **options)
    family = [name for name in found["p_value"].dims if name != "model"]
    found["q_value"] = statistics.false_discovery(found["p_value"], over=family) if family else found["p_value"]
    return found


def _tidy(found: xr.Dataset, **labels: str) -> pd.DataFrame:
    frame = found.to_dataframe().reset_index().dropna(subset=["correlation"])
    numbers = ["correlation", "low", "high", "q_value"]
    frame[numbers] = frame[numbers].round(4)
    # NaN, where nothing was tested, is no discovery
    frame["discovered"] = np.where(frame["q_value"] <= RATE, "yes", "no")
    kept = ["model_title", "layer", "scale", *numbers, "discovered", "n_prompts"]
    return frame[[name for name in kept if name in frame]].assign(**labels)


def dimension_frame(results: Results) -> pd.DataFrame:
    """Correlation of ID and log ID with the loss over layers and scales.

    Returns
    -------
    pandas.DataFrame
        Columns `model_title`, `layer`, `scale`, `measure`, `correlation`, `low`, `high`, `q_value`, `discovered`,
        `n_prompts`; no rows for less than three prompts.
    """
    dimension, loss = _dimension(results), _structured(results)["loss"]
    measures = {
        "Pearson, ID": (dimension, "pearson"),
        "Pearson, log ID": (np.log(dimension), "pearson"),
        "Spearman": (dimension, "spearman"),
    }
    return pd.concat(
        [_tidy(correlate(x, loss, method=method), measure=name) for name, (x, method) in measures.items()],
        ignore_index=True,
    )


def quantity_frame(results: Results) -> pd.DataFrame:
    """Correlation of NO, cosine similarity and neighbor angle with the loss over layers, by both methods.

    Columns as of `dimension_frame`, `quantity` and `method` in the place of `scale` and `measure`.
    """
    loss = _structured(results)["loss"]
    chosen = {name: values for name, values in _quantities(results).items() if not name.startswith("ID")}
    return pd.concat(
        [
            _tidy(correlate(values, loss, method=method), quantity=name, method=title)
            for method, title in _METHODS.items()
            for name, values in chosen.items()
        ],
        ignore_index=True,
    )


def partial_frame(results: Results) -> pd.DataFrame:
    """Correlation of the ID with the loss, and the same at fixed cosine similarity of the layer.

    Columns as of `dimension_frame`, without `scale`.
    """
    dataset = _structured(results)
    dimension = _dimension(results).sel(scale=scale(results), drop=True)
    plain = correlate(dimension, dataset["loss"])
    partial = correlate(
        dimension, dataset["loss"], given=dataset["cosine_similarity"].sel(layer=dimension["layer"])
    )
    parts = [_tidy(plain, measure="as it is"), _tidy(partial, measure="at fixed cosine similarity")]
    return pd.concat(parts, ignore_index=True)


def level_frame(results: Results) -> pd.DataFrame:
    """Correlation of the ID with the loss within each shuffle level, and over all of them.

    Of the prompts that were run at every level. `measure` names the level; `POOLED` takes a prompt at
    each level as an observation, and `WITHIN` does so with the differences from the mean of the level.

    Columns as of `dimension_frame`, without `scale`.
    """
    dimension, loss = _by_level(results)
    parts = []
    for level in dimension["shuffle_level"].values:
        pair = (values.sel(shuffle_level=level, drop=True) for values in (dimension, loss))
        parts.append(_tidy(correlate(*pair), measure=f"S = {level}"))
    if dimension.sizes["shuffle_level"] > 1:
        parts.append(_tidy(_pooled(dimension, loss), measure=POOLED))
        parts.append(_tidy(_pooled(_centered(dimension), _centered(loss)), measure=WITHIN))
    return pd.concat(parts, ignore_index=True)


def _by_level(results: Results) -> tuple[xr.DataArray, xr.DataArray]:
    dimension = results.shuffled["intrinsic_dimension"].sel(scale=scale(results), layer=slice(1, None), drop=True)
    return dimension, results.shuffled["loss"]


def _centered(values: xr.DataArray) -> xr.DataArray:
    return values - values.mean("prompt")


def _pooled(x: xr.DataArray, y: xr.DataArray) -> xr.Dataset:
    return correlate(x, y, pool="shuffle_level")


def scatter_frame(results: Results) -> pd.DataFrame:
    """ID and loss of every structured prompt, at the layer where they correlate most in each model.

    Columns `model_title`, `panel` (model and layer), `prompt`, `layer`, `intrinsic_dimension`, `loss`.
    """
    dimension, loss = _dimension(results).sel(scale=scale(results), drop=True), _structured(results)["loss"]
    rows = []
    for model, title, layer in _strongest(statistics.correlate(dimension, loss, n_resamples=1)["correlation"]):
        both = xr.Dataset(
            {"intrinsic_dimension": dimension.sel(model=model, layer=layer), "loss": loss.sel(model=model)}
        )
        frame = both.to_dataframe().reset_index().dropna(subset=["intrinsic_dimension", "loss"])
        rows.append(frame.assign(model_title=title, layer=layer, panel=f"{title}, layer {layer}"))
    columns = ["model_title", "panel", "prompt", "layer", "intrinsic_dimension", "loss"]
    return pd.concat(rows, ignore_index=True)[columns].round(4) if rows else pd.DataFrame(columns=columns)


def logit_frame(results: Results) -> pd.DataFrame:
    """ID of the logits' cloud, entropy and loss of every structured prompt.

    Columns `model_title`, `prompt`, `scale`, `logit_intrinsic_dimension`, `entropy`, `loss`.
    """
    dataset = _structured(results)
    chosen = dataset[["logit_intrinsic_dimension", "entropy", "loss"]].sel(scale=LOGIT_SCALES)
    frame = chosen.to_dataframe().reset_index().dropna(subset=["logit_intrinsic_dimension", "entropy", "loss"])
    return frame[["model_title", "prompt", "scale", "logit_intrinsic_dimension", "entropy", "loss"]].round(4)


def _strongest(correlation: xr.DataArray) -> list[tuple[str, str, int]]:
    """Model, title and layer of the correlation that is largest in absolute value, where there is one."""
    found = []
    for model in correlation["model"].values:
        values = correlation.sel(model=model)
        if bool(values.notnull().any()):
            layer = int(abs(values).idxmax("layer"))
            found.append((str(model), str(values["model_title"].item()), layer))
    return found


# Sentences


def basis(results: Results) -> Markdown:
    """What the correlations rest on, and what the run is too small for."""
    n_structured = _n_prompts(_structured(results)["loss"])
    levels = results.observables["shuffle_level"].values
    n_all = results.shuffled.sizes["prompt"]
    lines = [f"The run has {_count(n_structured, 'structured prompt')}. {_enough(n_structured)}"]
    if len(levels) > 1:
        lines.append(f"At all {len(levels)} shuffle levels it has {_count(n_all, 'prompt')}. {_enough(n_all)}")
    else:
        lines.append("It has one shuffle level only: what shuffling adds to a correlation is not part of it.")
    return Markdown(" ".join(lines))


def _n_prompts(loss: xr.DataArray) -> int:
    return int(loss.notnull().any("model").sum())


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _enough(n_prompts: int) -> str:
    if n_prompts < 3:
        return "A correlation needs three: the figures that follow from them are empty."
    if n_prompts < statistics.FEWEST_PROMPTS:
        return f"Their correlations get no interval, for which {statistics.FEWEST_PROMPTS} are needed."
    return f"Intervals are at {statistics.CONFIDENCE:.0%} confidence."


def middle(results: Results) -> Markdown:
    """For each model: how the mean ID of the middle layers correlates with the loss."""
    return _of_each_model(results, _middle_line)


def _middle_line(results: Results, model: str, title: str) -> str:
    layers = middle_layers(results.observables, model)
    near, far = scale(results), results.reference_scale
    found = {s: _of_middle(results, model, s) for s in (near, far)}
    curve = statistics.correlate(
        _dimension(results).sel(model=model, scale=near, layer=layers),
        _structured(results)["loss"].sel(model=model),
        n_resamples=1,
    )["correlation"]
    if bool(curve.isnull().all()):
        return f"{title}: too few prompts for a correlation."
    line = (
        f"{title}: in layers {layers.start} to {layers.stop} the ID at scale {near} correlates with the loss with "
        f"$r$ from {_number(curve.min())} to {_number(curve.max())}; its mean over these layers does so with "
        f"{_spell(found[near])}, {_verdict(found[near])}."
    )
    if far != near:
        line += f" At scale {far} the mean has {_spell(found[far])}, {_verdict(found[far])}."
    return line


def _of_middle(results: Results, model: str, at: int) -> xr.Dataset:
    layers = middle_layers(results.observables, model)
    mean = _dimension(results).sel(model=model, scale=at, layer=layers).mean("layer")
    return statistics.correlate(mean, _structured(results)["loss"].sel(model=model))


def _number(value) -> str:
    return f"{float(value):.2f}".replace("-", "−")


def _spell(found: xr.Dataset, symbol: str = "$r$") -> str:
    """A correlation and its interval."""
    text = f"{symbol} = {_number(found['correlation'])}"
    if np.isfinite(found["low"]):
        return f"{text} [{_number(found['low'])}, {_number(found['high'])}]"
    return f"{text} (no interval from {_count(int(found['n_prompts']), 'prompt')})"


def _verdict(found: xr.Dataset) -> str:
    low, high = float(found["low"]), float(found["high"])
    if np.isnan(low):
        return "which decides nothing"
    if low > 0:
        return "a positive correlation"
    return "a negative correlation" if high < 0 else "an interval that includes zero"


def _of_each_model(results: Results, line: Callable[[Results, str, str], str]) -> Markdown:
    return sentences.bullets(line(results, model, title) for model, title in results.models)


def strongest_table(results: Results) -> Markdown:
    """Table: where each quantity correlates most with the loss, and in how many layers it does."""
    loss = _structured(results)["loss"]
    rows = []
    for name, values in _quantities(results).items():
        found = correlate(values, loss)
        ranks = statistics.correlate(values, loss, method="spearman", n_resamples=1)["correlation"]
        for model, title, layer in _strongest(found["correlation"]):
            here = found.sel(model=model, layer=layer)
            tested = found["p_value"].sel(model=model).notnull()
            rows.append(
                {
                    "model": title,
                    "quantity": name,
                    "layer": layer,
                    "Pearson": _spell(here, "").removeprefix(" = "),
                    "Spearman": _number(ranks.sel(model=model, layer=layer)),
                    "q": f"{float(here['q_value']):.2g}",
                    f"layers with q ≤ {RATE}": f"{int((found['q_value'].sel(model=model) <= RATE).sum())} of "
                    f"{int(tested.sum())}",
                }
            )
    if not rows:
        return Markdown("No correlation can be taken from so few prompts.")
    rows.sort(key=lambda row: results.titles.index(row["model"]))
    return sentences.table(pd.DataFrame(rows))


def levels(results: Results) -> Markdown:
    """For each model: the correlation over all shuffle levels, of their means, and within them."""
    if results.observables.sizes["shuffle_level"] == 1:
        return Markdown("The run has one shuffle level only, so there is nothing to pool.")
    return _of_each_model(results, _levels_line)


def _levels_line(results: Results, model: str, title: str) -> str:
    dimension, loss = (values.sel(model=model) for values in _by_level(results))
    layers = middle_layers(results.observables, model)
    dimension = dimension.sel(layer=layers).mean("layer")
    pooled, within = _pooled(dimension, loss), _pooled(_centered(dimension), _centered(loss))
    if not np.isfinite(pooled["correlation"]):
        return f"{title}: too few prompts were run at all levels."
    means = statistics.correlate(
        *(values.mean("prompt").rename(shuffle_level="prompt") for values in (dimension, loss))
    )
    single = statistics.correlate(dimension, loss, n_resamples=1)["correlation"]
    return (
        f"{title}: over all levels, the mean ID of layers {layers.start} to {layers.stop} correlates with the "
        f"loss with {_spell(pooled)}. The {int(means['n_prompts'])} means of the levels alone have $r$ = "
        f"{_number(means['correlation'])}; taken away, they leave {_spell(within)}. Within single levels $r$ goes "
        f"from {_number(single.min())} to {_number(single.max())}."
    )


def partial(results: Results) -> Markdown:
    """For each model: the strongest correlation of the ID, and what is left of it at fixed cosine similarity."""
    return _of_each_model(results, _partial_line)


def _partial_line(results: Results, model: str, title: str) -> str:
    frame = partial_frame(results).query("model_title == @title")
    plain, fixed = (
        frame[frame["measure"] == name].set_index("layer") for name in ("as it is", "at fixed cosine similarity")
    )
    if fixed.empty:
        return f"{title}: too few prompts for a partial correlation."
    layer = int(plain["correlation"].abs().idxmax())
    n_plain, n_fixed = (int((part["low"] > 0).sum()) for part in (plain, fixed))
    rows = [xr.Dataset.from_dataframe(part.loc[[layer]]).squeeze() for part in (plain, fixed)]
    return (
        f"{title}: in layer {layer}, where the correlation is strongest, it goes from {_spell(rows[0])} to "
        f"{_spell(rows[1])} when the cosine similarity is held fixed. The interval is above zero in {n_plain} of "
        f"{len(plain)} layers without, and in {n_fixed} with the cosine similarity held fixed."
    )


def logits(results: Results) -> Markdown:
    """For each model: ID of the logits against entropy, and entropy against loss."""
    return _of_each_model(results, _logits_line)


def _logits_line(results: Results, model: str, title: str) -> str:
    dataset = _structured(results).sel(model=model)
    entropy = statistics.correlate(dataset["entropy"], dataset["loss"])
    if not np.isfinite(entropy["correlation"]):
        return f"{title}: too few prompts for a correlation."
    dimension = dataset["logit_intrinsic_dimension"].sel(scale=LOGIT_SCALES)
    found = statistics.correlate(dimension, dataset["entropy"])
    each = [
        f"{_spell(found.sel(scale=s))} at scale {s}"
        for s in LOGIT_SCALES
        if np.isfinite(found.sel(scale=s).correlation)
    ]
    of_loss = statistics.correlate(dimension.sel(scale=scale(results)), dataset["loss"])
    return (
        f"{title}: the ID of the logits correlates with the entropy with {', '.join(each)}, and with the loss "
        f"with {_spell(of_loss)} at scale {scale(results)}; the entropy with the loss with {_spell(entropy)}. "
        f"The mean entropy is {_number(dataset['entropy'].mean())} nats, "
        f"the mean loss {_number(dataset['loss'].mean())}."
    )


# Alt texts


def describe(results: Results, chart: str, frame: pd.DataFrame, *, measure: str | None = None) -> str:
    """Alt text of curves of a correlation over layers, with the strongest of each model.

    Parameters
    ----------
    chart
        Chart type and axes.
    frame
        Of the chart.
    measure
        Value of `measure` or `quantity` that is looked at; by default all.
    """
    named = next((name for name in ("measure", "quantity") if name in frame), None)
    kept = frame if measure is None else frame[frame[named] == measure]
    if "scale" in kept:
        kept = kept[kept["scale"] == scale(results)]
    findings = []
    for title, part in kept.groupby("model_title", sort=False):
        row = part.loc[part["correlation"].abs().idxmax()]
        what = f" ({row[named]})" if named and measure is None else ""
        findings.append(
            f"in {title} it is strongest in layer {row['layer']}{what}, with r = {_number(row['correlation'])}"
        )
    return f"{chart}; " + ("; ".join(findings) or "no data") + "."


def describe_scatter(frame: pd.DataFrame, x: str, y: str, what: str) -> str:
    """Alt text of a scatter plot of prompts, with the correlation of each model."""
    findings = [
        f"{title}: r = {_number(np.corrcoef(part[x], part[y])[0, 1])}"
        for title, part in frame.groupby("model_title", sort=False)
        if len(part) > 2
    ]
    return f"Scatter plot, one point a prompt: {what}; " + ("; ".join(findings) or "too few prompts") + "."
