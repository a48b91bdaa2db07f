"""Progress: a bar on a terminal, and elsewhere a line now and then, so that a log stays short."""

import contextlib
import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

FIRST, GROWTH, LONGEST = 10.0, 1.5, 600.0  # seconds to the first line of a log, factor to the next, longest

_BAR = "{desc}: {n_fmt}/{total_fmt}{unit} |{bar}| {elapsed} gone, {remaining} left"


class Progress(contextlib.AbstractContextManager):
    """Count of what is done, of a `total` of things that `unit` names, on standard error, with the time left.

    Without a terminal the lines of a log come 10, 25, 48 … seconds after the start, at last every ten
    minutes: a dozen in the first hour, six in each of the others, and one at the end."""

    def __init__(self, total: int, title: str, *, unit: str, clock=time.monotonic):
        self._total, self._title, self._unit, self._clock = total, title, unit, clock
        self._done, self._start = 0, clock()
        self._next, self._wait = self._start + FIRST, FIRST
        bar = {"desc": title, "unit": f" {unit}", "bar_format": _BAR}
        self._bar = tqdm(total=total, **bar) if sys.stderr.isatty() else None

    def __exit__(self, *error) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, by: int = 1) -> None:
        """Count `by` more as done."""
        by = min(by, self._total - self._done)
        self._done += by
        if self._bar is not None:
            self._bar.update(by)
        elif by and (self._clock() >= self._next or self._done == self._total):
            self._wait = min(self._wait * GROWTH, LONGEST)
            self._next = self._clock() + self._wait
            elapsed = self._clock() - self._start
            each = elapsed / self._done
            gone, left = map(tqdm.format_interval, (elapsed, each * (self._total - self._done)))
            what = f"{self._title}: {self._done}/{self._total} {self._unit}"
            print(f"{what}, {each:.2g} s each, {gone} gone, {left} left", file=sys.stderr, flush=True)


def shown(items: Collection[Item], title: str, *, unit: str) -> Iterator[Item]:
    """The items one by one, with the progress through them."""
    with Progress(len(items), title, unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()
