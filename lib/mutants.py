"""Mutation testing: change one thing of the code that makes numbers, and see whether a test notices.

    python lib/mutants.py --only geometry/gride.py
    python lib/mutants.py --sample 100

Every comparison, sum, product, constant and branch of the modules of `TESTS` is a mutant, which is tried in a copy
of the library by the fast tests that stand beside the module. What no test notices is listed: either it changes no
number, or a test is missing. The exit status is the number of those, up to 100.
"""

import argparse
import ast
import copy
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LIB = Path(__file__).resolve().parent

TESTS = {
    "geometry": ("geometry", "observables", "test_golden.py"),
    "stats": ("stats", "studies/test_truth.py", "test_golden.py"),
    "chapters/published/claims.py": ("chapters/test_claims.py", "chapters/test_published.py"),
    "texts": ("texts", "test_golden.py"),
    "base/store.py": ("base/test_store.py",),
    "observables/labelled.py": ("observables", "test_golden.py"),
}
"""Modules, and the tests that are to notice what is changed in them."""

LEFT_OUT = {"__init__.py", "dadapy.py"}
"""Modules without numbers of their own."""

SECONDS = 120
"""After which a mutant that ends no more counts as noticed."""

_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_SUMS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
         ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}  # fmt: skip


def changes(node: ast.AST) -> Iterator[tuple[str, dict]]:
    """What can be changed of a node: words for it, and the fields that make the change."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        yield "comparison", {"ops": [_COMPARISONS[type(node.ops[0])](), *node.ops[1:]]}
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _SUMS:
        yield "operation", {"op": _SUMS[type(node.op)]()}
    elif isinstance(node, ast.BoolOp):
        yield "and, or", {"op": ast.Or() if isinstance(node.op, ast.And) else ast.And()}
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", {"op": ast.UAdd()}
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "truth", {"value": not node.value}
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "number", {"value": node.value + 1}
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "condition", {"test": ast.UnaryOp(ast.Not(), node.test)}


def mutants(path: Path) -> Iterator[tuple[str, str]]:
    """What is changed, and the source that has the change, of every mutant of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # words for a reader, types and checks of what a user gives decide no number
    skipped = {id(part) for node in ast.walk(tree) for part in ast.walk(node) if _is_skipped(node)}
    for number, node in enumerate(ast.walk(tree)):
        for what, fields in changes(node) if id(node) not in skipped else ():
            other = copy.deepcopy(tree)
            changed = next(itertools.islice(ast.walk(other), number, None))
            before = ast.unparse(changed).splitlines()[0]
            for name, value in fields.items():
                setattr(changed, name, value)
            after = ast.unparse(ast.fix_missing_locations(changed)).splitlines()[0]
            yield f"{path.name}:{getattr(node, 'lineno', 0)}: {what}: {before} → {after}", ast.unparse(other)


def _is_skipped(node: ast.AST) -> bool:
    return isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert) or isinstance(node, ast.arg)


def is_noticed(module: str, source: str, tests: list[str], folder: Path) -> bool:
    """Whether tests fail with another source of a module; they run in a process of their own."""
    target = folder / "token_geometry" / module
    whole = target.read_text(encoding="utf-8")
    target.write_text(source, encoding="utf-8")
    try:
        child = os.fork()
        if not child:
            _run_tests(tests, folder)
        return _status(child) != 0
    finally:
        target.write_text(whole, encoding="utf-8")


def _run_tests(tests: list[str], folder: Path) -> None:
    import pytest

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    sys.dont_write_bytecode = True
    fast, golden = ([test for test in tests if ("golden" in test) == is_golden] for is_golden in (False, True))
    failed = 0
    for some, marks in ((fast, "not slow and not model and not browser"), (golden, "not model")):
        if some and not failed:
            failed = int(pytest.main(["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", marks, *some]))
    os._exit(failed)


def _status(child: int) -> int:
    for _ in range(20 * SECONDS):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 1


def main() -> int:
    """Try the mutants; returns how many no test notices."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", help="a module or folder below token_geometry")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn by a seed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = []
    for place, tests in TESTS.items():
        paths = [LIB / "token_geometry" / place]
        paths = sorted(paths[0].glob("*.py")) if paths[0].is_dir() else paths
        for path in paths:
            module = path.relative_to(LIB / "token_geometry").as_posix()
            if path.name not in LEFT_OUT and (
                not options.only or any(module.startswith(one) for one in options.only)
            ):
                found += [(module, *mutant, [f"tests/{test}" for test in tests]) for mutant in mutants(path)]
    if options.sample and options.sample < len(found):
        found = random.Random(options.seed).sample(found, options.sample)
    # what every process would import anew
    import scipy.stats  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch
    import transformers  # noqa: F401
    import xarray  # noqa: F401

    torch.set_num_threads(1)
    n_survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("token_geometry", "tests", "benchmarks"):
            shutil.copytree(LIB / name, folder / "lib" / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml",):
            shutil.copy(LIB / name, folder / "lib" / name)
        for name in ("_quarto.yml", "data", "notebooks", "book"):
            (folder / name).symlink_to(LIB.parent / name)
        for number, (module, what, source, tests) in enumerate(found, 1):
            if not is_noticed(module, source, tests, folder / "lib"):
                n_survivors += 1
                print(f"{module.rpartition('/')[0]}/{what}", flush=True)
            if number % 20 == 0:
                print(f"{number} of {len(found)} tried, {n_survivors} not noticed", file=sys.stderr, flush=True)
    print(f"{n_survivors} of {len(found)} mutants not noticed")
    return min(n_survivors, 100)


if __name__ == "__main__":
    sys.exit(main())
