"""The first page of the book: which run it is, and the frame of its figure."""

import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters.frames import by_observable
from token_geometry.chapters.markup import escaped
from token_geometry.chapters.results import RunResults


def frame(results: RunResults) -> pd.DataFrame:
    """ID of the first model at two scales, structured and shuffled, as of `by_observable`."""
    chosen = {f"scale {n}": ("intrinsic_dimension", {"scale": n}) for n in results.scales}
    found = by_observable(results.ends, chosen)
    return found[found["model_title"] == results.titles[0]]


def name(results: RunResults) -> Markdown:
    """Name and title of the run."""
    return Markdown(f"This is the book of the run {escaped(results.run.name)}: {escaped(results.run.title)}.")


def about(results: RunResults) -> Markdown:
    """Which run this is: name, title, models, corpus, prompts, its description."""
    run, observables = results.run, results.observables
    levels = ", ".join(str(level) for level in observables["shuffle_level"].values)
    models = " and ".join(title for _, title in results.models)
    read = f"{observables.sizes['prompt']} prompts of {run.n_tokens} tokens, of the corpus {escaped(run.corpus)}"
    text = f"{name(results).data} It reads {read}, at shuffle level $S$ = {levels}, with {models}."
    return Markdown(f"{text} {run.description}")
