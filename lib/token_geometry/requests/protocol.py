"""The protocol of requests: what a run and a notebook ask of every kind of them."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Protocol, Self

from token_geometry.base import parameters, project, store


@dataclass(frozen=True)
class Estimate:
    """What a request will take, about."""

    memory: int = 0
    """Bytes of one process's memory, weights included; on a GPU of the GPU's."""

    disk: int = 0
    """Bytes of the files."""

    passes: int = 0
    """Forward passes."""

    work: int = 0
    """Weights times tokens, where this is what takes long: whatever has more of it is started first."""


class Declaration(Protocol):
    """What a request is to know of the run that declares it; see `runs.declaration.Run`."""

    @property
    def name(self) -> str: ...
    @property
    def models(self) -> list[str]: ...
    @property
    def shared(self) -> dict: ...
    @property
    def sections(self) -> dict[str, dict]: ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """Parameters of a notebook that computes: a frozen dataclass of them, with what a run asks about them.

    A new kind of result is a subclass in a module of this folder, and the notebook that it names. A run
    declares it under one of its `keys`; nothing else has to know of it.
    """

    notebook: ClassVar[str]
    """Notebook under `notebooks/` that carries the request out, without suffix."""

    keys: ClassVar[tuple[str, ...]] = ()
    """Keys of a run that declare such requests."""

    old_keys: ClassVar[Mapping[str, str]] = {}
    """Names that keys had before, and their names now."""

    old_names: ClassVar[Mapping[str, str]] = {}
    """Names that parameters had before, and their names now."""

    output: str
    """File or directory that the notebook makes."""

    @property
    def models(self) -> tuple[str, ...]:
        """Models that the notebook loads."""
        model = getattr(self, "model", "")
        return (model,) if model else ()

    def check(self) -> None:
        """Refuse what cannot work, as far as it can be known before anything is loaded or downloaded.

        Raises
        ------
        InputError
            Naming the parameter, its value and what is accepted.
        """
        raise NotImplementedError

    def recipe(self, reads: Sequence["Request"] = ()) -> dict:
        """What decides the numbers; `reads` are the requests that make what this one reads."""
        raise NotImplementedError

    def estimate(self) -> Estimate:
        """What it will take."""
        return Estimate()

    def parameters(self) -> dict:
        """The parameters as papermill takes them, which knows lists and no other sequences."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def declared(cls, run: Declaration) -> Iterator["Step"]:
        """What a run declares of this kind: here one request a key, whose parameters stand under the key.

        Those left out are as the run has them, `model` is its first model, `output` a file of the run's
        results that bears the name of the key.

        Raises
        ------
        InputError
            If a parameter is unknown or ill-typed.
        """
        for key in cls.keys:
            if key in run.sections:
                yield Step(key, cls.from_run(run, run.sections[key], noun=key, output=f"{key}.nc"))

    @classmethod
    def from_run(cls, run: Declaration, given: dict, *, noun: str, output: str) -> Self:
        """A request with the parameters `given`; those left out are as the run has them."""
        known = {"model": run.models[0], **run.shared, "output": output_of(run.name, output)}
        chosen = {field.name: known[field.name] for field in fields(cls) if field.name in known}
        accepted = [field.name for field in fields(cls) if field.name not in ("output", "device")]
        noun = f"{run.name}.yml: {noun}: key"
        parameters.refuse_unknown(given, accepted, noun=noun)
        return parameters.build(cls, chosen | given, noun=noun)


@dataclass(frozen=True)
class Step:
    """A request of a run, under the name of its result and of the executed notebook that is kept as a record."""

    name: str
    """Name in the run."""

    request: Request
    """What is asked for."""

    reads: tuple["Step", ...] = ()
    """Steps that make what this one reads, and so come before it."""

    @property
    def path(self) -> Path:
        """What it makes."""
        return project.root() / self.request.output

    @property
    def depth(self) -> int:
        """How many steps stand before it."""
        return 1 + max((step.depth for step in self.reads), default=-1)

    def recipe(self) -> dict:
        """What decides its numbers; this may read a corpus."""
        return self.request.recipe([step.request for step in self.reads])

    def is_fresh(self) -> bool:
        """Whether the file is whole and made from what the run declares now."""
        return store.is_fresh(self.path, store.digest(self.recipe()))


def kinds() -> list[type[Request]]:
    """Every kind of request: the subclasses in the modules of this folder, by the names of the modules."""
    package = __name__.rpartition(".")[0]
    folder = importlib.import_module(package).__path__
    modules = [importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(folder)]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return list(dict.fromkeys(one for one in classes if issubclass(one, Request) and one is not Request))


def output_of(run: str, name: str) -> str:
    """Path of a result of a run from the project's root: so the record of a run names no folder of a machine."""
    return str((project.results(run) / name).relative_to(project.root()))


def file_name(model: str) -> str:
    """A model's name with nothing in it that a file's name cannot have."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in model)
