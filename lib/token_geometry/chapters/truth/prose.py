"""What the chapter on truth says: sentences, a table, alt texts."""

from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters import markup, numbers
from token_geometry.chapters.markup import escaped
from token_geometry.chapters.performance.results import read_benchmark
from token_geometry.chapters.truth.frames import BASELINES, statement_frame
from token_geometry.chapters.truth.results import TruthResults
from token_geometry.stats import probes

_COMMAND = "python lib/benchmarks/truth.py"

N_SHOWN = 1
"""Statements of each data set and label whose tokens are shown."""


def basis(results: TruthResults) -> Markdown:
    """What was read, and what is missing."""
    lines = list(results.notes)
    for dataset in results.models:
        sizes = pd.Series(dataset["dataset"].values).value_counts()
        named = ", ".join(f"{escaped(name)} ({sizes[name]})" for name in dataset["dataset_name"].values)
        left_out = int(dataset["n_repeated"].sum() + dataset["n_contradictory"].sum())
        start = (
            "after a token for the beginning of the sequence" if dataset.attrs["bos_prepended"] else "without BOS"
        )
        also = f" {left_out} rows of the files were left out as repeated or contradictory." if left_out else ""
        lines.append(
            f"{escaped(dataset.attrs['model_title'])}: {named}, each read {start}; projection at layer "
            f"{dataset.attrs['layer']}, curves up to layer {int(dataset['layer'].max())}.{also}"
        )
    return markup.bullets(lines)


def tokens(results: TruthResults) -> Markdown:
    """Table of a few statements with the token whose state was read."""
    rows = []
    for dataset in results.models[:1]:
        frame = statement_frame(dataset).assign(token=dataset["token_read"].values)
        for _, part in frame.groupby(["dataset", "label"], sort=False):
            for entry in part.head(N_SHOWN).itertuples():
                cells = (entry.statement, entry.dataset, entry.label)
                rows.append([*map(escaped, cells), f"{escaped(repr(entry.token))}"])
    if not rows:
        return Markdown("No statements were read.")
    return markup.table(pd.DataFrame(rows, columns=["statement", "data set", "label", "token read"]))


def separated(results: TruthResults) -> Markdown:
    """For each model: where the first data set comes apart on its first two components."""
    lines = []
    for dataset in results.models:
        values, chance = dataset["separation"].values[0], float(dataset["chance"][0])
        low, high = (dataset[f"separation_{end}"].values[0] for end in ("low", "high"))
        top, name = int(values.argmax()), escaped(dataset.attrs["basis"])
        # one layer of many lies above chance by accident: what counts is from where on all do
        above = len(low) - int(np.cumprod((low > chance)[::-1]).sum())
        onset = (
            f"from layer {above} on its interval lies above chance"
            if above < len(low)
            else "at the last layer its interval does not lie above chance"
        )
        lines.append(
            f"{escaped(dataset.attrs['model_title'])}, {name}: accuracy on the first two components is highest "
            f"in layer {top}, {values[top]:.0%} (95% interval {numbers.interval(low[top], high[top], '.0%')}); "
            f"{onset}."
        )
    return markup.bullets(lines or list(results.notes))


def probed(results: TruthResults) -> Markdown:
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
                found.append(f"{title} {accuracy:.0%} ({numbers.interval(low, high, '.0%')})")
        for variable, title in BASELINES.items():
            accuracy = float(dataset[variable].sel(**at)[0])
            if np.isfinite(accuracy):
                found.append(f"{title} {accuracy:.0%}")
        name = escaped(dataset.attrs["basis"])
        lines.append(f"{escaped(dataset.attrs['model_title'])}, {name}, layer {layer}: " + ", ".join(found) + ".")
    return markup.bullets(lines or list(results.notes))


def transferred(results: TruthResults) -> Markdown:
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
                ends = numbers.interval(values.min(), values.max(), ".0%")
                found.append(f"{probes.TITLES[probe]} {values.mean():.0%} ({ends})")
        if found:
            lines.append(
                f"{escaped(dataset.attrs['model_title'])}, layer {dataset.attrs['layer']}, mean over pairs of "
                f"different data sets: {', '.join(found)}."
            )
    return markup.bullets(lines or [*results.notes] or ["One data set is no transfer."])


def costs(results: TruthResults, *, folder: Path | None = None) -> Markdown:
    """What the statements of each model took, and what the benchmark says of other ways to read them."""
    lines = []
    for dataset in results.models:
        lines.append(
            f"{escaped(dataset.attrs['model_title'])}: {dataset.attrs['n_statements']} statements took "
            f"{dataset.attrs['seconds_forward']:.0f} s to load the blocks and read them, and the rest, the "
            f"untrained model included, {dataset.attrs['seconds_probes']:.0f} s."
        )
    found = read_benchmark("truth-cpu", _COMMAND, _benchmark, folder=folder)
    missing = f"There is no result of the benchmark: `{_COMMAND}` makes it."
    return markup.bullets([*lines, _benchmark(found) if found else missing])


def _benchmark(found: dict) -> str:
    chosen, ratios = found["parameters"], found["ratios"]
    single, padded = (
        f"{spread['median']:.1f} times as long ({numbers.interval(spread['min'], spread['max'], '.1f')})"
        for spread in (ratios["single_to_library"], ratios["padded_to_library"])
    )
    return (
        f"In the benchmark, {chosen['n_statements']} statements of {chosen['dataset']} to layer "
        f"{chosen['layer']} of {escaped(found['model']['title'])} take "
        f"{found['seconds']['library']['states']['median']:.1f} s. One whole pass per statement takes {single}, "
        f"whole passes in padded batches of {chosen['batch_size']} {padded}. Measured on "
        f"{found['created'][:10]}, {escaped(found['device']['processor'])}, {found['device']['cores']} cores."
    )
