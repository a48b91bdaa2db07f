"""Render the Quarto book where Quarto is not installed.

The same sources and the same ``_quarto.yml`` give the same pages: papermill executes the
notebooks, pandoc does the typesetting, and this module adds what Quarto adds to pandoc:
cells, numbers, cross-references, callouts and navigation.  What it cannot render it
refuses with one line, because a page that silently lacks something is worse than none.

Run ``python -m token_geometry.book [--profile NAME]`` in the root of the project.
"""

import argparse
import base64
import datetime
import html
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import nbformat
import panflute as pf
import pypandoc
import yaml

TEMPLATE, STYLE = "book/assets/page.html", "book/assets/page.css"
KINDS = {"fig": "Figure", "tbl": "Table", "sec": "Section", "eq": "Equation"}
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DEFAULTS = {"echo": True, "include": True, "output": True, "eval": True, "warning": False}
OPTIONS = {*DEFAULTS, "label", "fig-cap", "fig-alt", "tbl-cap", "code-fold", "code-summary"}
# Without these a page looks different but says the same.
COSMETIC = {"fig-width", "fig-height", "fig-align", "fig-dpi", "message", "tags", "classes"}
CALLOUTS = {"callout-note", "callout-tip", "callout-warning", "callout-important", "callout-caution"}
UNSUPPORTED = re.compile(
    r"(lst|thm|lem|cor|prp|cnj|def|exm|exr|sol|rem|alg|nte|tip|wrn|imp|cau)-"
    r"|layout|content-visible|content-hidden|panel-tabset"
)
# LaTeX macros act on the mathematics after them and are no text of their own.
MACRO = re.compile(r"\s*\\(newcommand|renewcommand|providecommand|def|let|DeclareMathOperator)\b")
FENCE = re.compile(r"(\s*)(`{3,}|~{3,})\s*([^`]*)$")
SHORTCODE = re.compile(r"\{\{<\s*(\S+)\s*(.*?)\s*>\}\}")
ROOTED = re.compile(r"""((?:src|href)=["']?)/(?!/)([^"'\s>]+)""")
IMAGES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}


class BookError(Exception):
    """The book cannot be rendered; the message is one line, `code` the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Chapter:
    """One page of the book: its source and what has been made of it so far."""

    source: str
    part: str = ""
    appendix: bool = False
    number: str = ""
    defaults: dict = field(default_factory=dict)
    notebook: Any = None
    doc: Any = None
    title: list = field(default_factory=list)

    @property
    def page(self) -> str:
        return Path(self.source).with_suffix(".html").as_posix()

    @property
    def folder(self) -> str:
        return os.path.dirname(self.source)

    def to(self, target: str) -> str:
        """Address of a file of the book as seen from this page."""
        return Path(os.path.relpath(target, self.folder or ".")).as_posix()


class Label(NamedTuple):
    """What a cross-reference points at."""

    chapter: Chapter
    kind: str
    number: str
    title: list = []


# --- configuration ----------------------------------------------------------------------


def merge(base: Any, extra: Any) -> Any:
    """Merge two configurations as Quarto does: maps by key, lists joined."""
    if isinstance(base, dict) and isinstance(extra, dict):
        both = {key: merge(base[key], extra[key]) for key in base.keys() & extra.keys()}
        return base | extra | both
    if isinstance(base, list) and isinstance(extra, list):
        return base + [item for item in extra if item not in base]
    return extra


def read_yaml(text: str, where: str) -> dict:
    try:
        value = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise BookError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise BookError(f"{where}: expected lines 'key: value', found {text.strip()[:60]!r}")
    return value


def read_config(root: Path, profile: str | None = None) -> tuple[dict, str]:
    """Read ``_quarto.yml``, with the file of the profile merged in, and name the profile."""
    if not (root / "_quarto.yml").is_file():
        raise BookError(f"{root} holds no _quarto.yml: run this in the root of the project")
    config = read_yaml((root / "_quarto.yml").read_text("utf-8"), "_quarto.yml")
    default = (config.get("profile") or {}).get("default") or ""
    profile = profile or os.environ.get("QUARTO_PROFILE") or default
    if not isinstance(profile, str) or not re.fullmatch(r"[\w.-]*", profile):
        raise BookError(f"profile {profile!r}: give one name, several at a time are not supported")
    extra = root / f"_quarto-{profile}.yml"
    if profile and extra.is_file():
        config = merge(config, read_yaml(extra.read_text("utf-8"), extra.name))
    if (config.get("project") or {}).get("type") != "book":
        raise BookError("_quarto.yml: project.type must be book")
    return config, profile


def html_options(config: dict) -> dict:
    html_format = (config.get("format") or {}).get("html")
    return html_format if isinstance(html_format, dict) else {}


def as_list(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def list_chapters(config: dict, root: Path) -> list[Chapter]:
    """List the chapters in reading order; their sources must exist."""

    def flatten(entries: Any, part: str, appendix: bool):
        for entry in as_list(entries):
            if isinstance(entry, dict) and set(entry) == {"part", "chapters"} and not part:
                yield from flatten(entry["chapters"], entry["part"], appendix)
            elif isinstance(entry, str) and not part.endswith(".qmd"):
                yield Chapter(os.path.normpath(entry), part, appendix)
            else:
                way_out = "use a path or {part: Title, chapters: [...]}"
                raise BookError(f"_quarto.yml: chapter {entry!r} (part {part!r}): {way_out}")

    book = config.get("book") or {}
    chapters = [*flatten(book.get("chapters"), "", False)]
    chapters += flatten(book.get("appendices"), "Appendices", True)
    for source, count in Counter(chapter.source for chapter in chapters).items():
        if not (root / source).is_file() or source.startswith(".."):
            raise BookError(f"_quarto.yml: chapter {source} does not exist in the project")
        if count > 1 or not source.endswith((".qmd", ".md", ".ipynb")):
            raise BookError(f"_quarto.yml: chapter {source}: list one .qmd, .md or .ipynb, once")
    if not chapters or chapters[0].page != "index.html":
        raise BookError("_quarto.yml: book.chapters must begin with index.qmd")
    return chapters


# --- from sources to executed notebooks -------------------------------------------------


def include(text: str, chapter: Chapter, root: Path, depth: int = 0) -> str:
    """Replace include shortcodes by the files they name; refuse the other shortcodes."""

    def insert(match: re.Match) -> str:
        name, file = match[1], match[2]
        path = root / (file[1:] if file.startswith("/") else os.path.join(chapter.folder, file))
        if name != "include":
            raise BookError(f"{chapter.source}: shortcode {match[0]} is not supported, only include is")
        if depth > 8 or not path.is_file():
            raise BookError(f"{chapter.source}: {match[0]}: no such file, or it includes itself")
        return include(path.read_text("utf-8"), chapter, root, depth + 1)

    return SHORTCODE.sub(insert, text)


def split_cells(text: str, where: str) -> list:
    """Cut Quarto markdown into the cells of a notebook."""
    cells, fence = [nbformat.v4.new_markdown_cell()], ""
    for line in text.splitlines(keepends=True):
        indent, ticks, info = match.groups() if (match := FENCE.match(line)) else ("", "", "")
        if fence and ticks.startswith(fence) and not info.strip():
            fence = ""
            if cells[-1].cell_type == "code":
                cells.append(nbformat.v4.new_markdown_cell())
                continue
        elif ticks and not fence:
            fence = ticks
            if re.match(r"\{[A-Za-z]", info):
                if info.strip() != "{python}" or indent:
                    raise BookError(f"{where}: {line.strip()!r}: use an unindented ```{{python}}")
                cells.append(nbformat.v4.new_code_cell())
                continue
        cells[-1].source += line
    if cells[-1].cell_type == "code":
        raise BookError(f"{where}: the last ```{{python}} cell is not closed")
    return cells


def read_notebook(chapter: Chapter, root: Path, defaults: dict) -> None:
    """Read a chapter as the notebook to execute, with the defaults of its cells."""
    path, where = root / chapter.source, chapter.source
    if path.suffix != ".ipynb":
        cells = split_cells(include(path.read_text("utf-8"), chapter, root), where)
        notebook = nbformat.v4.new_notebook(cells=cells)
    else:
        try:
            notebook = nbformat.read(path, as_version=4)
        except Exception as error:  # nbformat has no common class for what a broken file raises
            raise BookError(f"{where}: not a notebook: {' '.join(str(error).split())[:200]}") from None
        for cell in [cell for cell in notebook.cells if cell.cell_type == "markdown"]:
            cell.source = include(cell.source, chapter, root)
            if len(split_cells(cell.source, where)) > 1:
                raise BookError(f"{where}: a markdown cell holds a ```{{python}} cell: use a code cell")
    notebook.metadata.setdefault("kernelspec", {"name": "python3", "display_name": "Python 3"})
    notebook.metadata.setdefault("language_info", {"name": "python"})
    first = notebook.cells[0].source if notebook.cells else ""
    front = re.match(r"---\n(.*?)\n---\s*(\n|$)", first, re.DOTALL)
    chapter.notebook = notebook
    chapter.defaults = defaults | (read_yaml(front[1], where).get("execute") or {} if front else {})
    for cell in [cell for cell in notebook.cells if cell.cell_type == "code"]:
        cell.outputs = []
        if not cell_options(cell, where, chapter.defaults)[0]["eval"]:
            # Empty cells are not executed; the source comes back afterwards.
            cell.metadata["parked"], cell.source = cell.source, ""


def execute(chapter: Chapter, root: Path, profile: str, workdir: Path) -> None:
    """Execute the chapter's code in the root of the project."""
    if any(cell.cell_type == "code" and cell.source.strip() for cell in chapter.notebook.cells):
        start, stem = time.perf_counter(), workdir / chapter.source.replace(os.sep, "--")
        source, result = stem.with_suffix(".in.ipynb"), stem.with_suffix(".out.ipynb")
        nbformat.write(chapter.notebook, source)
        # A process for each chapter: papermill's event loop is not made for threads.
        command = [sys.executable, "-m", "papermill", source, result, "--cwd", root]
        env = os.environ | {"TOKEN_GEOMETRY_BOOK": "1"} | ({"QUARTO_PROFILE": profile} if profile else {})
        run = subprocess.run(command, cwd=root, env=env, capture_output=True, encoding="utf-8")
        if result.is_file():
            chapter.notebook = nbformat.read(result, as_version=4)
        code = [cell for cell in chapter.notebook.cells if cell.cell_type == "code"]
        for index, cell in enumerate(code, 1):
            for output in [output for output in cell.outputs if output.output_type == "error"]:
                value = " ".join(output.evalue.split())
                raise BookError(f"{chapter.source}, code cell {index}: {output.ename}: {value}")
        if run.returncode:
            message = (run.stderr.strip() or f"exit code {run.returncode}").splitlines()[-1]
            raise BookError(f"{chapter.source}: papermill failed: {message}")
        print(f"{chapter.source}: executed in {time.perf_counter() - start:.1f} s", flush=True)
    for cell in chapter.notebook.cells:
        cell.source = cell.metadata.pop("parked", cell.source)


# --- from executed notebooks to pandoc's markdown ---------------------------------------


def cell_options(cell: Any, where: str, defaults: dict) -> tuple[dict, str]:
    """Split a code cell into its ``#|`` options and its code."""
    lines = cell.source.splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("#|"), lines))
    options = read_yaml("\n".join(line[2:].removeprefix(" ") for line in head), f"{where}: #| options")
    if unknown := sorted(set(options) - OPTIONS - COSMETIC):
        raise BookError(f"{where}: cell option {unknown[0]} is none of {', '.join(sorted(OPTIONS))}")
    return defaults | options, "\n".join(lines[len(head) :]).strip("\n")


def fenced(text: str, attribute: str) -> str:
    ticks = "`" * (max([2, *map(len, re.findall("`+", text))]) + 1)
    return f"{ticks} {{{attribute}}}\n{text.rstrip()}\n{ticks}"


def output_markdown(output: Any, where: str, *, asis: bool, save: Any) -> str:
    """Turn one output of a cell into markdown; images go through ``save(content, suffix)``."""
    data = {"text/plain": output.text} if output.output_type == "stream" else output.data
    if "text/markdown" in data:
        return data["text/markdown"]
    if "text/html" in data:
        return fenced(data["text/html"], "=html")
    for mime in IMAGES.keys() & data.keys():
        svg = mime == "image/svg+xml"
        content = data[mime].encode() if svg else base64.b64decode(data[mime])
        return f"![]({save(content, IMAGES[mime])})"
    # Text beside a type unknown here is only the repr of what the reader should have seen.
    if set(data) != {"text/plain"}:
        names = ", ".join(sorted(set(data) - {"text/plain"}))
        raise BookError(f"{where}: output of type {names}: display markdown, HTML, SVG or PNG")
    return data["text/plain"] if asis else fenced(data["text/plain"], ".text .cell-output")


def cell_markdown(cell: Any, where: str, *, defaults: dict, save: Any) -> str:
    """Turn an executed code cell into markdown: code, loose output, figure or table."""
    options, code = cell_options(cell, where, defaults)
    if not options["include"]:
        return ""
    pieces, framed, asis = [], [], options["output"] == "asis"
    if code and options["echo"] and "injected-parameters" not in cell.metadata.get("tags", []):
        pieces = [fenced(code, ".python")]
        if fold := options.get("code-fold"):
            summary = html.escape(str(options.get("code-summary", "Code")))
            state = " open" if fold == "show" else ""
            opening = f'<details class="code-fold"{state}><summary>{summary}</summary>'
            pieces = [fenced(opening, "=html"), *pieces, fenced("</details>", "=html")]
    for output in cell.outputs if options["output"] else []:
        stream = output.output_type == "stream"
        if not stream or output.name == "stdout" or options["warning"]:
            text = output_markdown(output, where, asis=asis, save=save)
            (pieces if stream and not asis else framed).append(text)
    label = str(options.get("label", ""))
    label = label if label.startswith(("fig-", "tbl-")) else ""
    kind = label[:3] or ("tbl" if "tbl-cap" in options else "fig")
    caption = options.get(f"{kind}-cap")
    if label or caption:
        if not isinstance(caption, str) or not framed:
            name = label or f"{kind}-cap {caption!r}"
            raise BookError(f"{where}: {name} needs one caption, '#| {kind}-cap: ...', and an output")
        alt = html.escape(" ".join(str(options.get("fig-alt", "")).split()).replace("\\", "\\\\"))
        opening = f':::::: {{{"#" * bool(label)}{label} .cell-{kind} fig-alt="{alt}"}}'
        framed = [opening, *framed, " ".join(caption.split()), "::::::"]
    return "\n\n".join(pieces + framed)


def chapter_markdown(chapter: Chapter, site: Path) -> str:
    """Join an executed chapter into one markdown text; images of cells go into ``site``."""
    pieces, files, index = [], itertools.count(1), itertools.count(1)
    folder = f"{Path(chapter.source).stem}_files"

    def save(content: bytes, suffix: str) -> str:
        path = site / chapter.folder / folder / f"output-{next(files)}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return quote(f"{folder}/{path.name}")

    for cell in chapter.notebook.cells:
        if cell.cell_type == "code":
            where = f"{chapter.source}, code cell {next(index)}"
            pieces.append(cell_markdown(cell, where, defaults=chapter.defaults, save=save))
        elif cell.cell_type == "markdown" or cell is chapter.notebook.cells[0]:
            pieces.append(cell.source)
        elif cell.source.strip():
            raise BookError(f"{chapter.source}: raw cell {cell.source[:40]!r}: use a markdown cell")
    return "\n\n".join(pieces)


# --- from markdown to a numbered document -----------------------------------------------


def pandoc(text: str, *args: str, where: str, root: Path, strict: bool = True) -> str:
    """Run pandoc; a warning of it is an error, since it means lost content."""
    command = [pypandoc.get_pandoc_path(), *["--fail-if-warnings"] * strict, *args]
    run = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", cwd=root)
    if run.returncode:
        message = run.stderr.replace("Failing because there were warnings.", "")
        raise BookError(f"{where}: pandoc: {' '.join(message.split())}")
    return run.stdout


def load(text: str) -> pf.Doc:
    return pf.load(io.StringIO(text))


def dump(doc: pf.Doc) -> str:
    return json.dumps(doc.to_json(), ensure_ascii=False)


def within(elem: pf.Element) -> list:
    found = []
    elem.walk(lambda item, _: found.append(item))
    return found


def read_document(chapter: Chapter, markdown: str, root: Path) -> None:
    """Parse a chapter's markdown and bring its title to the front."""
    doc = load(pandoc(markdown, "-f", "markdown", "-t", "json", where=chapter.source, root=root))
    doc.walk(callout)
    if "title" in doc.metadata:
        classes = [] if doc.get_metadata("number-sections", True) else ["unnumbered"]
        doc.content.insert(0, pf.Header(*doc.metadata["title"].content, classes=classes))
    titles = [block for block in doc.content if isinstance(block, pf.Header) and block.level == 1]
    if len(titles) != 1:
        found = [pf.stringify(title) for title in titles]
        raise BookError(f"{chapter.source}: needs one title, '# Title' or front matter; found {found}")
    doc.content.remove(titles[0])
    doc.content.insert(0, titles[0])
    chapter.doc, chapter.title = doc, list(titles[0].content)


def callout(elem: pf.Element, doc: pf.Doc) -> Any:
    """Turn a callout div into a note with a title, folded where it asks for that."""
    kinds = [name for name in getattr(elem, "classes", []) if name in CALLOUTS]
    if not isinstance(elem, pf.Div) or not kinds:
        return None
    default = kinds[0].removeprefix("callout-").capitalize()
    body, title = list(elem.content), [pf.Str(elem.attributes.get("title", default))]
    if "title" not in elem.attributes and body and isinstance(body[0], pf.Header):
        title = list(body.pop(0).content)
    head = [pf.Div(pf.Para(*title), classes=["callout-title"])]
    if collapse := elem.attributes.get("collapse"):
        state = " open" if collapse == "false" else ""
        head = [pf.RawBlock(f"<details{state}><summary>", format="html"), pf.Plain(*title)]
        head.append(pf.RawBlock("</summary>", format="html"))
        body.append(pf.RawBlock("</details>", format="html"))
    looks = {"classes": ["callout", kinds[0]], "attributes": {"role": "note"}}
    return pf.Div(*head, *body, identifier=elem.identifier, **looks)


def number_document(chapter: Chapter, labels: dict[str, Label], *, sections: bool) -> None:
    """Number headings, figures, tables and equations as Quarto does; collect the labels."""
    counts, levels = Counter(), [0] * 7

    def define(label: str, kind: str, number: str, title: list) -> None:
        if label in labels:
            first = labels[label].chapter.source
            raise BookError(f"{chapter.source}: label {label} is already defined in {first}")
        labels[label] = Label(chapter, kind, number, title)

    def count(label: str) -> str:
        kind = label.split("-")[0]
        counts[kind] += 1
        number = f"{chapter.number}.{counts[kind]}".lstrip(".")
        define(label, KINDS[kind], number, [])
        return number

    def header(elem: pf.Header) -> None:
        title, number = list(elem.content), ""
        if chapter.number and sections and "unnumbered" not in elem.classes:
            levels[elem.level :] = [levels[elem.level] + 1, *[0] * (6 - elem.level)]
            number = ".".join([chapter.number, *map(str, levels[2 : elem.level + 1])])
            if elem.level > 1:
                elem.content = [pf.Span(pf.Str(number), classes=["number"]), pf.Space, *title]
        if elem.identifier.startswith("sec-"):
            kind = "Section" if elem.level > 1 else "Appendix" if chapter.appendix else "Chapter"
            define(elem.identifier, kind, number, title)

    def equations(elem: pf.Element) -> None:
        items = list(elem.content)
        for place, (math, _, after) in enumerate(zip(items, items[1:], items[2:], strict=False)):
            match = isinstance(after, pf.Str) and re.fullmatch(r"\{#(eq-.+)\}", after.text)
            if match and isinstance(math, pf.Math) and math.format == "DisplayMath":
                number = pf.Span(pf.Str(f"({count(match[1])})"), classes=["number"])
                span = pf.Span(math, number, identifier=match[1], classes=["equation"])
                # The space and the label go; nothing takes their places.
                items[place : place + 3] = [span, None, None]
        if None in items:
            elem.content = [item for item in items if item is not None]

    def frame(elem: pf.Element, kind: str) -> pf.Figure:
        """A figure or table under its label, with caption and alternative text."""
        content, label = [elem], elem.identifier
        if isinstance(elem, pf.Div):
            *content, last = elem.content
            caption = list(last.content) if content and isinstance(last, pf.Para) else []
        else:
            caption = [item for block in elem.caption.content for item in block.content]
        if isinstance(elem, pf.Figure):
            content = list(elem.content)
        elif isinstance(elem, pf.Table):
            elem.identifier, elem.caption = "", pf.Caption()
        inside = within(pf.Div(*content))
        if not caption or any(isinstance(item, pf.Figure) for item in inside):
            raise BookError(f"{chapter.source}: {label}: needs a caption of its own and no figure inside")
        alt = getattr(elem, "attributes", {}).get("fig-alt")
        images = [item for item in inside if isinstance(item, pf.Image)]
        for image in images:
            image.attributes.setdefault("alt", alt or "".join(map(pf.stringify, caption)))
        roles = [getattr(item, "attributes", {}).get("role") for item in inside]
        raw = "".join(item.text for item in inside if isinstance(item, pf.RawBlock))
        if alt and kind == "fig" and not images and "img" not in roles and 'role="img"' not in raw:
            content = [pf.Div(*content, attributes={"role": "img", "aria-label": alt})]
        if label:
            number = pf.Span(pf.Str(f"{KINDS[kind]}\u00a0{count(label)}:"), classes=["number"])
            caption = [number, pf.Space, *caption]
        caption = pf.Caption(pf.Plain(*caption))
        return pf.Figure(*content, caption=caption, identifier=label, classes=[f"float-{kind}"])

    def act(elem: pf.Element, doc: pf.Doc) -> Any:
        names = [getattr(elem, "identifier", ""), *getattr(elem, "classes", [])]
        kind = next((k for k in ("fig", "tbl") if names[0].startswith(f"{k}-") or f"cell-{k}" in names), "")
        if isinstance(elem, (pf.Figure, pf.Table, pf.Div)) and kind:
            return frame(elem, kind)
        if isinstance(elem, pf.Header):
            header(elem)
        elif isinstance(elem, (pf.Para, pf.Plain)):
            equations(elem)
        elif isinstance(elem, pf.Image) and "fig-alt" in elem.attributes:
            elem.attributes["alt"] = elem.attributes.pop("fig-alt")
        return None

    chapter.doc.walk(act)
    for elem in within(chapter.doc):
        if fault := unsupported(elem):
            raise BookError(f"{chapter.source}: {fault}")


def unsupported(elem: pf.Element) -> str:
    """Name what pandoc would pass over in silence or print as source."""
    if isinstance(elem, (pf.RawBlock, pf.RawInline)) and elem.format == "tex":
        return "" if MACRO.match(elem.text) else f"LaTeX outside mathematics: {elem.text[:60]}"
    if isinstance(elem, pf.Str) and re.search(r"\{#[a-z]+-|^:::", elem.text):
        return f"markup that belongs to nothing: {elem.text}"
    if isinstance(elem, pf.Code) and elem.text.startswith("{python}"):
        return f"inline code {elem.text!r}: use a cell with 'output: asis'"
    if isinstance(elem, (pf.Div, pf.CodeBlock)):
        names = [elem.identifier, *elem.classes, *elem.attributes]
        return next((f"Quarto's {name} is not supported" for name in names if UNSUPPORTED.match(name)), "")
    return ""


# --- references and citations -----------------------------------------------------------


def resolve_references(chapter: Chapter, labels: dict[str, Label], cited: dict[str, str]) -> None:
    """Replace cross-references by links; note in ``cited`` the keys that are citeproc's."""

    def link(citation: pf.Citation) -> list:
        label = labels.get(citation.id)
        if label is None:
            raise BookError(f"{chapter.source}: @{citation.id}: no chapter defines {{#{citation.id}}}")
        # A prefix replaces the word, as in Quarto: [Fig. @fig-x].
        word = list(citation.prefix) or [pf.Str(label.kind)]
        text = [*word, pf.Str(f"\u00a0{label.number}")]
        if citation.mode == "SuppressAuthor":
            text = [pf.Str(label.number)]
        if not label.number:
            text = label.title
        page = "" if label.chapter is chapter else chapter.to(label.chapter.page)
        return [pf.Link(*text, url=f"{page}#{citation.id}", classes=["xref"]), *citation.suffix]

    def act(elem: pf.Element, doc: pf.Doc) -> Any:
        if not isinstance(elem, pf.Cite):
            return None
        ours = [citation.id.split("-")[0] in KINDS for citation in elem.citations]
        if any(ours) and not all(ours):
            raise BookError(f"{chapter.source}: {pf.stringify(elem)} mixes references and citations")
        if not any(ours):
            cited.update({c.id: chapter.source for c in elem.citations if c.id not in cited})
            return None
        comma = [pf.Str(","), pf.Space]
        links = [item for citation in elem.citations for item in comma + link(citation)]
        return links[len(comma) :]

    chapter.doc.walk(act)


def cite(chapters: list[Chapter], config: dict, cited: dict[str, str], root: Path) -> None:
    """Run citeproc once over the whole book, so that it has one list of references."""
    files = [str(file) for file in as_list(config.get("bibliography"))]
    meta = {"bibliography": files, "link-citations": True}
    meta |= {"csl": str(config["csl"])} if config.get("csl") else {}
    for file in [*files, meta.get("csl", "_quarto.yml")]:
        if not (root / file).is_file():
            raise BookError(f"_quarto.yml: {file} does not exist")
    joined = pf.Doc(*[pf.Div(*chapter.doc.content) for chapter in chapters], metadata=meta)
    command = ["-f", "json", "-t", "json", "--citeproc"]
    # Not strict: citeproc warns of an unknown key but cannot say in which chapter it is.
    text = pandoc(dump(joined), *command, where="citations", root=root, strict=False)
    for chapter, div in zip(chapters, load(text).content, strict=True):
        chapter.doc.content = list(div.content)
    entries = {
        elem.identifier: chapter
        for chapter in chapters
        for elem in within(chapter.doc)
        if isinstance(elem, pf.Div) and elem.identifier.startswith("ref")
    }
    for key, source in cited.items():
        if "refs" not in entries:
            raise BookError(f"{source}: cites @{key}, but no chapter holds the div '::: {{#refs}}'")
        if f"ref-{key}" not in entries:
            raise BookError(f"{source}: citation key @{key} is not in {files or 'any bibliography'}")
    for chapter in chapters:
        for elem in within(chapter.doc):
            target = entries.get(elem.url[1:]) if isinstance(elem, pf.Link) else None
            if target and target is not chapter:
                elem.url = chapter.to(target.page) + elem.url


# --- pages ------------------------------------------------------------------------------


def copy_file(file: str, root: Path, site: Path, where: str) -> None:
    if file.startswith("..") or not (root / file).is_file():
        raise BookError(f"{where}: there is no file {file} in the project")
    (site / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / file, site / file)


def copy_resources(config: dict, root: Path, site: Path) -> None:
    for pattern in as_list(config["project"].get("resources")):
        found = [path for path in root.glob(pattern.strip("/")) if path.is_file()]
        if not found:
            raise BookError(f"_quarto.yml: project.resources: no file matches {pattern}")
        for path in found:
            copy_file(path.relative_to(root).as_posix(), root, site, "project.resources")


def localise(chapter: Chapter, chapters: list[Chapter], root: Path, site: Path) -> None:
    """Point links at rendered pages and copy the local files that the page needs."""
    pages = {other.source: other.page for other in chapters}
    for elem in within(chapter.doc):
        url = getattr(elem, "url", "#")
        if re.match(r"[a-z][a-z0-9+.-]*:|//", url, re.I):
            if isinstance(elem, pf.Image) and not url.startswith("data:"):
                raise BookError(f"{chapter.source}: image {url}: put a copy into the project")
        elif not url.startswith("#"):
            path, mark, anchor = url.partition("#")
            path = unquote(path[1:] if path[0] == "/" else os.path.join(chapter.folder, path))
            path = pages.get(os.path.normpath(path), os.path.normpath(path))
            if path not in pages.values() and not (site / path).is_file():
                copy_file(path, root, site, f"{chapter.source}: {url}")
            elem.url = quote(chapter.to(path)) + mark + anchor


def page_head(options: dict, root: Path, site: Path) -> str:
    """The text of ``include-in-header``; a file that it names from the root must exist."""
    texts = []
    for entry in as_list(options.get("include-in-header")):
        file = entry.get("file") if isinstance(entry, dict) else entry
        if file and not (root / file).is_file():
            raise BookError(f"_quarto.yml: include-in-header: {file} does not exist")
        texts.append((root / file).read_text("utf-8") if file else entry["text"])
    for match in ROOTED.finditer("\n".join(texts)):
        copy_file(match[2], root, site, "_quarto.yml: include-in-header")
    return "\n".join(texts)


def write_pages(chapters: list[Chapter], config: dict, root: Path, site: Path) -> None:
    """Write one HTML page for each chapter through the template of the project."""
    options, book = html_options(config), dict(config.get("book") or {})
    head, styles = page_head(options, root, site), [STYLE, *as_list(options.get("css"))]
    for file in styles:
        copy_file(file, root, site, "style sheet")
    if str(book.get("date")) in ("today", "now"):
        book["date"] = datetime.date.today()
    authors = [a["name"] if isinstance(a, dict) else a for a in as_list(book.get("author"))]
    names = ("title", "subtitle", "date", "description")
    cover = {"author": authors} | {name: str(book[name]) for name in names if book.get(name)}
    command = ["-f", "json", "-t", "html5", "--standalone", "--mathml", "--wrap=none"]
    command.append(f"--template={TEMPLATE}")
    if options.get("toc", True):
        command += ["--toc", f"--toc-depth={options.get('toc-depth', 3)}"]
    for index, chapter in enumerate(chapters):

        def entry(place: int, here: Chapter = chapter) -> dict:
            if not 0 <= place < len(chapters):
                return {}
            other, before = chapters[place], chapters[place - 1].part if place else ""
            part = {"part": other.part} if other.part and other.part != before else {}
            return part | {
                "href": here.to(other.page),
                "heading": pf.MetaInlines(*other.title),
                "number": other.number and "Appendix " * other.appendix + other.number,
                "nested": bool(other.part),
                "current": other is here,
            }

        localise(chapter, chapters, root, site)
        title = chapter.doc.content.pop(0)
        heading, name = pf.stringify(title), str(book.get("title", ""))
        meta = entry(index) | {
            "pagetitle": " – ".join(dict.fromkeys([f"{chapter.number} {heading}".strip(), name])),
            "heading": pf.MetaInlines(*title.content),
            "anchor": title.identifier,
            "cover": cover if index == 0 else {},
            "same": heading == name,
            "book": name,
            "home": chapter.to("index.html"),
            "nav": [entry(place) for place in range(len(chapters))],
            "previous": entry(index - 1),
            "next": entry(index + 1),
            "styles": [chapter.to(file) for file in styles],
            "head": pf.MetaBlocks(
                pf.RawBlock(ROOTED.sub(lambda m, here=chapter: m[1] + here.to(m[2]), head), format="html")
            ),
        }
        page = dump(pf.Doc(*chapter.doc.content, metadata=meta))
        file = site / chapter.page
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(pandoc(page, *command, where=chapter.source, root=root), "utf-8")


def pre_render(config: dict, root: Path, profile: str) -> None:
    env = os.environ | ({"QUARTO_PROFILE": profile} if profile else {})
    for script in as_list(config["project"].get("pre-render")):
        words = shlex.split(script)
        words = [sys.executable] * words[0].endswith(".py") + words
        try:
            code = subprocess.run(words, cwd=root, env=env).returncode
        except OSError as error:
            raise BookError(f"project.pre-render: {script}: {error.strerror}") from None
        if code:
            message = f"project.pre-render: {script} ended with exit code {code}"
            raise BookError(message, code if code > 0 else 1)


def render(project: Path, *, profile: str | None = None) -> Path:
    """Render the book of a project; what was rendered before stays if that fails.

    Parameters
    ----------
    project : Path
        The folder that holds ``_quarto.yml``.
    profile : str, optional
        The profile whose ``_quarto-<profile>.yml`` is merged in; by default that of the
        environment variable ``QUARTO_PROFILE``, else ``profile.default``.

    Returns
    -------
    Path
        The first page, ``_book/index.html``.

    Raises
    ------
    BookError
        If the sources are wrong or hold something that cannot be rendered.
    """
    root = Path(project).resolve()
    config, profile = read_config(root, profile)
    output = (root / config["project"].get("output-dir", "_book")).resolve()
    pre_render(config, root, profile)
    chapters = list_chapters(config, root)
    # The output folder is replaced as a whole: it must be a folder of nothing but output.
    if root not in output.parents or any(output in (root / c.source).parents for c in chapters):
        raise BookError(f"_quarto.yml: project.output-dir: {output} must be a folder for output only")
    output.parent.mkdir(parents=True, exist_ok=True)
    defaults = DEFAULTS | {"code-fold": html_options(config).get("code-fold", False)}
    defaults |= {k: v for k, v in (config.get("execute") or {}).items() if k in DEFAULTS}
    sections, labels, cited = html_options(config).get("number-sections", True), {}, {}
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as temporary:
        workdir, site = Path(temporary), Path(temporary, "site")
        site.mkdir()
        copy_resources(config, root, site)
        for chapter in chapters:
            read_notebook(chapter, root, defaults)
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(execute, chapter, root, profile, workdir) for chapter in chapters]
            try:
                for job in as_completed(jobs):
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)
        for chapter in chapters:
            read_document(chapter, chapter_markdown(chapter, site), root)
        for appendix, names in [(False, map(str, itertools.count(1))), (True, iter(ALPHABET))]:
            for chapter in chapters:
                numbered = "unnumbered" not in chapter.doc.content[0].classes and sections
                if chapter.appendix is appendix and numbered:
                    chapter.number = next(names)
        for chapter in chapters:
            number_document(chapter, labels, sections=sections)
        for chapter in chapters:
            resolve_references(chapter, labels, cited)
        cite(chapters, config, cited, root)
        write_pages(chapters, config, root, site)
        if output.exists():
            output.rename(workdir / "before")
        site.rename(output)
    return output / "index.html"


def main(argv: list[str] | None = None) -> int:
    """Render the book of the current folder; returns the exit code."""
    parser = argparse.ArgumentParser(prog="token_geometry.book", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", help="name of the _quarto-<profile>.yml to merge in")
    arguments = parser.parse_args(argv)
    try:
        print(render(Path.cwd(), profile=arguments.profile))
    except BookError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
