"""Programs of `lib` in this process, which has imported what takes each start of Python seconds."""

import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest import mock

from token_geometry.base import project


def run(path: str | Path, *options: object) -> tuple[int, str, str]:
    """Exit status of a program, by its path from the project's root, its output, and its error stream."""
    program = project.root() / path
    argv, search = [str(program), *map(str, options)], [str(program.parent), *sys.path]
    printed, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "path", search),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
    ):
        try:
            runpy.run_path(str(program), run_name="__main__")
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    return status, printed.getvalue(), errors.getvalue()
