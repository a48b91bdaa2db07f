"""Declarations: the experiments of `data/runs`, one YAML file each."""

import os
from dataclasses import fields

from token_geometry.base import InputError, one_of, parameters, project
from token_geometry.requests.protocol import Request, kinds
from token_geometry.requests.run import CONFOUNDS, Run
from token_geometry.texts import corpora

DEFAULT = "demo"  # run of the default profile


def names() -> list[str]:
    """Names of the declared runs."""
    return sorted(path.stem for path in (project.root() / "data" / "runs").glob("*.yml"))


def load(name: str = "") -> Run:
    """Read a run by the name of its file in `data/runs`, empty for that of the active Quarto profile;
    `InputError` if there is no such run, or a key of it is unknown, missing or ill-typed."""
    known = names()
    if not name:
        profiles = [part for part in os.environ.get("QUARTO_PROFILE", "").split(",") if part]
        name = next((profile for profile in profiles if profile in known), ",".join(profiles) or DEFAULT)
    if name not in known:
        raise one_of("run", name, known)
    path, entries = project.root() / "data" / "runs" / f"{name}.yml", project.entries(f"runs/{name}.yml")
    if not entries:
        raise InputError(f"{path.name} holds no keys: token-geometry new-run writes one that does")
    try:
        run = _build(name, entries)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    if not run.models:
        raise InputError(f"{path.name}: models is empty; accepted: at least one model")
    if run.confounds:
        accepted = [*CONFOUNDS, *corpora.find_corpus(run.corpus, column=run.column).patterns]
        if unknown := [confound for confound in run.confounds if confound not in accepted]:
            has = one_of(f"confound of corpus {run.corpus!r}", unknown[0], accepted)
            raise InputError(f"{path.name}: confounds: {has}")
    outputs: dict[str, Request] = {}
    try:
        for step in [step for kind in kinds() for step in kind.declared(run)]:  # refuses ill-typed values
            for request in (step.request, *(one.request for one in step.reads)):
                other = outputs.setdefault(request.output.casefold(), request)
                if other is not request:
                    both = " and ".join(map(repr, other.models[:1] + request.models[:1]))
                    way_out = "rename models or extractions so that they differ in letters, digits, . _ -"
                    both = f"results of {both} would go into one place, {request.output}"
                    raise InputError(f"{path.name}: {both}: {way_out}")
    except InputError as error:  # which calls a key by its name of today
        raise InputError("; ".join([str(error), *run.notes])) from None
    return run


def _build(name: str, entries: dict) -> Run:
    keys = [key for kind in kinds() for key in kind.keys]
    old = {key: new for kind in kinds() for key, new in kind.old_keys.items()}
    own = [f.name for f in fields(Run) if f.name not in ("name", "sections", "notes")]
    parameters.refuse_unknown({k: v for k, v in entries.items() if k not in old}, [*own, *keys], noun="key")
    sections, notes = {}, []
    for key, value in entries.items():
        if key in own or value is None:
            continue
        if not isinstance(value, dict):
            raise InputError(f"key {key!r} is {value!r}, of type {type(value).__name__}; accepted: a mapping")
        if key in old:
            notes.append(f"{name}.yml: key {key!r} is an old name, and is taken for {old[key]!r}")
            if old[key] in entries:
                raise InputError(f"key {key!r} is the old name of {old[key]!r}, and both are given: leave it out")
        sections[old.get(key, key)] = value
    given = {key: value for key, value in entries.items() if key in own} | {"name": name, "sections": sections}
    return parameters.build(Run, given | {"notes": tuple(notes)}, noun="key")
