"""Reduction: the shards of one or more extractions, reduced to one dataset with fixed names."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from token_geometry.base import store
from token_geometry.base.errors import InputError
from token_geometry.base.progress import Progress
from token_geometry.extraction.plan import has_all_observables, is_reduced, read_plan, read_shards
from token_geometry.observables import labelled, layer_index
from token_geometry.requests.reduction import Reduction

Pieces = Mapping[tuple[str, int, str], xr.Dataset]
"""Observables of a shard by model, shuffle level and prompt."""


def reduce(request: Reduction) -> xr.Dataset:
    """Compute the observables of one or more extractions and write them to a file.

    Returns
    -------
    xarray.Dataset
        As `compute` returns it, and as the file holds it.

    Raises
    ------
    InputError
        As `compute`, or if the file cannot be written.
    """
    dataset = compute(request)
    store.write(dataset, Path(request.output))
    return dataset


def compute(request: Reduction) -> xr.Dataset:
    """Observables of one or more extractions; those of one model are merged along shuffle level and prompt.

    Returns
    -------
    xarray.Dataset
        Dimensions `model, shuffle_level, prompt, layer`, and `scale`, `k`, `layer_other` where they
        apply. Layers that a model lacks, and prompts that were not run at a shuffle level, are NaN.

    Raises
    ------
    InputError
        If there is no extraction, or one is incomplete, damaged, or disagrees with another.
    """
    request.check()
    plans = [read_plan(directory) for directory in request.directories]
    _check_compatible(plans)
    pieces: dict[tuple[str, int, str], xr.Dataset] = {}
    identities: dict[str, dict] = {}
    for directory, plan in zip(request.directories, plans, strict=True):
        name = plan["request"]["model"]
        identities[name] = {"title": plan["model_title"], **plan["recipe"]["model"]}
        if plan.get("model_commit"):
            identities[name]["commit"] = plan["model_commit"]
        with Progress(len(plan["shards"]), f"Observables {name}", unit="shard") as progress:
            for shard in read_shards(directory):
                key = (name, int(shard.attrs["shuffle_level"]), str(shard.attrs["prompt"]))
                pieces[key] = _observables(directory, shard, request.estimator)
                progress.advance()
    recipe = request.recipe_of([plan["plan_digest"] for plan in plans])
    return _assemble(pieces, plans, identities, recipe)


def _observables(directory: Path, shard: xr.Dataset, estimator: str) -> xr.Dataset:
    if not is_reduced(shard):
        return labelled.observables(shard, estimator=estimator)
    if not has_all_observables(shard) or estimator != "gride":
        raise InputError(
            f"extraction {str(directory)!r} keeps no neighbors and has not all observables (estimator "
            f"{estimator!r}): run notebooks/extraction.ipynb again, with keep_neighbors for another estimator"
        )
    return shard


def _assemble(pieces: Pieces, plans: Sequence[dict], identities: dict[str, dict], recipe: dict) -> xr.Dataset:
    names, levels, prompt_ids = (list(dict.fromkeys(part)) for part in zip(*pieces, strict=True))
    levels.sort()
    n_layers = max(piece.sizes["layer"] for piece in pieces.values())
    layers = np.arange(n_layers)
    outer = {"model": names, "shuffle_level": levels, "prompt": prompt_ids}
    sizes = tuple(map(len, outer.values()))
    template = next(iter(pieces.values())).reindex(layer=layers)
    if "layer_other" in template.dims:
        template = template.reindex(layer_other=layers)
    variables = {
        name: xr.Variable(
            (*outer, *variable.dims),
            np.full(sizes + variable.shape, np.nan, np.promote_types(variable.dtype, np.float32)),
            variable.attrs,
        )
        for name, variable in template.data_vars.items()
    }
    for (name, level, prompt_id), piece in pieces.items():
        place = (names.index(name), levels.index(level), prompt_ids.index(prompt_id))
        for key, variable in piece.data_vars.items():
            inside = tuple(slice(size) for size in variable.shape)
            variables[key].values[place + inside] = variable.values
    depth = np.full((len(names), n_layers), np.nan)
    for row, name in enumerate(names):
        last = max(p.sizes["layer"] for (n, _, _), p in pieces.items() if n == name) - 1
        depth[row, : last + 1] = np.arange(last + 1) / last
    coords = outer | {key: c for key, c in template.coords.items() if key not in ("layer", "layer_other")}
    final_norm = plans[0]["recipe"].get("final_norm", True)
    end = "after" if final_norm else "before"
    coords |= {
        "layer": (
            "layer",
            layers,
            {"long_name": f"index in hidden_states: 0 embeddings, L {end} the final norm"},
        ),
        "layer_other": ("layer_other", layers, {"long_name": "the other layer"}),
        "relative_depth": (
            ("model", "layer"),
            depth,
            {"long_name": "layer over number of blocks", "units": "1"},
        ),
        "model_title": ("model", [identities[name]["title"] for name in names]),
    }
    request = plans[0]["request"]
    attrs = store.make_attrs(
        "Geometry of the hidden states of language models",
        recipe,
        n_tokens=request["n_tokens"],
        seed=request["seed"],
        dtype=request["dtype"],
        corpus=request["corpus"],
        models=json.dumps(identities, sort_keys=True),
        n_texts_examined=max(plan["n_examined"] for plan in plans),
        n_texts_too_short=max(plan["n_too_short"] for plan in plans),
        prompt_filter=json.dumps([_prompt_filter(plan) for plan in plans], ensure_ascii=False),
        layer_index_map=layer_index.as_json(final_norm=final_norm),
        extractions=json.dumps([plan["recipe"] for plan in plans], sort_keys=True),
    )
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def _prompt_filter(plan: dict) -> dict:
    """What the prompts of an extraction had to pass, and the counts and ids of those that did."""
    request = plan["request"]
    return {
        "model": request["model"],
        "shuffle_levels": request["shuffle_levels"],
        "n_tokens_at_least": request["n_tokens"],
        "tokenizers": list(dict.fromkeys([request["model"], *request["filter_models"]])),
        "n_examined": plan["n_examined"],
        "n_too_short": plan["n_too_short"],
        "prompts": list(dict.fromkeys(shard["prompt"] for shard in plan["shards"])),
    }


def _check_compatible(plans: Sequence[dict]) -> None:
    first, seen = plans[0], {}
    for plan in plans:
        for name in ("corpus", "n_tokens", "seed", "dtype", "final_norm"):
            if plan["recipe"].get(name) != first["recipe"].get(name):
                raise InputError(
                    f"the extractions differ in {name} ({first['request'].get(name)!r} and "
                    f"{plan['request'].get(name)!r}): give extractions of one recipe"
                )
        model = plan["request"]["model"]
        if seen.setdefault(model, plan["recipe"]["model"]) != plan["recipe"]["model"]:
            raise InputError(f"the extractions hold two different models by the name {model!r}")
