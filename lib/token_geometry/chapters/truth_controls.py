"""The chapter that asks whether probes of statements find truth, or what goes with it."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import Markdown

from token_geometry.base import files
from token_geometry.chapters import charts, markup, numbers
from token_geometry.chapters.markup import escaped
from token_geometry.chapters.numbers import Number, estimate
from token_geometry.chapters.truth.frames import by_polarity, of_all, with_cells
from token_geometry.chapters.truth.prose import missing
from token_geometry.chapters.truth.results import TruthResults
from token_geometry.stats import correlation
from token_geometry.texts import statements

PROBES, DIRECTIONS, SENSES, LIKELIHOOD, CONFOUNDS = files.table(__file__).values()
ENDS = [0.025, 0.975]  # quantiles over permuted labels


def _frame(dataset: xr.Dataset, name: str, **columns: xr.DataArray) -> pd.DataFrame:
    """A variable over `dataset` and more as `accuracy`, with `low`, `high`, nulls, and further columns."""
    own = {"accuracy": name, "low": f"{name}_low", "high": f"{name}_high"}
    columns = {column: dataset[variable] for column, variable in own.items() if variable in dataset} | columns
    if name and (variable := name.removesuffix("accuracy") + "null_accuracy") in dataset:
        names = {"null_low": ENDS[0], "null_middle": 0.5, "null_high": ENDS[1]}
        columns |= {end: dataset[variable].sel(quantile=q) for end, q in names.items()}
    one = xr.Dataset({column: values.reset_coords(drop=True) for column, values in columns.items()})
    names = dataset["dataset_name"].values
    return one.assign_coords(dataset=("dataset", names)).to_dataframe().reset_index().round(4)


@of_all("model_title", "dataset", "curve", "layer", "accuracy", "low", "high", "chance")
def null_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Accuracy over layers of the probes, with permuted labels (quantiles), in untrained networks (extremes)."""
    found = _frame(dataset, "accuracy", chance=dataset["chance"])
    curves = found["probe"].map(PROBES)
    yield found.assign(curve=curves)
    names = {"null_middle": "accuracy", "null_low": "low", "null_high": "high"}
    permuted = found[["dataset", "layer", "chance", *names]].rename(columns=names)
    yield permuted.assign(curve=curves + ", labels permuted")
    seeds = _untrained(dataset)
    ends = {"accuracy": seeds.mean("control"), "low": seeds.min("control"), "high": seeds.max("control")}
    yield _frame(dataset, "", chance=dataset["chance"], **ends).assign(curve="ridge, untrained networks")


def _untrained(dataset: xr.Dataset) -> xr.DataArray:
    nothing = dataset["accuracy"].sel(probe="ridge", drop=True).expand_dims("control") * np.nan
    return dataset.get("untrained_accuracy", nothing)


@of_all("model_title", "dataset", "name", "accuracy", "low", "high", "null_low", "null_high")
def predictor_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """What likelihood, direction, length and tokens tell of the label, beside permuted labels."""
    found = _frame(dataset, "predictor_accuracy")
    yield found.assign(name=found["predictor"].map(LIKELIHOOD | CONFOUNDS))


@of_all("model_title", "dataset", "name", "accuracy", "low", "high", "null_low", "null_high")
def effect_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Normalized indirect effect of the directions of the probes, beside the range of random directions."""
    if "indirect_effect" in dataset:
        random = dataset["indirect_effect"].drop_sel(direction=[*DIRECTIONS])
        ends = {"null_low": random.min("direction"), "null_high": random.max("direction")}
        found = _frame(dataset.sel(direction=[*DIRECTIONS]), "indirect_effect", **ends)
        yield found.assign(name=found["direction"].map(DIRECTIONS) + ", " + found["sense"].map(SENSES))


@of_all("model_title", "panel", "train", "test", "accuracy", "low", "high", "null_low", "null_high", "cell")
def group_frame(dataset: xr.Dataset) -> Iterator[pd.DataFrame]:
    """Accuracy by what a direction learned from (one data set, one and its negation, all but one topic)."""
    order = by_polarity(dataset["dataset_name"].values)
    place = {name: number for number, name in enumerate(dict.fromkeys([*order, *dataset["train"].values]))}
    found = _frame(dataset, "group_accuracy").rename(columns={"dataset": "test"}).dropna()
    found = found.sort_values(["train", "test"], key=lambda names: names.map(place))
    yield with_cells(found, found["accuracy"].between(found["null_low"], found["null_high"]))


@charts.figure("accuracy by predictor", choose="dataset")
def dots(frame: pd.DataFrame, *, title: str = "accuracy", spec: str = ".0%", least=(0.3, 1)) -> alt.FacetChart:
    """Dot plot, one panel per model: {title} of each row with its interval, over the range where nothing tells."""
    ends = frame[["low", "high", "null_low", "null_high"]]
    domain = [min(least[0], float(ends.min(axis=None))), max(least[1], float(ends.max(axis=None)))]
    options = {"scale": alt.Scale(domain=domain), "axis": alt.Axis(format=".1f", tickCount=4), "title": title}
    fields = [f"{name}:Q {spec}" for name in ("accuracy", "low", "high", "null_low", "null_high")]
    titles = {"accuracy": title, "null_low": "of what tells nothing: from", "null_high": "up to", "name": " "}
    told = charts.tooltip("name:N", *fields, **titles)
    base = alt.Chart(frame).encode(alt.Y("name:N", title=None, sort=charts.unique(frame["name"])), tooltip=told)
    null = base.mark_bar(height=12, color="#888888", opacity=0.35).encode(alt.X("null_low:Q", **options))
    rule = base.mark_rule(color="#0072b2", strokeWidth=2).encode(x="low:Q", x2="high:Q")
    point = base.mark_circle(size=60, color="#0072b2", opacity=1).encode(x="accuracy:Q")
    marks = alt.layer(null.encode(x2="null_high:Q"), rule, point)
    return charts.panels(marks, frame, height=alt.Step(24), width=150, alone=380, columns=3)


def _each(one: xr.Dataset, name: str, spec: str = ".0%") -> list[str]:
    parts = zip(*(one[f"{name}{end}"].values for end in ("", "_low", "_high")), strict=True)
    return [estimate(*values, spec=spec) if np.isfinite(values[0]) else "–" for values in parts]


def _range(values, spec: str = ".0%") -> str:
    known = np.asarray(values)[np.isfinite(values)]
    return numbers.span(known, spec) if known.size else "–"


def _better(one: xr.Dataset, name: str) -> np.ndarray:
    null = one[name.removesuffix("accuracy") + "null_accuracy"].sel(quantile=ENDS[1])
    return ((one[name] > null) & (one[f"{name}_low"] > one["chance"])).values


def _named(dataset: xr.Dataset, texts: list[str], chosen: np.ndarray) -> str:
    parts = zip(map(escaped, dataset["dataset_name"].values), texts, chosen, strict=True)
    return ", ".join(f"{name} {text}" for name, text, yes in parts if yes)


def _table(columns_of: Callable[[xr.Dataset], dict]) -> Callable[[TruthResults], Markdown]:
    """Decorator: what a function makes columns of, for each model, as a table of all."""

    @markup.unless(missing)
    def made(results: TruthResults) -> Markdown:
        parts = []
        for dataset, title in results.models:
            names = [*map(escaped, dataset["dataset_name"].values)]
            parts.append(pd.DataFrame({"model": title, "data set": names} | columns_of(dataset)))
        return markup.table(pd.concat(parts))

    return made


@markup.unless(missing)
def basis(results: TruthResults) -> list[str]:
    """What was read, and what is missing or was left out."""
    lines, left_out = [*results.notes], defaultdict(list)
    for dataset, title in results.models:
        seeds = numbers.count(dataset.sizes.get("control", 0), "untrained network")
        read = f"{dataset.sizes['statement']} statements, directions at layer {dataset.attrs['layer']}"
        lines.append(f"{title}: {read}, {dataset.attrs['n_permutations']} permutations of the labels, {seeds}.")
        reasons = defaultdict(list)
        for line in dataset.attrs["left_out"].splitlines():
            name, reason = re.fullmatch(r"(?:data set '(.+?)')?(.*)", line).groups(default="")
            reasons[" " * reason.startswith(" ") + escaped(reason)].append(escaped(name))
        for reason, names in reasons.items():
            left_out["each of " * (len(names) > 1) + f"{', '.join(names)}{reason}"].append(title)
    return lines + [f"{', '.join(titles)}: {what}." for what, titles in left_out.items()]


@markup.unless(missing)
@markup.per_model
def nulls(results: TruthResults, dataset: xr.Dataset, title: str) -> str:
    """On which data sets ridge does better than with permuted labels, and what these and untrained ones give."""
    at = dataset.sel(layer=dataset.attrs["layer"])
    one, null = at.sel(probe="ridge"), at["null_accuracy"].sel(probe="ridge", quantile=ENDS)
    above = _better(one, "accuracy")
    named, n = _named(dataset, _each(one, "accuracy"), above) or "none", numbers.count(len(above), "data set")
    control = f"Permuted labels give {_range(null)}, untrained networks {_range(_untrained(at))}"
    better = "ridge does better than permuted labels and than the largest class on"
    return f"{title}, layer {at.attrs['layer']}: {better} {above.sum()} of {n}: {named}. {control}."


@_table
def null_table(dataset: xr.Dataset) -> dict:
    """Table: accuracies at the layer beside those of controls, and the layers that hold as discoveries."""
    one = dataset.sel(layer=dataset.attrs["layer"])
    found = {title: _each(one.sel(probe=probe), "accuracy") for probe, title in PROBES.items()}
    found |= {"permuted": [*map(_range, one["null_accuracy"].sel(probe="ridge", quantile=ENDS).values)]}
    found |= {"untrained": [*map(_range, _untrained(one).transpose("dataset", ...).values)]}
    ridge = dataset.sel(probe="ridge").transpose("dataset", "layer", ...)
    better = _better(ridge, "accuracy") & (correlation.adjusted(ridge["p_value"].values) <= 0.05)
    return found | {"layers": [numbers.layers(dataset["layer"].values[row]) for row in better]}


@markup.unless(missing)
def transferred(results: TruthResults) -> list[str]:
    """Mean accuracy on other topics by what a direction learned from, each polarity for itself."""
    lines, frame = [], group_frame(results)
    for dataset, title in results.models:
        found = defaultdict(list)
        for row in frame[frame["model_title"] == dataset.model_title].itertuples():
            (topic, polarity), (own, own_polarity) = map(statements.kind, (row.test, row.train.split(" + ")[0]))
            side = "affirmative" if polarity == 1 else "negated"
            same = "the same" if polarity == own_polarity else "the opposite"
            if own == f"all but {topic}":
                found[f"all other topics, on {side} statements"].append(row.accuracy)
            elif own != topic and " + " in row.train:
                found[f"a data set and its negation, on {side} statements of other topics"].append(row.accuracy)
            elif own != topic and not own.startswith("all but "):
                found[f"one data set, on other topics of {same} polarity"].append(row.accuracy)
        start = f"{title}, layer {dataset.attrs['layer']}, mean accuracy of what is learned from"
        told = "; ".join(f"{words} {np.mean(part):.0%} ({_range(part)})" for words, part in found.items())
        lines += [f"{start} {told}."] * bool(told)
        if (layer := int(dataset["truth_direction_layer"])) >= 0:
            known, null = (dataset[f"truth_direction_{name}"] for name in ("accuracy", "null_accuracy"))
            told = _named(dataset, _each(dataset, "truth_direction_accuracy"), np.isfinite(known.values))
            at = f"truth direction at layer {layer}, where its variance ratio is largest"
            lines.append(f"{title}, {at}: {told}; permuted labels {_range(null.sel(quantile=ENDS))}.")
    return lines or ["No direction was tested on another topic."]


@markup.unless(missing)
@markup.per_model
def likelihood(results: TruthResults, dataset: xr.Dataset, title: str) -> str:
    """On which data sets the direction is right about statements that likelihood gets wrong."""
    right, each = dataset["disagreement_accuracy"].values, _each(dataset, "disagreement_accuracy")
    low, _, high = dataset["disagreement_null_accuracy"].transpose("quantile", "dataset").values
    sorts = {"more than": right > high, "fewer than": right < low, "as many as": (low <= right) & (right <= high)}
    found = {words: _named(dataset, each, chosen) for words, chosen in sorts.items()}
    told = "; ".join(f"{words} permuted labels would on {names}" for words, names in found.items() if names)
    return f"{title}: of the statements that the likelihood gets wrong, the direction gets right {told}."


@_table
def likelihood_table(dataset: xr.Dataset) -> dict:
    """Table: accuracy of likelihood, direction and both, that where they disagree, and their correlation."""
    chosen = {"last word": "likelihood_last_word", "direction": "direction", "both": "direction_and_likelihood"}
    found = {title: _each(dataset.sel(predictor=name), "predictor_accuracy") for title, name in chosen.items()}
    wrong = dataset["n_disagreeing"].values
    found |= {"last word wrong": [f"{n:.0f}" if np.isfinite(n) else "–" for n in wrong]}
    found |= {"direction right there": _each(dataset, "disagreement_accuracy")}
    one = dataset.sel(measure="last_word")
    found |= {"$r$ with projection": _each(one, "projection_correlation", ".2f")}
    found |= {"within classes": _each(one, "projection_correlation_within", ".2f")}
    parts = [one.isel(statement=one["dataset"].values == name) for name in one["dataset_name"].values]
    both = zip([xr.corr(part["label"], part["log_probability"]).item() for part in parts], wrong, strict=True)
    return found | {"$r$ with truth": [f"{Number(r):.2f}" if n >= 0 else "–" for r, n in both]}


@markup.unless(missing)
@markup.per_model
def confounds(results: TruthResults, dataset: xr.Dataset, title: str) -> str:
    """Which plain quantities tell the label better than permuted labels do."""
    told = []
    for name, words in CONFOUNDS.items():
        one = dataset.sel(predictor=name)
        above = _better(one, "predictor_accuracy") & (name != "direction")
        told += [f"{words} on {_named(dataset, _each(one, 'predictor_accuracy'), above)}"] * bool(above.any())
    return f"{title}: better than permuted labels: {'; '.join(told) or 'none'}."


@markup.unless(missing)
def caused(results: TruthResults) -> list[str]:
    """Whether the model answers the prompt, and what adding and subtracting directions changes of its answers."""
    lines = []
    for dataset, title in results.models:
        if "indirect_effect" not in dataset:
            lines.append(f"{title}: not steered.")
            continue
        both, right = dataset.sel(sense="both"), _each(dataset, "prompt_accuracy")
        if names := _named(dataset, right, dataset["prompt_accuracy_low"].values <= 0.5):
            lines.append(f"{title} cannot do the task on {names}: no more answers are right than by chance.")
        for i in np.flatnonzero(dataset["prompt_accuracy_low"] > 0.5):
            one, name = both.isel(dataset=i), escaped(dataset["dataset_name"].values[i])
            own, rest = _each(one.sel(direction=[*DIRECTIONS]), "indirect_effect", ".2f"), one["indirect_effect"]
            each = ", ".join(map(" ".join, zip(DIRECTIONS.values(), own, strict=True)))
            random = _range(rest.drop_sel(direction=[*DIRECTIONS]), ".2f")
            false, true = map(Number, one["prompt_difference"].values)
            told = f"{title}, {name}: the prompt is answered right for {right[i]} of the statements"
            told = f"{told}; P(TRUE) − P(FALSE) is {false:.2f} on false and {true:.2f} on true ones"
            lines.append(f"{told}; indirect effect: {each}; random directions {random}.")
    return lines
