"""Cells of a chapter: cut from Quarto's markdown, executed, and written as the markdown that pandoc reads."""

import asyncio
import base64
import html
import itertools
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbclient
import nbformat

from token_geometry.base.parameters import read_yaml
from token_geometry.renderer.configuration import BookError, Chapter

WORKERS = 2  # chapters that are executed, and pages that are made, at a time

# Options that cells, the front matter of a chapter and `execute` of `_quarto.yml` can set.
DEFAULTS = {"echo": True, "include": True, "output": True, "eval": True, "warning": False}
_OPTIONS = {*DEFAULTS, "label", "fig-cap", "fig-alt", "tbl-cap", "code-fold", "code-summary"}
# Without these a page looks different but says the same.
_COSMETIC = {"fig-width", "fig-height", "fig-align", "fig-dpi", "message", "tags", "classes"}
_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})\s*([^`]*)$")
_SHORTCODE = re.compile(r"\{\{<\s*(\S+)\s*(.*?)\s*>\}\}")
_IMAGES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}


def read(chapter: Chapter, root: Path, defaults: dict) -> None:
    """Read a chapter as the notebook to execute, with the options of its cells."""
    path, where = root / chapter.source, chapter.source
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        try:
            found = nbformat.reads(text, as_version=4).cells
        except Exception as error:  # nbformat has no common class for what a broken file raises
            raise BookError(f"{where}: not a notebook: {' '.join(str(error).split())[:200]}") from None
        if raw := [cell.source for cell in found[1:] if cell.cell_type == "raw"]:
            raise BookError(f"{where}: raw cell {raw[0][:40]!r}: use a markdown cell")
        text = "\n\n".join(_fenced(c.source, "python") if c.cell_type == "code" else c.source for c in found)
    chapter.notebook = nbformat.v4.new_notebook(cells=_split(_include(text, chapter, root), where))
    front = re.match(r"---\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    chapter.options = defaults | (read_yaml(front[1], where).get("execute") or {} if front else {})
    for cell in chapter.notebook.cells:
        if cell.cell_type == "code" and not _options(cell, chapter)[0]["eval"]:
            cell.metadata["tags"] = ["skip-execution"]  # which the client understands


def _include(text: str, chapter: Chapter, root: Path, depth: int = 0) -> str:
    """Replace include shortcodes by the files they name; refuse the other shortcodes."""

    def insert(match: re.Match) -> str:
        name, file = match.groups()
        path = root / file[1:] if file.startswith("/") else (root / chapter.source).parent / file
        if name != "include":
            raise BookError(f"{chapter.source}: shortcode {match[0]} is not supported, only include is")
        if depth > 8 or not path.is_file():
            raise BookError(f"{chapter.source}: {match[0]}: no such file, or it includes itself")
        return _include(path.read_text("utf-8"), chapter, root, depth + 1)

    return _SHORTCODE.sub(insert, text)


def _split(text: str, where: str) -> list:
    """Cut Quarto's markdown into the cells of a notebook."""
    cells, fence = [nbformat.v4.new_markdown_cell()], ""
    for line in text.splitlines(keepends=True):
        indent, ticks, info = match.groups() if (match := _FENCE.match(line)) else ("", "", "")
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


def execute(chapters: list[Chapter], root: Path, environment: dict[str, str]) -> None:
    """Execute the chapters in the project's root; a `BookError` gives number and line of a cell that fails."""

    async def run(chapter: Chapter) -> None:
        code = [cell for cell in chapter.notebook.cells if cell.cell_type == "code"]
        if any(cell.source.strip() for cell in code):
            async with free:
                start = time.perf_counter()
                client = nbclient.NotebookClient(
                    chapter.notebook, timeout=None, kernel_name="python3",
                    resources={"metadata": {"path": str(root)}},
                    # kernels warn at every start that they listen on the loopback address without encryption
                    extra_arguments=["--IPKernelApp.log_level=50"],
                )  # fmt: skip
                try:
                    await client.async_execute(env=environment)
                except nbclient.exceptions.CellExecutionError as error:
                    failed = [any(out.output_type == "error" for out in cell.outputs) for cell in code]
                    message = f"{error.ename}: {' '.join(error.evalue.split())}"
                    where = f"{chapter.source}, code cell {failed.index(True) + 1}"
                    raise BookError(f"{where}: {message}") from None
                except RuntimeError:  # DeadKernelError, and that of a kernel that died as it started
                    raise BookError(f"{chapter.source}: its kernel died, most often for want of memory") from None
                print(f"{chapter.source}: executed in {time.perf_counter() - start:.1f} s", flush=True)

    async def run_all() -> None:
        # one that fails ends the others, of which there is nothing to say
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        await asyncio.gather(*map(run, chapters))

    free = asyncio.Semaphore(WORKERS)
    asyncio.run(run_all())


def markdown(chapter: Chapter, site: Path) -> str:
    """Join an executed chapter into one text; images that its cells made go into `site`."""
    files, index, folder = itertools.count(1), itertools.count(1), f"{Path(chapter.source).stem}_files"

    def save(content: bytes, suffix: str) -> str:
        path = (site / chapter.source).with_name(folder) / f"output-{next(files)}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return quote(f"{folder}/{path.name}")

    return "\n\n".join(
        _cell_markdown(cell, chapter, f"{chapter.source}, code cell {next(index)}", save)
        if cell.cell_type == "code"
        else cell.source
        for cell in chapter.notebook.cells
    )


def _options(cell: Any, chapter: Chapter) -> tuple[dict, str]:
    """Split a code cell into its ``#|`` options and its code."""
    lines = cell.source.splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("#|"), lines))
    options = read_yaml("\n".join(line[2:].removeprefix(" ") for line in head), f"{chapter.source}: #| options")
    if unknown := sorted(set(options) - _OPTIONS - _COSMETIC):
        raise BookError(f"{chapter.source}: cell option {unknown[0]} is none of {', '.join(sorted(_OPTIONS))}")
    return chapter.options | options, "\n".join(lines[len(head) :]).strip("\n")


def _cell_markdown(cell: Any, chapter: Chapter, where: str, save: Any) -> str:
    """Turn an executed code cell into markdown: code, loose output, figure or table."""
    options, code = _options(cell, chapter)
    if not options["include"]:
        return ""
    pieces, framed, asis = [], [], options["output"] == "asis"
    if code and options["echo"]:
        pieces = [_fenced(code, ".python")]
        if fold := options.get("code-fold"):
            summary = html.escape(str(options.get("code-summary", "Code")))
            state = " open" if fold == "show" else ""
            opening = f'<details class="code-fold"{state}><summary>{summary}</summary>'
            pieces = [_fenced(opening, "=html"), *pieces, _fenced("</details>", "=html")]
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
        alt = f' fig-alt="{alt}"' if alt else ""
        opening = f":::::: {{{'#' * bool(label)}{label} .cell-{kind}{alt}}}"
        framed = [opening, *framed, " ".join(caption.split()), "::::::"]
    return "\n\n".join(pieces + framed)


def output_markdown(output: Any, where: str, *, asis: bool, save: Any) -> str:
    """Turn one output of a cell into markdown; images go through ``save(content, suffix)``."""
    data = {"text/plain": output.text} if output.output_type == "stream" else output.data
    if "text/markdown" in data:
        return data["text/markdown"]
    if "text/html" in data:
        return _fenced(data["text/html"], "=html")
    for mime in _IMAGES.keys() & data.keys():
        content = data[mime].encode() if mime == "image/svg+xml" else base64.b64decode(data[mime])
        return f"![]({save(content, _IMAGES[mime])})"
    # Text beside a type unknown here is only the repr of what the reader should have seen.
    if set(data) != {"text/plain"}:
        names = ", ".join(sorted(set(data) - {"text/plain"}))
        raise BookError(f"{where}: output of type {names}: display markdown, HTML, SVG or PNG")
    return data["text/plain"] if asis else _fenced(data["text/plain"], ".text .cell-output")


def _fenced(text: str, attribute: str) -> str:
    ticks = "`" * (max([2, *map(len, re.findall("`+", text))]) + 1)
    return f"{ticks}{{{attribute}}}\n{text.rstrip()}\n{ticks}"
