"""Tables that the appendices include, made before rendering: trust, licences, libraries, files to download."""

import hashlib
import importlib.metadata
import re
import tomllib
import zipfile
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from token_geometry.base import project
from token_geometry.chapters import markup
from token_geometry.models import controls
from token_geometry.requests.run import Run
from token_geometry.requests.sizes import spelled as size_of
from token_geometry.runs import results
from token_geometry.texts import corpora

NOTEBOOKS = "book/assets/notebooks.zip"  # what prerender.py makes of the notebooks
LARGEST = 50_000_000  # bytes of a file that a book carries


def trust() -> str:
    """What can go wrong, what happens then and the test that shows it: a section and a table per area."""
    pieces = []
    for area, rows in project.entries("trust.yml").items():
        cells = [[row["wrong"], re.sub('"(.*?)"', r"“\1”", row["then"]), spelled(row["test"])] for row in rows]
        pieces += [f"## {area.capitalize()}", table(cells, "what goes wrong", "what happens", "test")]
    return "\n\n".join(pieces) + "\n"


def spelled(test: str) -> str:
    """The sentence that the name of a test is, behind the folder and file that it is in."""
    file, _, name = test.removesuffix(".py").partition(".py::test_")
    return f"{file.replace('test_', '').replace('/', ', ')}: {name}".replace("_", " ")


def licences(run: Run) -> str:
    """Models and corpora of a run, with licence and source as their entries in `data` give them."""
    requests = [step.request for step in results.steps(run)]
    models = dict.fromkeys(controls.split(name)[0] for request in requests for name in request.models)
    texts = dict.fromkeys(request.corpus for request in requests if hasattr(request, "corpus"))
    rows = []
    for names, known in ((models, project.entries("models.yml")), (texts, corpora.aliases())):
        for name in names:
            entry = known.get(name, {})
            rows.append([entry.get("title", name), entry.get("license", "not stated"), origin(entry) or name])
    return table(rows, "model or texts", "licence", "source")


def origin(entry: dict) -> str:
    """Where an entry of these files is had; empty where it does not say."""
    if archives := entry.get("archives") or [entry[key] for key in ("archive",) if key in entry]:
        more = f" and {len(archives) - 1} more packages" if len(archives) > 1 else ""
        return f"PyPI: {archives[0]['package']} {archives[0]['version']}{more}"
    words = {"hub": "Hugging Face hub: ", "module": "Python's module ", "meta": "Meta's files in ", "path": ""}
    return next((f"{before}{entry[key]}" for key, before in words.items() if key in entry), "")


def libraries() -> str:
    """What the library and its report ask for, with version and licence as each says of itself."""
    wanted = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows, lines = [], [*wanted["dependencies"], *wanted["optional-dependencies"]["report"]]
    for name in sorted((re.match(r"[\w.-]+", line)[0] for line in lines), key=str.lower):
        try:
            found = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        rows.append([name, found["Version"], licence(found)])
    return table(rows, "library", "version", "licence")


def licence(found) -> str:
    """The licence in the metadata of a library: an expression, the first line of its text, or a classifier."""
    text = (found["License"] or "").strip().partition("\n")[0]
    classifiers = [line for line in found.get_all("Classifier") or [] if line.startswith("License ::")]
    stated = [found["License-Expression"], text if not text.startswith("Copyright") else ""]
    return next(filter(None, [*stated, *(line.rpartition(" :: ")[2] for line in classifiers)]), "not stated")


def downloads(run: Run) -> str:
    """Files that a book brings with it, the results of its run and its notebooks, with size and SHA-256."""
    found = [path for step in results.results(run).values() if (path := step.found())]
    rows = []
    for path in [*found, project.root() / NOTEBOOKS]:
        size, name = path.stat().st_size, markup.escaped(path.name)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # an address from the root of the book: both renderers copy what a page leads to
        address = quote(f"/{path.relative_to(project.root()).as_posix()}")
        name = f"[{name}]({address})" if size <= LARGEST else f"{name} (too large for the book)"
        rows.append([name, size_of(size), f"`{digest}`"])
    return markup.table(pd.DataFrame(rows, columns=["file", "size", "SHA-256"])).data.replace("--: |", ":-- |", 2)


def pack_notebooks() -> None:
    """Put the notebooks into one file, which is the same as long as they are."""
    with zipfile.ZipFile(project.root() / NOTEBOOKS, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((project.root() / "notebooks").glob("*.ipynb")):
            packed.writestr(zipfile.ZipInfo(f"notebooks/{path.name}"), path.read_bytes(), zipfile.ZIP_DEFLATED)


def table(rows: list[list[str]], *names: str) -> str:
    """A table of texts, all of which begin at the left and are shown letter by letter."""
    text = markup.table(pd.DataFrame(rows, columns=[*names]).map(markup.escaped)).data
    return text.replace("--:", ":--", len(names) - 1)
