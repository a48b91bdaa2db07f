"""Many processes, slices, batches and interruptions: whatever happens, the shards are the same."""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import accelerate
import forked
import numpy as np
import pytest
import readme
import safetensors.torch
import torch
import transformers
import xarray as xr

from token_geometry import worker
from token_geometry.base import processes, progress, store
from token_geometry.base.errors import InputError
from token_geometry.extraction import batching, extraction, locks, plan
from token_geometry.models import devices, sources
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.reduction import Reduction
from token_geometry.states.model import LanguageModel
from token_geometry.studies import reduction

N_PROMPTS = 6
TIMEOUT = 300
"""Seconds that only what hangs takes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_tiny):
    """Folder with a random model of three blocks and a corpus of twelve texts."""
    folder = tmp_path_factory.mktemp("tiny")
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4
    )
    save_tiny(config, folder / "model")
    words = random.Random(0)
    texts = [" ".join(f"w{words.randrange(2, 300)}" for _ in range(80)) for _ in range(12)]
    lines = [json.dumps({"id": f"text {number}", "text": text}) for number, text in enumerate(texts)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def request_for(folder, tmp_path):
    """Function that makes a request with changes; its output is a new directory."""

    def make(**changes):
        given = {
            "model": str(folder / "model"),
            "corpus": str(folder / "texts.jsonl"),
            "n_prompts": N_PROMPTS,
            "n_tokens": 64,
            "shuffle_levels": [0, 2],
            "device": "cpu",
            "output": str(tmp_path / "shards"),
        }
        return Extraction(**(given | changes))

    return make


@pytest.fixture(scope="module")
def alone(folder):
    """Observables of one process that takes one prompt at a time."""
    request = Extraction(
        model=str(folder / "model"),
        corpus=str(folder / "texts.jsonl"),
        n_prompts=N_PROMPTS,
        n_tokens=64,
        shuffle_levels=[0, 2],
        device="cpu",
        output=str(folder / "alone"),
    )
    return observed(extraction.extract(request))


def observed(directory, **options):
    """The observables of a directory."""
    return reduction.compute(Reduction(extraction=str(directory), output="observables.nc", **options))


def assert_identical(directory, expected):
    """Every bit of every observable."""
    xr.testing.assert_identical(observed(directory).drop_attrs(), expected.drop_attrs())


def times(directory):
    return {path.name: path.stat().st_mtime_ns for path in Path(directory).glob("*.nc")}


# Processes


@pytest.mark.slow
def test_three_processes_make_what_one_makes(request_for, alone, capfd):
    request = request_for(num_processes=3)
    assert_identical(extraction.extract(request), alone)
    printed, progressed = capfd.readouterr()
    assert "3 processes" in printed and "12/12 passes" in progressed
    assert "12 forward passes: about" in printed and "of memory in each process" in printed
    assert len(printed.splitlines()) < 10, "libraries say nothing"
    extraction.extract(dataclasses.replace(request, num_processes=1))
    assert "12 of 12 shards are there already" in capfd.readouterr().out


@pytest.mark.slow
def test_two_launches_as_of_two_machines_by_the_command_of_the_readme_make_what_one_makes(request_for, alone):
    request = request_for(num_processes=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ((_, *words),) = readme.commands("torchrun")
    words = [f"127.0.0.1:{port}" if word == "HOST:29500" else word for word in words]
    # the name of this machine need not lead to an address; of a parameter that comes twice the last counts
    command = [sys.executable, "-m", "torch.distributed.run", "--local-addr", "127.0.0.1", *words]
    for name, value in dataclasses.asdict(request).items():
        command += ["-p", name, value if isinstance(value, str) else json.dumps(value)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launches = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        printed = "".join(launch.communicate(timeout=TIMEOUT)[0] for launch in launches)
    finally:
        for launch in launches:
            launch.kill()
    assert [launch.returncode for launch in launches] == [0, 0], printed
    assert printed.count("2 processes") == 1
    assert_identical(request.output, alone)


@pytest.mark.slow
def test_another_number_of_processes_than_was_asked_for_is_noticed(request_for, refused):
    # no launcher started this process: as accelerate's does on a CPU, whatever number it is given
    request = request_for(num_processes=2)
    with refused("num_processes is 2 and 1 came up: start as many with the launcher"):
        worker.share(request)
    assert not times(request.output)


@pytest.mark.slow
def test_the_error_of_a_process_ends_all_and_is_one_line(request_for, folder, tmp_path, refused):
    shutil.copytree(folder / "model", tmp_path / "model")
    weights = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan  # which is found when it is loaded
    safetensors.torch.save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with refused("model.layers.1.mlp.up_proj.weight holds a number that is not finite"):
        extraction.extract(request_for(model=str(tmp_path / "model"), num_processes=2))


@pytest.mark.slow
def test_a_process_that_is_killed_becomes_one_line(request_for, refused, monkeypatch):
    monkeypatch.setattr(extraction, "take_part", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with refused("a process that makes shards was killed", "num_processes = 2", "smaller model", "is kept"):
        extraction.extract(request_for(num_processes=2))


@pytest.mark.slow
def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path):
    starter = (
        "import os, sys, time; from pathlib import Path; from token_geometry.base import processes\n"
        "with processes.pool(1, what='sleeps') as pool:\n"
        "    Path(sys.argv[1]).write_text(str(pool.submit(os.getpid).result()))\n"
        "    processes.all_of(pool, time.sleep, [(1000,)])"
    )
    note = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", starter, str(note)])
    wait_for(lambda: note.exists() and note.read_text())
    process.kill()
    process.wait(TIMEOUT)
    wait_for(lambda: not Path(f"/proc/{note.read_text()}").exists())


def wait_for(condition):
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.05)


# Slices


@pytest.mark.slow
def test_slices_by_independent_jobs_make_what_one_makes(request_for, alone, refused):
    request = request_for(n_parts=3)
    for part in (2, 0, 1):
        with refused("is incomplete") if part != 2 else refused("extraction.json"):
            observed(request.output)
        extraction.extract(dataclasses.replace(request, part=part))
        assert len(plan.cost_table(Path(request.output))) == len(times(request.output))
    assert_identical(request.output, alone)


@pytest.mark.slow
def test_two_runs_on_one_directory_exclude_each_other_and_slices_of_one_run_do_not(request_for, refused):
    request = request_for()
    directory = Path(request.output)
    directory.mkdir()
    digest = store.digest(request.plan_recipe())
    with locks.held(directory, part=0, n_parts=1, plan_digest=digest):
        with refused(directory, "is being filled", f"process {os.getpid()}", "wait for it"):
            extraction.extract(request)
        with refused("is being filled by another run"):
            extraction.extract(dataclasses.replace(request, n_parts=2))
    with locks.held(directory, part=0, n_parts=2, plan_digest=digest):
        with refused("is being filled by part 0-of-2 of this run"):
            extraction.extract(dataclasses.replace(request, n_parts=2))
        with refused("is being filled by another run"):
            extraction.extract(dataclasses.replace(request, n_parts=2, part=1, n_prompts=4))
        extraction.extract(dataclasses.replace(request, n_parts=2, part=1))
    extraction.extract(dataclasses.replace(request, n_parts=2))
    assert len(times(directory)) == 2 * N_PROMPTS


# Batches


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [2, 5, 12])
def test_the_size_of_the_batch_changes_nothing(request_for, alone, batch_size):
    assert_identical(extraction.extract(request_for(batch_size=batch_size)), alone)


def test_the_batch_of_a_real_model_changes_no_bit_of_its_states(smollm2, sotu):
    texts = list(sotu.texts.values())[:2]
    ids = np.array([smollm2.tokenizer(text)["input_ids"][:64] for text in texts])
    together = smollm2.forward_batch(ids)
    for line, states in zip(ids, together, strict=True):
        single = smollm2.forward(line)
        assert torch.equal(states.hidden, single.hidden)
        assert states.loss == single.loss


@pytest.mark.slow
def test_a_batch_that_does_not_fit_into_memory_is_halved(request_for, alone, monkeypatch, capsys, refused):
    forward, largest = LanguageModel.forward_batch, 2

    def forward_if_it_fits(self, token_ids, **options):
        if len(token_ids) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return forward(self, token_ids, **options)

    monkeypatch.setattr(LanguageModel, "forward_batch", forward_if_it_fits)
    request = request_for(batch_size=8)
    assert_identical(extraction.extract(request), alone)
    printed = capsys.readouterr().out
    # threads halve a common size: which of them names which step is theirs
    assert "too small for 8 prompts at once: going on with" in printed and "going on with 2" in printed
    largest = 0
    with refused("memory is too small for one prompt of 64 tokens", "lower n_tokens", "gpus_per_model"):
        extraction.extract(request_for(output=request.output + "2"))


def test_the_batch_is_as_large_as_the_free_memory_allows():
    prompt = batching.bytes_of_prompt(layers=33, n_tokens=1024, width=4096, item=2)
    assert 1.0e9 < prompt < 1.5e9
    largest = batching.LARGEST
    assert batching.as_many_as_fit(largest, prompt, free=100 * prompt) == largest
    assert batching.as_many_as_fit(largest, prompt, free=5 * prompt) == 4
    assert batching.as_many_as_fit(largest, prompt, free=5 * prompt, fixed=prompt) == 3
    assert batching.as_many_as_fit(largest, prompt, free=prompt) == 1


def test_a_cpu_works_on_as_many_batches_side_by_side_as_its_memory_has_room_for():
    assert batching.as_many_as_fit(16, 1000, free=1_000_000) == 16
    assert batching.as_many_as_fit(16, 1000, free=5000) == 4
    assert batching.as_many_as_fit(16, 1000, free=-5000) == 1


# Devices


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(devices, "choose_device", lambda device: "cuda" if device == "auto" else device)


def test_processes_take_gpus_side_by_side(four_gpus, refused):
    taken = [devices.assign("auto", gpus_per_model=2, n_models=2, place=place) for place in range(2)]
    assert taken == [["cuda:0", "cuda:1"], ["cuda:2", "cuda:3"]]
    assert devices.assign("auto", n_models=4, place=3) == ["cuda:3"]
    assert devices.assign("cuda:2") == ["cuda:2"]
    assert devices.assign("cuda:1", gpus_per_model=3) == ["cuda:1", "cuda:2", "cuda:3"]
    with refused("3 x 2", "4 GPUs"):
        devices.assign("auto", gpus_per_model=2, n_models=3)


def test_a_large_model_is_shared_out_by_whole_blocks_in_order(refused):
    config = transformers.LlamaConfig(
        vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=8, num_attention_heads=4
    )
    with torch.device("meta"):
        sketch = transformers.AutoModelForCausalLM.from_config(config)
    size = sum(p.numel() * 4 for p in sketch.parameters())
    parts = devices.device_map(sketch, ["cuda:2", "cuda:3"], free=[size, size], name="x")
    blocks = [parts[f"model.layers.{number}"] for number in range(8)]
    assert blocks == sorted(blocks) and set(blocks) == {2, 3}
    assert parts["model.embed_tokens"] == 2 and parts["lm_head"] == 3
    with refused("model 'x'", "raise gpus_per_model"):
        devices.device_map(sketch, ["cuda:0", "cuda:1"], free=[size // 4, size // 4], name="x")


def test_a_model_in_parts_has_the_states_of_the_whole(folder):
    whole, parted = (LanguageModel(sources.resolve(str(folder / "model")), device="cpu") for _ in range(2))
    parts = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    parts |= {f"model.layers.{number}": "cpu" for number in range(3)}
    parted.model = accelerate.dispatch_model(parted.model, parts, force_hooks=True)
    ids = np.arange(2, 50)
    first, second = whole.forward(ids), parted.forward(ids)
    assert torch.equal(first.hidden, second.hidden) and first.loss == second.loss


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_processes": 13}, ["num_processes is 13", "12 prompts"]),
        ({"num_processes": 0}, ["num_processes is 0"]),
        ({"num_processes": 5, "n_parts": 3}, ["num_processes is 5", "4 prompts", "part 0 of 3"]),
        ({"n_parts": 13, "part": 12}, ["n_parts is 13", "12 prompts"]),
        ({"n_parts": 3, "part": 3}, ["part is 3", "accepted: 0 to 2"]),
        ({"batch_size": 0}, ["batch_size is 0"]),
        ({"gpus_per_model": 2}, ["gpus_per_model is 2", "device cpu"]),
        ({"device": "cuda:7", "num_processes": 2}, ["'cuda:7' does not exist here"]),
        (
            {"output": "/proc/shards", "num_processes": 2},
            ["output '/proc/shards", "cannot be written", "choose another"],
        ),
    ],
)
def test_what_cannot_be_shared_out_is_refused_at_once(request_for, change, words, refused, monkeypatch):
    monkeypatch.setattr(processes, "pool", lambda *_, **__: pytest.fail("processes were started"))
    with refused(*words):
        extraction.extract(request_for(**change))


def test_a_directory_of_another_recipe_is_refused_before_processes_start(request_for, refused, monkeypatch):
    request = request_for(n_prompts=2)
    extraction.extract(request)
    monkeypatch.setattr(processes, "pool", lambda *_, **__: pytest.fail("processes were started"))
    with refused("another seed", "set overwrite"):
        extraction.extract(dataclasses.replace(request, seed=1, num_processes=2))


# Shards without neighbors


@pytest.mark.slow
def test_observables_alone_take_less_and_are_the_same_to_the_last_bit(request_for, alone, refused):
    request = request_for(keep_neighbors=False)
    directory = extraction.extract(request)
    assert_identical(directory, alone)
    with refused("keeps no neighbors", "dadapy"):
        observed(directory, estimator="dadapy")
    before = times(directory)
    extraction.extract(request)
    assert times(directory) == before
    extraction.extract(dataclasses.replace(request, keep_neighbors=True))
    assert not times(directory).items() & before.items(), "tables cannot be had from observables"
    tables = times(directory)
    extraction.extract(request)
    assert times(directory) == tables, "observables can be had from tables"


# Interruptions


@pytest.mark.slow
def test_a_full_disk_stops_a_run_and_what_is_done_is_kept(request_for, alone, monkeypatch, refused):
    write, written = store.write, []

    def write_until_full(shard, path):
        if len(written) == 4:
            raise InputError(f"{path} could not be written (No space left on device): check the disk's space")
        written.append(path)
        write(shard, path)

    request = request_for()
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", write_until_full)
        with refused("No space left"):
            extraction.extract(request)
    before = times(request.output)
    assert len(before) == 4
    extraction.extract(request)
    assert before.items() <= times(request.output).items()
    assert_identical(request.output, alone)


@pytest.mark.slow
def test_a_file_system_without_space_stops_a_run_in_one_line(folder, request_for, alone, tmp_path):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir(), kept.mkdir()
    size = sum(path.stat().st_size for path in (folder / "alone").glob("*.nc")) // 2
    # a mount of its own, which needs no rights where the kernel allows it; what it holds is gone at the end
    script = f'mount -t tmpfs -o size={size} none "$1" && '
    script += '{ "$2" -c "$3" "$4"; code=$?; cp -a "$1/." "$5"; exit $code; }'
    program = """
import json, sys
from token_geometry.base import parameters
from token_geometry.base.errors import InputError
from token_geometry.extraction import extraction
from token_geometry.requests.extraction import Extraction
try:
    extraction.extract(parameters.build(Extraction, json.loads(sys.argv[1]), noun="parameter"))
except InputError as error:
    sys.exit(f"error: {error}")
"""
    given = json.dumps(dataclasses.asdict(request_for(output=str(disk))))
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script]
    try:
        done = subprocess.run(
            [*command, "sh", disk, sys.executable, program, given, kept], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.returncode == 1 and "check disk space" in done.stderr.splitlines()[-1]
    before = times(kept)
    assert 0 < len(before) < 12 and not list(kept.glob(".*.partial"))
    extraction.extract(request_for(output=str(kept)))
    assert before.items() <= times(kept).items()
    assert_identical(kept, alone)


def test_damage_anywhere_in_a_shard_is_noticed(request_for, tmp_path):
    directory = extraction.extract(request_for(n_prompts=1, shuffle_levels=[0]))
    (path,) = directory.glob("*.nc")
    whole, expected = path.read_bytes(), store.read(path)
    copy = tmp_path / "copy.nc"
    n_noticed, starts = 0, range(0, len(whole), 997)
    for start in starts:
        copy.write_bytes(whole[:start] + bytes(min(499, len(whole) - start)) + whole[start + 499 :])
        try:
            found = store.read(copy)
        except InputError:
            n_noticed += 1
        else:
            xr.testing.assert_identical(found, expected)  # the file has unused bytes
    assert n_noticed > len(starts) / 2
    copy.write_bytes(bytes(len(whole)))
    assert not store.is_fresh(copy, expected.attrs["recipe_digest"])


@pytest.mark.slow
def test_a_shard_that_is_cut_zeroed_or_of_another_recipe_is_made_again(request_for, alone):
    request = request_for()
    directory = extraction.extract(request)
    cut, zeroed, other, *kept = sorted(directory.glob("*.nc"))
    before = times(directory)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    zeroed.write_bytes(bytes(zeroed.stat().st_size))
    store.write(store.read(other).assign_attrs(store.make_attrs("x", {"seed": 1})), other)
    extraction.extract(request)
    after = times(directory)
    assert {name for name in before if after[name] != before[name]} == {cut.name, zeroed.name, other.name}
    assert_identical(directory, alone)


# A process that has imported everything forks one child an attempt, which is killed: so that an attempt
# costs no start of Python and torch.
KILL = """
import os, random, signal, sys, time
import torch
import json, accelerate.utils.memory
from token_geometry.base import parameters
from token_geometry.extraction import extraction
from token_geometry.requests.extraction import Extraction
torch.set_num_threads(1)
request = parameters.build(Extraction, json.loads(sys.argv[1]), noun="parameter")

def child():
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            extraction.extract(request)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid

start = time.monotonic()
moments = random.Random(int(sys.argv[2]))
counts = []
for attempt in range(20):
    pid = child()
    time.sleep(moments.uniform(0, 0.6))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    counts.append(len([n for n in os.listdir(request.output) if n.endswith(".nc")]) if
                  os.path.isdir(request.output) else 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("a restart failed")
_, status = os.waitpid(child(), 0)
print(counts, status, round(time.monotonic() - start, 1))
sys.exit(status)
"""


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_with_the_dataset_of_an_uninterrupted_one(folder, request_for):
    levels = [0, 1, 2, 3]
    request = request_for(n_prompts=12, shuffle_levels=levels)
    seed = random.randrange(10**6)
    command = [*forked.PYTHON, "-c", KILL, json.dumps(dataclasses.asdict(request)), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr[-2000:]}"
    counts = json.loads(re.match(r"\[.*?\]", done.stdout).group())
    assert counts == sorted(counts), "a restart goes on where the last one stopped"
    expected = observed(extraction.extract(dataclasses.replace(request, output=str(folder / "long"))))
    assert_identical(request.output, expected)
    left = [path.name for path in Path(request.output).iterdir() if path.name.endswith(".partial")]
    assert not left, "what a killed process left half written is removed"


# What a run says


def test_a_log_of_ten_hours_has_few_lines(monkeypatch, capsys):
    now = [0.0]
    with progress.Progress(36_000, "Extract x", unit="passes", clock=lambda: now[0]) as shown:
        for _ in range(36_000):
            now[0] += 1
            shown.advance()
    lines = capsys.readouterr().err.splitlines()
    assert 40 < len(lines) < 80
    assert lines[0] == "Extract x: 10/36000 passes, 1 s each, 00:10 gone, 9:59:50 left"
    assert "36000/36000" in lines[-1]


def test_shards_say_what_they_cost(request_for):
    table = plan.cost_table(extraction.extract(request_for(batch_size=4)))
    assert set(table["batch"]) == {4} and table["device"].str.len().min() > 0
    assert (table[["forward (s)", "geometry (s)"]] >= 0).all(axis=None)
    assert (table["peak memory (GB)"] > 0.1).all()


# SLURM


@pytest.mark.slow
@pytest.mark.parametrize("script", ["processes", "slices"])
def test_the_slurm_scripts_start_workers(script, tmp_path):
    path = Path(__file__).parents[2] / "slurm" / f"{script}.sh"
    for name, body in {"srun": 'shift; exec "$@"', "scontrol": "echo node7", "python": 'echo "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "31"}
    slurm |= {"SLURM_GPUS_ON_NODE": "4", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", str(path), "-p", "output", "shards"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    expected = {
        "processes": "-m torch.distributed.run --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-id 31 "
        "--rdzv-endpoint node7:29500 -m token_geometry.worker -p output shards",
        "slices": "-m token_geometry.worker -p part 3 -p n_parts 8 -p output shards",
    }
    assert done.stdout.strip() == expected[script]
