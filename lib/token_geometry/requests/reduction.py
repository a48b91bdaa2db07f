"""The request of a reduction: extractions to one dataset of observables."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from token_geometry.base import InputError, one_of, parameters, store
from token_geometry.observables import catalog, labelled
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.protocol import Request, Step, file_name, output_of
from token_geometry.requests.run import Run
from token_geometry.texts import corpora

OBSERVABLES = [observable.__name__ for observable in catalog.FUNCTIONS]  # names of all
_BLOCKS = ({"n_prompts", "shuffle_levels"}, {"prompt_ids", "shuffle_levels"})
_MORE = {"n_permutations"}  # may stand in a block


@dataclass(frozen=True, kw_only=True)
class Reduction(Request):
    """What to reduce. Field names are the parameters of `notebooks/observables.ipynb`.

    A run declares the extractions of its models under `extractions`, by name `n_prompts` or `prompt_ids`
    and `shuffle_levels`, perhaps `n_permutations`, those of control models under `controls`, with `models`, and
    structured prompts of further corpora under `genres`, by corpus their number, or null for all long enough, and
    structured prompts of more tokens under `longer`, with `n_prompts` and `n_tokens`."""

    notebook, keys = "observables", ("extractions", "controls", "genres", "longer")

    extraction: str | Sequence[str]  # directory of an extraction, or a list of them
    estimator: str = "gride"  # of the intrinsic dimension: `gride`, or `dadapy` for the library itself

    @property
    def directories(self) -> list[Path]:
        """Directories of the extractions."""
        given = [self.extraction] if isinstance(self.extraction, str) else self.extraction
        return [Path(directory) for directory in given]

    def check(self) -> None:
        self.check_file()
        if self.estimator not in labelled.ESTIMATORS:
            raise one_of("estimator", self.estimator, labelled.ESTIMATORS)
        if not self.directories:
            raise InputError("extraction is an empty list: give at least one directory")

    def recipe(self, reads: Sequence[Request] = ()) -> dict:
        return self.recipe_of([store.digest(one.plan_recipe()) for one in reads if isinstance(one, Extraction)])

    def recipe_of_file(self, reads: Sequence[Request], attrs: Mapping) -> dict:
        texts = {json.dumps(one["corpus"]) for one in json.loads(attrs.get("extractions", "[]"))}
        same = len(texts) == 1 and {"corpus": json.loads(*texts)}
        made = [one for one in reads if isinstance(one, Extraction)]
        # of a module the texts are those of the Python that runs
        other = [same if same and "module" in corpora.aliases().get(one.corpus, {}) else {} for one in made]
        plans = [one.plan_recipe() | texts for one, texts in zip(made, other, strict=True)]
        return self.recipe_of([store.digest(plan) for plan in plans])

    def recipe_of(self, plan_digests: Sequence[str]) -> dict:
        """What decides the numbers: the plans that they are made from, what is taken, the estimator."""
        return {"extractions": sorted(plan_digests), "observables": OBSERVABLES, "estimator": self.estimator}

    @classmethod
    def declared(cls, run: Run) -> Iterator[Step]:
        """The observables of the models of a run, and those of its control models."""
        file, blocks = f"{run.name}.yml", run.sections.get("extractions")
        if blocks is None:
            raise InputError(f"{file}: key 'extractions' is empty: add all: {{n_prompts: 8, shuffle_levels: [0]}}")
        for key, block in blocks.items():
            if file_name(key) != key:
                raise InputError(f"{file}: extraction {key!r}: accepted in its name: letters, digits, . _ -")
            if not isinstance(block, dict) or set(block) - _MORE not in _BLOCKS:
                accepted = "n_prompts or prompt_ids, and shuffle_levels; where it is wanted, n_permutations"
                raise InputError(f"{file}: extraction {key!r} is {block!r}; accepted are {accepted}")
        observables = cls._step(run, "observables", run.models, blocks)  # ill-typed levels are refused here
        if not any(0 in block["shuffle_levels"] for block in blocks.values()):
            raise InputError(f"{file}: no extraction has shuffle level 0, which all chapters compare with: add it")
        yield observables
        for corpus, n_prompts in run.sections.get("genres", {}).items():
            choice = {"corpus": corpus, "n_prompts": n_prompts, "shuffle_levels": [0]}
            yield cls._step(run, genre(corpus), run.models, {file_name(corpus): choice})
        if (longer := run.sections.get("longer")) is not None:
            if set(longer) != {"n_prompts", "n_tokens"}:
                raise InputError(f"{file}: longer holds {sorted(longer)}; accepted: just n_prompts and n_tokens")
            yield cls._step(run, "longer", run.models, {"longer": {"shuffle_levels": [0]} | longer})
        if (controls := run.sections.get("controls")) is None:
            return
        if set(controls) - _MORE not in [block | {"models"} for block in _BLOCKS]:
            raise InputError(f"{file}: controls must hold just models, shuffle_levels, n_prompts or prompt_ids")
        if not isinstance(controls["models"], list):
            raise InputError(f"{file}: controls: models is {controls['models']!r}; accepted: a list of models")
        block = {key: value for key, value in controls.items() if key != "models"}
        if controls["models"]:
            yield cls._step(run, "control", controls["models"], {"control": block})

    @classmethod
    def _step(cls, run: Run, name: str, models: Sequence[str], blocks: dict[str, dict]) -> Step:
        reads = []
        for model, (block, choice) in itertools.product(models, blocks.items()):
            made = f"{file_name(model)}-{block}"
            # the directory belongs to the run: a changed recipe replaces what it holds
            given: dict = {"model": model, "output": output_of(run.name, f"shards/{made}"), "overwrite": True}
            given["filter_models"] = [other for other in run.models if other != model]
            noun = f"{run.name}.yml: extraction {block!r}: key"
            request = parameters.build(Extraction, run.shared | given | choice, noun=noun)
            reads.append(Step(f"extraction-{made}", request))
        directories = [step.request.output for step in reads]
        return Step(name, cls(extraction=directories, output=output_of(run.name, f"{name}.nc")), tuple(reads))


def genre(corpus: str) -> str:
    """Name of the result that holds the observables of a further corpus of a run."""
    return f"genre-{file_name(corpus)}"
