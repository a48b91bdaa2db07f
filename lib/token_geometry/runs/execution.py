"""Execution of a run: its stale notebooks through papermill, two at a time where that saves time."""

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from token_geometry.base import InputError, processes, project
from token_geometry.models import devices, sources
from token_geometry.requests.protocol import Request
from token_geometry.requests.sizes import duration
from token_geometry.runs import declaration, forecast, results

AT_A_TIME = 2  # notebooks at a time on a CPU: starting, loading and writing use one core, and leave others idle


def execute(run: declaration.Run, *, recompute: bool = False) -> bool:
    """Run the notebooks of a run whose results are missing or stale; with `recompute` also of what was shipped.

    The executed notebooks stay beside the results as the record of the run. Returns whether anything had to be
    run. An `InputError` says if a request cannot work, a notebook fails, with the notebook's own line, or what was
    shipped is of another recipe and `recompute` is not set."""
    declared, lacking = results.results(run), []
    for result in declared.values():
        path = result.found()
        if path is None and result.shipped.is_file() and not recompute:
            problem = f"{result.shipped} is damaged, or of another recipe than {run.name}.yml declares now"
            way_out = f"compute it by token-geometry run {run.name} --recompute"
            raise InputError(f"{problem}: {way_out}; with --dry-run that says how long it takes")
        lacking += [result] * (path is None or recompute and path == result.shipped)
    if not (planned := results.in_order(lacking)):  # whoever only reads results needs neither models nor torch
        return False
    for step in planned:
        step.request.check()
    estimates = {step.name: forecast.timed(step.request, step.request.estimate()) for step in planned}
    # the longest first: what is short fills the gaps at the end
    planned.sort(key=lambda step: (step.depth, -estimates[step.name].work))
    folder, numbers = project.results(run.name) / "records", itertools.count(1)
    # one where notebooks would share a GPU, or not fit into memory together
    alone = run.num_processes > 1 or processes.cores() < AT_A_TIME or devices.choose_device(run.device) != "cpu"
    largest = sorted(estimate.memory for estimate in estimates.values())[-AT_A_TIME:]
    at_a_time = 1 if alone or sum(largest) >= psutil.virtual_memory().available else AT_A_TIME
    # downloaded and dequantized before notebooks ask for them at the same time, and wait for one another
    loaded = dict.fromkeys(model for step in planned for model in step.request.models)
    missing = [(name,) for name in loaded if not sources.resolve(name).is_made()]
    _for_each(lambda name: sources.resolve(name).directory(), missing, at_a_time=at_a_time)
    tell = _teller({s.name: estimates[s.name].seconds + forecast.STARTS for s in planned}, at_a_time)
    for _, level in itertools.groupby(planned, key=lambda step: step.depth):
        named = [(f"[{next(numbers)}/{len(planned)}] {step.name}", step) for step in level]
        tasks = [(title, step.request, folder / f"{step.name}.ipynb") for title, step in named]
        _for_each(execute_notebook, tasks, at_a_time=at_a_time, then=tell)
    return True


def _teller(expected: dict[str, float], at_a_time: int) -> Callable[[tuple[str, float]], None]:
    """Say how long notebooks will take; what is returned says, of each that is made, how much is left then."""
    print(f"{len(expected)} notebooks, about {duration(sum(expected.values()))} in all", flush=True)
    start, took = time.monotonic(), dict[str, float]()

    def tell(made: tuple[str, float]) -> None:
        took.update([made])
        # each takes longer beside others than alone, which is what is expected
        slower = sum(took.values()) / sum(expected[name] for name in took) / at_a_time
        gone, n_left = time.monotonic() - start, len(expected) - len(took)
        left = f"about {duration(sum(expected.values()) * slower - gone)}" if n_left else "nothing"
        print(f"{len(took)} of {len(expected)} made, {duration(gone)} gone, {left} left", flush=True)

    return tell


def execute_notebook(title: str, request: Request, record: Path) -> tuple[str, float]:
    """Run the notebook of a request; the record's name and seconds, or the line of a cell that fails is raised."""
    import papermill

    print(title, flush=True)
    notebook, start = f"{request.notebook}.ipynb", time.monotonic()
    record.parent.mkdir(parents=True, exist_ok=True)
    processes.remove_left(record.parent, f".{record.name}.")
    unfinished = record.with_name(f".{record.name}.{os.getpid()}.ipynb")
    try:
        papermill.execute_notebook(
            project.root() / "notebooks" / notebook, unfinished, parameters=request.parameters(),
            cwd=str(project.root()), kernel_name="python3", progress_bar=False,
            # kernels warn at every start that they listen on the loopback address without encryption
            extra_arguments=["--IPKernelApp.log_level=50"], stdout_file=sys.stdout, stderr_file=sys.stderr,
        )  # fmt: skip
    except RuntimeError:  # nbclient's DeadKernelError, and jupyter_client's of a kernel that died as it started
        raise InputError(f"{notebook}: its kernel died, mostly for want of memory: take fewer tokens") from None
    except papermill.PapermillExecutionError as error:
        raise InputError(f"{notebook}: {error.evalue or error.ename} (executed notebook: {record})") from None
    except OSError:  # a full disk, which has half of it
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        if unfinished.is_file():  # a killed process leaves no half record
            unfinished.replace(record)
    return record.stem, time.monotonic() - start


def _for_each(work: Callable, tasks: list[tuple], *, at_a_time: int, then: Callable = id) -> None:
    if (at_a_time := min(at_a_time, len(tasks))) < 2:
        for task in tasks:
            then(work(*task))
        return
    n_threads = os.environ.get("OMP_NUM_THREADS", processes.cores() // at_a_time)
    way_out = "with a smaller model or fewer tokens"
    with processes.pool(at_a_time, what="runs notebooks", way_out=way_out, n_threads=n_threads) as pool:
        processes.all_of(pool, work, tasks, then)  # an extraction that is ended goes on where it was
