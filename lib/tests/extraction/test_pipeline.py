"""Behind the passes: processes label, reduce and write tables in order, few at a time, whole or not at all."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import xarray as xr

from token_geometry.base import processes, store
from token_geometry.extraction import pipeline, plan
from token_geometry.geometry.table_format import N_NEIGHBORS
from token_geometry.observables import catalog, tables, transfer
from token_geometry.requests.reduction import Reduction
from token_geometry.studies import reduction

N_LAYERS, N_TOKENS = 4, 48
PATIENCE = 300
"""Seconds that only what hangs takes."""


def tables_of(number, *, n_tokens=N_TOKENS):
    """Tables of a random cloud, as a pass leaves them."""
    generator = torch.Generator().manual_seed(number)
    hidden = torch.randn(N_LAYERS, n_tokens, 16, generator=generator)
    of_states = tables.arrays(hidden)
    of_token = torch.rand(n_tokens, generator=generator, dtype=torch.float64).numpy()
    arrays = of_states | {
        "loss": 1.5,
        "token_loss": of_token,
        "entropy": 2.5,
        "mean_state": hidden[0, 0],
        "lens_loss": of_token[:N_LAYERS],
        "lens_entropy": of_token[:N_LAYERS],
        "token_entropy": of_token,
        "logit_neighbor_distance": of_states["neighbor_distance"][0],
        "token_id": np.arange(n_tokens),
        "block_permutation": np.arange(1),
    }
    attrs = store.make_attrs("Tables", {"seed": 0}, prompt=str(number), shuffle_level=0)
    return transfer.leave(arrays, attrs, device="cpu")


def written(directory):
    return {path.name: store.read(path).drop_attrs() for path in directory.glob("*.nc")}


def left_half_written(directory):
    return list(directory.glob(".*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("keep_neighbors", [True, False])
def test_processes_write_what_this_one_writes_to_the_bit_and_in_order(tmp_path, keep_neighbors):
    alone, behind = tmp_path / "alone", tmp_path / "behind"
    for number in range(7):
        pipeline.finish((tables_of(number), alone / f"{number}.nc"), keep_neighbors=keep_neighbors)
    made = ((tables_of(number), behind / f"{number}.nc") for number in range(7))
    steps = pipeline.behind(made, keep_neighbors=keep_neighbors, batch_size=2, n_writers=2)
    for number, _ in enumerate(steps):
        assert (behind / f"{number}.nc").is_file(), "a step means that the next shard is there"
    found, expected = written(behind), written(alone)
    assert found.keys() == expected.keys() and len(found) == 7
    for name, shard in found.items():
        xr.testing.assert_identical(shard, expected[name])
        assert {v: a.dtype for v, a in shard.items()} == {v: a.dtype for v, a in expected[name].items()}


def test_a_shard_has_the_types_of_its_tables_by_their_size():
    assert tables_of(0).label()["neighbor_index"].dtype == np.uint16
    few = tables_of(0, n_tokens=N_NEIGHBORS).label()["neighbor_index"]
    assert few.dtype == np.int32 and few.min() == -1
    shard = tables_of(0).label()
    types = {"neighbor_distance": "f4", "distinct": "i1", "n_float64": "i4", "token_loss": "f4", "loss": "f8"}
    assert {name: shard[name].dtype.str[1:] for name in types} == types


def test_tables_are_made_no_further_ahead_than_there_is_room_for():
    n_made, n_done, largest = 0, 0, 0
    go_on = threading.Event()

    def items():
        nonlocal n_made
        for _ in range(200):
            n_made += 1
            yield n_made

    def slow(item):
        if item == 1:
            go_on.wait(PATIENCE)
        return item

    with ThreadPoolExecutor(2) as threads:
        results = processes.in_order(threads, slow, items(), ahead=6)
        threading.Timer(0.3, go_on.set).start()
        for n_done, result in enumerate(results, start=1):
            assert result == n_done
            largest = max(largest, n_made - n_done)
    assert n_done == 200 and largest <= 6


@pytest.mark.slow
def test_the_error_of_a_process_is_the_line_it_would_be_here(tmp_path, refused):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    places = [tmp_path / "0.nc", blocked / "1.nc", *(tmp_path / f"{number}.nc" for number in range(2, 30))]
    taken = []

    def made():
        for number, path in enumerate(places):
            taken.append(path)
            yield tables_of(number), path

    with refused(blocked / "1.nc", "could not be written", "check disk space"):
        list(pipeline.behind(made(), keep_neighbors=True, batch_size=1, n_writers=1))
    assert store.read(tmp_path / "0.nc")["loss"] == 1.5
    assert len(taken) < 10, "nothing more is made"
    assert not left_half_written(tmp_path)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_in_one_line(tmp_path, refused):
    def made():
        for number in range(100):
            yield tables_of(number), tmp_path / f"{number}.nc"
            if number == 8:
                with processes.pool(1, what="x") as other:  # which is not affected
                    assert other.submit(os.getppid).result() == os.getpid()
                os.kill(children()[0], signal.SIGKILL)

    def children():
        found = {child.pid: child.cmdline() for child in psutil.Process().children()}
        writers = {pid for pid, words in found.items() if "loky" in " ".join(words)}
        return sorted(pid for pid in writers if "resource_tracker" not in " ".join(found[pid]))

    with refused("a process that writes shards was killed", "memory", "what is done is kept"):
        list(pipeline.behind(made(), keep_neighbors=True, batch_size=1, n_writers=2))
    assert 0 < len(written(tmp_path)) < 100, "every file that is there is whole"


# Finishes tables without end, once by itself and once by other processes; it says where they are.
ENDLESS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_pipeline import pipeline, tables_of
def made():
    one = tables_of(0)
    for number in range(10**6):
        yield one, Path(sys.argv[1]) / f"{number % 1000}.nc"
for _ in pipeline.behind(made(), keep_neighbors=True, batch_size=2, n_writers=2):
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_or_killed_run_ends_its_processes_and_leaves_whole_shards(tmp_path, how):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", ENDLESS, str(tmp_path), here]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(list(tmp_path.glob("*.nc"))) > 20)
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does
        else:
            process.kill()
        _, printed = process.communicate(timeout=PATIENCE)
        assert process.returncode in (-how, 1, 130)
        wait_for(lambda: not group(process.pid))
    finally:
        if group(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert written(tmp_path)
    if how == signal.SIGINT:
        assert not left_half_written(tmp_path)
        assert printed.splitlines()[-1] == "KeyboardInterrupt" and printed.count("Traceback") == 1


def group(number):
    """Processes of a group that are alive."""
    stats = [path for path in Path("/proc").glob("[0-9]*/stat")]
    found = []
    for path in stats:
        try:
            state, _, of_group, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of_group) == number and state != "Z":
            found.append(path)
    return found


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_threads_that_write_and_read_at_a_time_do_not_disturb_one_another(tmp_path):
    shards = [tables_of(number).label() for number in range(8)]

    def there_and_back(number):
        path = tmp_path / f"{number}.nc"
        store.write(shards[number % 8], path)
        return store.read(path).identical(shards[number % 8])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(there_and_back, range(64)))


@pytest.fixture
def forty_shards(tmp_path):
    """Directory of an extraction of forty shards."""
    directory = tmp_path / "shards"
    names = [f"{number}.nc" for number in range(40)]
    for number, name in enumerate(names):
        pipeline.finish((tables_of(number), directory / name), keep_neighbors=number % 3 > 0)
    recipe = {"seed": 0, "model": {"sha256": "ab"}}
    request = {"model": "random", "corpus": "texts", "n_tokens": N_TOKENS, "seed": 0, "dtype": "float32"}
    found = {
        "recipe": recipe,
        "recipe_digest": store.digest({"seed": 0}),
        "plan_digest": "cd",
        "request": request | {"shuffle_levels": [0], "filter_models": []},
        "model_title": "Random",
        "n_examined": 40,
        "n_too_short": 0,
        "shards": [{"prompt": str(n), "shuffle_level": 0, "file": name} for n, name in enumerate(names)],
    }
    plan.save_plan(directory, found)
    return directory


@pytest.mark.slow
def test_observables_are_the_same_on_one_core_and_on_all(forty_shards, monkeypatch, refused):
    monkeypatch.setattr(processes, "cores", lambda: 1)
    alone = reduction.compute(Reduction(extraction=str(forty_shards), output="observables.nc"))
    monkeypatch.setattr(processes, "cores", lambda: 3)
    monkeypatch.setattr(catalog, "observables", lambda *_, **__: pytest.fail("this process reduces"))
    together = reduction.compute(Reduction(extraction=str(forty_shards), output="observables.nc"))
    monkeypatch.undo()
    xr.testing.assert_identical(together.drop_attrs(), alone.drop_attrs())
    assert together["prompt"].values.tolist() == [str(number) for number in range(40)]
    damaged = forty_shards / "17.nc"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with refused(damaged, "damaged", "delete it"):
        reduction.compute(Reduction(extraction=str(forty_shards), output="observables.nc"))


@pytest.mark.slow
def test_shards_made_before_local_dimensions_were_taken_are_accepted_and_said(forty_shards, capsys, monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 1)
    whole = reduction.compute(Reduction(extraction=str(forty_shards), output="observables.nc"))
    assert "made before" not in capsys.readouterr().out
    older = forty_shards / "1.nc"
    store.write(store.read(older).drop_vars(["ess", "tle"]), older)
    found = reduction.compute(Reduction(extraction=str(forty_shards), output="observables.nc"))
    said = capsys.readouterr().out
    assert "1 of 40 shards were made before ess, tle were taken" in said and str(forty_shards) in said
    for name in ("ess", "tle", "ess_loss_correlation", "tle_loss_correlation"):
        assert found[name].sel(prompt="1").isnull().all() and whole[name].sel(prompt="1").notnull().any()
        found[name].loc[{"prompt": "1"}] = whole[name].sel(prompt="1")
    xr.testing.assert_identical(found.drop_attrs(), whole.drop_attrs())
