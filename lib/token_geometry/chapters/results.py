"""Results of a run, as the chapters read them."""

import re
from dataclasses import dataclass
from functools import cached_property

import xarray as xr

from token_geometry.chapters.frames import window
from token_geometry.chapters.markup import escaped
from token_geometry.requests.reduction import genre
from token_geometry.runs import declaration
from token_geometry.runs import results as made


@dataclass(frozen=True, kw_only=True)
class RunParameters:
    """Parameters of a chapter on one run."""

    run: str = ""  # name of a run; empty for that of the active Quarto profile


@dataclass(frozen=True)
class RunResults:
    """A run as it was declared, its observables, and those of its control models and longer prompts, if any."""

    run: declaration.Run
    observables: xr.Dataset
    control: xr.Dataset | None = None
    longer: xr.Dataset | None = None

    @property
    def titles(self) -> list[str]:
        """Titles of the models, in the order of the run."""
        return self.observables["model_title"].values.tolist()

    @property
    def models(self) -> list[tuple[str, str]]:
        """Name of each model and title as Markdown, in the order of the run."""
        return list(zip(self.observables["model"].values.tolist(), map(escaped, self.titles), strict=True))

    def last_layer(self, model: str) -> int:
        """Index of a model's last layer, that is its number of blocks."""
        return int(self.observables["relative_depth"].sel(model=model).count()) - 1

    @property
    def structured(self) -> xr.Dataset:
        """All prompts in their own order (S = 0), without the dimension `shuffle_level`."""
        return self.observables.sel(shuffle_level=0, drop=True)

    @property
    def genres(self) -> dict[str, xr.Dataset]:
        """Structured prompts by their corpus, that of the run first, and those of its `genres`."""
        others = {name: read(self.run, genre(name)) for name in self.run.sections.get("genres", {})}
        kept = {name: one.isel(shuffle_level=0, drop=True) for name, one in others.items() if one}
        return {self.run.corpus: self.structured} | kept

    @cached_property
    def shuffled(self) -> xr.Dataset:
        """The prompts that were run at every shuffle level, by every model."""
        complete = self.observables["loss"].notnull().all(["model", "shuffle_level"])
        return self.observables.isel(prompt=complete.values)

    @property
    def ends(self) -> xr.Dataset:
        """The lowest and the highest shuffle level, of the prompts that every model was run on at both."""
        found = self.observables.sel(shuffle_level=list(dict.fromkeys(self.extremes)))
        return found.isel(prompt=found["loss"].notnull().all(["model", "shuffle_level"]).values)

    @property
    def reference_scale(self) -> int:
        """Scale 64, at which the whole course of the ID shows, or the largest one that has data."""
        present = self.observables["intrinsic_dimension"].notnull()
        scales = present.scale[present.any([d for d in present.dims if d != "scale"]).values].values
        return int(scales[scales <= 64].max())

    @property
    def scales(self) -> list[int]:
        """The two scales that are compared: the smallest, and that of reference."""
        return [*dict.fromkeys((2, self.reference_scale))]

    def middle_layers(self, model: str) -> slice:
        """Layers of the middle third of a model's depth."""
        return window(self.observables["relative_depth"].sel(model=model))

    @property
    def halfway(self) -> int:
        """Layer in the middle of the shallowest model."""
        return min(self.last_layer(model) for model, _ in self.models) // 2

    @property
    def extremes(self) -> tuple[int, int]:
        """The lowest and highest shuffle level of the run."""
        levels = self.observables["shuffle_level"].values
        return int(levels.min()), int(levels.max())

    @property
    def is_shuffled(self) -> bool:
        """Whether the run has more than one shuffle level."""
        return self.extremes[0] != self.extremes[1]


def open_results(run: str = "") -> RunResults:
    """Results of a run, by default that of the active profile; `InputError` if there are none, or stale ones."""
    declared = declaration.load(run)
    observables, control, longer = (read(declared, name) for name in ("observables", "control", "longer"))
    return RunResults(declared, observables, control and over_seeds(control), longer)


def over_seeds(control: xr.Dataset) -> xr.Dataset:
    """Observables of control models, of several seeds of one their mean, prompt by prompt."""
    names, parts = [re.sub(r"(@\w+)-\d+$", r"\1", name) for name in control["model"].values], []
    for name in dict.fromkeys(names):
        places = [n for n, other in enumerate(names) if other == name]
        part, one = control.isel(model=places), control.isel(model=places[:1])
        title = str(one["model_title"].item()) + f", mean of {len(places)} seeds" * (len(places) > 1)
        mean = part.mean("model", keep_attrs=True).expand_dims(model=[name])
        depth = (("model", "layer"), one["relative_depth"].values)
        parts.append(mean.assign_coords(model_title=("model", [title]), relative_depth=depth))
    return xr.concat(parts, "model", combine_attrs="override")


def read(run: declaration.Run, name: str) -> xr.Dataset:
    """Observables of a run by the name of the result: of each prompt the mean over its permutations."""
    found = made.read(run, name)
    # so that a prompt is one observation, however often it was shuffled
    return found.mean("permutation", keep_attrs=True) if found and "permutation" in found.dims else found
