"""The chapter on published results: frames, tables, sentences and alt texts."""

import numpy as np
import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters import observable_frames, sentences
from token_geometry.chapters.frames import Results, summary
from token_geometry.chapters.published import arrays as published
from token_geometry.chapters.published import claims
from token_geometry.stats import statistics


def beside(results: Results) -> pd.DataFrame:
    """Published means and those of a run on the axis of relative depth, structured and fully shuffled.

    Returns
    -------
    pandas.DataFrame
        Columns `observable`, `order`, `model_title`, `side`, `relative_depth`, `layer`, `mean`, `std`.
    """
    parts = []
    for title, (variable, at) in observable_frames.OBSERVABLES.items():
        given = published.summary(variable)
        for column, value in at.items():
            given = given[given[column] == value]
        levels = {int(given["shuffle_level"].min()): "structured", int(given["shuffle_level"].max()): "shuffled"}
        parts.append(given.assign(observable=title, order=given["shuffle_level"].map(levels), side="published"))
        own = summary(results.shuffled[variable].sel(at))
        low, high = results.extremes
        levels = {high: "shuffled", low: "structured"}
        parts.append(own.assign(observable=title, order=own["shuffle_level"].map(levels), side="run"))
    frame = pd.concat(parts, ignore_index=True).dropna(subset="order")
    columns = ["observable", "order", "model_title", "side", "relative_depth", "layer", "mean", "std"]
    return frame[frame["layer"] > 0][columns]


def losses(results: Results) -> pd.DataFrame:
    """Mean and deviation of the loss by shuffle level, published and of a run."""
    own = summary(results.shuffled["loss"])
    frame = pd.concat([published.summary("loss").assign(side="published"), own.assign(side="run")])
    columns = ["model_title", "side", "shuffle_level", "mean", "std", "low", "high", "n_prompts"]
    return frame[columns].reset_index(drop=True)


def correlations(results: Results) -> pd.DataFrame:
    """Pearson correlation of ID and loss over structured prompts, published and of a run.

    Returns
    -------
    pandas.DataFrame
        Columns `model_title`, `side`, `layer`, `relative_depth`, `scale`, `correlation`, `low`, `high`,
        `n_prompts`.
    """
    structured = results.structured.isel(shuffle_level=0).sel(layer=slice(1, None))
    own = statistics.correlate(structured["intrinsic_dimension"], structured["loss"])
    own = own.assign_coords(relative_depth=structured["relative_depth"], model_title=structured["model_title"])
    given = published.correlation()
    given["n_prompts"] = given["correlation"].notnull() * published.tokens().attrs["n_prompts"]
    parts = [
        dataset.to_dataframe().reset_index().assign(side=side)
        for side, dataset in (("published", given), ("run", own))
    ]
    frame = pd.concat(parts, ignore_index=True).dropna(subset="correlation")
    columns = [
        "model_title",
        "side",
        "layer",
        "relative_depth",
        "scale",
        "correlation",
        "low",
        "high",
        "n_prompts",
    ]
    return frame[columns].round(4)


def models() -> Markdown:
    """Table of the published models: loss of all structured prompts, and of those that were shuffled."""
    dataset = published.tokens()
    rows = []
    for model in dataset["model"].values:
        one = dataset.sel(model=model)
        by_level = " ".join(f"{value:.2f}" for value in one["loss_mean"].values)
        rows.append(
            {
                "model": str(one["model_title"].item()),
                f"loss of {dataset.attrs['n_prompts_structured']} prompts": (
                    f"{float(one['structured_loss_mean']):.3f} ± {float(one['structured_loss_std']):.3f}"
                ),
                f"loss of {dataset.attrs['n_prompts']} prompts at $S$ = 0 … 5": by_level,
            }
        )
    return sentences.table(pd.DataFrame(rows))


def peaks_table(frame: pd.DataFrame) -> Markdown:
    """Table of `claims.peaks`: layer and height of the largest ID, one row a model."""
    rows = []
    for title, part in frame.groupby("model_title", sort=False):
        row = {"model": title, "prompts": int(part["n_prompts"].iloc[0])}
        for entry in part.itertuples():
            row[f"layer, $S = {entry.shuffle_level}$"] = f"{entry.layer} ({entry.relative_depth:.0%})"
            row[f"ID, $S = {entry.shuffle_level}$"] = _spell(entry.mean, entry.low, entry.high, sign="")
        rows.append(row)
    return sentences.table(pd.DataFrame(rows).fillna("–"))


def claims_table(frame: pd.DataFrame) -> Markdown:
    """Table of `claims.compare`: one row a claim, one column a model; numbers, intervals, verdicts."""
    rows = []
    for claim, part in frame.groupby("claim", sort=False):
        row = {"claim": f"{claim} ({part['quantity'].iloc[0]})"}
        for entry in part.itertuples():
            number = _spell(entry.value, entry.low, entry.high, sign="+")
            row[entry.model_title] = (
                "not in this run" if entry.verdict == "missing" else f"{number} {entry.verdict}"
            )
        rows.append(row)
    return sentences.table(pd.DataFrame(rows))


def agreement(frame: pd.DataFrame) -> Markdown:
    """For each model of the run, with which claims it agrees and with which it does not."""
    lines = []
    for title, part in frame[frame["side"] == "run"].groupby("model_title", sort=False):
        counts = part["verdict"].value_counts()
        n_with_data = len(part) - counts.get("missing", 0)
        if not n_with_data:
            lines.append(f"{title}: the run holds no data for any of the claims.")
            continue
        line = f"{title} agrees with {counts.get('agrees', 0)} of {n_with_data} claims"
        for verdict, words in (("disagrees", "it disagrees"), ("open", "left open by the interval")):
            texts = part.loc[part["verdict"] == verdict, "claim"]
            if len(texts):
                line += f"; {words}: " + "; ".join(text[0].lower() + text[1:] for text in texts)
        lines.append(line + ".")
    return sentences.bullets(lines)


def paper_itself(frame: pd.DataFrame) -> Markdown:
    """Claims that the published numbers of a model do not bear out, by the same rule as for the run."""
    given = frame[(frame["side"] == "published") & (frame["verdict"] != "agrees")]
    if given.empty:
        return Markdown("All published models bear out all claims.")
    lines = [
        f"{entry.model_title}: {entry.claim[0].lower()}{entry.claim[1:]}: "
        f"{_spell(entry.value, entry.low, entry.high, sign='+')}, {entry.verdict}."
        for entry in given.itertuples()
    ]
    return sentences.bullets(lines)


def published_by_scale() -> Markdown:
    """How the published effect of full shuffling on the ID depends on the scale."""
    parts = []
    for side in claims.published_sides():
        low, high = side.levels
        change = {}
        for scale in (side.scales[0], 64):
            means = [side.mean("intrinsic_dimension", level, scale=scale) for level in (low, high)]
            inside = (means[0]["layer"] / means[0]["layer"].max() >= 1 / 3) & (
                means[0]["layer"] / means[0]["layer"].max() <= 3 / 4
            )
            change[scale] = float((means[1] - means[0]).where(inside).mean())
        spelled = " and ".join(f"{value:+.1f} at scale {scale}" for scale, value in change.items())
        parts.append(f"{spelled} in {side.title}")
    return Markdown(
        "The published arrays hold all scales. Averaged over the layers from a third to three quarters of "
        f"the depth, full shuffling changes the mean ID by {'; '.join(parts)}."
    )


def read_off(results: Results) -> Markdown:
    """Largest correlations: read off figures over all published prompts, of the arrays, and of the run."""
    given = published.read_off()
    scale, n_prompts = int(given["scale"].iloc[0]), int(given["n_prompts"].iloc[0])
    titles = dict(zip(published.tokens()["model"].values, published.tokens()["model_title"].values, strict=True))
    figures = ", ".join(
        f"{row.value:.2f} (layer {row.layer}) in {titles[row.model]}" for row in given.itertuples()
    )
    parts = []
    for side in (*claims.published_sides(), *claims.measured_sides(results)):
        found = side.correlation(scale) if scale in side.scales else None
        if found is None or not found["layer"].size:
            continue
        best = found.sel(layer=found["correlation"].idxmax("layer"))
        numbers = [float(best[name]) for name in ("correlation", "low", "high")]
        parts.append(f"{_spell(*numbers, sign='')} (layer {int(best['layer'])}) in {side.title}")
    return Markdown(
        f"At scale {scale}, the correlation peaks at {figures} over {n_prompts} prompts (read off the figures of "
        f"the paper); over the prompts kept here it peaks at {', '.join(parts)}."
    )


def describe_curves(variable: str, *, level_pair: tuple[int, int] = (0, 5), **at: int) -> str:
    """Alt text of published curves by shuffle level, with where they are largest."""
    what = {"intrinsic_dimension": "intrinsic dimension", "neighborhood_overlap": "neighborhood overlap"}
    name = what.get(variable, "mean cosine similarity") + "".join(
        f" at {key} {value}" for key, value in at.items()
    )
    findings = []
    for side in claims.published_sides():
        tops = []
        for level in level_pair:
            mean = side.mean(variable, level, **at)
            tops.append(f"{float(mean.max()):.2f} in layer {int(mean.idxmax('layer'))} at S = {level}")
        findings.append(f"{side.title} is highest with {' and '.join(tops)}")
    return (
        f"Line chart with bands, one panel a published model: {name} against layer, one curve a shuffle level; "
        + "; ".join(findings)
        + "."
    )


def describe_beside(results: Results) -> str:
    """Alt text of published and own curves on one axis, with the finding."""
    frame = claims.peaks(results)
    tops = [
        f"{row.model_title} ({row.side}) {row.mean:.1f} at {row.relative_depth:.0%} of the depth for "
        f"S = {row.shuffle_level}"
        for row in frame.itertuples()
    ]
    return (
        "Line charts, one row an observable, structured text on the left and shuffled on the right: mean against "
        "relative depth, one curve a model, solid if published and dashed if of the run. The ID at scale 2 is "
        "largest with: " + "; ".join(tops) + "."
    )


def describe_effects(frame: pd.DataFrame) -> str:
    """Alt text of the chart of claims, with the verdicts."""
    return (
        "Points with intervals, one panel a claim, one row a model, zero as a dashed line; color says whether the "
        "interval agrees with the claim. " + sentences.plain(agreement(frame))
    )


def describe_correlations(results: Results) -> str:
    """Alt text of the correlation of ID and loss, published and of the run."""
    return (
        "Line chart with bands, one panel a model: Pearson correlation of ID and loss over structured prompts "
        "against relative depth, at the scale that the slider chooses. " + sentences.plain(read_off(results))
    )


def describe_losses(results: Results) -> str:
    """Alt text of the losses by shuffle level, published and of the run."""
    frame = losses(results)
    findings = []
    for title, part in frame.groupby("model_title", sort=False):
        first, last = part.iloc[0], part.iloc[-1]
        findings.append(
            f"{title} goes from {first['mean']:.2f} at S = {first['shuffle_level']} to {last['mean']:.2f} at "
            f"S = {last['shuffle_level']}"
        )
    return "Points with bars: mean loss in nats against shuffle level; " + "; ".join(findings) + "."


def _spell(value: float, low: float, high: float, *, sign: str) -> str:
    number = f"{sign}.{sentences.digits(value)}f"
    text = f"{value:{number}}"
    return f"{text} [{low:{number}}, {high:{number}}]" if np.isfinite(low) else text
