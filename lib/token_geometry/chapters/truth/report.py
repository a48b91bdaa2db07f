"""The truth results of a run, or of one request, as the chapter on truth shows them."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.base import project, store
from token_geometry.base.errors import InputError
from token_geometry.chapters import sentences
from token_geometry.models import blocks, models
from token_geometry.requests.truth import Truth
from token_geometry.runs import declaration, results
from token_geometry.stats import probes

N_SHOWN = 1
"""Statements of each data set and label whose tokens are shown."""

BASELINES = {"shuffled_accuracy": "labels shuffled", "untrained_accuracy": "untrained model"}
"""Variables of logistic regression where there is nothing to find, with the names that a reader sees."""

OUTPUT = "data/results/truth.nc"
"""File of the dataset where a request names none."""

_LARGEST = 600
"""Points of a panel that a page carries; of more, so many are shown."""


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """Parameters of `notebooks/truth-pca.ipynb`.

    With `run` alone the notebook is a chapter and reads what the run has; with any other it reads the
    statements itself, and what is not given is as the run has it.
    """

    run: str = ""
    """Name of a run; empty for that of the active Quarto profile."""

    model: str = ""
    """Model to read the statements with; empty: the first that the run names."""

    layer: int | None = None
    """Layer of the projection; None: that of the run for this model, else half of the depth."""

    datasets: Sequence[str] = ()
    """Data sets or CSV files; empty: those of the run."""

    n_statements: int | None = 400
    """Largest number of statements of each data set; None for all."""

    seed: int = 0
    """Seed of the draw and of the folds."""

    device: str = "auto"
    """Torch device."""

    output: str = ""
    """File of the dataset; empty: `OUTPUT`."""

    last_layer: int | None = None
    """Last layer of the curves over layers, up to which the blocks are loaded; None: `layer`."""

    @property
    def is_request(self) -> bool:
        """Whether anything but the run is given."""
        return any(
            getattr(self, f.name) != f.default for f in fields(self) if f.name not in ("run", "datasets")
        ) or (len(self.datasets) > 0)

    def request(self) -> Truth:
        """What to compute."""
        run = declaration.load(self.run)
        declared = {one.model: one for one in results.requests(run, Truth)}
        model = self.model or next(iter(declared), run.models[0])
        same = declared.get(model)
        layer = self.layer
        if layer is None:
            layer = same.layer if same else _depth(model) // 2
        some = same or next(iter(declared.values()), None)
        return Truth(
            model=model,
            layer=layer,
            last_layer=self.last_layer,
            datasets=list(self.datasets) or (list(some.datasets) if some else ["cities"]),
            n_statements=self.n_statements,
            seed=self.seed,
            device=self.device,
            output=self.output or OUTPUT,
        )


@dataclass(frozen=True)
class Results:
    """What the chapter shows."""

    models: tuple[xr.Dataset, ...]
    """One truth dataset a model."""

    notes: tuple[str, ...]
    """What is missing, and what to do about it."""

    @property
    def drawn_layer(self) -> int:
        """Layer of the projection of the first model."""
        return int(self.models[0].attrs["layer"]) if self.models else 0


def open_results(chapter: Chapter) -> Results:
    """Read what a run has, or compute what is asked for.

    Raises
    ------
    InputError
        If there is no such run, or a request cannot be carried out.
    """
    if chapter.is_request:
        # only whoever computes needs torch, which takes seconds to import
        from token_geometry.studies import truth

        return Results(models=(truth.measure(chapter.request()),), notes=())
    run = declaration.load(chapter.run)
    found, notes = [], []
    for result in results.steps(run):
        if not isinstance(result.request, Truth):
            continue
        if result.is_fresh():
            found.append(store.read(result.path))
        else:
            state = "stale or damaged" if result.path.is_file() else "missing"
            notes.append(
                f"The truth results of {result.request.model} are {state}: "
                f"`python -m token_geometry run {run.name}`."
            )
    if not found and not notes:
        notes.append(
            f"Run {run.name} declares no statements, so this chapter has no results: add the key `truth` to "
            f"data/runs/{run.name}.yml."
        )
    return Results(models=tuple(found), notes=tuple(notes))


# --- frames --------------------------------------------------------------------------------


def projection_frame(results: Results) -> pd.DataFrame:
    """Statements of the first data set on the three leading components of the drawn layer."""
    parts = []
    for dataset in results.models:
        scores = dataset["layer_projection"].sel(layer=dataset.attrs["layer"]).values
        frame = _statement_frame(dataset).assign(c1=scores[:, 0], c2=scores[:, 1], c3=scores[:, 2])
        parts.append(frame[frame["dataset"] == dataset.attrs["basis"]].head(_LARGEST))
    return _joined(parts, ["model_title", "label", "statement", "c1", "c2", "c3"])


def emergence_frames(results: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
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
        chosen = _statement_frame(dataset).iloc[inside]
        texts.append(chosen.assign(statement_id=inside)[["statement_id", "statement", "label"]])
    # every model of a run reads the same statements
    looked_up = _joined(texts, ["statement_id", "statement", "label"]).drop_duplicates("statement_id")
    return _joined(points, ["model_title", "statement_id", "layer", "x", "y"]), looked_up


def dataset_frame(results: Results) -> pd.DataFrame:
    """Statements of all data sets on the first two components of the first."""
    parts = []
    for dataset in results.models:
        scores = dataset["projection"].values
        second = scores[:, 1] if scores.shape[1] > 1 else 0 * scores[:, 0]
        frame = _statement_frame(dataset).assign(c1=scores[:, 0], c2=second)
        shown = [_shown(dataset, name)[: _LARGEST // 2] for name in dataset["dataset_name"].values]
        parts.append(frame.iloc[np.concatenate(shown)])
    return _joined(parts, ["model_title", "dataset", "label", "statement", "c1", "c2"])


def variance_frame(results: Results) -> pd.DataFrame:
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


def separation_frame(results: Results) -> pd.DataFrame:
    """Separation over layers of every data set, with intervals."""
    parts = []
    for dataset in results.models:
        names = ("separation", "separation_low", "separation_high")
        for i, name in enumerate(dataset["dataset_name"].values):
            curves = [dataset[variable].values[i] for variable in names]
            parts.append(_curve(dataset, i, *curves).assign(dataset=name))
    return _joined(parts, ["model_title", "dataset", "layer", "accuracy", "low", "high", "chance"])


def probe_frame(results: Results) -> pd.DataFrame:
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


def transfer_frame(results: Results) -> pd.DataFrame:
    """Accuracy at the drawn layer by probe, training and test data set."""
    parts = []
    for dataset in results.models:
        frame = dataset["transfer_accuracy"].to_dataframe().reset_index().dropna()
        parts.append(
            pd.DataFrame(
                {
                    "model_title": dataset.attrs["model_title"],
                    "probe": frame["probe"].map(probes.TITLES),
                    "train": frame["train_dataset"],
                    "test": frame["test_dataset"],
                    "accuracy": frame["transfer_accuracy"].round(4),
                }
            )
        )
    return _joined(parts, ["model_title", "probe", "train", "test", "accuracy"])


def plane_frame(results: Results) -> pd.DataFrame:
    """The data sets that the directions of truth and polarity were learned from, along these directions."""
    parts = []
    for dataset in results.models:
        pair = [name for name in dataset["truth_plane"].attrs["learned_from"].split(", ") if name]
        values = dataset["truth_plane"].values
        frame = _statement_frame(dataset).assign(truth=values[:, 0].round(4), polarity=values[:, 1].round(4))
        for name in pair:
            parts.append(frame.iloc[_shown(dataset, name)[: _LARGEST // 2]])
    return _joined(parts, ["model_title", "dataset", "label", "statement", "truth", "polarity"])


# --- sentences and tables ------------------------------------------------------------------


def basis(results: Results) -> Markdown:
    """What was read, and what is missing."""
    lines = list(results.notes)
    for dataset in results.models:
        sizes = pd.Series(dataset["dataset"].values).value_counts()
        named = ", ".join(f"{_escaped(name)} ({sizes[name]})" for name in dataset["dataset_name"].values)
        left_out = int(dataset["n_repeated"].sum() + dataset["n_contradictory"].sum())
        start = (
            "after a token for the beginning of the sequence" if dataset.attrs["bos_prepended"] else "without BOS"
        )
        also = f" {left_out} rows of the files were left out as repeated or contradictory." if left_out else ""
        lines.append(
            f"{_escaped(dataset.attrs['model_title'])}: {named}, each read {start}; projection at layer "
            f"{dataset.attrs['layer']}, curves up to layer {int(dataset['layer'].max())}.{also}"
        )
    return sentences.bullets(lines)


def tokens(results: Results) -> Markdown:
    """Table of a few statements with the token whose state was read."""
    rows = []
    for dataset in results.models[:1]:
        frame = _statement_frame(dataset).assign(token=dataset["token_read"].values)
        for _, part in frame.groupby(["dataset", "label"], sort=False):
            for entry in part.head(N_SHOWN).itertuples():
                cells = (entry.statement, entry.dataset, entry.label)
                rows.append([*map(_escaped, cells), f"{_escaped(repr(entry.token))}"])
    if not rows:
        return Markdown("No statements were read.")
    return sentences.table(pd.DataFrame(rows, columns=["statement", "data set", "label", "token read"]))


def separated(results: Results) -> Markdown:
    """For each model: where the first data set comes apart on its first two components."""
    lines = []
    for dataset in results.models:
        values, chance = dataset["separation"].values[0], float(dataset["chance"][0])
        low, high = (dataset[f"separation_{end}"].values[0] for end in ("low", "high"))
        top, name = int(values.argmax()), _escaped(dataset.attrs["basis"])
        # one layer of many lies above chance by accident: what counts is from where on all do
        above = len(low) - int(np.cumprod((low > chance)[::-1]).sum())
        onset = (
            f"from layer {above} on its interval lies above chance"
            if above < len(low)
            else "at the last layer its interval does not lie above chance"
        )
        lines.append(
            f"{_escaped(dataset.attrs['model_title'])}, {name}: accuracy on the first two components is highest "
            f"in layer {top}, {values[top]:.0%} (95 % interval {low[top]:.0%} to {high[top]:.0%}); {onset}."
        )
    return sentences.bullets(lines or list(results.notes))


def probed(results: Results) -> Markdown:
    """For each model: accuracy of every probe on the first data set at the drawn layer, and of the baselines."""
    lines = []
    for dataset in results.models:
        layer = int(dataset.attrs["layer"])
        at = {"layer": layer}
        found = []
        for probe, title in probes.TITLES.items():
            accuracy, low, high = (
                float(dataset[f"probe_accuracy{end}"].sel(probe=probe, **at)[0]) for end in ("", "_low", "_high")
            )
            if np.isfinite(accuracy):
                found.append(f"{title} {accuracy:.0%} ({low:.0%} to {high:.0%})")
        for variable, title in BASELINES.items():
            accuracy = float(dataset[variable].sel(**at)[0])
            if np.isfinite(accuracy):
                found.append(f"{title} {accuracy:.0%}")
        name = _escaped(dataset.attrs["basis"])
        lines.append(f"{_escaped(dataset.attrs['model_title'])}, {name}, layer {layer}: " + ", ".join(found) + ".")
    return sentences.bullets(lines or list(results.notes))


def transferred(results: Results) -> Markdown:
    """For each model: mean accuracy of each probe on data sets that it did not learn from."""
    lines = []
    for dataset in results.models:
        transfer = dataset["transfer_accuracy"].values
        other = ~np.eye(transfer.shape[-1], dtype=bool)
        found = []
        for probe, matrix in zip(dataset["probe"].values, transfer, strict=True):
            values = matrix[other]
            values = values[np.isfinite(values)]
            if len(values):
                found.append(
                    f"{probes.TITLES[probe]} {values.mean():.0%} (from {values.min():.0%} to {values.max():.0%})"
                )
        if found:
            lines.append(
                f"{_escaped(dataset.attrs['model_title'])}, layer {dataset.attrs['layer']}, mean over pairs of "
                f"different data sets: {', '.join(found)}."
            )
    return sentences.bullets(lines or [*results.notes] or ["One data set is no transfer."])


def costs(results: Results, *, benchmark: Path | None = None) -> Markdown:
    """What the statements of each model took, and what the benchmark says of other ways to read them."""
    lines = []
    for dataset in results.models:
        lines.append(
            f"{_escaped(dataset.attrs['model_title'])}: {dataset.attrs['n_statements']} statements took "
            f"{dataset.attrs['seconds_forward']:.0f} s to load the blocks and read them, and the rest, the "
            f"untrained model included, {dataset.attrs['seconds_probes']:.0f} s."
        )
    command = "python lib/benchmarks/truth.py"
    path = benchmark or project.root() / "data" / "benchmarks" / "truth-cpu.json"
    if not path.is_file():
        return sentences.bullets([*lines, f"There is no result of the benchmark: `{command}` makes it."])
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        chosen, ratios = found["parameters"], found["ratios"]
        single, padded = (ratios[f"{name}_to_library"] for name in ("single", "padded"))
        took = found["seconds"]["library"]["states"]["median"]
        lines.append(
            f"In the benchmark, {chosen['n_statements']} statements of {chosen['dataset']} to layer "
            f"{chosen['layer']} of {_escaped(found['model']['title'])} take {took:.1f} s. One whole pass a "
            f"statement takes {single['median']:.1f} times as long (from {single['min']:.1f} to "
            f"{single['max']:.1f}), whole passes in padded batches of {chosen['batch_size']} "
            f"{padded['median']:.1f} times (from {padded['min']:.1f} to {padded['max']:.1f}). Measured on "
            f"{found['created'][:10]}, {_escaped(found['device']['processor'])}, {found['device']['cores']} cores."
        )
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no whole result of a benchmark: make it again with {command}") from None
    return sentences.bullets(lines)


def describe(results: Results, figure: str) -> str:
    """Alt text of a figure: chart type, axes, and the finding of each model.

    Parameters
    ----------
    results
        What the chapter shows.
    figure
        Key of `_FIGURES`.
    """
    findings = []
    for dataset in results.models:
        layer, values = int(dataset.attrs["layer"]), dataset["separation"].values[0]
        findings.append(
            f"{dataset.attrs['model_title']} separates the classes of {dataset.attrs['basis']} with "
            f"{values[layer]:.0%} accuracy at layer {layer}, and best, with {values.max():.0%}, at layer "
            f"{int(values.argmax())}"
        )
    return _FIGURES[figure] + ("; ".join(findings) + "." if findings else "No results.")


_FIGURES = {
    "projection": "Scatter plot of statements on two principal components, colored by label, one panel a model. ",
    "emergence": "Scatter plot of statements on two principal components with a slider for the layer, one panel a "
    "model. ",
    "datasets": "Scatter plots of all data sets on the two first components of the first data set. ",
    "variance": "Line chart of cumulative explained variance against the number of components, one curve a "
    "data set. ",
    "separation": "Line chart with bands of accuracy on the first two components against layer, one curve "
    "a data set. ",
    "probes": "Line chart with bands of the accuracy of probes against layer, one curve a probe. ",
    "transfer": "Heat map of the accuracy of a probe by the data set that it learned from and the one that "
    "it is tested on. ",
    "plane": "Scatter plot of statements and their negations along the directions of truth and of truth times "
    "polarity, one panel a model. ",
}


# --- what they share -----------------------------------------------------------------------


def _statement_frame(dataset: xr.Dataset) -> pd.DataFrame:
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


def _escaped(text: str) -> str:
    """Text that neither HTML nor Markdown makes anything of."""
    special = "\\`*_{}[]()#+-.!~^$@"  # a bar is left to the table
    line = " ".join(html.escape(str(text), quote=False).split())
    return "".join(f"\\{c}" if c in special else c for c in line)


def _depth(model: str) -> int:
    source = models.resolve(model)
    return source.shape.get("layers") or blocks.depth(models.load_config(source))
