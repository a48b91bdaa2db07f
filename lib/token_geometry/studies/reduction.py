"""Reduction: the shards of one or more extractions, reduced to one dataset with fixed names."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from token_geometry.base import InputError, processes, store
from token_geometry.base.progress import Progress
from token_geometry.extraction.plan import held_observables, read_plan, read_shard, shard_files
from token_geometry.observables import catalog, labelled, layer_index
from token_geometry.requests.reduction import OBSERVABLES, Reduction

SHARDS_PER_PROCESS = 8  # with fewer shards for each, starting processes takes longer than they save
Pieces = Mapping[tuple[str, int, str, int], xr.Dataset]  # observables by model, level, prompt, permutation


def reduce(request: Reduction) -> xr.Dataset:
    """`compute`, and write the dataset to a file; `InputError` if that cannot be written."""
    dataset = compute(request)
    store.write(dataset, Path(request.output))
    return dataset


def compute(request: Reduction) -> xr.Dataset:
    """Observables of one or more extractions; those of one model are merged along shuffle level and prompt.

    Dimensions are `model, shuffle_level, prompt, layer`, and `scale`, `k`, `layer_other` where they apply;
    `permutation` after `prompt`, if there are several. Layers that a model lacks, and prompts that were not run at
    a shuffle level or in a permutation, are NaN. An `InputError` says if there is no extraction, or one is
    incomplete, damaged, or disagrees with another."""
    request.check()
    plans = [read_plan(directory) for directory in request.directories]
    _check_compatible(plans)
    pieces: dict[tuple[str, int, str, int], xr.Dataset] = {}
    identities: dict[str, dict] = {}
    for directory, plan in zip(request.directories, plans, strict=True):
        name = plan["request"]["model"]
        identities[name] = {"title": plan["model_title"], **plan["recipe"]["model"]}
        if plan.get("model_commit"):
            identities[name]["commit"] = plan["model_commit"]
        files, without = shard_files(directory, plan), []
        reduce_one = partial(_observables, directory, plan["recipe_digest"], request.estimator)
        with Progress(len(files), f"Observables {name}", unit="shards") as progress:
            for piece in _on_all_cores(reduce_one, files, request.estimator):
                without += [piece.attrs.pop("without", [])]
                order = int(piece.attrs["shuffle_level"]), str(piece.attrs["prompt"])
                pieces[name, *order, int(piece.attrs.get("permutation", 0))] = piece
                progress.advance()
        if any(without):
            names = ", ".join(dict.fromkeys(sum(without, [])))
            what = f"{sum(map(bool, without))} of {len(files)} shards were made before {names} were taken"
            print(f"{name}: {what}, which are NaN there: delete {str(directory)!r} and extract again to have them")
    return _assemble(pieces, plans, identities, request.recipe_of([plan["plan_digest"] for plan in plans]))


def _on_all_cores(function: Callable, files: Sequence[Path], estimator: str) -> Iterator[xr.Dataset]:
    # a process takes half a second to start, and DADApy's own is started by one process at a time
    n_processes = min(processes.cores(), len(files) // SHARDS_PER_PROCESS)
    if n_processes < 2 or estimator == "dadapy":
        yield from map(function, files)
        return
    with processes.pool(n_processes, what="reduces shards") as pool:
        yield from processes.in_order(pool, function, files, ahead=4 * n_processes)


def _observables(directory: Path, recipe_digest: str, estimator: str, path: Path) -> xr.Dataset:
    """Observables of a shard, with its attributes."""
    shard = read_shard(path, recipe_digest)
    kept = held_observables(shard)
    if kept is None:
        attrs = shard.attrs | {"without": labelled.not_taken(shard)}
        return catalog.observables(shard, estimator=estimator).assign_attrs(attrs)
    if kept != OBSERVABLES or estimator != "gride":
        lacks = f"keeps no neighbors and has not all observables (estimator {estimator!r})"
        way_out = "extract again, with keep_neighbors for another estimator"
        raise InputError(f"extraction {str(directory)!r} {lacks}: {way_out}")
    return shard


def _assemble(pieces: Pieces, plans: Sequence[dict], identities: dict[str, dict], recipe: dict) -> xr.Dataset:
    names, levels, prompt_ids, permutations = (list(dict.fromkeys(part)) for part in zip(*pieces, strict=True))
    levels.sort()
    layers = np.arange(max(piece.sizes["layer"] for piece in pieces.values()))
    outer = {"model": names, "shuffle_level": levels, "prompt": prompt_ids}
    if len(permutations) > 1:
        outer["permutation"] = sorted(permutations)
    sizes = tuple(map(len, outer.values()))
    template = next(iter(pieces.values()))
    # models differ in their layers and in their width
    lengths = {dim: max(piece.sizes[dim] for piece in pieces.values()) for dim in template.dims}
    variables = {}
    for name, variable in template.data_vars.items():
        shape, dtype = sizes + tuple(lengths[dim] for dim in variable.dims), np.promote_types(variable.dtype, "f4")
        variables[name] = xr.Variable((*outer, *variable.dims), np.full(shape, np.nan, dtype), variable.attrs)
    for key, piece in pieces.items():
        place = tuple(places.index(one) for places, one in zip(outer.values(), key, strict=False))
        for observable, variable in piece.data_vars.items():
            variables[observable].values[place + tuple(slice(size) for size in variable.shape)] = variable.values
    lasts = {name: piece.sizes["layer"] - 1 for (name, *_), piece in pieces.items()}
    depth = [np.where(layers <= lasts[name], layers / lasts[name], np.nan) for name in names]
    coords = outer | {key: c for key, c in template.coords.items() if key not in ("layer", "layer_other")}
    final_norm = plans[0]["recipe"].get("final_norm", True)
    index = f"index in hidden_states: 0 embeddings, L {'after' if final_norm else 'before'} the final norm"
    share = {"long_name": "layer over number of blocks", "units": "1"}
    coords |= {"layer": ("layer", layers, {"long_name": index}), "layer_other": ("layer_other", layers)}
    titles = ("model", [identities[name]["title"] for name in names])
    coords |= {"relative_depth": (("model", "layer"), depth, share), "model_title": titles}
    request = plans[0]["request"]
    made = [(name, piece.attrs.get("device_name", "not recorded")) for (name, *_), piece in pieces.items()]
    machines = {name: {device for model, device in made if model == name} for name in names}
    told = {name: request[name] for name in ("n_tokens", "seed", "dtype", "corpus")}
    told |= {"models": json.dumps(identities, sort_keys=True)}
    told |= {f"n_texts_{name}": max(plan[f"n_{name}"] for plan in plans) for name in ("examined", "too_short")}
    told |= {"prompt_filter": json.dumps([*map(_prompt_filter, plans)], ensure_ascii=False)}
    told |= {"layer_index_map": layer_index.as_json(final_norm=final_norm)}
    told |= {"extractions": json.dumps([plan["recipe"] for plan in plans], sort_keys=True)}
    told |= {"computed_on": "; ".join(f"{name}: {', '.join(sorted(used))}" for name, used in machines.items())}
    attrs = store.make_attrs("Geometry of the hidden states of language models", recipe, **told)
    return catalog.with_titles(xr.Dataset(variables, coords=coords, attrs=attrs))


def _prompt_filter(plan: dict) -> dict:
    """What the prompts of an extraction had to pass, and the counts and ids of those that did."""
    request, ids = plan["request"], list(dict.fromkeys(shard["prompt"] for shard in plan["shards"]))
    tokenizers = list(dict.fromkeys([request["model"], *request["filter_models"]]))
    found = {name: request[name] for name in ("model", "shuffle_levels")}
    found |= {"n_tokens_at_least": request["n_tokens"], "tokenizers": tokenizers}
    return found | {name: plan[name] for name in ("n_examined", "n_too_short")} | {"prompts": ids}


def _check_compatible(plans: Sequence[dict]) -> None:
    first, seen = plans[0], {}
    for plan in plans:
        for name in ("corpus", "n_tokens", "seed", "dtype", "final_norm"):
            if plan["recipe"].get(name) != first["recipe"].get(name):
                both = " and ".join(repr(one["request"].get(name)) for one in (first, plan))
                raise InputError(f"the extractions differ in {name} ({both}): give extractions of one recipe")
        model = plan["request"]["model"]
        decisive = plan["recipe"]["model"], plan["recipe"].get("tuned_lens")
        if seen.setdefault(model, decisive) != decisive:
            raise InputError(f"the extractions hold two different models or tuned lenses by the name {model!r}")
