"""Sources by name: what the name of a model stands for."""

from dataclasses import replace
from pathlib import Path

from token_geometry.base import InputError, files, one_of, parameters, project
from token_geometry.models import controls, kinds
from token_geometry.models.source import ModelSource


def resolve(model: str) -> ModelSource:
    """Find out what `model` names; nothing is downloaded or opened.

    An alias of `data/models.yml`, a hub id (`owner/name`, optionally `owner/name@revision`), a local directory
    in transformers' format or of Meta's files (`consolidated.*.pth`, `params.json`, `tokenizer.model`), or a
    `.gguf` file. With `@random` or `@permuted` at its end, or these with a seed (`@random-1`), it is the
    untrained control of that model; they are no revisions of the hub. Raises `InputError` if it is none of
    these, or files that belong to a model are missing."""
    stem, control, seed = controls.split(model)
    if control:
        if (original := resolve(stem)).control:
            raise InputError(f"model {model!r} asks for the control of a control: leave one of them out")
        title = f"{original.title}, {controls.WORDS[control]}" + (f" (seed {seed})" if seed else "")
        return replace(original, name=model, title=title, control=control, control_seed=seed)
    if model in (known := project.entries("models.yml")):
        if not isinstance(known[model], dict):
            raise InputError(f"{_noun(model)}s are {known[model]!r}; accepted: a mapping")
        return _from_alias(model, dict(known[model]))
    with files.door(f"model {model!r}", "; accepted: an alias, a hub id owner/name, a directory, a .gguf file"):
        if source := _at(model):
            return source
    stem, _, word = model.rpartition("@")
    if stem in known or stem and Path(stem).expanduser().exists():
        raise InputError(f"model {model!r}: {one_of('control', word, controls.WORDS)}; with a seed: @random-1")
    places = "a hub id owner/name, a directory, a .gguf file; or one of these with @random or @permuted"
    if model.startswith(("/", "~", ".")) or model.count("/") > 1:
        raise InputError(f"model {model!r}: there is no {Path(model).expanduser()}; accepted: an alias, {places}")
    raise InputError(f"{one_of('model', model, known)}; or {places}")


def _at(place: str) -> ModelSource | None:
    return next((source for kind in kinds.KINDS if (source := kind.at(place))), None)


def _from_alias(name: str, entry: dict) -> ModelSource:
    if "path" in entry:
        path = project.root() / Path(str(entry.pop("path"))).expanduser()
        if not (found := _at(str(path))):
            raise InputError(f"model {name!r}: data/models.yml gives its path as {path}: put a model there")
        return parameters.build(type(found), vars(found) | {"name": name} | entry, noun=_noun(name))
    if len(given := [kind for kind in kinds.KINDS if kind.entry in entry]) != 1:
        raise InputError(f"{_noun(name)} of its place is not there once; accepted: hub, meta, archives, path")
    return given[0].of_entry(name, entry.pop(given[0].entry), noun=_noun(name), **entry)


def _noun(name: str) -> str:
    return f"data/models.yml, model {name!r}: key"
