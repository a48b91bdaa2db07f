"""Frames of the chapter on truth: statements in a projection, accuracies over layers."""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.chapters.frames import long
from token_geometry.chapters.truth.results import TruthResults
from token_geometry.stats import probes
from token_geometry.texts import statements

# variables of logistic regression where there is nothing to find, with the names that a reader sees
BASELINES = {"shuffled_accuracy": "labels shuffled", "untrained_accuracy": "untrained model"}
_LARGEST = 600  # points of a panel that a page carries; of more, so many are shown


def of_all(*columns: str) -> Callable[[Callable], Callable[[TruthResults], pd.DataFrame]]:
    """Decorator of functions that yield frames of one dataset: of all models, one frame, with titles of panels."""

    def decorate(parts_of: Callable[[xr.Dataset], Iterator[pd.DataFrame]]):
        @wraps(parts_of)
        def frame(results: TruthResults) -> pd.DataFrame:
            parts = []
            for dataset in results.datasets:
                panel = "{model_title}, layer {layer}".format(**dataset.attrs)
                parts += [part.assign(model_title=dataset.model_title, panel=panel) for part in parts_of(dataset)]
            found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
            # a probe that does not apply has no accuracy, and all models of a run read the same texts
            return found[[*columns]].dropna().drop_duplicates()

        return frame

    return decorate


@of_all("panel", "label", "statement", "c1", "c2", "c3")
def projection_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Statements of the first data set on the three leading components of the drawn layer."""
    yield _projected(dataset, dataset.attrs["basis"])


@of_all("panel", "dataset", "label", "statement", "c1", "c2", "c3")
def class_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Statements of each data set of more than two classes, on components of its own as the first has them."""
    for name in classes(dataset):
        yield _projected(dataset, name)


def classes(dataset: xr.Dataset) -> list[str]:
    """Data sets of more than two classes behind the first."""
    names, n_classes = dataset["dataset_name"].values[1:], dataset["n_classes"].values[1:]
    return names[n_classes > 2].tolist()


def _projected(dataset: xr.Dataset, name: str) -> pd.DataFrame:
    c1, c2, c3 = dataset["layer_projection"].sel(layer=dataset.attrs["layer"]).values.T[:3]
    return statement_frame(dataset).assign(c1=c1, c2=c2, c3=c3).iloc[_shown(dataset, name)]


@of_all("model_title", "statement_id", "layer", "x", "y")
def emergence_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Statements of the first data set on two components at every layer, in standard deviations of the first."""
    inside, first = _shown(dataset, dataset.attrs["basis"]), int(dataset.attrs["layer"])
    planes = dataset["layer_projection"].isel(statement=inside).values[..., :2].swapaxes(0, 1)
    unit = planes[..., 0].std(axis=1)
    planes = planes / np.where(unit > 0, unit, 1)[:, None, None]
    # each is turned and mirrored onto that before it: Schönemann, Psychometrika 31, 1 (1966)
    for step, others in ((1, range(first + 1, len(planes))), (-1, range(first - 1, -1, -1))):
        for layer in others:
            left, _, right = np.linalg.svd(planes[layer].T @ planes[layer - step])
            planes[layer] = planes[layer] @ left @ right
    x, y = np.moveaxis(planes, -1, 0).round(2)
    ids, layers = np.tile(inside, len(planes)), np.repeat(dataset["layer"].values, len(inside))
    yield pd.DataFrame({"statement_id": ids, "layer": layers, "x": x.ravel(), "y": y.ravel()})


@of_all("statement_id", "statement", "label")
def text_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Texts of these statements, which are the same for every model of a run."""
    inside = _shown(dataset, dataset.attrs["basis"])
    yield statement_frame(dataset).iloc[inside].assign(statement_id=inside)


@of_all("panel", "dataset", "label", "statement", "c1", "c2")
def dataset_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Statements of all data sets on the first two components of the first."""
    scores = dataset["projection"].values
    second = scores[:, 1] if scores.shape[1] > 1 else 0 * scores[:, 0]
    frame = statement_frame(dataset).assign(c1=scores[:, 0], c2=second)
    for name in dataset["dataset_name"].values:
        yield frame.iloc[_shown(dataset, name)[: _LARGEST // 2]]


@of_all("panel", "dataset", "n_components", "explained")
def variance_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Cumulative explained variance of every data set in the basis of its own, at the drawn layer."""
    for name, ratio in zip(dataset["dataset_name"].values, dataset["own_variance_ratio"].values, strict=True):
        explained = np.cumsum(ratio[np.isfinite(ratio)])
        # evenly on a logarithmic axis: more points cannot be told apart
        chosen = np.unique(np.geomspace(1, len(explained), 40).round().astype(int))
        yield pd.DataFrame({"dataset": name, "n_components": chosen, "explained": explained[chosen - 1].round(4)})


@of_all("model_title", "dataset", "layer", "accuracy", "low", "high", "chance")
def separation_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Separation over layers of every data set but those of more classes, with intervals."""
    for i in [i for i, name in enumerate(dataset["dataset_name"].values) if name not in classes(dataset)]:
        yield _curve(dataset, i, *(dataset[f"separation{end}"].values[i] for end in ("", "_low", "_high")))


@of_all("model_title", "dataset", "probe", "layer", "accuracy", "low", "high", "chance")
def probe_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Accuracy over layers of every probe and baseline on every data set, with intervals."""
    sizes = pd.Series(dataset["dataset"].values).value_counts()
    for i, name in enumerate(dataset["dataset_name"].values):
        for j, probe in enumerate(dataset["probe"].values):
            curves = (dataset[f"probe_accuracy{end}"].values[j, i] for end in ("", "_low", "_high"))
            yield _curve(dataset, i, *curves).assign(probe=probes.TITLES[probe])
        for variable, title in BASELINES.items():
            accuracy, n = dataset[variable].values[i], int(sizes[name])
            low, high = probes.interval(accuracy * n, np.array(n))
            yield _curve(dataset, i, accuracy, low, high).assign(probe=title)


@of_all("panel", "probe", "train", "test", "accuracy", "low", "high", "cell")
def transfer_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Accuracy at the drawn layer by probe, training and test data set, these grouped by polarity."""
    order = by_polarity(name for name in dataset["dataset_name"].values if name not in classes(dataset))
    transfer = dataset["transfer_accuracy"].sel(train_dataset=order, test_dataset=order)
    frame = long(transfer, "accuracy").rename(columns={"train_dataset": "train", "test_dataset": "test"})
    n = frame["test"].map(pd.Series(dataset["dataset"].values).value_counts()).to_numpy()
    low, high = probes.interval(frame["accuracy"].to_numpy() * n, n)
    chance = frame["test"].map(pd.Series(dataset["chance"].values, dataset["dataset_name"].values)).to_numpy()
    frame = frame.assign(probe=frame["probe"].map(probes.TITLES), low=low.round(4), high=high.round(4))
    yield with_cells(frame, (low <= chance) & (chance <= high))


def by_polarity(names: Iterable[str]) -> list[str]:
    """Names of data sets, those of one polarity beside one another, in either the topics in one order."""
    kinds = {name: statements.kind(name) for name in names}
    topics = [topic for topic, _ in kinds.values()]
    return sorted(kinds, key=lambda name: (-kinds[name][1], topics.index(kinds[name][0])))


def with_cells(frame: pd.DataFrame, by_chance: pd.Series) -> pd.DataFrame:
    """The frame with what its cells say: the accuracy in percent, in brackets where chance would do as well."""
    percent = (100 * frame["accuracy"]).round().astype(int).astype(str)
    return frame.assign(cell=percent.where(~by_chance, "(" + percent + ")"))


@of_all("panel", "dataset", "label", "statement", "truth", "polarity")
def plane_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """The data sets that the directions of truth and polarity were learned from, along these directions."""
    truth, polarity = dataset["truth_plane"].values.T.round(4)
    frame = statement_frame(dataset).assign(truth=truth, polarity=polarity)
    for name in filter(None, dataset["truth_plane"].attrs["learned_from"].split(", ")):
        yield frame.iloc[_shown(dataset, name)[: _LARGEST // 2]]


def statement_frame(dataset: xr.Dataset) -> pd.DataFrame:
    """Columns `dataset`, `label` in words, and `statement`."""
    columns = {"dataset": "dataset", "label": "label_name", "statement": "statement_text"}
    frame = pd.DataFrame({column: dataset[name].values.astype(str) for column, name in columns.items()})
    binary = frame["dataset"].isin(dataset["dataset_name"].values[dataset["n_classes"].values == 2])
    words = frame["label"].replace({"0": "false", "1": "true"})
    return frame.assign(label=frame["label"].where(~binary, words))


def _shown(dataset: xr.Dataset, name: str) -> np.ndarray:
    return np.flatnonzero(dataset["dataset"].values == name)[:_LARGEST]


def _curve(dataset: xr.Dataset, i: int, accuracy, low, high) -> pd.DataFrame:
    values = {"accuracy": accuracy, "low": low, "high": high, "chance": float(dataset["chance"][i])}
    frame = pd.DataFrame({"layer": dataset["layer"].values} | values).round(4)
    return frame.assign(dataset=dataset["dataset_name"].values[i])
