"""What the chapter on truth says: sentences, a table, alt texts."""

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.chapters import markup, numbers
from token_geometry.chapters.markup import escaped
from token_geometry.chapters.numbers import Number, interval
from token_geometry.chapters.performance.results import COMMANDS, read_benchmark
from token_geometry.chapters.truth.frames import BASELINES, classes, statement_frame
from token_geometry.chapters.truth.results import TruthResults
from token_geometry.stats import probes
from token_geometry.texts import statements

N_SHOWN = 1  # statements of each data set and label whose tokens are shown


def missing(results: TruthResults) -> str:
    """What there is instead of results, empty if there are some."""
    return "" if results.datasets else markup.bullets(results.notes).data


def basis(results: TruthResults) -> Markdown:
    """What was read, and what is missing."""
    lines = [*results.notes]
    for dataset, title in results.models:
        sizes = pd.Series(dataset["dataset"].values).value_counts()
        named = ", ".join(f"{escaped(name)} ({sizes[name]})" for name in dataset["dataset_name"].values)
        left_out = int(dataset["n_repeated"].sum() + dataset["n_contradictory"].sum())
        start = "after a token for the beginning of the sequence" if dataset.bos_prepended else "without BOS"
        also = f" {left_out} rows of the files were left out as repeated or contradictory." * bool(left_out)
        at = f"projection at layer {dataset.attrs['layer']}, curves up to layer {int(dataset['layer'].max())}"
        lines.append(f"{title}: {named}, each read {start}; {at}.{also}")
        lines += [f"{title}, {escaped(line)}." for line in dataset.attrs.get("left_out", "").splitlines()]
    return markup.bullets(lines)


def tokens(results: TruthResults) -> Markdown:
    """Table of a few statements with the token whose state was read."""
    if not results.datasets:
        return Markdown("No statements were read.")
    dataset, rows = results.datasets[0], []
    frame = statement_frame(dataset).assign(token=dataset["token_read"].values)
    for entry in frame.groupby(["dataset", "label"], sort=False).head(N_SHOWN).itertuples():
        rows.append([*map(escaped, (entry.statement, entry.dataset, entry.label, repr(entry.token)))])
    return markup.table(pd.DataFrame(rows, columns=["statement", "data set", "label", "token read"]))


@markup.unless(missing)
@markup.per_model
def separated(results: TruthResults, dataset: xr.Dataset, title: str) -> str:
    """Where the first data set comes apart on its first two components."""
    values, chance = dataset["separation"].values[0], float(dataset["chance"][0])
    low, high = (dataset[f"separation_{end}"].values[0] for end in ("low", "high"))
    top = int(values.argmax())
    above = numbers.layers(dataset["layer"].values[low > chance])
    where = f"{top}, {values[top]:.0%} (95% interval {interval(low[top], high[top], '.0%')})"
    most = f"accuracy on the first two components is highest in layer {where}; its interval lies above chance in"
    return f"{title}, {escaped(dataset.attrs['basis'])}: {most} {above.replace('none', 'no layer')}."


@markup.unless(missing)
@markup.per_model
def held(results: TruthResults, dataset: xr.Dataset, title: str) -> str:
    """How much of the variance of each data set its first two components hold."""
    shares = np.nansum(dataset["own_variance_ratio"].values[:, :2], axis=1)
    pairs = zip(shares, map(escaped, dataset["dataset_name"].values), strict=True)
    found = ", ".join(f"{share:.0%} of {name}" for share, name in pairs)
    return f"{title}, layer {dataset.attrs['layer']}: two components hold {found}."


@markup.unless(missing)
def told_apart(results: TruthResults) -> list[str]:
    """How well the classes of data sets that have more than two are told apart, by probe and by two components."""
    lines = []
    for dataset, title in results.models:
        at = dataset.sel(layer=dataset.attrs["layer"], probe="logistic_regression")
        for i in np.flatnonzero(dataset["dataset_name"].isin(classes(dataset))):
            one, found = at.isel(dataset=i), []
            for words, name in {"all coordinates": "probe_accuracy", "two components": "separation"}.items():
                accuracy, low, high = (float(one[f"{name}{end}"]) for end in ("", "_low", "_high"))
                found.append(f"{accuracy:.0%} ({interval(low, high, '.0%')}) of them from {words}")
            start = f"{title}, layer {dataset.attrs['layer']}, {escaped(one['dataset_name'].item())}"
            told = f"logistic regression finds the class of {' and of '.join(found)}"
            n_classes, largest = int(one["n_classes"]), float(one["chance"])
            lines.append(f"{start}: {told}; the largest of {n_classes} classes has {largest:.0%}.")
    return lines or ["No data set behind the first has more than two classes."]


def apart(frame: pd.DataFrame, column: str, *by: str) -> Markdown:
    """By how many standard deviations true statements lie above false ones on an axis of a chart."""
    lines = []
    for names, part in frame.groupby(list(by), sort=False) if len(frame) else ():
        means = part.groupby("label")[column].mean()
        if {"true", "false"} <= {*means.index}:
            distance = Number((means["true"] - means["false"]) / part[column].std())
            lines.append(f"{escaped(', '.join(names))}: {distance:+.1f}.")
    start = "True less false statements on average along the first axis, in standard deviations:"
    return markup.bullets(lines, start=start) if lines else Markdown("No statements are true or false.")


@markup.unless(missing)
@markup.per_model
def probed(results: TruthResults, dataset: xr.Dataset, title: str) -> str:
    """Accuracy of every probe on the first data set at the drawn layer, and of the baselines."""
    at, found = dataset.sel(layer=dataset.attrs["layer"]).isel(dataset=0), []
    for probe, name in probes.TITLES.items():
        accuracy, low, high = (float(at[f"probe_accuracy{end}"].sel(probe=probe)) for end in ("", "_low", "_high"))
        if np.isfinite(accuracy):
            found.append(f"{name} {accuracy:.0%} ({interval(low, high, '.0%')})")
    for variable, name in BASELINES.items():
        if np.isfinite(at[variable]):
            found.append(f"{name} {float(at[variable]):.0%}")
    return f"{title}, {escaped(dataset.attrs['basis'])}, layer {dataset.attrs['layer']}: {', '.join(found)}."


@markup.unless(missing)
def transferred(results: TruthResults) -> list[str]:
    """Mean accuracy of each probe on what it did not learn from, never over data sets of both polarities."""
    lines = []
    for dataset, title in results.models:
        topics, polarity = map(np.array, zip(*map(statements.kind, dataset["dataset_name"].values), strict=True))
        topic, same = np.equal.outer(topics, topics), np.equal.outer(polarity, polarity)
        pairs = {"another topic, same polarity": ~topic & same, "another topic, opposite polarity": ~topic & ~same}
        pairs["same topic, opposite polarity"] = topic & ~same
        for words, chosen in pairs.items():
            found = []
            for probe, matrix in zip(dataset["probe"].values, dataset["transfer_accuracy"].values, strict=True):
                if len(values := matrix[chosen & np.isfinite(matrix)]):
                    ends = f" ({numbers.span(values, '.0%')})" * bool(np.ptp(values))
                    found.append(f"{probes.TITLES[probe]} {values.mean():.0%}{ends}")
            start = f"{title}, layer {dataset.attrs['layer']}, {words}"
            lines += [f"{start}: {', '.join(found)}."] * bool(found)
    return lines or ["No probe was tested on a data set that it did not learn from."]


def costs(results: TruthResults) -> Markdown:
    """What the statements of each model took, and what the benchmark says of other ways to read them."""
    lines = [
        f"{title}: {dataset.n_statements} statements took {dataset.seconds_forward:.0f} s to load the blocks and "
        f"read them, and the rest, the untrained model included, {dataset.seconds_probes:.0f} s."
        for dataset, title in results.models
    ]
    found = read_benchmark("truth-cpu", _benchmark)
    missing = f"There is no result of the benchmark: `{COMMANDS['truth-cpu']}` makes it."
    return markup.bullets([*lines, _benchmark(found) if found else missing])


def _benchmark(found: dict) -> str:
    chosen, ratio = found["parameters"], "{median:.1f} times as long ({min:.1f} to {max:.1f})"
    single, padded = (ratio.format(**found["ratios"][f"{way}_to_library"]) for way in ("single", "padded"))
    return (
        f"In the benchmark, {chosen['n_statements']} statements of {chosen['dataset']} to layer "
        f"{chosen['layer']} of {escaped(found['model']['title'])} take "
        f"{found['seconds']['library']['states']['median']:.1f} s. One whole pass per statement takes {single}, "
        f"whole passes in padded batches of {chosen['batch_size']} {padded}. Measured on "
        f"{found['created'][:10]}, {escaped(found['device']['processor'])}, {found['device']['cores']} cores."
    )
