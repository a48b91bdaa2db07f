"""The protocol of requests: what a run and a notebook ask of every kind of them."""

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from token_geometry.base import InputError, parameters, project, store
from token_geometry.requests.run import Run


@dataclass(frozen=True)
class Estimate:
    """What a request will take, about."""

    memory: int = 0  # bytes of one process's memory, weights included; on a GPU of the GPU's
    disk: int = 0  # bytes of the files
    passes: int = 0  # forward passes
    seconds: float = 0  # time on this machine, where it is known before
    work: int = 0  # weights times tokens, where this is what takes long: what has more is started first


@dataclass(frozen=True, kw_only=True)
class Request:
    """Parameters of a notebook that computes: a frozen dataclass of them, with what a run asks about them.

    A new kind of result is a subclass in a module of this folder, and the notebook that it names. A run
    declares it under one of its `keys`; nothing else has to know of it."""

    notebook: ClassVar[str]  # the notebook under `notebooks/` that carries the request out, without suffix
    keys: ClassVar[tuple[str, ...]] = ()  # keys of a run that declare such requests
    file: ClassVar[str] = ""  # name of the file among the results of a run; empty: that of the key
    old_keys: ClassVar[Mapping[str, str]] = {}  # names that keys had before → their names now
    old_names: ClassVar[Mapping[str, str]] = {}  # names that parameters had before → their names now
    none: ClassVar[Mapping[str, str]] = {}  # what None stands for, by names of parameters

    output: str  # file or directory that the notebook makes

    @property
    def models(self) -> tuple[str, ...]:
        """Models that the notebook loads."""
        return tuple(filter(None, [getattr(self, "model", "")]))

    def check_bounds(self, **lowest: int) -> None:
        """Refuse numbers that are below their bound, or that no file can hold; None is left alone."""
        for name, bound in lowest.items():
            value = getattr(self, name)
            if value is not None and not bound <= value < 2**63:
                otherwise = f", or None for {self.none[name]}" if name in self.none else ""
                above = "or more" if value < bound else "to 2^63 - 1"
                raise InputError(f"{name} is {value}; accepted: {bound} {above}{otherwise}")

    def check_file(self) -> None:
        """Refuse an output that is no file of a dataset, or that cannot be written."""
        if Path(self.output).suffix != ".nc":
            raise InputError(f"output is {self.output!r}; accepted: the path of a file that ends in .nc")
        store.check_writable(Path(self.output))

    def check(self) -> None:
        """Refuse what is known not to work without loading, by parameter, value and what is accepted."""
        raise NotImplementedError

    def recipe(self, reads: Sequence["Request"] = ()) -> dict:
        """What decides the numbers; `reads` are the requests that make what this one reads."""
        raise NotImplementedError

    def recipe_of_file(self, reads: Sequence["Request"], attrs: Mapping) -> dict:
        """`recipe`, with what follows the running Python as it was when a file with these attributes was made."""
        return self.recipe(reads)

    def estimate(self) -> Estimate:
        """What it will take."""
        return Estimate()

    def parameters(self) -> dict:
        """The parameters as papermill takes them, which knows lists and no other sequences."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def declared(cls, run: Run) -> Iterator["Step"]:
        """What a run declares of this kind: here one request per key, whose parameters stand under the key.

        Those left out are as the run has them, `model` is its first model, `output` is `file`. An `InputError`
        says if a parameter is unknown or ill-typed."""
        names = [field.name for field in fields(cls)]
        for key in filter(run.sections.__contains__, cls.keys):
            noun, given = f"{run.name}.yml: {key}: key", run.sections[key]
            parameters.refuse_unknown(given, [n for n in names if n not in ("output", "device")], noun=noun)
            known = {"model": run.models[0], **run.shared}
            known["output"] = output_of(run.name, cls.file or f"{key}.nc")
            chosen = {name: value for name, value in known.items() if name in names}
            yield Step(key, parameters.build(cls, chosen | given, noun=noun))


@dataclass(frozen=True)
class Step:
    """A request of a run, under the name of its result and of the executed notebook that is kept as a record."""

    name: str
    request: Request
    reads: tuple["Step", ...] = ()  # steps that make what this one reads, and so come before it

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

    @property
    def shipped(self) -> Path:
        """The same as it may have come with the project, in float32."""
        return project.root() / "data" / "published" / self.path.parent.name / self.path.name

    def found(self) -> Path | None:
        """The file, made here or else shipped, that is whole and made from what the run declares now; or None."""
        if store.is_fresh(self.path, store.digest(self.recipe())):
            return self.path
        with contextlib.suppress(InputError):
            attrs = store.read(self.shipped).attrs
            recipe = self.request.recipe_of_file([step.request for step in self.reads], attrs)
            return self.shipped if attrs["recipe_digest"] == store.digest(recipe) else None
        return None


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
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in str(model))
