"""The first page of the book: which run it is, and the frame of its figure."""

import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters.frames import by_observable
from token_geometry.chapters.markup import escaped
from token_geometry.chapters.numbers import count
from token_geometry.chapters.results import RunResults
from token_geometry.runs.declaration import DEFAULT


def frame(results: RunResults) -> pd.DataFrame:
    """ID of the first model at two scales, structured and shuffled, as of `by_observable`."""
    chosen = {f"scale {n}": ("intrinsic_dimension", {"scale": n}) for n in results.scales}
    found = by_observable(results.ends, chosen)
    return found[found["model_title"] == results.titles[0]]


def name(results: RunResults) -> Markdown:
    """Name and title of the run."""
    return Markdown(f"This is the book of the run {escaped(results.run.name)}: {escaped(results.run.title)}.")


def rebuild(results: RunResults) -> Markdown:
    """The commands that make this book again."""
    of = "" if results.run.name == DEFAULT else f" RUN={escaped(results.run.name)}"
    other = f"<code>token-geometry book {escaped(results.run.name)}</code> in an environment with the package"
    return Markdown(f"Clone the repository and type <code>make book{of}</code>, or {other}.")


def about(results: RunResults) -> Markdown:
    """Which run this is: name, title, models, corpus, prompts, its description."""
    run, observables = results.run, results.observables
    levels, prompts = observables["shuffle_level"].values, count(observables.sizes["prompt"], "prompt")
    at = f"at shuffle level{'s' * (len(levels) > 1)} $S$ = {', '.join(map(str, levels))}"
    models = " and ".join(title for _, title in results.models)
    read = f"{prompts} of {run.n_tokens} tokens, of the corpus {escaped(run.corpus)}, {at}"
    return Markdown(f"{name(results).data} It reads {read}, with {models}. {run.description}")
