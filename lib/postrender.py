"""After rendering: take outputs out of the sources, where Quarto stores them, and keep the book as its run's.

Quarto empties the folder that it renders into before it does anything else. That is no run's own, so that a render
that fails, or another run's, leaves every book that is there. With `--after PID` this waits until that process has
ended, in whatever way, and takes the outputs out alone: an interrupted rendering runs nothing behind itself.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path

import nbformat
import psutil

from token_geometry.base import files, processes, project
from token_geometry.runs import declaration


def strip_outputs(path: Path) -> None:
    """Rewrite a notebook without outputs and execution counts, if it has any."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    dirty = False
    for cell in notebook.cells:
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            cell.outputs, cell.execution_count, dirty = [], None, True
        # left in the cells by the kernel's timing, and by nothing else
        dirty |= cell.metadata.pop("execution", None) is not None
    # the kernel describes itself there, down to its version
    if notebook.metadata.get("language_info", {}).keys() - {"name"}:
        notebook.metadata["language_info"], dirty = {"name": "python"}, True
    if dirty:
        processes.remove_left(path.parent, f".{path.name}.")
        files.write(nbformat.writes(notebook) + "\n", path)  # whole: what is lost of a source is lost


def keep(rendered: Path, run: str) -> None:
    """Put a rendered book in the place of the one of the same run."""
    folder, partial = rendered.with_name(run), rendered.with_name(f".{run}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(rendered, partial)
    if folder.exists():  # not removed before the new one stands in its place
        folder.rename(rendered / "before")
    partial.rename(folder)
    shutil.rmtree(rendered / "before", ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--after"]:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(sys.argv[2])).wait()
    else:
        keep(project.root() / os.environ["QUARTO_PROJECT_OUTPUT_DIR"], declaration.load().name)
    for chapter in (project.root() / "notebooks").glob("*.ipynb"):
        strip_outputs(chapter)
