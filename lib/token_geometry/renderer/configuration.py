"""Configuration of the book: `_quarto.yml` with its profile, and the chapters that it lists."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from token_geometry.base import InputError, parameters


class BookError(InputError):
    """The book cannot be rendered; the message is one line, `code` the exit code."""

    code = 1


@dataclass
class Chapter:
    """One page of the book: its source and what has been made of it so far."""

    source: str
    part: str = ""
    appendix: bool = False
    number: str = ""
    options: dict = field(default_factory=dict)
    notebook: Any = None
    doc: Any = None

    @property
    def page(self) -> str:
        """Path of the page in the book."""
        return Path(self.source).with_suffix(".html").as_posix()

    @property
    def up(self) -> str:
        """What leads from the page to the root of the book."""
        return "../" * self.source.count("/")


def merge(base: Any, extra: Any) -> Any:
    """Merge two configurations as Quarto does: maps by key, lists joined."""
    if isinstance(base, dict) and isinstance(extra, dict):
        return base | {key: merge(base.get(key), value) for key, value in extra.items()}
    if isinstance(base, list) and isinstance(extra, list):
        return base + [item for item in extra if item not in base]
    return extra


def read_config(root: Path, profile: str | None) -> tuple[dict, str]:
    """Read ``_quarto.yml``, with its metadata files and that of the profile merged in, and name the profile."""
    if not (root / "_quarto.yml").is_file():
        raise BookError(f"{root} holds no _quarto.yml: run this in the root of the project")
    config = parameters.read_yaml((root / "_quarto.yml").read_text("utf-8"), "_quarto.yml")
    for name in as_list(config.get("metadata-files")):
        if (root / name).is_file():
            config = merge(config, parameters.read_yaml((root / name).read_text("utf-8"), name))
    profile = profile or os.environ.get("QUARTO_PROFILE") or (config.get("profile") or {}).get("default") or ""
    if not isinstance(profile, str) or not re.fullmatch(r"[\w.-]*", profile):
        raise BookError(f"profile {profile!r}: give one name, several at a time are not supported")
    extra = root / f"_quarto-{profile}.yml"
    if profile and extra.is_file():
        config = merge(config, parameters.read_yaml(extra.read_text("utf-8"), extra.name))
    if (config.get("project") or {}).get("type") != "book":
        raise BookError("_quarto.yml: project.type must be book")
    return config, profile


def html_options(config: dict) -> dict:
    found = (config.get("format") or {}).get("html")
    return found if isinstance(found, dict) else {}


def as_list(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def list_chapters(config: dict, root: Path) -> list[Chapter]:
    """List the chapters in reading order; their sources must exist."""

    def flatten(entries: Any, part: str = "", appendix: bool = False):
        for entry in as_list(entries):
            if isinstance(entry, str) and not part.endswith(".qmd"):
                yield Chapter(os.path.normpath(entry), part, appendix)
            elif isinstance(entry, dict) and set(entry) == {"part", "chapters"} and not part:
                yield from flatten(entry["chapters"], entry["part"], appendix)
            else:
                way_out = "use a path or {part: Title, chapters: [...]}"
                raise BookError(f"_quarto.yml: chapter {entry!r} (part {part!r}): {way_out}")

    book = config.get("book") or {}
    chapters = [*flatten(book.get("chapters")), *flatten(book.get("appendices"), "Appendices", True)]
    sources = [chapter.source for chapter in chapters]
    for source in sources:
        if not (root / source).is_file() or source.startswith(".."):
            raise BookError(f"_quarto.yml: chapter {source} does not exist in the project")
        if sources.count(source) > 1 or not source.endswith((".qmd", ".md", ".ipynb")):
            raise BookError(f"_quarto.yml: chapter {source}: list one .qmd, .md or .ipynb, once")
    if not chapters or chapters[0].page != "index.html":
        raise BookError("_quarto.yml: book.chapters must begin with index.qmd")
    return chapters
