"""Numbers, cross-references and citations as Quarto gives them, in chapters that pandoc has read."""

import re
from collections import Counter
from typing import NamedTuple

import panflute as pf

from token_geometry.renderer.configuration import BookError, Chapter

KINDS = {"fig": "Figure", "tbl": "Table", "sec": "Section", "eq": "Equation"}
_CALLOUTS = {"callout-note", "callout-tip", "callout-warning", "callout-important", "callout-caution"}
_UNSUPPORTED = re.compile(
    r"(lst|thm|lem|cor|prp|cnj|def|exm|exr|sol|rem|alg|nte|tip|wrn|imp|cau)-|layout|content-(visible|hidden)|panel-tabset"
)
# LaTeX macros act on the mathematics after them and are no text of their own.
_MACRO = re.compile(r"\s*\\(newcommand|renewcommand|providecommand|def|let|DeclareMathOperator)\b")


class Label(NamedTuple):
    """What a cross-reference points at."""

    chapter: Chapter
    kind: str
    number: str
    title: list


def within(elem: pf.Element) -> list:
    """All elements of an element, inner ones first."""
    found = []
    elem.walk(lambda item, _: found.append(item))
    return found


def normalize(chapter: Chapter) -> None:
    """Bring the chapter's one title to the front, and make notes of its callouts."""
    doc = chapter.doc
    doc.walk(_callout)
    if "title" in doc.metadata:
        classes = [] if doc.get_metadata("number-sections", True) else ["unnumbered"]
        doc.content.insert(0, pf.Header(*doc.metadata["title"].content, classes=classes))
    titles = [block for block in doc.content if isinstance(block, pf.Header) and block.level == 1]
    if len(titles) != 1:
        found = [pf.stringify(title) for title in titles]
        raise BookError(f"{chapter.source}: needs one title, '# Title' or front matter; found {found}")
    doc.content.remove(titles[0])
    doc.content.insert(0, titles[0])


def _callout(elem: pf.Element, doc: pf.Doc) -> pf.Element | None:
    if not (kinds := _CALLOUTS.intersection(getattr(elem, "classes", []))):
        return None
    kind, body = kinds.pop(), list(elem.content)
    title = [pf.Str(elem.attributes.get("title", kind.removeprefix("callout-").capitalize()))]
    if "title" not in elem.attributes and body and isinstance(body[0], pf.Header):
        title = list(body.pop(0).content)
    parts = pf.Div(pf.Para(*title), classes=["callout-title"]), *body
    return pf.Div(*parts, identifier=elem.identifier, classes=["callout", kind], attributes={"role": "note"})


def number(chapter: Chapter, labels: dict[str, Label]) -> None:
    """Number headings, figures, tables and equations; collect what can be referred to in `labels`.

    A label that is there twice, a figure or table without caption, and what `_unsupported` names are refused."""
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

    def act(elem: pf.Element, doc: pf.Doc) -> pf.Element | None:
        if isinstance(elem, pf.Header):
            title, number = list(elem.content), ""
            if chapter.number and "unnumbered" not in elem.classes:
                levels[elem.level :] = [levels[elem.level] + 1, *[0] * (6 - elem.level)]
                number = ".".join([chapter.number, *map(str, levels[2 : elem.level + 1])])
                if elem.level > 1:
                    elem.content = [_number(number), pf.Space, *title]
            if elem.identifier.startswith("sec-"):
                kind = "Section" if elem.level > 1 else "Appendix" if chapter.appendix else "Chapter"
                define(elem.identifier, kind, number, title)
        elif isinstance(elem, (pf.Para, pf.Plain)):
            _equations(elem, count)
        elif isinstance(elem, pf.Image) and "fig-alt" in elem.attributes:
            elem.attributes["alt"] = elem.attributes.pop("fig-alt")
        elif isinstance(elem, (pf.Figure, pf.Table, pf.Div)):
            for kind in ("fig", "tbl"):
                if elem.identifier.startswith(f"{kind}-") or f"cell-{kind}" in elem.classes:
                    return _frame(elem, kind, count, chapter)
        return None

    chapter.doc.walk(act)
    for elem in within(chapter.doc):
        if fault := _unsupported(elem):
            raise BookError(f"{chapter.source}: {fault}")


def _number(text: str) -> pf.Span:
    return pf.Span(pf.Str(text), classes=["number"])


def _equations(elem: pf.Para | pf.Plain, count) -> None:
    """Put a number to each ``$$ ... $$ {#eq-name}``."""
    items = list(elem.content)
    for place, (math, _, after) in enumerate(zip(items, items[1:], items[2:], strict=False)):
        label = re.fullmatch(r"\{#(eq-.+)\}", after.text) if isinstance(after, pf.Str) else None
        if label and isinstance(math, pf.Math) and math.format == "DisplayMath":
            # The space and the label go; nothing takes their places.
            span = pf.Span(math, _number(f"({count(label[1])})"), identifier=label[1], classes=["equation"])
            items[place : place + 3] = [span, None, None]
            elem.content = [item for item in items if item is not None]


def _frame(elem: pf.Element, kind: str, count, chapter: Chapter) -> pf.Figure:
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
    alt, images = elem.attributes.get("fig-alt"), [item for item in inside if isinstance(item, pf.Image)]
    for image in images:
        image.attributes.setdefault("alt", alt or "".join(map(pf.stringify, caption)))
    raw = "".join(item.text for item in inside if isinstance(item, pf.RawBlock))
    if alt and kind == "fig" and not images and 'role="img"' not in raw:
        content = [pf.Div(*content, attributes={"role": "img", "aria-label": alt})]
    if label:
        caption = [_number(f"{KINDS[kind]}\u00a0{count(label)}:"), pf.Space, *caption]
    caption = pf.Caption(pf.Plain(*caption))
    return pf.Figure(*content, caption=caption, identifier=label, classes=[f"float-{kind}"])


def _unsupported(elem: pf.Element) -> str:
    """Name what pandoc would pass over in silence or print as source."""
    if isinstance(elem, (pf.RawBlock, pf.RawInline)) and elem.format == "tex":
        return "" if _MACRO.match(elem.text) else f"LaTeX outside mathematics: {elem.text[:60]}"
    if isinstance(elem, pf.Str) and re.search(r"\{#[a-z]+-|^:::", elem.text):
        return f"markup that belongs to nothing: {elem.text}"
    if isinstance(elem, pf.Code) and elem.text.startswith("{python}"):
        return f"inline code {elem.text!r}: use a cell with 'output: asis'"
    if isinstance(elem, (pf.Div, pf.CodeBlock)):
        names = [elem.identifier, *elem.classes, *elem.attributes]
        return next((f"Quarto's {name} is not supported" for name in names if _UNSUPPORTED.match(name)), "")
    return ""


def resolve(chapter: Chapter, labels: dict[str, Label]) -> set[str]:
    """Replace cross-references by links; return the keys of the citations, which are citeproc's."""
    cited = set()

    def link(citation: pf.Citation) -> list:
        if (label := labels.get(citation.id)) is None:
            raise BookError(f"{chapter.source}: @{citation.id}: no chapter defines {{#{citation.id}}}")
        # A prefix replaces the word, as in Quarto: [Fig. @fig-x].
        text = [*(citation.prefix or [pf.Str(label.kind)]), pf.Str(f"\u00a0{label.number}")]
        if citation.mode == "SuppressAuthor":
            text = [pf.Str(label.number)]
        url = f"{'' if label.chapter is chapter else f'/{label.chapter.source}'}#{citation.id}"
        return [pf.Link(*(text if label.number else label.title), url=url, classes=["xref"]), *citation.suffix]

    def act(elem: pf.Element, doc: pf.Doc) -> list | None:
        if not isinstance(elem, pf.Cite):
            return None
        ours = [citation.id.split("-")[0] in KINDS for citation in elem.citations]
        if any(ours) and not all(ours):
            raise BookError(f"{chapter.source}: {pf.stringify(elem)} mixes references and citations")
        if not any(ours):
            cited.update(citation.id for citation in elem.citations)
            return None
        comma = [pf.Str(","), pf.Space]
        return [item for citation in elem.citations for item in comma + link(citation)][len(comma) :]

    chapter.doc.walk(act)
    return cited
