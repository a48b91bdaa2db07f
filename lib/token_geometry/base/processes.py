"""Work done beside this one, by threads or processes: results in order, and few of them under way."""

import contextlib
import os
import re
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import joblib
import psutil
from joblib.externals.loky import ProcessPoolExecutor

from token_geometry.base import InputError


def cores() -> int:
    """Cores that this process may use."""
    return joblib.cpu_count()


def remove_left(folder: Path, prefix: str) -> None:
    """Remove from a folder what begins with `prefix` and the number of a process that is no more."""
    for left in folder.iterdir():
        number = re.match(rf"{re.escape(prefix)}(\d+)\b", left.name)
        if number and not psutil.pid_exists(int(number[1])):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def in_order(executor: Executor, function: Callable, items: Iterable, *, ahead: int) -> Generator:
    """What a function makes of items, in their order, while others work on those that follow.

    The calling thread takes an item only when fewer than `ahead` are under way, done ones that wait for an earlier
    one counted, so that memory does not depend on how many there are. The first exception in their order is
    raised, and items that wait are dropped then."""
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@contextlib.contextmanager
def pool(
    n_processes: int, *, what: str, way_out: str = "with fewer processes", n_threads: int | str = 1
) -> Iterator[ProcessPoolExecutor]:
    """Processes of `n_threads` each that work while the context lasts; they end with this one, however it ends.

    They import what their functions need and no more, and need no guard in the program that starts them. What
    they are at when the context ends they finish. If one is killed, an `InputError` says `what` they do."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(n_threads))
    executor = ProcessPoolExecutor(n_processes, initializer=_begin, initargs=(os.getpid(),), env=threads)
    try:
        with executor:
            yield executor
    except BrokenProcessPool:
        problem = f"a process that {what} was killed, most often for want of memory"
        raise InputError(f"{problem}: start again, {way_out}; what is done is kept") from None


def all_of(pool: ProcessPoolExecutor, function: Callable, tasks: Iterable[tuple], then: Callable = id) -> None:
    """Do tasks in a pool, and `then` something with what each returned; the first that fails ends them all."""
    try:
        for done in as_completed([pool.submit(function, *task) for task in tasks]):
            then(done.result())
    except BaseException:
        # what goes on beside the one that failed would keep the reader of its line waiting
        pool.shutdown(kill_workers=True)
        raise


def _begin(parent: int) -> None:
    # an interrupt comes to the whole group of processes, and only the first is to act on it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)


def end_with(parent: int) -> None:
    """End this process with the one that started it."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # files are written under another name until they are whole

    threading.Thread(target=watch, daemon=True).start()
