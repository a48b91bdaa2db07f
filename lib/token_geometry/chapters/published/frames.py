"""Frames of the chapter on published results: published numbers and those of a run in one table."""

import pandas as pd

from token_geometry.chapters.frames import BESIDE, FROM_ONE, summary
from token_geometry.chapters.published import arrays
from token_geometry.chapters.results import RunResults
from token_geometry.stats.correlation import correlate


def beside(results: RunResults) -> pd.DataFrame:
    """Published means and those of a run on the axis of relative depth, structured and fully shuffled."""
    parts = []
    for title, (variable, at) in BESIDE.items():
        given = arrays.summary(variable)
        for column, value in at.items():
            given = given[given[column] == value]
        own = summary(results.shuffled[variable].sel(at))
        levels = given["shuffle_level"].min(), given["shuffle_level"].max()
        for side, part, (low, high) in (("run", own, results.extremes), ("published", given, levels)):
            order = part["shuffle_level"].map({high: "shuffled", low: "structured"})
            parts.append(part.assign(observable=title, order=order, side=side))
    columns = ["observable", "order", "model_title", "side", "relative_depth", "layer", "mean", "std"]
    return pd.concat(parts, ignore_index=True).dropna(subset="order").query("layer > 0")[columns]


def losses(results: RunResults) -> pd.DataFrame:
    """Mean and deviation of the loss by shuffle level, published and of a run."""
    sides = {"run": summary(results.shuffled["loss"]), "published": arrays.summary("loss")}
    frame = pd.concat([part.assign(side=side) for side, part in sides.items()], ignore_index=True)
    return frame[["model_title", "side", "shuffle_level", "mean", "std", "low", "high", "n_prompts"]]


def correlations(results: RunResults) -> pd.DataFrame:
    """Pearson correlation of ID and loss over structured prompts, published and of a run."""
    structured = results.structured.sel(layer=FROM_ONE)
    own, given = correlate(structured["intrinsic_dimension"], structured["loss"]), arrays.correlation()
    given["n_prompts"] = given["correlation"].notnull() * arrays.tokens().attrs["n_prompts"]
    sides = {"run": own, "published": given}
    parts = [part.to_dataframe().reset_index().assign(side=side) for side, part in sides.items()]
    frame = pd.concat(parts, ignore_index=True).dropna(subset="correlation")
    # a run of few prompts has no correlation, and its models keep their colors
    titles = dict.fromkeys([*results.titles, *given["model_title"].values.tolist()])
    frame["model_title"] = pd.Categorical(frame["model_title"], [*titles])
    columns = ["model_title", "side", "layer", "relative_depth", "scale"]
    return frame[[*columns, "correlation", "low", "high", "n_prompts"]].round(4)
