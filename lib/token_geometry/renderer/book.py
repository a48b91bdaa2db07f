"""Render the Quarto book where Quarto is not installed.

The same sources and the same ``_quarto.yml`` give the same pages: `cells` executes the chapters, pandoc does the
typesetting, `crossref` numbers what Quarto numbers, ``book/assets`` holds the frame and the style of a page. What
cannot be rendered is refused with one line, because a page that silently lacks something is worse than none.

Run ``python -m token_geometry.renderer.book [--profile NAME]`` in the root of the project."""

import argparse
import datetime
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, unquote

import panflute as pf
import pypandoc

from token_geometry.base import InputError, processes
from token_geometry.renderer import cells, configuration, crossref
from token_geometry.renderer.configuration import BookError, Chapter, as_list, html_options

TEMPLATE, STYLE = "book/assets/page.html", "book/assets/page.css"
ROOTED = re.compile(r"""((?:src|href)=["']?)/(?!/)([^"'\s>]+)""")  # addresses from the root of the book


def pandoc(source: str | pf.Doc, *options: str, where: str, root: Path, strict: bool = True) -> str:
    """Run pandoc; a warning of it is an error, since it means lost content."""
    text = source if isinstance(source, str) else json.dumps(source.to_json(), ensure_ascii=False)
    command = [pypandoc.get_pandoc_path(), *["--fail-if-warnings"] * strict, *options]
    run = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", cwd=root)
    if run.returncode:
        message = run.stderr.replace("Failing because there were warnings.", "")
        raise BookError(f"{where}: pandoc: {' '.join(message.split())}")
    return run.stdout


def typeset(chapters: list[Chapter], config: dict, root: Path, site: Path) -> None:
    """Read the chapters with pandoc, number them, resolve their references and citations."""

    def parse(chapter: Chapter) -> None:
        text = cells.markdown(chapter, site)
        filters = [f"--lua-filter={file}" for file in as_list(config.get("filters"))]
        filters += [f"--metadata=lacks:{config.get('lacks', '')}"]
        chapter.doc = pf.load(io.StringIO(pandoc(text, "-t", "json", *filters, where=chapter.source, root=root)))
        crossref.normalize(chapter)

    with ThreadPoolExecutor(cells.WORKERS) as pool:
        list(pool.map(parse, chapters))
    sections, labels, cited = html_options(config).get("number-sections", True), {}, {}
    names = {False: map(str, itertools.count(1)), True: iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")}
    for chapter in chapters:
        if sections and "unnumbered" not in chapter.doc.content[0].classes:
            chapter.number = next(names[chapter.appendix])
        crossref.number(chapter, labels)
    for chapter in chapters:
        cited = dict.fromkeys(crossref.resolve(chapter, labels), chapter.source) | cited
    cite(chapters, config, cited, root)


def cite(chapters: list[Chapter], config: dict, cited: dict[str, str], root: Path) -> None:
    """Run citeproc once over the whole book, so that it has one list of references."""
    meta = {key: config[key] for key in ("bibliography", "csl") if config.get(key)} | {"link-citations": True}
    joined = pf.Doc(*[pf.Div(*chapter.doc.content) for chapter in chapters], metadata=meta)
    # Not strict: citeproc warns of an unknown key but cannot say in which chapter it is.
    where = "_quarto.yml: citations"
    text = pandoc(joined, "-f", "json", "-t", "json", "--citeproc", where=where, root=root, strict=False)
    entries, texts = {}, {}
    for chapter, div in zip(chapters, pf.load(io.StringIO(text)).content, strict=True):
        chapter.doc.content = list(div.content)
        found = {getattr(elem, "identifier", ""): elem for elem in crossref.within(chapter.doc)}
        entries |= {name: chapter for name in found if name.startswith("ref")}
        texts |= {name: pf.stringify(elem) for name, elem in found.items() if name.startswith("ref-")}
    for key, source in cited.items():
        if "refs" not in entries:
            raise BookError(f"{source}: cites @{key}, but no chapter holds the div '::: {{#refs}}'")
        if f"ref-{key}" not in entries:
            where = meta.get("bibliography", "any bibliography")
            raise BookError(f"{source}: citation key @{key} is not in {where}")
    for chapter in chapters:
        for elem in crossref.within(chapter.doc):
            if isinstance(elem, pf.Link) and entries.get(elem.url[1:], chapter) is not chapter:
                elem.attributes["entry"] = texts.get(elem.url[1:], "")  # for a page to show beside the link
                elem.url = f"/{entries[elem.url[1:]].source}{elem.url}"


def copy_file(file: str, root: Path, site: Path, where: str) -> None:
    if file.startswith("..") or not (root / file).is_file():
        raise BookError(f"{where}: there is no file {file} in the project")
    (site / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / file, site / file)


def localize(chapter: Chapter, pages: dict[str, str], root: Path, site: Path) -> None:
    """Point links at rendered pages and copy the local files that the page needs."""
    for elem in crossref.within(chapter.doc):
        url = getattr(elem, "url", "#")
        if re.match(r"[a-z][a-z0-9+.-]*:|//", url, re.I):
            if isinstance(elem, pf.Image) and not url.startswith("data:"):
                raise BookError(f"{chapter.source}: image {url}: put a copy into the project")
        elif not url.startswith("#"):
            path, mark, anchor = url.partition("#")
            path = path[1:] if path[0] == "/" else os.path.join(os.path.dirname(chapter.source), path)
            path = pages.get(os.path.normpath(unquote(path)), os.path.normpath(unquote(path)))
            if path not in pages.values() and not (site / path).is_file():
                copy_file(path, root, site, f"{chapter.source}: {url}")
            elem.url = quote(chapter.up + path) + mark + anchor


def write_pages(chapters: list[Chapter], config: dict, root: Path, site: Path) -> None:
    """Write one HTML page for each chapter through the template of the project."""
    options, book = html_options(config), config.get("book") or {}
    heads = as_list(options.get("include-in-header"))
    if odd := [entry for entry in heads if not isinstance(entry, dict) or set(entry) != {"text"}]:
        raise BookError(f"_quarto.yml: include-in-header: {odd[0]!r}: give it as 'text: ...'")
    top, styles = "\n".join(entry["text"] for entry in heads), [STYLE, *as_list(options.get("css"))]
    for file in [match[2] for match in ROOTED.finditer(top)] + styles:
        copy_file(file, root, site, "_quarto.yml: format.html")
    cover: dict = {name: book.get(name, "") for name in ("title", "subtitle", "date", "description")}
    cover = {name: re.sub(r"\\([^\w\s])", r"\1", str(text)) for name, text in cover.items()}
    cover["date"] = str(datetime.date.today()) if cover["date"] in ("today", "now") else cover["date"]
    cover["author"] = [a["name"] if isinstance(a, dict) else a for a in as_list(book.get("author"))]
    command = ["-f", "json", "-t", "html5", "--standalone", "--mathml", "--wrap=none", f"--template={TEMPLATE}"]
    if options.get("toc", True):
        command += ["--toc", f"--toc-depth={options.get('toc-depth', 3)}"]
    titles, nav = [chapter.doc.content.pop(0) for chapter in chapters], []
    for chapter, title, before in zip(chapters, titles, ["", *[c.part for c in chapters]], strict=False):
        item = {"page": chapter.page, "part": "" if chapter.part == before else chapter.part}
        number = f"Appendix {chapter.number} —" if chapter.appendix else chapter.number
        item |= {"number": chapter.number and number}
        nav.append(item | {"nested": bool(chapter.part), "heading": pf.MetaInlines(*title.content)})

    def write(place: int) -> None:
        chapter, title = chapters[place], pf.stringify(titles[place])
        head = ROOTED.sub(lambda match: match[1] + chapter.up + match[2], top)
        chapter.doc.metadata = nav[place] | {
            "pagetitle": " – ".join(dict.fromkeys([f"{chapter.number} {title}".strip(), cover["title"]])),
            "anchor": titles[place].identifier, "book": cover["title"], "same": title == cover["title"],
            "cover": cover if place == 0 else {}, "up": chapter.up, "styles": styles,
            "nav": [item | {"current": item is nav[place]} for item in nav],
            "previous": nav[place - 1] if place else {},
            "next": nav[place + 1] if place + 1 < len(nav) else {},
            "head": pf.MetaBlocks(pf.RawBlock(head, format="html")),
        }  # fmt: skip
        file = site / chapter.page
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(pandoc(chapter.doc, *command, where=chapter.source, root=root), "utf-8")

    for chapter in chapters:
        localize(chapter, {other.source: other.page for other in chapters}, root, site)
    with ThreadPoolExecutor(cells.WORKERS) as pool:
        list(pool.map(write, range(len(chapters))))


def pre_render(config: dict, root: Path, environment: dict[str, str]) -> None:
    for script in as_list(config["project"].get("pre-render")):
        words = shlex.split(script)
        words = [sys.executable] * words[0].endswith(".py") + words
        try:
            given = environment | {"TOKEN_GEOMETRY_PARENT": str(os.getpid())}  # with which it is to end
            code = subprocess.run(words, cwd=root, env=given).returncode
        except OSError as error:
            raise BookError(f"project.pre-render: {script}: {error.strerror}") from None
        if code:
            failed = BookError(f"project.pre-render: {script} ended with exit code {code}")
            failed.code = max(code, 1)
            raise failed


def render(project: Path, *, profile: str | None = None, output_dir: str = "") -> Path:
    """Render the book of a project and return its first page; what was rendered before stays if that fails.

    `project` is the folder that holds ``_quarto.yml``, `profile` that whose ``_quarto-<profile>.yml`` is merged
    in, by default that of the environment variable ``QUARTO_PROFILE``, else ``profile.default``; `output_dir`
    takes the place of the folder that ``_quarto.yml`` names. A `BookError` says if the sources are wrong or hold
    something that cannot be rendered."""
    root = Path(project).resolve()
    config, profile = configuration.read_config(root, profile)
    output = (root / (output_dir or config["project"].get("output-dir", "_book"))).resolve()
    environment = os.environ | ({"QUARTO_PROFILE": profile} if profile else {})
    pre_render(config, root, environment)
    config, _ = configuration.read_config(root, profile)  # which may have changed
    chapters = configuration.list_chapters(config, root)
    # The output folder is replaced as a whole: it must be a folder of nothing but output.
    if root not in output.parents or any(output in (root / c.source).parents for c in chapters):
        raise BookError(f"_quarto.yml: project.output-dir: {output} must be a folder for output only")
    output.parent.mkdir(parents=True, exist_ok=True)
    options = cells.DEFAULTS | {"code-fold": html_options(config).get("code-fold", False)}
    options |= {k: v for k, v in (config.get("execute") or {}).items() if k in options}
    prefix = f".{output.name}-"
    for before in () if output.exists() else output.parent.glob(f"{prefix}*/before"):
        before.rename(output)  # of a process that was killed between its two last steps
    processes.remove_left(output.parent, prefix)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-", dir=output.parent) as temporary:
        site = Path(temporary, "site")
        site.mkdir()
        for pattern in as_list(config["project"].get("resources")):
            found = [path.relative_to(root).as_posix() for path in root.glob(pattern.strip("/")) if path.is_file()]
            for file in found or [pattern]:
                copy_file(file, root, site, "_quarto.yml: project.resources")
        for chapter in chapters:
            cells.read(chapter, root, options)
        cells.execute(chapters, root, environment)
        typeset(chapters, config, root, site)
        write_pages(chapters, config, root, site)
        if output.exists():
            output.rename(Path(temporary, "before"))
        site.rename(output)
    return output / "index.html"


def main(argv: list[str] | None = None) -> int:
    """Render the book of the current folder; returns the exit code."""
    parser = argparse.ArgumentParser(prog="token_geometry.renderer.book", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", help="name of the _quarto-<profile>.yml to merge in")
    parser.add_argument("--output-dir", default="", help="folder of the book, in place of that of _quarto.yml")
    arguments = parser.parse_args(argv)
    try:
        print(render(Path.cwd(), profile=arguments.profile, output_dir=arguments.output_dir))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
