"""What is said of mutants is said of the code as it is."""

import subprocess
import sys

import pytest

import mutants
from token_geometry.base import project


@pytest.mark.slow
def test_every_mutant_that_changes_no_number_is_one():
    there = {(module, said) for module, _, _, said, _ in mutants.found_in()}
    for reason, places in mutants.EQUIVALENT.items():
        for module, some in places.items():
            assert all((module, said) in there for said in some), (
                reason,
                [s for s in some if (module, s) not in there],
            )


@pytest.mark.slow
def test_a_change_that_no_test_notices_is_listed(tmp_path):
    """Of a module whose one test looks at one of its two functions."""
    script = """
import sys, mutants
from pathlib import Path
mutants.LIB = Path(sys.argv.pop())
mutants.EQUIVALENT = {"it is not asked for": {"geometry/own.py": ["return x «+→-» 2"]}}
mutants.TESTS = {"geometry": ("geometry",)}
sys.exit(mutants.main())
"""
    lib = tmp_path / "lib"
    for name, text in {
        "token_geometry/geometry/own.py": "def a(x):\n    return x + 1\n\n\ndef b(x):\n    return x + 2\n",
        "tests/geometry/test_own.py": "from token_geometry.geometry.own import a\ndef test_a(): assert a(1) == 2",
        "token_geometry/__init__.py": "",
        "token_geometry/geometry/__init__.py": "",
        "benchmarks/none.py": "",
        "pyproject.toml": "",
    }.items():
        (lib / name).parent.mkdir(parents=True, exist_ok=True)
        (lib / name).write_text(text)
    command = [sys.executable, "-c", script, str(lib)]
    done = subprocess.run(command, cwd=project.root() / "lib", capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    listed, counted = done.stdout.splitlines()
    assert listed == "geometry/own.py:6: return x + «2→3»"
    assert counted.startswith("4 mutants: ") and "2 noticed by a test" in counted and "1 not noticed" in counted
