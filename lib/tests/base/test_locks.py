"""Locks: who waits says so, and file systems that know no locks keep no result back."""

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest
import xarray as xr
from filelock import FileLock

from token_geometry.base import locks, project, store
from token_geometry.extraction import locks as extraction_locks


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch):
    """A file system that knows no locks, in one of the ways in which they say so."""

    def refuse(*arguments):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_thing_is_made_without_locks_where_there_are_none_and_a_lock_file_from_elsewhere_holds_nobody_up(
    no_locks, tmp_path, capsys
):
    path = tmp_path / "thing.lock"
    path.write_text("1\nelsewhere\n")
    with locks.waiting(path):
        pass
    printed = capsys.readouterr().out
    assert str(path) in printed and "knows no locks" in printed and printed.count("\n") == 1
    assert path.read_text() == "1\nelsewhere\n"


def test_an_extraction_goes_on_where_there_are_no_locks(no_locks, tmp_path, capsys):
    with extraction_locks.held(tmp_path, part=0, n_parts=1, plan_digest="a"):
        with extraction_locks.held(tmp_path, part=0, n_parts=1, plan_digest="b"):
            pass
    assert capsys.readouterr().out.count("knows no locks") == 2


def test_whoever_waits_for_a_lock_says_so_and_gives_up_in_the_end(tmp_path, monkeypatch, capsys, refused):
    monkeypatch.setattr(locks, "SECONDS_TO_LINE", 0.1)
    monkeypatch.setattr(locks, "LONGEST_WAIT", 0.3)
    monkeypatch.setattr(project, "cache", lambda: tmp_path)
    path = tmp_path / "locks" / "thing.lock"
    path.parent.mkdir()
    with FileLock(path):
        with refused(path, "held by another process"), project.cache_lock("thing"):
            pass
        assert f"waiting for another process, which holds the lock {path}" in capsys.readouterr().out
    monkeypatch.setattr(locks, "LONGEST_WAIT", 600)
    held, let_go = FileLock(path, thread_local=False), threading.Event()
    held.acquire()

    def release():
        let_go.set()
        held.release()

    threading.Timer(0.5, release).start()
    with project.cache_lock("thing"):
        assert let_go.is_set()


def test_other_errors_of_a_lock_are_not_taken_for_a_lack_of_locks(tmp_path):
    with pytest.raises(IsADirectoryError):
        locks.acquire(tmp_path, seconds=1)


@pytest.mark.slow
def test_whole_files_are_read_where_hdf5_cannot_lock_them(tmp_path):
    path = tmp_path / "whole.nc"
    store.write(xr.Dataset({"x": ("n", [1.0, 2.0])}, attrs=store.make_attrs("t", {})), path)
    source, library = tmp_path / "nolock.c", tmp_path / "nolock.so"
    source.write_text("#include <errno.h>\nint flock(int fd, int how) { errno = ENOLCK; return -1; }\n")
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler here")
    script = "import sys; from pathlib import Path; from token_geometry.base import store;"
    script += "print(store.read(Path(sys.argv[1]))['x'].values)"
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        env=environment | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[1. 2.]\n", done.stderr
