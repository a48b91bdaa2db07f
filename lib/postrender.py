"""After rendering: Quarto stores the outputs of executed chapters in their sources; take them out again."""

from pathlib import Path

import nbformat

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
    for chapter in (project.root() / "notebooks").glob("*.ipynb"):
        strip_outputs(chapter)
