"""The chapter on what else goes with the loss: confounds of the correlation of ID and loss, held fixed."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import markup, numbers
from token_geometry.chapters import results as results_module
from token_geometry.chapters.loss.frames import RATE
from token_geometry.chapters.loss.prose import spell
from token_geometry.chapters.numbers import Number
from token_geometry.chapters.results import RunResults
from token_geometry.requests.reduction import genre
from token_geometry.requests.run import CONFOUNDS, Run
from token_geometry.stats import correlation
from token_geometry.texts import corpora

AS_IT_IS, TOKENS, ALL = "as it is", "at fixed different tokens", "at fixed all of them"
"""What is held fixed of the correlation of ID and loss."""

WITHIN = "all texts, within genres"
"""Name of the prompts of all genres together, the means of the genres removed."""

ENDS = (2, 64)
"""Scales of the tables."""

NONE = "No correlation can be taken: there are too few prompts, or nothing varies."

Pairs = dict[str, tuple[xr.DataArray, xr.DataArray, list[xr.DataArray]]]


def middle_layers(depth: xr.DataArray) -> xr.DataArray:
    """Whether a layer is in the middle third of the depth, over which the ID is averaged."""
    return (depth >= 1 / 3) & (depth <= 2 / 3)


def wanted(run: Run) -> list[str]:
    """Confounds that a run names, or all that its corpus may have."""
    return run.confounds or [*CONFOUNDS, *corpora.find_corpus(run.corpus, column=run.column).patterns]


def samples(results: RunResults) -> dict[str, xr.Dataset]:
    """Structured prompts of each genre by its corpus, that of the run first, and under `WITHIN` all of them.

    Each has `dimension` (mean ID of the middle layers) over model, prompt and scale, `loss` over model and prompt,
    and the confounds that all prompts have and that are not the same in all; `WITHIN` has `stratum` besides.
    """
    run, given = results.run, {results.run.corpus: results.structured}
    given |= {name: results_module.read(run, genre(name)) for name in run.sections.get("genres", {})}
    found = {name: _sample(run, name, dataset.isel(shuffle_level=0, drop=True)) for name, dataset in given.items()}
    if len(found) > 1:
        common = [name for name in found[run.corpus] if all(name in one for one in found.values())]
        parts = [one[common].drop_vars("prompt") for one in found.values()]
        strata = [part["loss"].isel(model=0, drop=True) * 0 + n for n, part in enumerate(parts)]
        parts = [part.assign(stratum=stratum) for part, stratum in zip(parts, strata, strict=True)]
        found[WITHIN] = xr.concat(parts, "prompt")
    return found


def _sample(run: Run, corpus: str, dataset: xr.Dataset) -> xr.Dataset:
    dataset = dataset.isel(prompt=dataset["loss"].notnull().all("model").values)
    known, ids = corpora.find_corpus(corpus, column=run.column), dataset["prompt"].values.tolist()
    columns: dict = {name: ("prompt", values) for name, values in known.numbers(ids).items()}
    if corpora.is_at_hand(corpus):
        texts = known.some([key for key in ids if key in known.texts])
        columns["length"] = ("prompt", [float(len(texts[key])) if key in texts else math.nan for key in ids])
    columns |= {name: dataset[name] for name in ("distinct_tokens", "token_rarity")}
    columns["cosine_0"] = dataset["cosine_similarity"].sel(layer=0, drop=True)
    chosen = [name for name in wanted(run) if name in columns]
    found = dataset[["loss"]].assign({name: columns[name] for name in chosen})
    varies = found.std("prompt", skipna=False) > 1e-9 * abs(found).max("prompt")
    dimension = dataset["intrinsic_dimension"].where(middle_layers(dataset["relative_depth"])).mean("layer")
    return found[["loss", *(name for name in chosen if varies[name].all())]].assign(dimension=dimension)


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


def correlations(found: dict[str, xr.Dataset], pairs: Callable[..., Pairs], **options) -> xr.Dataset:
    """Correlations of `partial` or `with_confounds` over `texts`, `measure`, `model` and `scale`.

    As of `correlation.correlate`, with `p_value` by permutation of the second quantity over prompts, and with
    `q_value`, for which all texts, models and scales of a measure are a family.
    """
    cells = {t: {m: _test(sample, *p) for m, p in pairs(sample, **options).items()} for t, sample in found.items()}
    order = sorted(dict.fromkeys(m for parts in cells.values() for m in parts), key=ALL.__eq__)
    if not order:
        return xr.Dataset()
    every = _along("texts", {t: _along("measure", m).reindex(measure=order) for t, m in cells.items() if m})
    return every.assign(q_value=correlation.false_discovery(every["p_value"], over=["texts", "model", "scale"]))


def _along(dim: str, parts: dict[str, xr.Dataset]) -> xr.Dataset:
    return xr.concat(parts.values(), xr.IndexVariable(dim, [*parts]))


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


def table(cells: xr.Dataset, *measures: str) -> Markdown:
    """Table of correlations, by default of all measures, at the scales `ENDS`; bold where `q_value` is small."""
    rows, dims = [], ("texts", "scale", "measure")
    for at in itertools.product(*(cells[dim].values.tolist() for dim in dims)) if cells else ():
        one = cells.sel(dict(zip(dims, at, strict=True)))
        if at[1] in (0, *ENDS) and at[2] in (measures or at) and bool(one["correlation"].notnull().any()):
            each = [one.isel(model=n) for n in range(one.sizes["model"])]
            rows.append(
                (
                    *map(markup.escaped, at),
                    *(f"**{spell(m, '')}**" if m["q_value"] <= RATE else spell(m, "") for m in each),
                )
            )
    if not rows:
        return Markdown(NONE)
    frame = pd.DataFrame(rows, columns=["texts", "scale", "", *map(markup.escaped, cells["model_title"].values)])
    return markup.table(frame if cells.sizes["scale"] > 1 else frame.drop(columns="scale"))


def survival(cells: xr.Dataset, *measures: str) -> Markdown:
    """In how many models and scales a correlation is a discovery, and behind the first measure in which."""
    lines = []
    for texts in cells["texts"].values if cells else ():
        said = []
        for measure in [name for name in cells["measure"].values if name in (measures or name)]:
            here = cells.sel(texts=texts, measure=measure)
            found = here["correlation"].where(here["q_value"] <= RATE)
            rows = zip(found["model_title"].values, map(signed_scales, found), strict=True)
            where = "; ".join(f"{markup.escaped(name)} {scales}" for name, scales in rows if scales)
            count = f"{int(found.count())} of {int(here['q_value'].count())}"
            said.append(f"{count} {measure}{f' ({where})' * (bool(where) and bool(said))}")
        lines.append(f"{markup.escaped(texts)}: {', '.join(said)}.")
    start = f"Models and scales at which the adjusted p-value is at most {RATE}, with the sign of $r$:"
    return markup.bullets(lines, start=start) if lines else Markdown(NONE)


def signed_scales(row: xr.DataArray) -> str:
    """Scales of what there is, each with its sign: `+2, −64`."""
    kept = row.dropna("scale")
    return ", ".join(f"{Number(scale):+.0f}" for scale in (np.sign(kept) * kept["scale"]).values)


def between(results: RunResults, found: dict[str, xr.Dataset]) -> Markdown:
    """Correlation of ID and loss over the means of the genres."""
    genres = [one[["dimension", "loss"]].mean("prompt") for name, one in found.items() if name != WITHIN]
    if (n := len(genres)) < 3:
        return Markdown(
            "A correlation between genres takes three of them; a run names more under the key `genres`."
        )
    means, lines = xr.concat(genres, "prompt"), []
    every = correlation.correlate(means["dimension"], means["loss"], n_resamples=1)["correlation"]
    for model, title in results.models:
        said = [f"{Number(every.sel(model=model, scale=scale)):.2f} at scale {scale}" for scale in ENDS]
        lines.append(f"{title}: $r$ = {' and '.join(said)}.")
    least = (
        f"{n} means have {math.factorial(n)} orders, so that no p-value can be below {1 / math.factorial(n):.2g}"
    )
    return markup.bullets(lines, start=f"ID and loss of the means of the genres, of which {least}:")
