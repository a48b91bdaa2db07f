"""Frames of the chapter on truth: statements in a projection, accuracies over layers."""

from collections.abc import Callable, Iterator
from functools import wraps

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.chapters.frames import long
from token_geometry.chapters.truth.results import TruthResults
from token_geometry.stats import probes

# variables of logistic regression where there is nothing to find, with the names that a reader sees
BASELINES = {"shuffled_accuracy": "labels shuffled", "untrained_accuracy": "untrained model"}
_LARGEST = 600  # points of a panel that a page carries; of more, so many are shown


def _of_all(*columns: str) -> Callable[[Callable], Callable[[TruthResults], pd.DataFrame]]:
    """Decorator of functions that yield frames of one dataset: of all models of the results, one frame."""

    def decorate(parts_of: Callable[[xr.Dataset], Iterator[pd.DataFrame]]):
        @wraps(parts_of)
        def frame(results: TruthResults) -> pd.DataFrame:
            parts = []
            for dataset in results.datasets:
                parts += [part.assign(model_title=dataset.model_title) for part in parts_of(dataset)]
            found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
            # a probe that does not apply has no accuracy, and all models of a run read the same texts
            return found[[*columns]].dropna().drop_duplicates()

        return frame

    return decorate


@_of_all("panel", "label", "statement", "c1", "c2", "c3")
def projection_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Statements of the first data set on the three leading components of the drawn layer."""
    layer = dataset.attrs["layer"]
    c1, c2, c3 = dataset["layer_projection"].sel(layer=layer).values.T[:3]
    frame = statement_frame(dataset).assign(c1=c1, c2=c2, c3=c3, panel=f"{dataset.model_title}, layer {layer}")
    yield frame.iloc[_shown(dataset, dataset.attrs["basis"])]


@_of_all("model_title", "statement_id", "layer", "x", "y")
def emergence_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Statements of the first data set on two components at every layer, in standard deviations of the first."""
    inside = _shown(dataset, dataset.attrs["basis"])
    scores = dataset["layer_projection"].isel(statement=inside).values[:, :, :2]
    unit = scores[..., 0].std(axis=0)
    x, y = np.moveaxis(scores / np.where(unit > 0, unit, 1)[None, :, None], -1, 0).round(2)
    ids, layers = np.repeat(inside, x.shape[1]), np.tile(dataset["layer"].values, len(x))
    yield pd.DataFrame({"statement_id": ids, "layer": layers, "x": x.ravel(), "y": y.ravel()})


@_of_all("statement_id", "statement", "label")
def text_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Texts of these statements, which are the same for every model of a run."""
    inside = _shown(dataset, dataset.attrs["basis"])
    yield statement_frame(dataset).iloc[inside].assign(statement_id=inside)


@_of_all("model_title", "dataset", "label", "statement", "c1", "c2")
def dataset_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Statements of all data sets on the first two components of the first."""
    scores = dataset["projection"].values
    second = scores[:, 1] if scores.shape[1] > 1 else 0 * scores[:, 0]
    frame = statement_frame(dataset).assign(c1=scores[:, 0], c2=second)
    for name in dataset["dataset_name"].values:
        yield frame.iloc[_shown(dataset, name)[: _LARGEST // 2]]


@_of_all("model_title", "dataset", "n_components", "explained")
def variance_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Cumulative explained variance of every data set in the basis of its own, at the drawn layer."""
    for name, ratio in zip(dataset["dataset_name"].values, dataset["own_variance_ratio"].values, strict=True):
        explained = np.cumsum(ratio[np.isfinite(ratio)])
        # evenly on a logarithmic axis: more points cannot be told apart
        chosen = np.unique(np.geomspace(1, len(explained), 40).round().astype(int))
        yield pd.DataFrame({"dataset": name, "n_components": chosen, "explained": explained[chosen - 1].round(4)})


@_of_all("model_title", "dataset", "layer", "accuracy", "low", "high", "chance")
def separation_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Separation over layers of every data set, with intervals."""
    for i in range(dataset.sizes["dataset"]):
        yield _curve(dataset, i, *(dataset[f"separation{end}"].values[i] for end in ("", "_low", "_high")))


@_of_all("model_title", "dataset", "probe", "layer", "accuracy", "low", "high", "chance")
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


@_of_all("model_title", "probe", "train", "test", "accuracy")
def transfer_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Accuracy at the drawn layer by probe, training and test data set."""
    frame = long(dataset["transfer_accuracy"], "accuracy")
    frame = frame.rename(columns={"train_dataset": "train", "test_dataset": "test"})
    yield frame.assign(probe=frame["probe"].map(probes.TITLES))


@_of_all("model_title", "dataset", "label", "statement", "truth", "polarity")
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
