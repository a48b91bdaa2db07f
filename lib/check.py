"""What every change must pass, in a minute: style, types, direction of imports, tests that need no real model.

The Makefile calls this. All of it runs, at once where there are cores; what fails is shown whole.
"""

import subprocess
import sys
import time
from pathlib import Path

LIB = Path(__file__).resolve().parent

CHECKS = {
    "ruff check": ["ruff", "check", "--config", "pyproject.toml", ".", "../notebooks"],
    "ruff format": ["ruff", "format", "--config", "pyproject.toml", "--check", ".", "../notebooks"],
    "types": ["mypy"],
    "imports": ["lint-imports"],
    "tests": ["pytest", "-q", "-m", "not slow and not model and not browser"],
}


def main() -> int:
    """Run the checks; the exit status says whether all passed."""
    begin = time.monotonic()
    running = {
        name: subprocess.Popen(
            command, cwd=LIB, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
        )
        for name, command in CHECKS.items()
    }
    failed = []
    for name, process in running.items():
        output = process.communicate()[0].rstrip()
        failed += [name] * (process.returncode != 0)
        print(f"{name}: {'failed' if process.returncode else 'passed'}", flush=True)
        print(output if process.returncode else output[output.rfind("\n") + 1 :], flush=True)
    print(f"{len(failed)} of {len(CHECKS)} checks failed in {time.monotonic() - begin:.0f} s", end="")
    print(f": {', '.join(failed)}" if failed else "")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
