"""Locks between processes: files that the system locks until their process ends, where the file system can."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from token_geometry.base import InputError

SECONDS_TO_LINE, LONGEST_WAIT = 10.0, 3600.0  # seconds after which a process that waits says so, and gives up

# NFS without its lock daemon, Lustre without its option, and file systems that say it plainly
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def acquire(path: Path, *, seconds: float) -> contextlib.AbstractContextManager | None:
    """Lock a file while the returned context lasts; None, and a line, where its file system knows no locks.

    filelock's own way out there, files whose mere existence is the lock, would wait for ever for one that a killed
    process left behind. Without locks work may be done twice, but files are renamed when they are whole. A
    `Timeout` says if another process holds it for longer than `seconds`, an `OSError` if it cannot be written."""
    try:
        return FileLock(path, timeout=seconds, fallback_to_soft=False).acquire()
    except OSError as error:  # a Timeout is one, without a number
        if error.errno not in _NO_LOCKS:
            raise
        why = f"{path} cannot be locked ({error.strerror}): the file system knows no locks"
        print(f"{why}, so processes that work on the same thing at a time are not kept apart", flush=True)
        return None


def is_held(path: Path) -> bool:
    """Whether a process holds a lock."""
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


@contextlib.contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Hold a lock while the context lasts; whoever has to wait says so, and at last raises an `InputError`."""
    try:
        try:
            lock = acquire(path, seconds=SECONDS_TO_LINE)
        except Timeout:
            print(f"waiting for another process, which holds the lock {path}", flush=True)
            lock = acquire(path, seconds=LONGEST_WAIT)
    except Timeout:
        problem = f"the lock {path} has been held by another process for {LONGEST_WAIT / 60:.0f} minutes"
        raise InputError(f"{problem}: end that process, or delete the file if there is none") from None
    with lock or contextlib.nullcontext():
        yield
