"""The request of a reading of statements: true and false ones at a layer of a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from token_geometry.base import InputError, parameters
from token_geometry.models import devices, sources
from token_geometry.models.source import ModelSource
from token_geometry.requests import sizes
from token_geometry.requests.protocol import Estimate, Request, Step, file_name, output_of
from token_geometry.requests.run import Run
from token_geometry.stats import probes
from token_geometry.texts import statements
from token_geometry.texts.statements import Statements


@dataclass(frozen=True, kw_only=True)
class OfStatements:
    """What is to be told of a reading, beside its model, layer and data sets."""

    n_statements: int | None = 400  # largest number of statements of each data set; None for all
    seed: int = 0  # seed of the draw of statements, of the folds, and of what probes draw
    device: str = "auto"  # torch device
    last_layer: int | None = None  # last of the curves over layers, which the same pass reaches; None: `layer`


@dataclass(frozen=True, kw_only=True)
class Truth(OfStatements, Request):
    """What to read. Field names are the parameters of `notebooks/truth-pca.ipynb`.

    A run declares `datasets`, `n_statements` and `models`: name → `layer` and, if it differs, `last_layer`."""

    notebook = "truth-pca"
    keys = ("truth",)
    none = {"n_statements": "all"}
    of_run: ClassVar[tuple[str, ...]] = ("datasets", "n_statements")  # keys that the models of a run share
    of_model: ClassVar[tuple[str, ...]] = ("layer", "last_layer")  # keys that each has

    model: str  # alias, hub id, directory or GGUF file
    layer: int  # layer whose states are projected: their index in transformers' `hidden_states`
    datasets: Sequence[str]  # names of data sets, or paths of CSV files; the first gives the basis

    @property
    def n_layers(self) -> int:
        """Blocks that the pass goes through."""
        return self.layer if self.last_layer is None else self.last_layer

    def check(self) -> None:
        self.resolve()

    def resolve(self) -> tuple[ModelSource, list[Statements], list[str]]:
        """Check, and find out the model, what is drawn of data sets, what is left out; raises as `check`."""
        self.check_file()
        self.check_bounds(seed=0, n_statements=4)
        if self.last_layer is not None and self.last_layer < self.layer:
            raise InputError(f"last_layer is {self.last_layer}; accepted: layer, which is {self.layer}, or more")
        devices.choose_device(self.device)
        source = sources.resolve(self.model)
        if not source.shape:  # else known without the files
            source.check_files()
            source.check_tokenizer()
        last = sizes.last_layer(source)
        for name, value in (("layer", self.layer), ("last_layer", self.n_layers)):
            if not 0 <= value <= last:
                raise InputError(f"{name} is {value}; accepted: 0 to {last}, the last of model {self.model!r}")
        return source, *self._draw()

    def recipe(self, reads: Sequence[Request] = ()) -> dict:
        return {
            "model": sources.resolve(self.model).identity(), "layer": self.layer, "last_layer": self.n_layers,
            "statements": [drawn.identity() for drawn in self._draw()[0]], "seed": self.seed,
            "probes": [*probes.FITS, *probes.PAIRED], "groups": "neighbors and shared words",
        }  # fmt: skip

    def estimate(self) -> Estimate:
        """The blocks that are read, in float32, and the states at the last tokens."""
        shape = sizes.shape_of(sources.resolve(self.model))
        embeddings = shape["vocabulary"] * shape["width"]
        blocks = (shape["parameters"] - embeddings) * self.n_layers // shape["layers"]
        n_statements = sum(len(drawn.texts) for drawn in self._draw()[0])
        numbers = embeddings + blocks + 2 * (self.n_layers + 1) * n_statements * shape["width"]
        return Estimate(memory=sizes.PROCESS_BYTES + 4 * numbers)

    def _draw(self) -> tuple[list[Statements], list[str]]:
        return statements.draw_all(self.datasets, self.n_statements, seed=self.seed)

    @classmethod
    def declared(cls, run: Run) -> Iterator[Step]:
        """What a run reads of statements, model by model."""
        (key,) = cls.keys
        if (declared := run.sections.get(key)) is None:
            return
        noun = f"{run.name}.yml: {key}: key"
        parameters.refuse_unknown(declared, ["models", *cls.of_run], noun=noun)
        chosen = declared.get("models", {})
        if not (chosen and isinstance(chosen, dict)):
            raise InputError(f"{noun} 'models' is {chosen!r}; accepted: models by name, each with the key layer")
        # what other requests read is what truth reads, if nothing is said
        same = {name: value for name, value in run.sections.get("truth", {}).items() if name == "datasets"}
        same |= {name: value for name, value in declared.items() if name != "models"}
        for model, own in chosen.items():
            if not isinstance(own, dict) or not set(own) <= set(cls.of_model):
                raise InputError(f"{noun} {model!r} is {own!r}; accepted: the keys {' and '.join(cls.of_model)}")
            name = f"{key.replace('_', '-')}-{file_name(model)}"
            given = {"model": model, "seed": run.seed, "device": run.device}
            given["output"] = output_of(run.name, f"{name}.nc")
            yield Step(name, parameters.build(cls, given | same | own, noun=noun))
