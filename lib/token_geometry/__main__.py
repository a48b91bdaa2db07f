"""Command line: ``python -m token_geometry run [NAME] [--dry-run]``."""

import argparse
import sys

from . import runs
from .errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Run what is missing or stale of a run, or say what it would take."""
    parser = argparse.ArgumentParser(prog="python -m token_geometry")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="run what is missing or stale of a declared run")
    command.add_argument("name", nargs="?", default="", help="name of a file of data/runs")
    command.add_argument(
        "--dry-run", action="store_true", help="list every notebook with its parameters, run none"
    )
    options = parser.parse_args(argv)
    try:
        run = runs.load(options.name)
        if options.dry_run:
            print(runs.describe(run))
        elif not runs.execute(run):
            print(f"run {run.name}: all results are there and fresh, nothing to compute")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
