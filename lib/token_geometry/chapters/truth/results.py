"""The truth results of a run, or of one request, and the parameters that ask for them."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import xarray as xr

from token_geometry.base import InputError, store
from token_geometry.chapters.markup import escaped
from token_geometry.chapters.results import RunParameters
from token_geometry.models import sources
from token_geometry.requests import sizes
from token_geometry.requests.protocol import Request
from token_geometry.requests.truth import OfStatements, Truth
from token_geometry.requests.truth_controls import OfControls, TruthControls
from token_geometry.runs import declaration, results


@dataclass(frozen=True, kw_only=True)
class TruthParameters(RunParameters, OfStatements):
    """Parameters of `notebooks/truth-pca.ipynb`: with `run` alone it reads what the run has, else it computes."""

    kind: ClassVar[type[Any]] = Truth  # of what it computes, with one key
    model: str = ""  # model to read the statements with; empty: the first that the run names
    layer: int | None = None  # layer of the projection; None: that of the run, else half of the depth
    datasets: Sequence[str] = ()  # data sets or CSV files; empty: those of the run
    output: str = ""  # file of the dataset; empty: the key under `data/results`

    @property
    def is_request(self) -> bool:
        """Whether anything but the run is given."""
        return replace(self, datasets=tuple(self.datasets)) != type(self)(run=self.run)

    def request(self) -> Request:
        """What to compute."""
        declared, model = {}, self.model
        if not (model and self.datasets and self.layer is not None):  # else no run need be there
            run = declaration.load(self.run)
            declared = {one.model: one for one in results.requests(run, self.kind)}
            model = model or next(iter(declared), run.models[0])
        same, layer = declared.get(model), self.layer
        if layer is None:
            layer = same.layer if same else sizes.last_layer(sources.resolve(model)) // 2
        some = same or next(iter(declared.values()), None)
        datasets = list(self.datasets or (some.datasets if some else ["cities"]))
        given = {field.name: getattr(self, field.name) for field in fields(self.kind)}
        given |= {"model": model, "layer": layer, "datasets": datasets}
        return self.kind(**given | {"output": self.output or f"data/results/{self.kind.keys[0]}.nc"})


@dataclass(frozen=True, kw_only=True)
class ControlsParameters(TruthParameters, OfControls):
    """Parameters of `notebooks/truth-controls.ipynb`."""

    kind = TruthControls


@dataclass(frozen=True)
class TruthResults:
    """What the chapter shows."""

    datasets: tuple[xr.Dataset, ...]  # one dataset per model
    notes: tuple[str, ...]  # what is missing, and what to do about it

    @property
    def models(self) -> list[tuple[xr.Dataset, str]]:
        """The dataset and title, as Markdown, of each model."""
        return [(dataset, escaped(dataset.attrs["model_title"])) for dataset in self.datasets]

    @property
    def drawn_layer(self) -> int:
        """Layer of the projection of the first model."""
        return int(self.datasets[0].attrs["layer"]) if self.datasets else 0


def open_results(chosen: TruthParameters) -> TruthResults:
    """Read what a run has, or compute what is asked; an `InputError` says if there is no such run or it cannot."""
    (key,) = chosen.kind.keys
    if chosen.is_request:
        # only whoever computes needs torch, which takes seconds to import
        study = importlib.import_module(f"token_geometry.studies.{key}")
        return TruthResults(datasets=(study.measure(chosen.request()),), notes=())
    run = declaration.load(chosen.run)
    found, notes = [], []
    for step in (step for step in results.steps(run) if type(step.request) is chosen.kind):
        if path := step.found():
            found.append(store.read(path))
        else:
            state = "stale or damaged" if step.path.is_file() else "missing"
            notes.append(f"The results {step.name} are {state}: `python -m token_geometry run {run.name}`.")
    if not found and not notes:
        way_out = f"add the key {key} to data/runs/{run.name}.yml"
        raise InputError(f"run {run.name} declares nothing of this kind: {way_out}")
    return TruthResults(datasets=tuple(found), notes=tuple(notes))
