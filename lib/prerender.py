"""Before rendering: run what is stale of the active profile's run, lay out the chart library and the tables."""

# ruff: noqa: E402
import importlib.metadata
import os

PARENT = int(
    os.environ.get("TOKEN_GEOMETRY_PARENT", os.getppid())
)  # before seconds of imports, in which it may end

import subprocess
import sys
from pathlib import Path

import yaml

import appendices
import families_page
import pages
from token_geometry.__main__ import main
from token_geometry.base import files, processes, project
from token_geometry.chapters.charts import BUNDLE
from token_geometry.runs import declaration

PAGES = "_pages.yml"  # a metadata file of _quarto.yml


def write(text: str, path: Path) -> None:
    """Write a file whole, and remove what a killed process left of it."""
    processes.remove_left(path.parent, f".{path.name}.")
    files.write(text, path)


def write_bundle() -> None:
    """Write the JavaScript that draws the charts, unless this vl-convert has: that takes seconds."""
    import vl_convert

    made_by = f"/* vl-convert-python {importlib.metadata.version('vl-convert-python')} */\n"
    target = project.root() / BUNDLE
    if not target.is_file() or not target.read_text(encoding="utf-8").startswith(made_by):
        target.parent.mkdir(parents=True, exist_ok=True)
        write(made_by + vl_convert.javascript_bundle(), target)


def write_tables() -> None:
    """Write what pages show, each as a file; Quarto reads pages before it runs this, so none may include one."""
    tables = {"families": families_page.as_page(), "trust": appendices.trust()}
    tables |= {"licences": appendices.licences(declaration.load()), "libraries": appendices.libraries()}
    appendices.pack_notebooks()
    tables |= {"downloads": appendices.downloads(declaration.load()), "lacking": pages.addable(declaration.load())}
    for name, text in tables.items():
        write(text, project.root() / "book" / f"_{name}.md")


def write_pages() -> None:
    """Write which pages the book of the run has; Quarto reads its configuration again after this."""
    config = files.read_yaml(project.root() / "_quarto.yml", "_quarto.yml")
    text = yaml.safe_dump(pages.of_run(config, declaration.load()))
    write(f"# written by lib/prerender.py\n{text}", project.root() / PAGES)


def clean_after(process: int) -> None:
    """Have the outputs taken out of the notebooks when a process has ended, even one that is interrupted."""
    command = [sys.executable, str(Path(__file__).with_name("postrender.py")), "--after", str(process)]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen(command, start_new_session=True, **quiet)


if __name__ == "__main__":
    # a rendering that is killed leaves nobody at work, who would hold up the next one
    processes.end_with(PARENT)
    if "QUARTO_PROJECT_OUTPUT_DIR" in os.environ:  # the other renderer leaves the notebooks as they are
        clean_after(PARENT)
    try:
        write_bundle()
        if not (code := main(["run"])):  # which says in one line what is wrong with the run
            write_tables()
            write_pages()
    except OSError as error:
        sys.exit(f"error: {error.filename} cannot be written ({error.strerror}): check disk space and permissions")
    sys.exit(code)
