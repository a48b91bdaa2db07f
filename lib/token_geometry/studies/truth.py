"""Truth: the hidden states at the last token of statements, their principal components, and probes."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from threadpoolctl import threadpool_limits

from token_geometry.base import files, store
from token_geometry.geometry import parallel
from token_geometry.models import sources
from token_geometry.observables import layer_index
from token_geometry.requests.truth import Truth
from token_geometry.stats import probes
from token_geometry.studies.reading import read
from token_geometry.texts import statements
from token_geometry.texts.statements import Statements

N_COMPONENTS = 3  # components that are kept at every layer
N_PROJECTED = 10  # leading components of the first data set that all are projected on
TITLES = files.table(__file__)  # what the variables of the dataset are; all are without unit

Sets = Sequence[Statements]
Arrays = Sequence[np.ndarray]


def measure(request: Truth) -> xr.Dataset:
    """Read statements, take components and probes, write the data set of `TITLES`; `InputError` if that fails."""
    (source, sets, lines), recipe = request.resolve(), request.recipe()
    started = time.perf_counter()
    texts = [text for drawn in sets for text in drawn.texts]
    print(f"{len(texts)} statements through {source.title} up to layer {request.n_layers}", flush=True)
    for drawn in (one for one in sets if not one.is_binary):
        words = ", ".join(dict.fromkeys(drawn.label_names))
        print(f"data set {drawn.name!r} is not of true and false statements: its labels are {words}"[:200])
    print(*lines, sep="\n", end="\n" * bool(lines))
    states, tokens, bos = read(source, texts, n_layers=request.n_layers, device=request.device)
    passed = time.perf_counter()
    print(f"probes at {request.n_layers + 1} layers, and in the untrained model", flush=True)
    # many small problems: cores that share one of them would wait for one another
    with threadpool_limits(1, user_api="blas"):
        curves = _over_layers(sets, states, seed=request.seed)
        accuracy = curves["probe_accuracy"].values[..., request.layer]
        drawn_layer = _at_layer(sets, states[request.layer], accuracy, seed=request.seed)
        untrained = _untrained(request, sets, is_control=bool(source.control))
    parts = [_statements(sets, tokens), *drawn_layer, curves, untrained]
    dataset = xr.merge(parts, join="exact", combine_attrs="override")
    for name, title in TITLES.items():
        dataset[name].attrs |= {"long_name": title, "units": "1"}
    dataset.attrs = store.make_attrs(
        f"Truth at layer {request.layer}, {source.title}", recipe,
        model=request.model, model_title=source.title, layer=request.layer, basis=sets[0].name,
        datasets=", ".join(drawn.name for drawn in sets), n_statements=len(texts), seed=request.seed,
        token_read=" ".join(sorted(set(tokens))), bos_prepended=int(bos), left_out="\n".join(lines),
        layer_index_map=layer_index.as_json(), dtype="float32",
        seconds_forward=passed - started, seconds_probes=time.perf_counter() - passed,
    )  # fmt: skip
    store.write(dataset, Path(request.output))
    return dataset


def _statements(sets: Sets, tokens: list[str]) -> xr.Dataset:
    """What is known of each statement and data set before any geometry."""
    one, names = "statement", [s.name for s in sets]
    chance = [np.unique(s.labels, return_counts=True)[1].max() / len(s.labels) for s in sets]
    return xr.Dataset(
        {
            "label": (one, np.concatenate([s.labels for s in sets])),
            "label_name": (one, [name for s in sets for name in s.label_names]),
            "statement_text": (one, [text for s in sets for text in s.texts]),
            "row": (one, np.concatenate([s.rows for s in sets])),
            "token_read": (one, tokens),
            "n_repeated": ("dataset", [s.n_repeated for s in sets]),
            "n_contradictory": ("dataset", [s.n_contradictory for s in sets]),
            "n_classes": ("dataset", [len(s.classes) for s in sets]),
            "chance": ("dataset", chance),
        },
        coords={"dataset": (one, [s.name for s in sets for _ in s.texts]), "dataset_name": ("dataset", names)},
    )


def _at_layer(sets: Sets, states: torch.Tensor, accuracy: np.ndarray, *, seed: int) -> list[xr.Dataset]:
    """Projection in the basis of the first data set, transfer of probes, and the plane of truth and polarity."""
    clouds = [_centred(points) for points in split(states, sets)]
    found = [probes.principal_components(cloud, s.labels) for cloud, s in zip(clouds, sets, strict=True)]
    basis = found[0]
    projected = np.concatenate([_centred(cloud) @ basis.axes[:N_PROJECTED].T for cloud in clouds])
    ratios = np.array([*itertools.zip_longest(*(own.variance_ratio for own in found), fillvalue=np.nan)]).T
    projection = xr.Dataset(
        {
            "projection": (("statement", "component"), projected.astype(np.float32)),
            "explained_variance_ratio": ("component", basis.variance_ratio[:N_PROJECTED]),
            "own_variance_ratio": (("dataset", "own_component"), ratios),
        },
        coords={
            "component": np.arange(1, projected.shape[1] + 1),
            "own_component": np.arange(1, ratios.shape[1] + 1),
        },
    )
    leading = [own.axes[: probes.N_COMPONENTS] for own in found]
    return [projection, _transfer(sets, clouds, leading, accuracy, seed=seed), _truth_plane(sets, clouds)]


def _transfer(sets: Sets, clouds: Arrays, axes: Arrays, accuracy: np.ndarray, *, seed: int) -> xr.Dataset:
    """Accuracy of a probe of one data set on another; on the same it is the given one, shape (probe, dataset).

    NaN where one of them is not of true and false, and for paired probes on the opposite that they learned from.
    """
    names, opposite = [s.name for s in sets], statements.opposites(sets)
    found = np.full((len(probes.TITLES), len(sets), len(sets)), np.nan)
    found[:, range(len(sets)), range(len(sets))] = accuracy
    for i, train in enumerate(sets):
        if not train.is_binary:
            continue
        learned = clouds[i] @ axes[i].T
        weights = {probe: fit(learned, train.labels) for probe, fit in probes.FITS.items()}
        shift = 0.0
        if train.name in opposite:
            other = clouds[names.index(opposite[train.name])] @ axes[i].T
            (pair,) = _ccs(learned, other, train.labels, np.ones((1, len(train.labels)), dtype=bool), seed=seed)
            weights["ccs"], shift = pair[None, :-1], pair[-1]
            if _is_negation(train.name, opposite):
                weights["truth_direction"] = probes.truth_direction(learned, other, train.labels)
        for (j, test), (probe, weight) in itertools.product(enumerate(sets), weights.items()):
            if test.is_binary and i != j and not (probe in probes.PAIRED and opposite[train.name] == test.name):
                answer = clouds[j] @ axes[i].T @ weight[0] + (shift if probe == "ccs" else 0.0) > 0
                found[list(probes.TITLES).index(probe), i, j] = (answer == test.labels).mean()
    return xr.Dataset(
        {"transfer_accuracy": (("probe", "train_dataset", "test_dataset"), found)},
        coords={"probe": list(probes.TITLES), "train_dataset": names, "test_dataset": names},
    )


def _truth_plane(sets: Sets, clouds: Arrays) -> xr.Dataset:
    """All statements along the directions of truth and of polarity of the first negated pair."""
    names, opposite = [s.name for s in sets], statements.opposites(sets)
    plane, pair = np.full((sum(len(s.labels) for s in sets), 2), np.nan), ""
    first = next((i for i, name in enumerate(names) if opposite.get(name) == statements.NEGATION + name), None)
    if first is not None:
        second = names.index(opposite[names[first]])
        pairs = [(clouds[i], sets[i].labels, polarity) for i, polarity in ((first, 1), (second, -1))]
        directions = probes.truth_directions(pairs)
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        plane = np.concatenate(clouds) @ (directions / np.where(lengths, lengths, 1)).T
        pair = f"{names[first]}, {names[second]}"
    return xr.Dataset(
        {"truth_plane": (("statement", "direction"), plane, {"learned_from": pair})},
        coords={"direction": ["truth", "polarity"]},
    )


def _over_layers(sets: Sets, states: torch.Tensor, *, seed: int) -> xr.Dataset:
    """Projection, separation and accuracy of the probes of every data set at every layer."""
    parts = [folds(drawn, seed=seed) for drawn in sets]
    found = parallel.map_layers(lambda points: _one_layer(sets, split(points, sets), parts, seed=seed), states)
    curves = xr.concat(found, "layer").transpose("probe", "dataset", "statement", "layer", "kept_component")
    sizes = np.array([len(s.labels) for s in sets])[:, None]
    for name in ("separation", "probe_accuracy"):
        low, high = probes.interval(curves[name].values * sizes, sizes)
        curves[f"{name}_low"], curves[f"{name}_high"] = (curves[name].dims, low), (curves[name].dims, high)
    return curves.assign_coords(layer=np.arange(len(states)))


def _one_layer(sets: Sets, clouds: Arrays, parts: Sequence[probes.Folds], *, seed: int) -> xr.Dataset:
    names, opposite, nothing = [s.name for s in sets], statements.opposites(sets), np.full(len(sets), np.nan)
    accuracy = {probe: nothing.copy() for probe in probes.TITLES}
    separation, ratio, kept, shuffled = nothing.copy(), nothing.copy(), [], nothing.copy()
    for i, (drawn, cloud, folds) in enumerate(zip(sets, clouds, parts, strict=True)):
        labels = drawn.labels
        components = probes.principal_components(cloud, labels)
        scores, axes = (part[..., : probes.N_COMPONENTS] for part in (components.scores, components.axes.T))
        separation[i] = probes.separation(scores, labels, folds)
        ratio[i] = probes.variance_ratio(cloud, labels)
        kept.append(np.pad(scores, ((0, 0), (0, N_COMPONENTS)))[:, :N_COMPONENTS])
        for probe in probes.FITS if drawn.is_binary else ["logistic_regression"]:
            accuracy[probe][i] = probes.cross_validate(probes.FITS[probe], scores, labels, folds)
        if i == 0:
            random = np.random.default_rng(seed).permutation(labels)
            shuffled[0] = probes.cross_validate(probes.logistic_regression, scores, random, folds)
        if (j := names.index(opposite.get(drawn.name, drawn.name))) > i:
            is_negation = _is_negation(drawn.name, opposite)
            both = _paired((scores, clouds[j] @ axes), labels, folds, is_negation=is_negation, seed=seed)
            for probe, pair in both.items():
                accuracy[probe][[i, j]] = pair
    return xr.Dataset(
        {
            "layer_projection": (("statement", "kept_component"), np.concatenate(kept).astype(np.float32)),
            "separation": ("dataset", separation),
            "variance_ratio": ("dataset", ratio),
            "probe_accuracy": (("probe", "dataset"), np.stack(list(accuracy.values()))),
            "shuffled_accuracy": ("dataset", shuffled),
        },
        coords={"probe": list(accuracy), "kept_component": np.arange(1, N_COMPONENTS + 1)},
    )


def folds(drawn: Statements, *, seed: int) -> probes.Folds:
    """Folds that keep statements on one thing together."""
    return probes.folds(drawn.labels, drawn.groups(), seed=seed)


def _paired(pair: Arrays, labels: np.ndarray, parts: probes.Folds, *, is_negation: bool, seed: int) -> dict:
    """Cross-validated accuracy of the paired probes, by name, on a data set and on its opposite."""
    first, second = pair
    masks = np.array([np.isin(np.arange(len(labels)), train) for train, _ in parts])
    found = {"ccs": _ccs(first, second, labels, masks, seed=seed)}
    if is_negation:
        learned = ((_centred(first[train]), _centred(second[train]), labels[train]) for train, _ in parts)
        found["truth_direction"] = np.array([np.append(probes.truth_direction(*fold), 0.0) for fold in learned])
    accuracy = {}
    for probe, weights in found.items():
        right = [
            sum(_is_right(*side, weight, *part).sum() for weight, part in zip(weights, parts, strict=True))
            for side in ((first, labels), (second, 1 - labels))
        ]
        accuracy[probe] = np.array(right) / len(labels)
    return accuracy


def _ccs(first: np.ndarray, second: np.ndarray, labels: np.ndarray, masks: np.ndarray, *, seed: int) -> np.ndarray:
    """Weights and shift of CCS for each fold, with the sign that agrees with the labels it trained on."""
    weights = probes.contrast_consistent_search(first, second, masks, seed=seed)
    sides = ((first, labels), (second, 1 - labels))
    for weight, mask in zip(weights, masks, strict=True):
        if sum(_is_right(*side, weight, mask, mask).mean() / 2 for side in sides) < 0.5:
            weight *= -1
    return weights


def _is_right(points: np.ndarray, labels: np.ndarray, weight: np.ndarray, train, test) -> np.ndarray:
    """Whether weights and, last, a shift answer right for each point of `test`, centred by those of `train`."""
    return ((points[test] - points[train].mean(axis=0)) @ weight[:-1] + weight[-1] > 0) == labels[test]


def _untrained(request: Truth, sets: Sets, *, is_control: bool) -> xr.Dataset:
    """Accuracy of logistic regression on the first data set in the untrained model, up to the drawn layer."""
    basis = sets[0]
    found = np.full((len(sets), request.n_layers + 1), np.nan)
    if not is_control:
        parts = folds(basis, seed=request.seed)
        untrained = sources.resolve(f"{request.model}@random")
        states, *_ = read(untrained, basis.texts, n_layers=request.layer, device=request.device)

        def accuracy(points: torch.Tensor) -> float:
            (cloud,) = split(points, [basis])
            scores = probes.principal_components(cloud).scores[:, : probes.N_COMPONENTS]
            return probes.cross_validate(probes.logistic_regression, scores, basis.labels, parts)

        found[0, : request.layer + 1] = parallel.map_layers(accuracy, states)
    return xr.Dataset({"untrained_accuracy": (("dataset", "layer"), found)})


def split(points: torch.Tensor, sets: Sets) -> list[np.ndarray]:
    """The points of each data set, float64, as seen from its first one."""
    # so equal points, as all full stops are among the embeddings, are exactly zero, and rounding is no cloud
    ends = np.cumsum([len(drawn.labels) for drawn in sets])[:-1]
    return [cloud - cloud[0] for cloud in np.split(points.double().numpy(), ends)]


def _centred(points: np.ndarray) -> np.ndarray:
    return points - points.mean(axis=0)


def _is_negation(name: str, opposite: dict[str, str]) -> bool:
    return any(one.startswith(statements.NEGATION) for one in (name, opposite[name]))
