"""What the chapter on published results says: tables, sentences and alt texts."""

import pandas as pd
from IPython.display import Markdown

from token_geometry.base import project
from token_geometry.chapters import markup, numbers
from token_geometry.chapters.published import arrays, evidence
from token_geometry.chapters.results import RunResults
from token_geometry.observables.catalog import CATALOG


def models() -> Markdown:
    """Table of the published models: loss of all structured prompts, and of those that were shuffled."""
    dataset, rows = arrays.tokens(), []
    for model in dataset["model"].values:
        one = dataset.sel(model=model)
        every, spread = (float(one[f"structured_loss_{part}"]) for part in ("mean", "std"))
        by_level = [f"{value:.2f}" for value in one["loss_mean"].values]
        rows.append([markup.escaped(one["model_title"].item()), f"{every:.3f} ± {spread:.3f}", *by_level])
    n_prompts, n_structured = dataset.attrs["n_prompts"], dataset.attrs["n_prompts_structured"]
    levels = [f"$S = {level}$" for level in dataset["shuffle_level"].values]
    levels[0] = f"{n_prompts} prompts, {levels[0]}"
    return markup.table(pd.DataFrame(rows, columns=["model", f"{n_structured} prompts", *levels]))


def peaks_table(frame: pd.DataFrame) -> Markdown:
    """Table of `claims.peaks`: layer and height of the largest ID, one row per model."""
    rows = []
    for title, part in markup.with_text_titles(frame).groupby("model_title", sort=False):
        row = {"model": title, "prompts": int(part["n_prompts"].iloc[0])}
        for entry in part.itertuples():
            row[f"layer, $S = {entry.shuffle_level}$"] = f"{entry.layer} ({entry.relative_depth:.0%})"
            row[f"ID, $S = {entry.shuffle_level}$"] = numbers.estimate(entry.mean, entry.low, entry.high)
        rows.append(row)
    return markup.table(pd.DataFrame(rows).fillna("–"))


def claims_table(frame: pd.DataFrame) -> Markdown:
    """Table of `claims.compare`: one row per claim, one column per model; numbers, intervals, verdicts."""
    rows = []
    for claim, part in markup.with_text_titles(frame).groupby("claim", sort=False):
        row = {"claim": f"{claim} ({part['quantity'].iloc[0]}; {part['source'].iloc[0]})"}
        for entry in part.itertuples():
            known = entry.verdict != "missing"
            row[entry.model_title] = f"{_difference(entry)} {entry.verdict}" if known else "not in this run"
        rows.append(row)
    return markup.table(pd.DataFrame(rows))


def agreement(frame: pd.DataFrame) -> Markdown:
    """For each model of the run, with which claims it agrees and with which it does not."""
    lines = []
    for title, part in markup.with_text_titles(frame[frame["side"] == "run"]).groupby("model_title", sort=False):
        counts = part["verdict"].value_counts()
        n_with_data = len(part) - counts.get("missing", 0)
        if not n_with_data:
            lines.append(f"{title}: the run holds no data for any of the claims.")
            continue
        line = f"{title} agrees with {counts.get('agrees', 0)} of {n_with_data} claims"
        for verdict, words in (("disagrees", "it disagrees"), ("open", "left open by the interval")):
            if len(texts := part.loc[part["verdict"] == verdict, "claim"]):
                line += f"; {words}: " + "; ".join(text[0].lower() + text[1:] for text in texts)
        lines.append(line + ".")
    return markup.bullets(lines)


def paper_itself(frame: pd.DataFrame) -> Markdown:
    """Claims that the published numbers of a model do not bear out, by the same rule as for the run."""
    given = frame[(frame["side"] == "published") & (frame["verdict"] != "agrees")]
    told = [(f"{one.claim[0].lower()}{one.claim[1:]}: {_difference(one)}", one) for one in given.itertuples()]
    lines = [f"{one.model_title}: {text}, {one.verdict}." for text, one in told]
    return markup.bullets(lines or ["All published models bear out all claims."])


def _difference(entry) -> str:
    return numbers.estimate(entry.value, entry.low, entry.high, sign="+")


def read_off(results: RunResults) -> Markdown:
    """Largest correlations: read off figures over all published prompts, of the arrays, and of the run."""
    given = pd.read_csv(project.root() / "data" / "published" / "read-off-figures.csv")
    scale, n_prompts = int(given["scale"].iloc[0]), int(given["n_prompts"].iloc[0])
    titles = arrays.tokens()["model_title"].sel(model=given["model"].values).values
    figures = zip(given.itertuples(), titles, strict=True)
    read = [f"{row.value:.2f} in layer {row.layer} of {title}" for row, title in figures]
    best = [(*found, model.title) for model in evidence.of_all(results) if (found := model.strongest(scale))]
    told = [(numbers.estimate(r.value, r.low, r.high), layer, markup.escaped(title)) for layer, r, title in best]
    kept = ", ".join(f"{r} in layer {layer} of {title}" for r, layer, title in told)
    start = f"At scale {scale}, the correlation is largest with {', '.join(read)} over {n_prompts} prompts"
    end = f"over the prompts kept here it is largest with {kept}"
    return Markdown(f"{start} (read off the figures of the paper); {end}.")


def tops(variable: str, *, at: int | None = None) -> Markdown:
    """Where the published curves are largest, structured and shuffled."""
    entry, lines = CATALOG[variable], []
    for model in evidence.of_all():
        means = {level: model.mean(variable, level, **entry.at(at)) for level in model.levels}
        tops = [(numbers.Number(mean.max()), int(mean.idxmax("layer")), level) for level, mean in means.items()]
        spelled = " and ".join(f"{top:.2f} in layer {layer} at $S = {level}$" for top, layer, level in tops)
        lines.append(f"{model.title}: the mean {entry.title_at(at)} is largest with {spelled}.")
    return markup.bullets(lines)


def peaks(frame: pd.DataFrame) -> Markdown:
    """Where the ID of every model is largest, from `claims.peaks`."""
    lines = []
    for row in markup.with_text_titles(frame).itertuples():
        at = f"at {row.relative_depth:.0%} of the depth for $S = {row.shuffle_level}$"
        lines.append(f"{row.model_title} ({row.side}): the ID at scale 2 is largest, {row.mean:.1f}, {at}.")
    return markup.bullets(lines)


def losses(frame: pd.DataFrame) -> Markdown:
    """Mean loss of every model, structured and shuffled, from `frames.losses`."""
    lines = []
    for title, part in markup.with_text_titles(frame).groupby("model_title", sort=False):
        ends = (f"{row.mean:.2f} at $S = {row.shuffle_level}$" for row in part.iloc[[0, -1]].itertuples())
        lines.append(f"{title}: the loss is {' and '.join(dict.fromkeys(ends))}.")
    return markup.bullets(lines)
