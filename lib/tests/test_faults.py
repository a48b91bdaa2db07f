"""The programs that look for faults find none, in a short run of each, and find one that is planted."""

import os
import random
import re
import subprocess
import sys

import pytest

import faults
import fuzz
from token_geometry.base import project

pytestmark = pytest.mark.slow
LIB = project.root() / "lib"
long = pytest.mark.skipif(not os.environ.get("ALL_INPUTS"), reason="takes minutes: set ALL_INPUTS")


def run(*words):
    return subprocess.run([sys.executable, *words], cwd=LIB, capture_output=True, text=True)


@long
def test_kills_of_all_that_computes_lose_nothing_and_leave_nothing():
    done = run("faults.py", "--only", "kills", "--kills", "8", "--seed", str(random.randrange(10**6)))
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "in all: 0 lost, 0 wrong, 0 left over"
    assert "8 kills before the end" in done.stdout


@long
@pytest.mark.parametrize("name", ["full-disk", "read-only", "together", "clock", "workers"])
def test_a_disturbed_run_says_so_in_one_line_and_goes_on_afterwards(name):
    if name in ("full-disk", "read-only"):
        mounts = subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True)
        if mounts.returncode:
            pytest.skip("no mounts here")
    done = run("faults.py", "--only", name, "--workers", "3")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "in all: 0 lost, 0 wrong, 0 left over"


@long
def test_what_is_lost_wrong_and_left_over_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = faults.Project(tmp_path)
    (made.results / "validation.nc").unlink()
    whole = (made.results / "truth-tiny.nc").read_bytes()
    (made.results / "truth-tiny.nc").write_bytes(whole[: len(whole) // 2])
    (made.root / "notebooks" / "truth-pca.ipynb").write_text("")
    made.check("planted", before=made.whole)
    assert sorted(made.faults) == ["lost", "lost", "wrong"]


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_bytes_that_are_changed_at_random_are_read_or_refused_in_one_line(reader, tmp_path, monkeypatch):
    """What `fuzz.py` does at length, with bytes that atheris chooses."""
    for name in ("TOKEN_GEOMETRY_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.chdir(tmp_path)
    fuzz.own_project(tmp_path)
    draw = random.Random(0)
    for whole in fuzz.whole_files(tmp_path)[reader]:
        assert fuzz.attempt(reader, tmp_path / "input", whole)
        for _ in range(100):
            content = bytearray(whole)
            for _ in range(draw.choice([1, 1, 2, 8])):
                content[draw.randrange(len(content))] = draw.randrange(256)
            end = draw.choice([len(content)] * 3 + [draw.randrange(len(content))])
            fuzz.attempt(reader, tmp_path / "input", bytes(content[:end]))


def test_fuzzing_names_a_reader_that_fails(tmp_path):
    pytest.importorskip("atheris")
    done = run("fuzz.py", "--only", "texts", "--seconds", "5", "--keep", str(tmp_path))
    assert done.returncode == 0 and re.match(r"texts: \d+ inputs, none fails", done.stdout), done.stderr
