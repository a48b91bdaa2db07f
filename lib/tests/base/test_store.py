"""Result files are whole or not there, and damage is noticed."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from token_geometry.base import store

RECIPE = {"model": {"sha256": "ab"}, "n_tokens": 1024}


def result(recipe=RECIPE):
    values = np.random.default_rng(0).normal(size=(30, 4000)).astype(np.float32)
    dataset = xr.Dataset({"distance": (("layer", "token"), values), "loss": ((), 2.5)})
    return dataset.assign_attrs(store.make_attrs("A result", recipe))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "result.nc"
    store.write(result(), path)
    return path


def test_a_written_result_is_read_back_and_fresh(path):
    xr.testing.assert_identical(store.read(path).drop_attrs(), result().drop_attrs())
    assert store.is_fresh(path, store.digest(RECIPE))
    assert [file.name for file in path.parent.iterdir()] == ["result.nc"]


def test_a_result_of_another_recipe_is_not_fresh(path):
    assert not store.is_fresh(path, store.digest(RECIPE | {"n_tokens": 512}))


def test_digest_does_not_depend_on_the_order_of_names():
    assert store.digest(RECIPE) == store.digest(dict(reversed(RECIPE.items())))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_result_is_refused(path, share, refused):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert not store.is_fresh(path, store.digest(RECIPE))
    with refused(path, "delete it"):
        store.read(path)


def test_a_result_whose_middle_is_zero_is_refused(path, refused):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    path.write_bytes(content)
    assert not store.is_fresh(path, store.digest(RECIPE))
    with refused(path, "damaged"):
        store.read(path)


def test_a_missing_result_and_a_foreign_file_are_refused(tmp_path, refused):
    with refused("nowhere.nc", "does not exist"):
        store.read(tmp_path / "nowhere.nc")
    xr.Dataset({"x": ((), 1.0)}).to_netcdf(tmp_path / "foreign.nc")
    with refused("foreign.nc", "no recipe"):
        store.read(tmp_path / "foreign.nc")
    (tmp_path / "text.nc").write_text("not NetCDF")
    with refused("text.nc", "damaged"):
        store.read(tmp_path / "text.nc")


# A file may grow to 100 kB and no further: the write stops in its middle, once as
# on a full disk (an error), once as in a crash (the process is killed).
WRITE = """
import resource, signal, sys
from pathlib import Path
import numpy as np, xarray as xr
from token_geometry.base import store
from token_geometry.base.errors import InputError
dataset = xr.Dataset({"x": ("token", np.random.default_rng(0).normal(size=200_000))})
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.write(dataset.assign_attrs(store.make_attrs("x", {})), Path(sys.argv[1]))
except InputError as error:
    sys.exit(str(error))
"""


def stopped_write(path, on_limit):
    command = [sys.executable, "-c", WRITE, str(path), on_limit]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "an older result"])
def test_a_write_that_is_killed_leaves_no_half_file_under_the_final_name(tmp_path, before):
    path = tmp_path / "result.nc"
    if before == "an older result":
        store.write(result(), path)
    done = stopped_write(path, "SIG_DFL")
    assert done.returncode == -signal.SIGXFSZ
    if before == "nothing":
        assert not path.exists()
        assert not list(tmp_path.glob("*.nc"))
    else:
        assert store.is_fresh(path, store.digest(RECIPE))


@pytest.mark.slow
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path):
    done = stopped_write(tmp_path / "result.nc", "SIG_IGN")
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert "result.nc could not be written" in done.stderr
    assert not list(tmp_path.iterdir())
