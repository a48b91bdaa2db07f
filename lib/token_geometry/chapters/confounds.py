"""The chapter on what else goes with the loss: confounds of the correlation of ID and loss, held fixed."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import frames, markup, numbers
from token_geometry.chapters.loss.frames import RATE
from token_geometry.chapters.numbers import Number
from token_geometry.chapters.results import RunResults
from token_geometry.requests.run import CONFOUNDS, Run
from token_geometry.stats import correlation
from token_geometry.texts import corpora

AS_IT_IS, TOKENS, ALL = "as it is", "at fixed different tokens", "at fixed all of them"
WITHIN = "all texts, within genres"  # prompts of all genres together, the means of the genres removed
ENDS = (2, 64)  # scales of the tables
NONE = "No correlation can be taken: there are too few prompts, or nothing varies."

Pairs = dict[str, tuple[xr.DataArray, xr.DataArray, list[xr.DataArray]]]  # by name x, y, and what is held fixed


def wanted(run: Run) -> list[str]:
    """Confounds that a run names, or all that its corpus may have."""
    return run.confounds or [*CONFOUNDS, *corpora.find_corpus(run.corpus, column=run.column).patterns]


def samples(results: RunResults) -> dict[str, xr.Dataset]:
    """Structured prompts of each genre by its corpus, that of the run first, and under `WITHIN` all of them.

    Each has `dimension` (mean ID of the middle layers) over model, prompt and scale, `loss` over model and prompt,
    and the confounds that all prompts have and that are not the same in all; `WITHIN` has `stratum` besides."""
    found = {name: _sample(results.run, name, dataset) for name, dataset in results.genres.items()}
    if len(found) > 1:
        common = [name for name in found[results.run.corpus] if all(name in one for one in found.values())]
        every = [one[common].drop_vars("prompt") for one in found.values()]
        strata = [one["loss"].isel(model=0, drop=True) * 0 + n for n, one in enumerate(every)]
        found[WITHIN] = xr.concat(every, "prompt").assign(stratum=xr.concat(strata, "prompt"))
    return found


def _sample(run: Run, corpus: str, dataset: xr.Dataset) -> xr.Dataset:
    dataset = dataset.isel(prompt=dataset["loss"].notnull().all("model").values)
    known, ids = corpora.find_corpus(corpus, column=run.column), dataset["prompt"].values.tolist()
    columns: dict = {name: ("prompt", values) for name, values in known.numbers(ids).items()}
    if corpora.is_at_hand(corpus):
        texts = known.some([key for key in ids if key in known.texts])
        columns["length"] = ("prompt", [float(len(texts[key])) if key in texts else math.nan for key in ids])
    columns |= dataset[["distinct_tokens", "token_rarity"]].data_vars
    columns["cosine_0"] = dataset["cosine_similarity"].sel(layer=0, drop=True)
    found = dataset[["loss"]].assign({name: columns[name] for name in wanted(run) if name in columns})
    varies = (found.std("prompt", skipna=False) > 1e-9 * abs(found).max("prompt")).all()
    dimension = frames.middle(dataset["intrinsic_dimension"])
    return found.drop_vars([n for n in found if n != "loss" and not varies[n]]).assign(dimension=dimension)


def names(sample: xr.Dataset) -> dict[str, str]:
    """Names of the confounds of some prompts, and those that a reader sees."""
    return {str(n): CONFOUNDS.get(n, n) for n in sample.data_vars if n not in ("dimension", "loss", "stratum")}


def with_confounds(sample: xr.Dataset, *, quantity: str = "dimension") -> Pairs:
    """The ID with the loss and with each confound, or the loss with each, at a scale 0 that says nothing."""
    x = sample[quantity] if quantity == "dimension" else sample[quantity].expand_dims(scale=[0])
    every = {"loss": "loss"} | names(sample)
    return {title: (x, sample[name], []) for name, title in every.items() if name != quantity}


def partial(sample: xr.Dataset) -> Pairs:
    """ID and loss as they are, at each confound held fixed, and at all of them."""
    fixed = {AS_IT_IS: []} | {f"at fixed {title}": [name] for name, title in names(sample).items()}
    fixed |= {ALL: [*names(sample)]} if len(fixed) > 2 else {}
    pair = sample["dimension"], sample["loss"]
    return {title: (*pair, [sample[name] for name in held]) for title, held in fixed.items()}


def correlations(found: dict[str, xr.Dataset], pairs: Callable[..., Pairs], **options) -> pd.DataFrame:
    """Correlations of `partial` or `with_confounds` as a frame for `loss.charts.correlation_curves`, with `texts`.

    P-values are by permutation of the second quantity over prompts; all texts, models and scales of a measure are
    the family of `q_value`. What could not be taken has no row."""
    taken = [(sample, texts, *one) for texts, sample in found.items() for one in pairs(sample, **options).items()]
    tested = [({"texts": texts, "measure": measure}, _test(one, *pair)) for one, texts, measure, pair in taken]
    parts = [one.to_dataframe().reset_index().assign(**names) for names, one in tested]
    frame = pd.concat(parts).dropna(subset="correlation") if parts else pd.DataFrame()
    if frame.empty:
        return frame
    frame["q_value"] = frame.groupby("measure")["p_value"].transform(correlation.adjusted)
    frame["discovered"] = np.where(frame["q_value"] <= RATE, "yes", "no")
    columns = ["texts", "measure", "scale", "model_title", "correlation", "low", "high", "q_value", "discovered"]
    return frame[[*columns, "n_prompts"]].round(4)


def _test(sample: xr.Dataset, x: xr.DataArray, y: xr.DataArray, held: list[xr.DataArray]) -> xr.Dataset:
    if "stratum" in sample:  # of all genres but the first: so the means of the genres are fixed
        held = [*((sample["stratum"] == n) * 1.0 for n in range(1, int(sample["stratum"].max()) + 1)), *held]
    core = [["scale", "prompt"], *[["prompt"]] * (1 + len(held))]
    options: dict = {"input_core_dims": core, "output_core_dims": [["scale"]], "vectorize": True}
    p_value = xr.apply_ufunc(correlation.permutation_p, x, y, *held, **options)
    return correlation.correlate(x, y, given=held).assign(p_value=p_value)


def about(results: RunResults, found: dict[str, xr.Dataset]) -> Markdown:
    """What is known of the prompts of each genre, and what is not."""
    lines = []
    for corpus, sample in found.items():
        lacks = [CONFOUNDS.get(name, name) for name in wanted(results.run) if name not in sample]
        lacking = f" Not known, or the same in all: {', '.join(lacks)}." if lacks else ""
        known = ", ".join(names(sample).values()) or "no confound"
        n_prompts = numbers.count(sample.sizes["prompt"], "prompt")
        lines.append(f"{markup.escaped(corpus)}: {n_prompts}; {markup.escaped(known)}.{lacking}")
    return markup.bullets(lines)


def table(frame: pd.DataFrame, *measures: str) -> Markdown:
    """Table of correlations, by default of all measures, at the scales `ENDS`; bold where `q_value` is small."""
    if frame.empty:
        return Markdown(NONE)
    kept = frame[frame["scale"].isin((0, *ENDS)) & frame["measure"].isin(measures or frame["measure"])]
    spelled = [numbers.estimate(*row, digits=2) for row in kept[["correlation", "low", "high"]].values]
    bold = np.where(kept["discovered"] == "yes", "**", "")
    kept = kept.assign(text=[f"{b}{t}{b}" for b, t in zip(bold, spelled, strict=True)])
    at = np.where(kept["scale"] > 0, ", scale " + kept["scale"].astype(str), "")
    kept[""] = kept["texts"].map(markup.escaped) + at + ": " + kept["measure"].map(markup.escaped)
    wide = kept.pivot_table("text", "", "model_title", aggfunc="first", sort=False, fill_value="–")
    return markup.table(wide.rename(columns=markup.escaped).reset_index())


def survival(frame: pd.DataFrame, *measures: str) -> Markdown:
    """In how many models and scales a correlation is a discovery, and behind the first measure in which."""
    lines = []
    for texts, every in frame.groupby("texts", sort=False) if len(frame) else ():
        part, said = every[every["measure"].isin(measures or every["measure"])], list[str]()
        for measure, own in part.groupby("measure", sort=False):
            found = own[own["discovered"] == "yes"]
            scales = (np.sign(found["correlation"]) * found["scale"]).groupby(found["model_title"], sort=False)
            where = [f"{markup.escaped(t)} {', '.join(f'{Number(n):+.0f}' for n in each)}" for t, each in scales]
            count = f"{len(found)} of {len(own)} {measure}"
            said.append(f"{count} ({'; '.join(where)})" if where and said else count)
        lines.append(f"{markup.escaped(texts)}: {', '.join(said)}.")
    start = f"Models and scales at which the adjusted p-value is at most {RATE}, with the sign of $r$:"
    return markup.bullets(lines, start=start) if lines else Markdown(NONE)


def between(results: RunResults, found: dict[str, xr.Dataset]) -> Markdown:
    """Correlation of ID and loss over the means of the genres."""
    genres = [one[["dimension", "loss"]].mean("prompt") for name, one in found.items() if name != WITHIN]
    if (n := len(genres)) < 3:
        return Markdown("It takes three genres for a correlation between them; a run names more under `genres`.")
    means, lines = xr.concat(genres, "prompt"), []
    every = correlation.correlate(means["dimension"], means["loss"], n_resamples=1)["correlation"]
    for model, title in results.models:
        said = [f"{Number(every.sel(model=model, scale=scale)):.2f} at scale {scale}" for scale in ENDS]
        lines.append(f"{title}: $r$ = {' and '.join(said)}.")
    least = f"{n} means have {math.factorial(n)} orders, and no p-value below {1 / math.factorial(n):.2g}"
    return markup.bullets(lines, start=f"ID and loss of the means of the genres; {least}:")
