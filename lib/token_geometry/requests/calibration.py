"""The request of a calibration: the measurements against known shapes, other code and other precisions."""

from collections.abc import Sequence
from dataclasses import dataclass

from token_geometry.base import InputError, files
from token_geometry.geometry import manifolds
from token_geometry.models import devices, loading, sources
from token_geometry.models.source import ModelSource
from token_geometry.requests import extraction, protocol, run, sizes
from token_geometry.texts import corpora

N_CLOUDS = 16  # over which an expected dimension is taken; its error is then a quarter of a sample's

SHARE = 64  # a token that makes up one in so many of a prompt, or more, is frequent

_TABLE = files.table(__file__)
PRECISIONS: dict[str, str] = _TABLE["precisions"]  # precisions of the same model, the first the reference → names
CONTROLS: list[str] = _TABLE["controls"]  # what is left out of a cloud


@dataclass(frozen=True, kw_only=True)
class Calibration(run.OfPrompts, protocol.Request):
    """What to check, and on what. Field names are the parameters of `notebooks/calibration.ipynb`."""

    notebook, keys = "calibration", ("calibration",)
    file = "validation.nc"  # as before its key was renamed, so that results that are there are found
    old_keys = {"validation": "calibration"}

    model: str  # alias, hub id, directory or GGUF file
    n_prompts: int = 2  # how many prompts to compare on
    n_tokens: int = 1024
    n_points: int = 1024  # points of each sample of a manifold
    n_replicates: int = 4  # samples of each manifold
    dimensions: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)  # true dimensions of the manifolds

    def check(self) -> None:
        source = self.resolve()
        source.check_files()
        extraction.check_corpus(self.corpus, self.n_prompts, column=self.column)
        if source.kind != "hub" and source.is_made():
            loading.check_length(source, loading.load_config(source), self.n_tokens)

    def resolve(self) -> ModelSource:
        """Check the request and find out what its model is; raises as `check`."""
        self.check_file()
        # below 8 points there is hardly a scale to compare at
        self.check_bounds(n_prompts=1, n_tokens=8, n_points=8, n_replicates=1, seed=0)
        chosen = list(self.dimensions)
        inside = all(1 <= dimension <= manifolds.HIGHEST_DIMENSION for dimension in chosen)
        if not chosen or not inside or len(set(chosen)) < len(chosen):
            way_out = f"different whole numbers from 1 to {manifolds.HIGHEST_DIMENSION}, at least one"
            raise InputError(f"dimensions is {chosen}; accepted: {way_out}")
        devices.choose_device(self.device)
        return sources.resolve(self.model)

    def recipe(self, reads: Sequence[protocol.Request] = ()) -> dict:
        same = ("n_prompts", "n_tokens", "seed", "n_points", "n_replicates")
        found: dict = {name: getattr(self, name) for name in same} | {"dimensions": list(self.dimensions)}
        found |= {"model": sources.resolve(self.model).identity(), "families": list(manifolds.FAMILIES)}
        corpus = corpora.find_corpus(self.corpus, column=self.column)
        found |= {"corpus": corpus.identity(), "local": ["ess", "tle"]}
        found |= {"noise": manifolds.NOISE, "n_clouds": N_CLOUDS, "precisions": list(PRECISIONS)}
        return found | {"controls": [*CONTROLS, SHARE]}

    def estimate(self) -> protocol.Estimate:
        """The model, which is always loaded in float32, and its hidden states."""
        shape = sizes.shape_of(sources.resolve(self.model))
        states = 2 * (shape["layers"] + 1) * self.n_tokens * shape["width"]
        return protocol.Estimate(memory=sizes.PROCESS_BYTES + 4 * (shape["parameters"] + states))
