"""Mutation testing: change one thing of the code that makes numbers, and see whether a test notices.

    python lib/mutants.py --only geometry/gride.py
    python lib/mutants.py --sample 400

Every comparison, sum, product, constant and branch of the modules of `TESTS` is a mutant, which is tried in a copy
of the library by the fast tests that stand beside the module, those of the module first, up to the first that
fails. What no test notices changes no number, for a reason that `mutants.yml` gives, or is listed: then a test is
missing. The exit status is the number of those, up to 100.
"""

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

LIB = Path(__file__).resolve().parent

TESTS = {
    "geometry": ("geometry", "observables", "test_golden.py"),
    "stats": ("stats", "studies/test_truth.py", "test_golden.py"),
    "chapters/published/claims.py": ("chapters/test_claims.py", "chapters/test_published.py"),
    "chapters/published/evidence.py": ("chapters/test_claims.py", "chapters/test_published.py"),
    "texts": ("texts", "test_golden.py"),
    "base/store.py": ("base/test_store.py",),
    "observables/labelled.py": ("observables", "test_golden.py"),
}
"""Modules, and the tests that are to notice what is changed in them."""

LEFT_OUT = {"__init__.py", "dadapy.py"}
"""Modules without numbers of their own."""

EQUIVALENT = yaml.safe_load((LIB / "mutants.yml").read_text(encoding="utf-8"))
"""Reason why no number changes → module → mutants as they are listed."""

_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_SUMS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
         ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}  # fmt: skip


def changes(node: ast.AST) -> Iterator[dict]:
    """What can be changed of a node: the fields that make the change."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        yield {"ops": [_COMPARISONS[type(node.ops[0])](), *node.ops[1:]]}
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _SUMS:
        yield {"op": _SUMS[type(node.op)]()}
    elif isinstance(node, ast.BoolOp):
        yield {"op": ast.Or() if isinstance(node.op, ast.And) else ast.And()}
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield {"op": ast.UAdd()}
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield {"value": not node.value}
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield {"value": node.value + 1}
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield {"test": ast.UnaryOp(ast.Not(), node.test)}


def mutants(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, what is changed, and the source that has the change, of every mutant of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # words for a reader, types and checks of what a user gives decide no number
    skipped = {id(part) for node in ast.walk(tree) for left in _left_out(node) for part in ast.walk(left)}
    above = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in [node for node in ast.walk(tree) if id(node) not in skipped]:
        for fields in changes(node):
            statement = node
            while not isinstance(statement, ast.stmt):
                statement = above[id(statement)]
            whole, before = {name: getattr(node, name) for name in fields}, ast.unparse(statement)
            for name, value in fields.items():
                setattr(node, name, value)
            said, source = _difference(before, ast.unparse(statement)), ast.unparse(tree)
            for name, value in whole.items():
                setattr(node, name, value)
            yield getattr(node, "lineno", 0), said, source


def _left_out(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.arg):
        return [node]
    types = getattr(node, "returns", None), getattr(node, "annotation", None)
    return [part for part in types if part is not None]


def _difference(before: str, after: str) -> str:
    """What differs between two statements, with a little of what stands around it, in one line."""
    before, after = (" ".join(text.split()) for text in (before, after))
    start = len(os.path.commonprefix([before, after]))
    end = len(os.path.commonprefix([before[start:][::-1], after[start:][::-1]]))
    left, right = before[max(0, start - 40) : start], before[len(before) - end :][:25]
    return f"{left}«{before[start : len(before) - end]}→{after[start : len(after) - end]}»{right}"


def found_in() -> Iterator[tuple[str, list[str], int, str, str]]:
    """Module, the tests that are to notice its mutants, and each of these as `mutants` gives it."""
    for place, tests in TESTS.items():
        folder = LIB / "token_geometry" / place
        for path in sorted(folder.glob("*.py")) if folder.is_dir() else [folder]:
            module = path.relative_to(LIB / "token_geometry").as_posix()
            if path.name not in LEFT_OUT:
                for mutant in mutants(path):
                    yield module, test_files(tests, path.stem), *mutant


def test_files(tests: tuple[str, ...], stem: str) -> list[str]:
    """Files of tests, those of a module before others, and last the golden data set."""
    places = [LIB / "tests" / test for test in tests]
    files = [file for place in places for file in sorted(place.glob("test_*.py")) or [place]]
    files.sort(key=lambda file: ("golden" in file.stem, file.stem != f"test_{stem}"))
    return [file.relative_to(LIB).as_posix() for file in files]


def is_noticed(module: str, source: str, tests: list[str], folder: Path, *, seconds: float) -> bool:
    """Whether tests fail, or end no more, with another source of a module."""
    target = folder / "token_geometry" / module
    whole = target.read_text(encoding="utf-8")
    for compiled in (target.parent / "__pycache__").glob(f"{target.stem}.*"):
        compiled.unlink()  # it could be taken for that of a source of the same size
    target.write_text(source, encoding="utf-8")
    try:
        return run_tests(tests, folder, seconds=seconds) != 0
    finally:
        target.write_text(whole, encoding="utf-8")


def run_tests(tests: list[str], folder: Path, *, seconds: float, is_first: bool = False) -> int:
    """Exit status of tests, which run in a process of their own; 1 if they take longer.

    The first ones, with nothing changed, leave what is compiled, so that those that follow begin at once.
    """
    if not (child := os.fork()):
        sys.dont_write_bytecode = not is_first
        _run_tests(tests, folder)
    for _ in range(int(20 * seconds)):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 1


def _run_tests(tests: list[str], folder: Path) -> None:
    import pytest

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    golden = [test for test in tests if "golden" in test]
    others = [test for test in tests if test not in golden]
    fast = "not slow and not model and not browser"
    for some, marks in ((others[:1], fast), (others[1:], fast), (golden, "not model")):
        words = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", marks]
        if some and (failed := int(pytest.main([*words, *some]))) not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            os._exit(failed)
    os._exit(0)


def copy_of_library(folder: Path) -> Path:
    """A copy in which a module may be changed."""
    for name in ("token_geometry", "tests", "benchmarks"):
        shutil.copytree(LIB / name, folder / "lib" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "dadapy_gride.py"):
        if (LIB / name).exists():
            shutil.copy(LIB / name, folder / "lib")
    for name in ("_quarto.yml", "data", "notebooks", "book"):
        (folder / name).symlink_to(LIB.parent / name)
    return folder / "lib"


def main() -> int:
    """Try the mutants; returns how many that change a number no test notices."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", help="a module or folder below token_geometry")
    parser.add_argument("--sample", type=int, help="so many mutants of all, drawn by a seed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = list(found_in())
    if options.sample and options.sample < len(found):
        found = random.Random(options.seed).sample(found, options.sample)
    found = [one for one in found if not options.only or one[0].startswith(tuple(options.only))]
    # what every process would import anew
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch
    import transformers  # noqa: F401
    import xarray  # noqa: F401

    torch.set_num_threads(1)
    known = {(module, said) for places in EQUIVALENT.values() for module, some in places.items() for said in some}
    counts, longest, start = Counter(), {}, time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = copy_of_library(Path(temporary))
        # no mutant fills the user's, and what it would need minutes for is left out
        os.environ["TOKEN_GEOMETRY_CACHE"] = str(Path(temporary) / "cache")
        for module, tests, line, said, source in found:
            if (module, said) in known:
                counts["change no number, for the reasons in mutants.yml"] += 1
                continue
            for test in tests:
                if test not in longest:  # what fails anyway would notice everything
                    begin = time.monotonic()
                    if run_tests([test], folder, seconds=3600, is_first=True):
                        sys.exit(f"error: {test} fails with nothing changed")
                    longest[test] = time.monotonic() - begin
            seconds = 60 + 3 * sum(longest[test] for test in tests)
            if is_noticed(module, source, tests, folder, seconds=seconds):
                counts["noticed by a test"] += 1
            else:
                counts["not noticed"] += 1
                print(f"{module}:{line}: {said}", flush=True)
            if counts.total() % 20 == 0:
                minutes = (time.monotonic() - start) / 60
                print(f"{counts.total()} of {len(found)} in {minutes:.0f} minutes", file=sys.stderr, flush=True)
    print(f"{len(found)} mutants: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    return min(counts["not noticed"], 100)


if __name__ == "__main__":
    sys.exit(main())
