"""Sources of the book: its pages, and what is left of them for a run that lacks something."""

import json
import re

import nbformat
import pypandoc
import yaml

from token_geometry.base import project


def pages() -> list[str]:
    """Paths of all pages that a book can have, appendices left out."""
    entries = yaml.safe_load((project.root() / "_quarto.yml").read_text(encoding="utf-8"))["pages"]
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def read(page: str, lacks: str) -> tuple[str, set[str], set[str]]:
    """Text of a page without what is lacking, the labels that it defines, and those that it refers to."""
    path = project.root() / page
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n\n".join(c.source if c.cell_type == "markdown" else f"```python\n{c.source}\n```" for c in cells)
    text = re.sub(r"```\{python\}", "```python", text)
    filters = [f"--lua-filter={project.root() / 'book/assets/lacking.lua'}", f"--metadata=lacks:{lacks}"]
    left = pypandoc.convert_text(text, "json", format="markdown", extra_args=filters)
    defined, cited, words = set(), set(), []

    def walk(part) -> None:
        if isinstance(part, dict):
            if part.get("t") == "Cite":
                cited.update(one["citationId"] for one in part["c"][0])
            if part.get("t") in ("Header", "Div", "Span", "CodeBlock", "Table", "Figure"):
                content = part["c"][1 if part["t"] == "Header" else 0]
                defined.add(content[0])
            if part.get("t") == "Str":
                words.append(part["c"])
            if part.get("t") == "CodeBlock":
                defined.update(re.findall(r"#\| label: (\S+)", part["c"][1]))
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)
        elif isinstance(part, str):
            defined.update(re.findall(r"\{#(\S+?)\}", part))

    walk(json.loads(left))
    ours = {name for name in cited if re.match(r"(sec|fig|tbl|eq)-", name)}
    ours |= set(re.findall(r"@((?:sec|fig|tbl|eq)-[\w-]+)", " ".join(_captions(left))))
    return " ".join(words), defined, ours


def _captions(left: str) -> list[str]:
    return re.findall(r"#\| (?:fig|tbl)-cap: (.*?)(?:\\n|$)", left)
