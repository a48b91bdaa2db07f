"""Command line: ``token-geometry run`` and ``token-geometry book``, or ``python -m token_geometry``."""

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from token_geometry.base import project
from token_geometry.base.errors import InputError
from token_geometry.renderer import book
from token_geometry.runs import declaration, execution, forecast
from token_geometry.runs.declaration import Run

OLDEST_QUARTO = (1, 6)
"""Quarto before this renders the book differently."""


def main(argv: list[str] | None = None) -> int:
    """Run what is missing or stale of a run, or render the book of a run."""
    parser = argparse.ArgumentParser(prog="token-geometry")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is missing or stale of a declared run")
    of_book = commands.add_parser("book", help="render the book of a declared run")
    for command in (run, of_book):
        command.add_argument("name", nargs="?", default="", help="name of a file of data/runs")
    run.add_argument("--dry-run", action="store_true", help="list every notebook, run none")
    of_book.add_argument("--renderer", choices=("auto", "quarto", "pandoc"), default="auto")
    options = parser.parse_args(argv)
    try:
        declared = declaration.load(options.name)
        print(*declared.notes, sep="\n", end="\n" if declared.notes else "")
        if options.command == "book":
            return render(declared, renderer=options.renderer)
        if options.dry_run:
            described, n_problems = forecast.describe(declared)
            print(described)
            return int(n_problems > 0)
        if not execution.execute(declared):
            print(f"run {declared.name}: all results are there and fresh, nothing to compute")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: the report needs {error.name}: pip install token_geometry[report]", file=sys.stderr)
        return 1
    return 0


def render(run: Run, *, renderer: str) -> int:
    """Render the book, with its results brought up to date by the project's pre-render step.

    Parameters
    ----------
    run
        The run whose results the chapters show.
    renderer
        `quarto`, which is refused where there is none, `pandoc`, or `auto`: Quarto where there is one.

    Returns
    -------
    int
        Exit status.
    """
    quarto = find_quarto() if renderer != "pandoc" else None
    if quarto is None and renderer == "auto" and _install_quarto():
        quarto = find_quarto()
    if quarto is None and renderer == "quarto":
        wanted = ".".join(map(str, OLDEST_QUARTO))
        raise InputError(
            f"renderer is 'quarto', but no Quarto of version {wanted} or later is on the PATH: "
            "install it from quarto.org or conda-forge, or use renderer pandoc"
        )
    if quarto:
        # chapters must run in this environment, whatever else is on the PATH
        environment = os.environ | {"QUARTO_PYTHON": sys.executable}
        command = [quarto, "render", "--profile", run.name]
        status = subprocess.run(command, cwd=project.root(), env=environment).returncode
        name = f"Quarto {'.'.join(map(str, _version(quarto)))}"
    else:
        status = book.main(["--profile", run.name])
        name = "pandoc (no Quarto found)" if renderer == "auto" else "pandoc"
    if status == 0:
        print(f"Rendered by {name}: {project.root() / '_book' / 'index.html'}")
    return status


def find_quarto() -> str | None:
    """Path of a Quarto that is recent enough, or None."""
    quarto = shutil.which("quarto")
    return quarto if quarto and _version(quarto) >= OLDEST_QUARTO else None


def _version(quarto: str) -> tuple[int, ...]:
    printed = subprocess.run([quarto, "--version"], capture_output=True, text=True).stdout
    numbers = re.match(r"\d+(\.\d+)*", printed.strip())
    return tuple(map(int, numbers.group().split("."))) if numbers else ()


def _install_quarto() -> bool:
    """Try once to install Quarto from the package index into the project's `.venv`; say whether it worked.

    The package `quarto-cli` downloads Quarto itself while it is installed, which an air-gapped machine
    cannot: then the book is rendered with pandoc. Into the user's own environment nothing is installed.
    """
    tried = Path(sys.prefix) / "quarto-tried"
    if tried.exists() or importlib.util.find_spec("quarto_cli"):
        return False
    environment = (project.root() / "environment.yml").read_text(encoding="utf-8")
    (package,) = re.findall(r"quarto-cli==[\w.]+", environment)
    if Path(sys.prefix).resolve() != (project.root() / ".venv").resolve():
        print(f"No Quarto here; rendering with pandoc (for Quarto: pip install {package}).", flush=True)
        return False
    print(f"Installing {package} (once) …", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, package], capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        print(
            f"Quarto cannot be downloaded here; rendering with pandoc (delete {tried} to try again).", flush=True
        )
        with contextlib.suppress(OSError):  # an environment that cannot be written is tried anew each time
            tried.touch()
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
