"""Result files are whole or not there, and damage is noticed."""

import os
import signal
import subprocess
import sys

import netCDF4
import numpy as np
import pytest
import xarray as xr

from token_geometry.base import InputError, project, store

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


def test_a_file_that_a_program_holds_open_is_read_again_and_again():
    path = project.root() / "data" / "published" / "families" / "control.nc"
    script = f"""
import xarray as xr
held = xr.open_dataset({str(path)!r}).load()
from token_geometry.base import store
from pathlib import Path
for _ in range(3):
    assert store.read(Path({str(path)!r})).sizes == held.sizes
print(xr.open_dataset({str(path)!r})["loss"].equals(held["loss"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_a_result_of_another_recipe_is_not_fresh(path):
    assert not store.is_fresh(path, store.digest(RECIPE | {"n_tokens": 512}))


def test_digest_does_not_depend_on_the_order_of_names():
    assert store.digest(RECIPE) == store.digest(dict(reversed(RECIPE.items())))


def test_a_new_format_makes_every_result_stale(path, monkeypatch):
    digest = store.digest(RECIPE)
    monkeypatch.setattr(store, "FORMAT", store.FORMAT + 1)
    assert store.digest(RECIPE) != digest and not store.is_fresh(path, store.digest(RECIPE))


def test_the_digest_of_a_recipe_is_that_of_results_of_before():
    # a change makes every result stale, and stands in CHANGELOG.md
    assert store.digest({"seed": 1}) == "d74fbd831968b143"


def test_every_part_of_a_recipe_decides_its_digest():
    others = [{"model": {"sha256": "ac"}, "n_tokens": 1024}, RECIPE | {"n_tokens": 1025}, RECIPE | {"x": None}]
    assert len({store.digest(recipe) for recipe in (RECIPE, *others)}) == 4
    assert len(store.digest(RECIPE)) == 16


@pytest.mark.parametrize("name", ["title", "recipe", "recipe_digest", "versions", "created"])
def test_a_changed_attribute_of_the_file_is_damage(name, path, refused):
    with netCDF4.Dataset(path, "a") as file:
        file.setncattr(name, file.getncattr(name) + " ")
    with refused(path, "damaged"):
        store.read(path)


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


# Damage in what describes the values


def described():
    dataset = xr.Dataset(
        {"distance": (("layer", "token"), np.ones((3, 40)), {"units": "degree", "long_name": "d"})}
    )
    dataset = dataset.assign_coords(layer=[0, 1, 2], model=("layer", ["a", "b", "c"]))
    return dataset.assign_attrs(store.make_attrs("A result", RECIPE))


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.nc"
    store.write(described(), path)
    return path


@pytest.mark.parametrize("change", ["units", "long_name", "another", "gone"])
def test_a_changed_attribute_of_a_variable_is_damage(change, small, refused):
    with netCDF4.Dataset(small, "a") as file:
        if change == "gone":
            file["distance"].delncattr("units")
        else:
            file["distance"].setncattr(change, "radian")
    assert not store.is_fresh(small, store.digest(RECIPE))
    with refused(small, "damaged", "delete it"):
        store.read(small)


def test_a_result_of_before_these_attributes_were_counted_stays_fresh(small):
    whole = described()
    old = whole.assign_attrs(checksum=store._checksum(whole, with_attrs=False))
    old.to_netcdf(small, engine="netcdf4")
    assert store.is_fresh(small, store.digest(RECIPE))


@pytest.mark.parametrize("kind", ["values", "coordinate"])
def test_a_dimension_that_no_memory_holds_is_damage(kind, tmp_path, refused):
    path = tmp_path / "large.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.recipe_digest = store.digest(RECIPE)
        file.createDimension("token", 8_000_000_000)
        file.createVariable("token" if kind == "coordinate" else "loss", "f8", ("token",))
    for read in (store.read, store.read_attrs):
        with refused(path, "claims 64000000000", "delete it"):
            read(path)
    assert not store.is_fresh(path, store.digest(RECIPE))


@pytest.mark.slow
def test_an_attribute_of_many_megabytes_is_damage(small, refused):
    with netCDF4.Dataset(small, "a") as file:
        file.title = "x" * 50_000_000
    with refused(small, "damaged"):
        store.read(small)


def test_a_directory_a_link_to_nothing_and_an_attribute_of_another_type_are_stale(tmp_path, small):
    (tmp_path / "folder.nc").mkdir()
    (tmp_path / "link.nc").symlink_to(tmp_path / "nothing")
    with netCDF4.Dataset(small, "a") as file:
        file.recipe_digest = np.arange(3)
    for name in ("folder.nc", "link.nc", "small.nc"):
        assert not store.is_fresh(tmp_path / name, store.digest(RECIPE))


@pytest.mark.slow
def test_whatever_byte_of_a_result_changes_it_is_refused_in_one_line(small):
    whole, expected = small.read_bytes(), store.read(small)
    n_sealed = len(whole) - len("\nsha256 ") - 65
    for place in [*range(0, n_sealed, 7), *range(n_sealed, len(whole))]:
        small.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        if place < n_sealed:
            with pytest.raises(InputError, match="delete it"):
                store.read_attrs(small)
        try:
            found = store.read(small)
        except InputError as error:
            assert str(error).endswith(": delete it and run the notebook that makes it") and "\n" not in str(error)
        else:  # a seal that looks like none: what it stands behind is as it was
            assert n_sealed <= place < n_sealed + len("\nsha256 ")
            xr.testing.assert_identical(found, expected)


@pytest.mark.slow
def test_an_unsealed_file_that_hdf5_never_comes_back_from_is_refused(small, refused, monkeypatch):
    """As files of before seals are, with a byte that changed; the trial takes a file that reads as long."""
    content = small.read_bytes()
    small.write_bytes(content[: content.rindex(b"\nsha256 ")])
    assert store.read(small).equals(store.read(small))
    monkeypatch.setattr(store, "_TRIAL", "import signal, time\nsignal.alarm(1)\ntime.sleep(30)")
    for read in (store.read, store.read_attrs):
        with refused(small, "HDF5 makes no end of it", "delete it"):
            read(small)


def test_the_results_that_come_with_the_project_are_sealed():
    found = sorted((project.root() / "data" / "published" / "families").glob("*.nc"))
    assert len(found) > 10 and all(map(store._is_sealed, found))


# Outputs are tried before anything is computed


@pytest.mark.parametrize("name", ["folder.nc", "file/x.nc", "/proc/x.nc", "a" * 250 + ".nc", "a\0b.nc"])
def test_an_output_that_cannot_be_written_is_refused_at_once(name, tmp_path, refused):
    (tmp_path / "folder.nc").mkdir()
    (tmp_path / "file").write_text("")
    with refused("output", "cannot be written", "choose another one"):
        store.check_writable(tmp_path / name)


def test_trying_an_output_makes_nothing_and_removes_what_killed_processes_left_of_it(tmp_path):
    store.check_writable(tmp_path / "new" / "folder" / "x.nc")
    assert not list(tmp_path.iterdir())
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = tmp_path / f".x.nc.{dead.stdout.strip()}.partial"
    others = [tmp_path / f".x.nc.{os.getppid()}.partial", tmp_path / f".y.nc.{dead.stdout.strip()}.partial"]
    for path in (left, *others):
        path.write_bytes(b"half")
    store.check_writable(tmp_path / "x.nc")
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_compressed_strings_are_those_that_were_written_and_take_little_room(tmp_path):
    texts = [f"The city of Ghāziābād {n} is in India." for n in range(500)] + ["", " ends in a blank "]
    dataset = xr.Dataset({"text": ("one", texts), "empty": ("one", [""] * 502)}, {"name": ("one", ["ü"] * 502)})
    dataset = dataset.assign_attrs(recipe_digest="x")
    for compressed in (False, True):
        store.write(dataset, tmp_path / f"{compressed}.nc", compressed=compressed)
        found = store.read(tmp_path / f"{compressed}.nc")
        assert found["text"].values.tolist() == texts and set(found["empty"].values) == {""}
        assert set(found["name"].values) == {"ü"}
    assert (tmp_path / "True.nc").stat().st_size < (tmp_path / "False.nc").stat().st_size / 2
