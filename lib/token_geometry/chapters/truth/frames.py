"""Frames of the chapter on truth: statements in a projection, accuracies over layers."""

import numpy as np
import pandas as pd
import xarray as xr

from token_geometry.chapters.frames import long
from token_geometry.chapters.truth.results import TruthResults
from token_geometry.stats import probes

BASELINES = {"shuffled_accuracy": "labels shuffled", "untrained_accuracy": "untrained model"}
"""Variables of logistic regression where there is nothing to find, with the names that a reader sees."""

_LARGEST = 600
"""Points of a panel that a page carries; of more, so many are shown."""


def projection_frame(results: TruthResults) -> pd.DataFrame:
    """Statements of the first data set on the three leading components of the drawn layer."""
    parts = []
    for dataset in results.models:
        scores = dataset["layer_projection"].sel(layer=dataset.attrs["layer"]).values
        frame = statement_frame(dataset).assign(c1=scores[:, 0], c2=scores[:, 1], c3=scores[:, 2])
        parts.append(frame[frame["dataset"] == dataset.attrs["basis"]].head(_LARGEST))
    return _joined(parts, ["model_title", "label", "statement", "c1", "c2", "c3"])


def emergence_frames(results: TruthResults) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Statements of the first data set on two components at every layer, and their texts.

    The coordinates are in units of the standard deviation along the first component of the layer.
    """
    points, texts = [], []
    for dataset in results.models:
        inside = _shown(dataset, dataset.attrs["basis"])
        scores = dataset["layer_projection"].isel(statement=inside).values[:, :, :2]
        unit = scores[..., 0].std(axis=0)
        scores = scores / np.where(unit > 0, unit, 1)[None, :, None]
        n, n_layers = scores.shape[:2]
        points.append(
            pd.DataFrame(
                {
                    "model_title": dataset.attrs["model_title"],
                    "statement_id": np.repeat(inside, n_layers),
                    "layer": np.tile(dataset["layer"].values, n),
                    "x": scores[..., 0].ravel().round(2),
                    "y": scores[..., 1].ravel().round(2),
                }
            )
        )
        chosen = statement_frame(dataset).iloc[inside]
        texts.append(chosen.assign(statement_id=inside)[["statement_id", "statement", "label"]])
    # every model of a run reads the same statements
    looked_up = _joined(texts, ["statement_id", "statement", "label"]).drop_duplicates("statement_id")
    return _joined(points, ["model_title", "statement_id", "layer", "x", "y"]), looked_up


def dataset_frame(results: TruthResults) -> pd.DataFrame:
    """Statements of all data sets on the first two components of the first."""
    parts = []
    for dataset in results.models:
        scores = dataset["projection"].values
        second = scores[:, 1] if scores.shape[1] > 1 else 0 * scores[:, 0]
        frame = statement_frame(dataset).assign(c1=scores[:, 0], c2=second)
        shown = [_shown(dataset, name)[: _LARGEST // 2] for name in dataset["dataset_name"].values]
        parts.append(frame.iloc[np.concatenate(shown)])
    return _joined(parts, ["model_title", "dataset", "label", "statement", "c1", "c2"])


def variance_frame(results: TruthResults) -> pd.DataFrame:
    """Cumulative explained variance of every data set in the basis of its own, at the drawn layer."""
    parts = []
    for dataset in results.models:
        for i, name in enumerate(dataset["dataset_name"].values):
            ratio = dataset["own_variance_ratio"].values[i]
            explained = np.cumsum(ratio[np.isfinite(ratio)])
            # evenly on a logarithmic axis: more points cannot be told apart
            chosen = np.unique(np.geomspace(1, len(explained), 40).round().astype(int))
            parts.append(
                pd.DataFrame(
                    {
                        "model_title": dataset.attrs["model_title"],
                        "dataset": name,
                        "n_components": chosen,
                        "explained": explained[chosen - 1].round(4),
                    }
                )
            )
    return _joined(parts, ["model_title", "dataset", "n_components", "explained"])


def separation_frame(results: TruthResults) -> pd.DataFrame:
    """Separation over layers of every data set, with intervals."""
    parts = []
    for dataset in results.models:
        names = ("separation", "separation_low", "separation_high")
        for i, name in enumerate(dataset["dataset_name"].values):
            curves = [dataset[variable].values[i] for variable in names]
            parts.append(_curve(dataset, i, *curves).assign(dataset=name))
    return _joined(parts, ["model_title", "dataset", "layer", "accuracy", "low", "high", "chance"])


def probe_frame(results: TruthResults) -> pd.DataFrame:
    """Accuracy over layers of every probe and baseline on every data set, with intervals."""
    parts = []
    for dataset in results.models:
        sizes = pd.Series(dataset["dataset"].values).value_counts()
        for i, name in enumerate(dataset["dataset_name"].values):
            for j, probe in enumerate(dataset["probe"].values):
                curves = [dataset[f"probe_accuracy{end}"].values[j, i] for end in ("", "_low", "_high")]
                parts.append(_curve(dataset, i, *curves).assign(dataset=name, probe=probes.TITLES[probe]))
            for variable, title in BASELINES.items():
                accuracy, n = dataset[variable].values[i], int(sizes[name])
                low, high = probes.interval(accuracy * n, np.array(n))
                parts.append(_curve(dataset, i, accuracy, low, high).assign(dataset=name, probe=title))
    frame = _joined(parts, ["model_title", "dataset", "probe", "layer", "accuracy", "low", "high", "chance"])
    return frame.dropna(subset="accuracy")


def transfer_frame(results: TruthResults) -> pd.DataFrame:
    """Accuracy at the drawn layer by probe, training and test data set."""
    parts = []
    for dataset in results.models:
        frame = long(dataset["transfer_accuracy"], "accuracy")
        frame = frame.rename(columns={"train_dataset": "train", "test_dataset": "test"})
        titles = {"model_title": dataset.attrs["model_title"], "probe": frame["probe"].map(probes.TITLES)}
        parts.append(frame.assign(**titles))
    return _joined(parts, ["model_title", "probe", "train", "test", "accuracy"])


def plane_frame(results: TruthResults) -> pd.DataFrame:
    """The data sets that the directions of truth and polarity were learned from, along these directions."""
    parts = []
    for dataset in results.models:
        pair = [name for name in dataset["truth_plane"].attrs["learned_from"].split(", ") if name]
        values = dataset["truth_plane"].values
        frame = statement_frame(dataset).assign(truth=values[:, 0].round(4), polarity=values[:, 1].round(4))
        for name in pair:
            parts.append(frame.iloc[_shown(dataset, name)[: _LARGEST // 2]])
    return _joined(parts, ["model_title", "dataset", "label", "statement", "truth", "polarity"])


def statement_frame(dataset: xr.Dataset) -> pd.DataFrame:
    """Columns `model_title`, `dataset`, `label` in words and `statement`."""
    words = {"0": "false", "1": "true"}
    binary = dict(zip(dataset["dataset_name"].values, dataset["n_classes"].values == 2, strict=True))
    rows = zip(dataset["dataset"].values, dataset["label_name"].values, strict=True)
    return pd.DataFrame(
        {
            "model_title": dataset.attrs["model_title"],
            "dataset": dataset["dataset"].values.astype(str),
            "label": [words.get(str(label), str(label)) if binary[name] else str(label) for name, label in rows],
            "statement": dataset["statement_text"].values.astype(str),
        }
    )


def _shown(dataset: xr.Dataset, name: str) -> np.ndarray:
    return np.flatnonzero(dataset["dataset"].values == name)[:_LARGEST]


def _curve(dataset: xr.Dataset, i: int, accuracy, low, high) -> pd.DataFrame:
    values = {"accuracy": accuracy, "low": low, "high": high}
    return pd.DataFrame(
        {"model_title": dataset.attrs["model_title"], "layer": dataset["layer"].values}
        | {name: np.round(value, 4) for name, value in values.items()}
        | {"chance": round(float(dataset["chance"][i]), 4)}
    )


def _joined(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]
