"""Controls of truth: what else than truth a probe of statements could have found, and what chance finds."""

import functools
import itertools
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from threadpoolctl import threadpool_limits

from token_geometry.base import files, store
from token_geometry.geometry import parallel
from token_geometry.models import sources
from token_geometry.requests.truth_controls import TruthControls
from token_geometry.states.model import LanguageModel
from token_geometry.stats import probes, ridge
from token_geometry.stats.correlation import correlate
from token_geometry.studies import reading, steering, truth
from token_geometry.texts import statements
from token_geometry.texts.statements import Statements

QUANTILES = (0.025, 0.5, 0.975)  # of the null
_TABLE = files.table(__file__)
TITLES, LEFT_OUT = _TABLE["titles"], _TABLE["left_out"]  # what variables are; what is said of what is left out
MEASURES, PREDICTORS = list(_TABLE["measures"]), list(_TABLE["predictors"])

_WORD = re.compile(r"\w+(?:[-'’.]\w+)*|\S")


class Labelled(NamedTuple):
    """A data set with what every accuracy of it needs."""

    drawn: Statements
    labelings: np.ndarray  # classes from 0 on, and below them their permutations, shape (labeling, statement)
    folds: probes.Folds
    topic: str
    polarity: int  # 1; -1 for a negation
    opposite: int  # place of the data set that turns its statements into their opposite; -1: there is none


Sets = Sequence[Labelled]
Arrays = Sequence[np.ndarray]


def measure(request: TruthControls) -> xr.Dataset:
    """Read statements, control what probes find in them, write the data set; `InputError` if that fails."""
    (source, drawn, unfit), recipe, started = request.resolve(), request.recipe(), time.perf_counter()
    sets, texts = _labelled(drawn, request), [text for s in drawn for text in s.texts]
    model = LanguageModel(source, device=request.device)
    bos, tokenizer = reading.reads_bos(model), functools.partial(model.tokenizer, add_special_tokens=False)
    ids = tokenizer(texts)["input_ids"]
    states, losses = model.read_texts(ids, bos=bos)
    known = _known(sets, ids, losses, [_last_word(tokenizer, *one) for one in zip(texts, ids, strict=True)])
    read, same = time.perf_counter(), {"bos": bos, "layer": request.layer, "seed": request.seed}
    steered, lines = steering.steer(model, drawn, states, ids, **same) if request.steered else (xr.Dataset(), [])
    passed = time.perf_counter()
    del model  # the untrained ones need the memory
    with threadpool_limits(1, user_api="blas"):  # many small problems: cores would wait for one another
        clouds = truth.split(states[request.layer], drawn)
        binary = pd.Index([i for i, s in enumerate(drawn) if s.is_binary], name="dataset")
        owns = [known.isel(statement=known["dataset"].values == s.name) for s in drawn]
        each = xr.concat([_predictors(sets[i], clouds[i], owns[i]) for i in binary], binary)
        each = each.reindex(dataset=range(len(sets))).drop_vars("dataset").transpose("predictor", "dataset", ...)
        states = states[: request.n_layers + 1]
        parts = [known, steered, each, _groups(sets, clouds), _truth_direction(sets, states)]
        parts += [_over_layers(sets, states)]
        parts += [_untrained(request, sets, texts, n=0 if source.control else request.n_untrained)]
    dataset = xr.merge(parts, join="outer", combine_attrs="drop")
    for name, variable in dataset.data_vars.items():
        variable.attrs = {"long_name": TITLES[name], "units": "nat" if name == "log_probability" else "1"}
    lines += unfit + [LEFT_OUT["classes"].format(name=s.name, n=len(s.classes)) for s in drawn if not s.is_binary]
    lines += [LEFT_OUT["negation"].format(name=drawn[i].name) for i in binary if sets[i].opposite < 0]
    dataset.attrs = steered.attrs | store.make_attrs(
        f"Controls of truth at layer {request.layer}, {source.title}", recipe, model=request.model,
        model_title=source.title, layer=request.layer, seed=request.seed, n_permutations=request.n_permutations,
        left_out="\n".join(lines), seconds_forward=read - started, seconds_steering=passed - read,
        seconds_probes=time.perf_counter() - passed,
    )  # fmt: skip
    store.write(dataset, Path(request.output))
    return dataset


def _labelled(drawn: Sequence[Statements], request: TruthControls) -> list[Labelled]:
    found, opposite, names = [], statements.opposites(drawn), [s.name for s in drawn]
    for s in drawn:
        other = names.index(opposite[s.name]) if s.name in opposite else -1
        # a statement and its opposite are learned from, or tested, together
        parts = found[other].folds if 0 <= other < len(found) else truth.folds(s, seed=request.seed)
        labels = np.unique(s.labels, return_inverse=True)[1]
        permuted = ridge.permutations(labels, s.groups(), n=request.n_permutations, seed=request.seed)
        found.append(Labelled(s, np.vstack([labels, permuted]), parts, *statements.kind(s.name), other))
    return found


def _last_word(tokenizer: Callable, text: str, ids: list[int]) -> tuple[str, slice]:
    """The last word of a text, and its tokens, which may hold what stands beside it."""
    spans = [match.span() for match in _WORD.finditer(text)]
    start, end = next((span for span in spans[::-1] if text[span[0]].isalnum()), spans[-1])
    first, behind = (len(os.path.commonprefix([tokenizer(text[:n])["input_ids"], ids])) for n in (start, end))
    return text[start:end], slice(first, max(behind, first + 1))


def _known(sets: Sets, ids: Sequence[list[int]], losses: Arrays, words: Sequence[tuple[str, slice]]) -> xr.Dataset:
    """What is known of each statement and data set before any geometry."""
    one, whole, drawn = "statement", "dataset", [s.drawn for s in sets]
    # a first token is predicted by nothing, and may be all there is
    parts = [(x[np.isfinite(x)], x[place]) for x, (_, place) in zip(losses, words, strict=True)]
    nan = np.nan
    likelihood = [[-(x.sum() or nan), -x.sum() / (len(x) or nan), -(np.nansum(y) or nan)] for x, y in parts]
    variables = {
        "label": (one, np.concatenate([s.labels for s in drawn])), "last_word": (one, [word for word, _ in words]),
        "statement_text": (one, [text for s in drawn for text in s.texts]),
        "log_probability": ((one, "measure"), np.array(likelihood)),
        "n_tokens": (one, [len(row) for row in ids]), "token_id": (one, [row[-1] for row in ids]),
        "n_statements": (whole, [len(s.texts) for s in drawn]),
        "chance": (whole, [np.bincount(s.labelings[0]).max() / len(s.drawn.texts) for s in sets]),
    }  # fmt: skip
    coords = {
        "dataset": (one, [s.name for s in drawn for _ in s.texts]), "measure": MEASURES,
        "dataset_name": (whole, [s.name for s in drawn]), "topic": (whole, [s.topic for s in sets]),
        "polarity": (whole, [s.polarity for s in sets]),
    }  # fmt: skip
    return xr.Dataset(variables, coords)


def _told(right: np.ndarray, n: int) -> np.ndarray:
    """Accuracy, ends of its interval, p-value and quantiles of the null, shape (7,), of n answers.

    `right` are the shares that are right, for the labels and then for their permutations."""
    null = right[1:] if len(right) > 1 and n else [np.nan]
    p_value = (1 + (null >= right[0] - 1e-9).sum()) / (len(right) if n else np.nan)
    ends = probes.interval(right[0] * n, np.array(n or np.nan))
    return np.array([right[0], *ends, p_value, *np.quantile(null, QUANTILES)])


def _variables(kind: str, dims: tuple[str, ...], told: np.ndarray) -> dict[str, tuple]:
    """Variables of what was told along the last dimension."""
    names = ("accuracy", "accuracy_low", "accuracy_high", "p_value")
    found = {f"{kind}{name}": (dims, told[..., place]) for place, name in enumerate(names)}
    return found | {f"{kind}null_accuracy": ((*dims, "quantile"), told[..., 4:])}


def _over_layers(sets: Sets, states: torch.Tensor) -> xr.Dataset:
    """Accuracy of the probes of every data set at every layer."""

    def one_layer(points: torch.Tensor) -> np.ndarray:
        told = np.full((2, len(sets), 7), np.nan)
        for i, (one, cloud) in enumerate(zip(sets, truth.split(points, [s.drawn for s in sets]), strict=True)):
            if one.drawn.is_binary:
                told[0, i] = _told(((_projected(cloud, one) > 0) == one.labelings).mean(axis=1), len(cloud))
            told[1, i] = _told(ridge.nested_accuracy(cloud, one.labelings, one.folds), len(cloud))
        return told

    told = np.stack(parallel.map_layers(one_layer, states), axis=2)
    coords = {"probe": ["mass_mean", "ridge"], "layer": np.arange(len(states)), "quantile": list(QUANTILES)}
    return xr.Dataset(_variables("", ("probe", "dataset", "layer"), told), coords)


def _projected(cloud: np.ndarray, one: Labelled) -> np.ndarray:
    """Statements of each fold along the mass-mean direction of the others, shape (labeling, statement)."""
    found = np.empty(one.labelings.shape)
    for train, test in one.folds:
        direction = probes.mass_means(cloud[train], one.labelings[:, train])
        found[:, test] = direction @ (cloud[test] - cloud[train].mean(axis=0)).T
    return found


def _predictors(one: Labelled, cloud: np.ndarray, own: xr.Dataset) -> xr.Dataset:
    """Accuracy of likelihood, direction, both, and what else statements have; how they go together."""
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import cross_val_predict

    labels, n, projection, told = one.labelings[0], len(cloud), _projected(cloud, one), []
    likelihood = own["log_probability"].fillna(own["log_probability"].mean("statement")).fillna(0).values
    tokens, words = (own[name].values[:, None] == np.unique(own[name]) for name in ("token_id", "last_word"))
    lengths = [len(text) for text in one.drawn.texts], own["n_tokens"].values
    for column in [*likelihood.T, *lengths, tokens, words, words @ words.sum(axis=0)]:
        x = np.reshape(column, (n, -1)).astype(float)
        answer = cross_val_predict(LinearRegression(), x, one.labelings.T, cv=one.folds).T > 0.5 + 1e-9
        told.append(_told((answer == one.labelings).mean(axis=1), n))
    told.append(_told(((projection > 0) == one.labelings).mean(axis=1), n))
    # the log-probabilities weigh as much as all coordinates of the state together
    both = np.hstack([cloud, np.repeat(likelihood, -(-cloud.shape[1] // len(MEASURES)), axis=1)])
    told.append(_told(ridge.nested_accuracy(both, one.labelings, one.folds), n))
    wrong = (likelihood[:, -1] > np.median(likelihood[:, -1])) != labels
    right = ((projection > 0) == labels)[:, wrong].sum(axis=1) / (wrong.sum() or np.nan)
    found = _variables("predictor_", ("predictor",), np.array(told)) | {"n_disagreeing": ((), wrong.sum())}
    found |= _variables("disagreement_", (), _told(right, wrong.sum()))
    pair = xr.DataArray(projection[0], dims="prompt"), xr.DataArray(likelihood, dims=("prompt", "measure"))
    for kind, given in (("", None), ("_within", xr.DataArray(labels, dims="prompt"))):
        of_kind = correlate(*pair, given=given)
        for end, name in (("", "correlation"), ("_low", "low"), ("_high", "high")):
            found[f"projection_correlation{kind}{end}"] = "measure", of_kind[name].values
    return xr.Dataset(found, {"predictor": PREDICTORS})


def _transferred(sets: Sets, clouds: Arrays, weights: Sequence[dict[int, float]]) -> np.ndarray:
    """How right sums of mass-mean directions are on each data set, shape (sum, dataset, 7), as of `_told`.

    The `weights` of each sum are by place of the data set that the direction is of. Of a data set that is tested,
    and of its opposite, directions learn without the fold that is tested."""
    learned = []
    for s, cloud in zip(sets, clouds, strict=True):
        trains = [*(train for train, _ in s.folds), np.arange(len(cloud))]
        learned.append([probes.mass_means(cloud[some], s.labelings[:, some]) for some in trains])
    told = np.full((len(weights), len(sets), 7), np.nan)
    for (row, own), (i, one) in itertools.product(enumerate(weights), enumerate(sets)):
        if not (own and one.drawn.is_binary):
            continue
        cloud, right = clouds[i] - clouds[i].mean(axis=0), np.zeros(len(one.labelings))
        for fold, (_, test) in enumerate(one.folds):
            direction = sum(w * learned[j][fold if j in (i, one.opposite) else -1] for j, w in own.items())
            right += ((direction @ cloud[test].T > 0) == one.labelings[0, test]).sum(axis=1)
        told[row, i] = _told(right / len(cloud), len(cloud))
    return told


def _groups(sets: Sets, clouds: Arrays) -> xr.Dataset:
    """Accuracy on each data set of directions of one, of one and its negation, and of all on other topics."""
    binary = [i for i, s in enumerate(sets) if s.drawn.is_binary]
    trains = {sets[i].drawn.name: [i] for i in binary}
    trains |= {f"{sets[i].drawn.name} + {sets[j].drawn.name}": [i, j] for i, j in _pairs(sets)}
    topics = dict.fromkeys(sets[i].topic for i in binary)
    for topic in topics if len(topics) > 1 else ():
        trains[f"all but {topic}"] = [i for i in binary if sets[i].topic != topic]
    signs = [[sets[i].polarity for i in members] for members in trains.values()]
    parts = zip(signs, trains.values(), strict=True)
    weights = [{i: 1 / sign.count(sets[i].polarity) for i in members} for sign, members in parts]
    learned = [", ".join(dict.fromkeys(sets[i].topic for i in members)) for members in trains.values()]
    polarity = ["both" if len(set(sign)) > 1 else "+" if sign[0] > 0 else "-" for sign in signs]
    coords = {"train": list(trains), "train_topics": ("train", learned), "train_polarity": ("train", polarity)}
    return xr.Dataset(_variables("group_", ("train", "dataset"), _transferred(sets, clouds, weights)), coords)


def _pairs(sets: Sets) -> list[tuple[int, int]]:
    """Places of data sets and of their negations."""
    return [(i, one.opposite) for i, one in enumerate(sets) if one.polarity > 0 and one.opposite >= 0]


def _truth_direction(sets: Sets, states: torch.Tensor) -> xr.Dataset:
    """Where the truth direction of pairs separates best, and how right that of other topics is there."""
    drawn, pairs, weights = [s.drawn for s in sets], _pairs(sets), []

    def ratio(points: torch.Tensor) -> float:
        clouds = truth.split(points, drawn)
        found = [probes.variance_ratio(clouds[i], drawn[i].labels) for pair in pairs for i in pair]
        return float(np.mean(found or np.nan))

    ratios = np.array(parallel.map_layers(ratio, states))
    layer = int(ratios.argmax()) if pairs else -1
    for tested, one in enumerate(sets):
        others = [pair for pair in pairs if sets[pair[0]].topic != one.topic]
        used = others or [pair for pair in pairs if tested in pair]
        # of data sets of one size each, least squares gives this sum of the differences of class means
        weights.append({i: drawn[i].labels.var() * len(drawn[i].labels) for pair in used for i in pair})
    told = _transferred(sets, truth.split(states[layer], drawn), weights)[range(len(sets)), range(len(sets))]
    variables = {"truth_direction_layer": ((), layer), "truth_variance_ratio": ("layer", ratios)}
    return xr.Dataset(variables | _variables("truth_direction_", ("dataset",), told))


def _untrained(request: TruthControls, sets: Sets, texts: list[str], *, n: int) -> xr.Dataset:
    """Accuracy of ridge in n untrained networks, up to the layer of the request."""
    found, plain = [], [one._replace(labelings=one.labelings[:1]) for one in sets]
    for seed in range(n):
        source = sources.resolve(f"{request.model}@random-{seed}")
        states, *_ = reading.read(source, texts, n_layers=request.layer, device=request.device)
        found.append(_over_layers(plain, states)["accuracy"].sel(probe="ridge", drop=True))
    return xr.Dataset({"untrained_accuracy": xr.concat(found, "control")} if found else {})
