"""Computed texts as Markdown: paragraphs, lists, tables, and alt texts made of them."""

import html
from collections.abc import Iterable

import pandas as pd
from IPython.display import Markdown


def bullets(lines: Iterable[str], *, start: str = "") -> Markdown:
    """A Markdown list, behind a line that introduces it; a single line without one stands as a paragraph."""
    lines = list(lines)
    if len(lines) == 1 and not start:
        return Markdown(lines[0])
    return Markdown("\n".join([start, ""] * bool(start) + [f"- {line}" for line in lines]))


def table(frame: pd.DataFrame) -> Markdown:
    """A frame as a Markdown table: names in the first column, numbers as the frame spells them."""
    cells = [[str(value).replace("|", "\\|") for value in row] for row in frame.values.tolist()]
    header = [str(column) for column in frame.columns]
    rule = [":--"] + ["--:"] * (len(header) - 1)
    return Markdown("\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *cells]))


def alt_text(chart: str, findings: Iterable[str] | Markdown, *, otherwise: str = "no data") -> str:
    """Alt text of a figure: chart type and axes, and the findings, single ones or those of a computed text."""
    if isinstance(findings, Markdown):
        return f"{chart}. {plain(findings)}"
    return f"{chart}; {'; '.join(findings) or otherwise}."


def plain(text: Markdown) -> str:
    """A computed text without its markup."""
    return " ".join(text.data.replace("$", "").replace("\n- ", " ").removeprefix("- ").split())


def escaped(text: str) -> str:
    """Text that neither HTML nor Markdown makes anything of."""
    special = "\\`*_{}[]()#+-.!~^$@"  # a bar is left to the table
    line = " ".join(html.escape(str(text), quote=False).split())
    return "".join(f"\\{c}" if c in special else c for c in line)
