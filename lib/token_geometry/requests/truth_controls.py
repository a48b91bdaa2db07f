"""The request of the controls of truth: what else than truth a probe of statements could have found."""

from collections.abc import Sequence
from dataclasses import dataclass

from token_geometry.base import InputError, files
from token_geometry.models import sources
from token_geometry.models.source import ModelSource
from token_geometry.requests import sizes
from token_geometry.requests.protocol import Request
from token_geometry.requests.truth import Truth
from token_geometry.texts.statements import Statements

PROMPT = files.table(__file__)  # what a model is asked when it is steered


@dataclass(frozen=True, kw_only=True)
class OfControls:
    """What is to be told of controls, beside what is told of the reading that they control."""

    n_permutations: int = 200  # permutations of the labels, for the null of every accuracy
    n_untrained: int = 3  # untrained networks of the same shape that read the same, up to `layer`
    steered: bool = False  # whether directions are added to states while the model judges statements


@dataclass(frozen=True, kw_only=True)
class TruthControls(OfControls, Truth):
    """What to control. Field names are the parameters of `notebooks/truth-controls.ipynb`.

    The whole model is read, and `last_layer` is its last if it is not given. A run declares what `Truth` does, and
    the numbers for all models or for one; `datasets` are those under `truth` where there are none."""

    notebook = "truth-controls"
    keys = ("truth_controls",)
    of_run = ("datasets", "n_statements", "n_permutations", "n_untrained")
    of_model = ("layer", "last_layer", "n_untrained", "steered")

    @property
    def n_layers(self) -> int:
        return sizes.last_layer(sources.resolve(self.model)) if self.last_layer is None else self.last_layer

    def resolve(self) -> tuple[ModelSource, list[Statements], list[str]]:
        # fewer permutations say nothing at the level of the intervals
        self.check_bounds(n_permutations=20, n_untrained=0)
        found = super().resolve()
        if not any(one.is_binary for one in found[1]):
            accepted = "one of true and false statements, or more"
            raise InputError(f"datasets is {list(self.datasets)}; accepted: {accepted}")
        return found

    def recipe(self, reads: Sequence[Request] = ()) -> dict:
        return super().recipe() | {
            "n_permutations": self.n_permutations, "n_untrained": self.n_untrained,
            "probes": ["mass_mean", "ridge"], "steered": PROMPT if self.steered else False,
        }  # fmt: skip
