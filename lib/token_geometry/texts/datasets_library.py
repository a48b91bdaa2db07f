"""Data sets in the form of the library `datasets`: of the Hugging Face hub, and folders of `save_to_disk`."""

from collections.abc import Iterator
from pathlib import Path

from token_geometry.base.errors import InputError
from token_geometry.texts import reading

SAVED = ("state.json", "dataset_dict.json")
"""Files by which a folder of `save_to_disk` is known."""


def from_disk(folder: Path, column: str) -> Iterator[reading.Row]:
    """Rows of a folder that `save_to_disk` has written."""
    import datasets  # seconds that other corpora need not

    what = reading.spelled(folder)
    with reading.door(f"{what}, a folder of save_to_disk,"):
        loaded = _one_split(datasets.load_from_disk(folder), what, f"give the folder of one, as {folder.name}/")
    yield from _rows(loaded, what, column)


def from_hub(
    name: str,
    hub: str,
    column: str,
    *,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    rows: int | None = None,
) -> Iterator[reading.Row]:
    """Rows of a data set of the hub.

    Parameters
    ----------
    name
        Name of the corpus, for messages.
    hub
        Owner and name on the hub.
    column
        Column of the texts.
    config, split, revision
        Which part and state of the data set; of several splits `train` is taken.
    rows
        How many rows to read from the beginning, without downloading the rest; None: all.
    """
    import datasets  # seconds that other corpora need not

    try:
        loaded = datasets.load_dataset(hub, config, split=split, revision=revision, streaming=rows is not None)
    except Exception as error:  # the hub's client raises many kinds, all of which mean: not to be had
        reason = next(iter(str(error).splitlines()), "")[:200] if isinstance(error, ValueError) else ""
        raise InputError(
            f"corpus {name!r} could not be loaded from the hub ({type(error).__name__}{reason and ': '}{reason}): "
            "connect to a network, or give a path to a .jsonl or .parquet file"
        ) from None
    loaded = _one_split(loaded, f"corpus {name!r}", "name one as `split` in data/corpora.yml, as ")
    yield from _rows(loaded if rows is None else loaded.take(rows), f"corpus {name!r}", column)


def _one_split(loaded, what: str, way_out: str):
    """The only split of a data set, or `train`."""
    if not isinstance(loaded, dict):
        return loaded
    names = list(loaded)
    if len(names) > 1 and "train" not in names:
        raise InputError(f"{what} has the splits {', '.join(map(repr, names))}: {way_out}{names[0]}")
    return loaded["train" if "train" in names else names[0]]


def _rows(loaded, what: str, column: str) -> Iterator[reading.Row]:
    number = 0
    with reading.door(what):
        names = loaded.column_names or list(next(iter(loaded), {}))  # a stream learns its columns by its first row
        columns = reading.columns_of(what, names, column)
        # other columns, pictures for one, would be decoded
        for part in loaded.select_columns(columns).iter(batch_size=reading.N_ROWS):
            texts = part[column]
            yield from reading.batch(what, number, part.get("id", [None] * len(texts)), texts, column, columns)
            number += len(texts)
