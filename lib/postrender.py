"""After rendering: Quarto stores the outputs of executed chapters in their sources; take them out again.

With `--after PID` this waits until that process has ended, in whatever way: an interrupted rendering runs nothing
behind itself.
"""

import contextlib
import sys
from pathlib import Path

import nbformat
import psutil

from token_geometry.base import project


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
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--after"]:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(sys.argv[2])).wait()
    for chapter in (project.root() / "notebooks").glob("*.ipynb"):
        strip_outputs(chapter)
