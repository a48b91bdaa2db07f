"""What comes behind the passes: tables become shards, while the next prompts go through the model."""

from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path

from token_geometry.base import processes, store
from token_geometry.extraction.plan import reduced
from token_geometry.observables.transfer import Tables


def finish(made: tuple[Tables, Path], *, keep_neighbors: bool) -> None:
    """Write the shard of a prompt's tables, or only its observables; `InputError` if it cannot be written."""
    table, path = made
    shard = table.label()
    store.write(shard if keep_neighbors else reduced(shard), path)


def behind(
    made: Iterable[tuple[Tables, Path]], *, keep_neighbors: bool, batch_size: int, n_processes: int = 1,
    n_writers: int | None = None,
) -> Generator[int, None, None]:  # fmt: skip
    """Finish tables in other processes, while this one makes those of the next batch.

    `made` are tables and the files they go to. They are taken one batch, of `batch_size`, and a little more
    before the first of them is written, and then as fast as they are written, by `n_writers` processes; None:
    by as many as keep up with a GPU, where `n_processes` with GPUs share the cores. Yields 1 for every shard
    that is there, in the order of the tables. Raises `InputError` as `finish`, or if a process is killed."""
    if n_writers is None:
        # a core writes some thirty shards of an 8 B model in a second, and reduces some five to ten
        n_writers = max(1, min(2 if keep_neighbors else 8, processes.cores() // n_processes - 1))
    write = partial(finish, keep_neighbors=keep_neighbors)
    with processes.pool(n_writers, what="writes shards") as pool:
        for _ in processes.in_order(pool, write, made, ahead=batch_size + 2 * n_writers):
            yield 1
