"""Computed texts as Markdown: paragraphs, lists, one sentence per model, tables."""

import html
import re
from collections.abc import Callable, Iterable
from functools import wraps

import pandas as pd
from IPython.display import Markdown


def bullets(lines: Iterable[str], *, start: str = "") -> Markdown:
    """A Markdown list behind a line, if given; empty lines are left out, a single one is a paragraph."""
    lines = list(filter(None, lines))
    if len(lines) == 1 and not start:
        return Markdown(lines[0])
    return Markdown("\n".join([start, ""] * bool(start) + [f"- {line}" for line in lines]))


def unless(instead: Callable) -> Callable[[Callable[..., Markdown | Iterable[str]]], Callable[..., Markdown]]:
    """Decorator of what makes Markdown, or lines, of results: what `instead` says of them, if anything, stands."""

    def decorate(say: Callable[..., Markdown | Iterable[str]]) -> Callable[..., Markdown]:
        @wraps(say)
        def said(results, **options) -> Markdown:
            text = instead(results)
            found = Markdown(text) if text else say(results, **options)
            return found if isinstance(found, Markdown) else bullets(found)

        return said

    return decorate


listed = unless(lambda results: "")  # decorator of what yields lines of results: they are a list


def per_model(say: Callable[..., str | None]) -> Callable[..., Markdown]:
    """Decorator: what a function says of the results, a model, its title and options, as a list of all models."""

    @wraps(say)
    def said(results, **options) -> Markdown:
        return bullets(say(results, model, title, **options) for model, title in results.models)

    return said


def table(frame: pd.DataFrame) -> Markdown:
    """A frame as a Markdown table: names in the first column, numbers as the frame spells them."""
    cells = [[str(value).replace("|", "\\|") for value in row] for row in frame.values.tolist()]
    rule = [":--"] + ["--:"] * (frame.shape[1] - 1)
    return Markdown("\n".join("| " + " | ".join(row) + " |" for row in [map(str, frame), rule, *cells]))


def with_text_titles(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the titles of its models as Markdown that shows them letter by letter."""
    return frame.assign(model_title=frame["model_title"].map(escaped))


def plain(text: Markdown | str) -> str:
    """A computed text without its markup, for an alt text."""
    data = text if isinstance(text, str) else text.data
    data = re.sub(r"(?<!\\)[$`]", "", data).replace("\n- ", " ").removeprefix("- ")
    return " ".join(html.unescape(re.sub(r"\\([^\sA-Za-z0-9])", r"\1", data)).split())


def escaped(text: str) -> str:
    """Text that neither HTML nor Markdown makes anything of."""
    special = "\\`*_{}[]()#+-.!~^$@'\""  # a bar is left to the table
    visible = re.sub(r"\x1b\[[0-9;]*m|[\x00-\x08\x0e-\x1f\x7f]", "", str(text))
    return "".join(f"\\{c}" if c in special else c for c in " ".join(html.escape(visible, quote=False).split()))
