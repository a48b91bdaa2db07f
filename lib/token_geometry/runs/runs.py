"""Runs: the declared experiments of `data/runs`, their staleness, and the notebooks that make them."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import xarray as xr
import yaml

from token_geometry.base import parameters, project, store
from token_geometry.base.errors import InputError, one_of
from token_geometry.extraction import estimates
from token_geometry.extraction.extraction import Extraction
from token_geometry.models import models
from token_geometry.studies import reduction
from token_geometry.studies.calibration import Calibration
from token_geometry.studies.truth import Truth
from token_geometry.texts import prompts

DEFAULT = "demo"
"""Run of the default profile."""

_BLOCKS = ({"n_prompts", "shuffle_levels"}, {"prompt_ids", "shuffle_levels"})


@dataclass(frozen=True, kw_only=True)
class Run:
    """One YAML file of `data/runs`; field names are its keys."""

    name: str
    """Name of the file, and of the Quarto profile that chooses it."""

    title: str
    """Name that a reader sees."""

    models: list[str]
    """Models, in the order of the charts."""

    corpus: str
    """Corpus of the prompts."""

    n_tokens: int
    """Tokens of each prompt."""

    extractions: dict[str, dict]
    """Name → `n_prompts`, or `prompt_ids`, and `shuffle_levels` of one extraction of every model."""

    seed: int = 0
    """Seed of the draw and of the shuffles."""

    dtype: str = "float32"
    """Type of the forward pass."""

    device: str = "auto"
    """Torch device."""

    num_processes: int = 1
    """Processes that share the prompts of one extraction."""

    final_norm: bool = True
    """Whether the last layer is the state after the final norm; else the one before."""

    gpus_per_model: int = 1
    """GPUs that the model of one process is spread over."""

    keep_neighbors: bool = True
    """Whether shards hold the neighbor tables, from which new observables can be had, or only the observables."""

    description: str = field(default="")
    """One paragraph about the run."""

    validation: dict | None = None
    """Parameters of the calibration, those left out as the run has them; None for no calibration."""

    controls: dict | None = None
    """`models`, `n_prompts` or `prompt_ids`, and `shuffle_levels` of the extractions of control models; their
    observables are a file of their own. None for no controls."""

    truth: dict | None = None
    """`datasets`, `n_statements` and `models` (name → `layer` and, if it differs, `last_layer`) of the
    statements that are read; None for none."""


@dataclass(frozen=True)
class Step:
    """One notebook with the parameters that a run gives it."""

    name: str
    """Name of the executed notebook that is kept as a record."""

    notebook: str
    """Notebook under `notebooks/`, without suffix."""

    parameters: dict
    """Parameters, by name."""

    reduces: bool = False
    """Whether it reads what other steps make, and so comes after them."""


@dataclass(frozen=True)
class Result:
    """One file of a run, with what makes it."""

    path: Path
    """The file."""

    recipe: Callable[[], dict]
    """What decides its numbers; called when that is asked for, since it may read a corpus."""

    steps: list[Step]
    """Notebooks that make it, in order."""

    def is_fresh(self) -> bool:
        """Whether the file is whole and made from what the run declares now."""
        return store.is_fresh(self.path, store.digest(self.recipe()))


def names() -> list[str]:
    """Names of the declared runs."""
    return sorted(path.stem for path in (project.root() / "data" / "runs").glob("*.yml"))


def active() -> str:
    """Name of the run that the active Quarto profile chooses.

    Raises
    ------
    InputError
        If profiles are active and none of them is a run.
    """
    profiles = [part for part in os.environ.get("QUARTO_PROFILE", "").split(",") if part]
    if not profiles:
        return DEFAULT
    known = names()
    for profile in profiles:
        if profile in known:
            return profile
    raise one_of("run", ",".join(profiles), known)


def load(name: str = "") -> Run:
    """Read a run.

    Parameters
    ----------
    name
        Name of a file of `data/runs`; empty for the run of the active Quarto profile.

    Raises
    ------
    InputError
        If there is no such run, or a key of it is unknown, missing or ill-typed.
    """
    name = name or active()
    if name not in names():
        raise one_of("run", name, names())
    path = project.root() / "data" / "runs" / f"{name}.yml"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(entries, dict):
        raise InputError(f"{path.name} holds no keys; accepted: see data/runs/{DEFAULT}.yml")
    try:
        run = parameters.build(Run, entries | {"name": name}, noun="key")
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    if not run.models:
        raise InputError(f"{path.name}: models is empty; accepted: at least one model")
    for key, block in run.extractions.items():
        if not isinstance(block, dict) or set(block) not in _BLOCKS:
            raise InputError(
                f"{path.name}: extraction {key!r} must hold just n_prompts and shuffle_levels, "
                "or prompt_ids and shuffle_levels"
            )
    if not any(0 in block["shuffle_levels"] for block in run.extractions.values()):
        raise InputError(f"{path.name}: no extraction has shuffle level 0, which every chapter compares with")
    if run.controls is not None and set(run.controls) not in [block | {"models"} for block in _BLOCKS]:
        raise InputError(
            f"{path.name}: controls must hold just models, shuffle_levels, and n_prompts or prompt_ids"
        )
    if run.controls is not None and not isinstance(run.controls["models"], list):
        raise InputError(
            f"{path.name}: controls: models is {run.controls['models']!r}; accepted: a list of models"
        )
    # refuse ill-typed values of an extraction
    list(requests(run)), list(control_requests(run))
    calibration(run)
    list(truths(run))
    return run


def requests(run: Run) -> Iterator[tuple[str, Extraction]]:
    """The extractions of a run, with the names of their directories."""
    for model in run.models:
        for block, choice in run.extractions.items():
            yield _request(run, model, block, choice)


def control_requests(run: Run) -> Iterator[tuple[str, Extraction]]:
    """The extractions of the control models of a run, with the names of their directories."""
    if run.controls is None:
        return
    choice = {key: value for key, value in run.controls.items() if key != "models"}
    for model in run.controls["models"]:
        yield _request(run, model, "control", choice)


def _request(run: Run, model: str, block: str, choice: dict) -> tuple[str, Extraction]:
    name = f"{_file_name(model)}-{block}"
    given = {
        "model": model,
        "corpus": run.corpus,
        "n_tokens": run.n_tokens,
        "seed": run.seed,
        "dtype": run.dtype,
        "device": run.device,
        "num_processes": run.num_processes,
        "final_norm": run.final_norm,
        "gpus_per_model": run.gpus_per_model,
        "keep_neighbors": run.keep_neighbors,
        "output": str(_relative(project.results(run.name) / "shards" / name)),
        # the directory belongs to the run: a changed recipe replaces what it holds
        "overwrite": True,
        "filter_models": [other for other in run.models if other != model],
    }
    noun = f"{run.name}.yml: extraction {block!r}: key"
    return name, parameters.build(Extraction, given | choice, noun=noun)


def calibration(run: Run) -> Calibration | None:
    """The calibration of a run, if it declares one."""
    if run.validation is None:
        return None
    noun = f"{run.name}.yml: validation: key"
    accepted = {f.name for f in fields(Calibration)} - {"output", "device"}
    for name in run.validation:
        if name not in accepted:
            raise one_of(noun, name, sorted(accepted))
    given = {
        "model": run.models[0],
        "corpus": run.corpus,
        "n_tokens": run.n_tokens,
        "seed": run.seed,
        "device": run.device,
        "output": str(_relative(validation_path(run))),
    }
    return parameters.build(Calibration, given | run.validation, noun=noun)


def truths(run: Run) -> Iterator[tuple[str, Truth]]:
    """What a run reads of statements, model by model, with names."""
    declared = run.truth or {}
    noun = f"{run.name}.yml: truth: key"
    for name in declared:
        if name not in ("models", "datasets", "n_statements"):
            raise one_of(noun, name, ["models", "datasets", "n_statements"])
    chosen = declared.get("models", {})
    if run.truth is not None and not (chosen and isinstance(chosen, dict)):
        raise InputError(f"{noun} 'models' is {chosen!r}; accepted: models by name, with the key layer of each")
    shared = {name: value for name, value in declared.items() if name != "models"}
    for model, layers in chosen.items():
        if not isinstance(layers, dict) or not set(layers) <= {"layer", "last_layer"}:
            raise InputError(f"{noun} {model!r} is {layers!r}; accepted: the keys layer and last_layer")
        name = f"truth-{_file_name(model)}"
        given = {"model": model, "seed": run.seed, "device": run.device}
        given["output"] = str(_relative(project.results(run.name) / f"{name}.nc"))
        yield name, parameters.build(Truth, given | shared | layers, noun=noun)


def truth_result(run: Run, request: Truth) -> Result:
    """The file of what one model makes of the statements of a run."""
    path = project.root() / request.output
    return Result(path, request.recipe, [Step(path.stem, "truth-pca", _parameters(request))])


def observables_path(run: Run) -> Path:
    """File of the observables of a run."""
    return project.results(run.name) / "observables.nc"


def control_path(run: Run) -> Path:
    """File of the observables of the control models of a run."""
    return project.results(run.name) / "control.nc"


def validation_path(run: Run) -> Path:
    """File of the calibration of a run."""
    return project.results(run.name) / "validation.nc"


def results(run: Run) -> dict[str, Result]:
    """The files of a run by name, in the order in which they are made."""
    planned = {"observables": _reduction("observables", observables_path(run), list(requests(run)))}
    controls = list(control_requests(run))
    if controls:
        planned["control"] = _reduction("observables-control", control_path(run), controls)
    check = calibration(run)
    if check:
        step = Step("calibration", "calibration", _parameters(check))
        planned["validation"] = Result(validation_path(run), check.recipe, [step])
    return planned | {name: truth_result(run, request) for name, request in truths(run)}


def _reduction(name: str, path: Path, extractions: list[tuple[str, Extraction]]) -> Result:
    """Observables of some extractions; `name` is that of the step that reduces them."""
    made_by = [Step(f"extraction-{one}", "extraction", _parameters(request)) for one, request in extractions]
    directories = [request.output for _, request in extractions]
    made_by.append(Step(name, "observables", {"extraction": directories, "output": str(_relative(path))}, True))

    def recipe() -> dict:
        plans = [{"plan_digest": store.digest(request.plan_recipe())} for _, request in extractions]
        return reduction.recipe_of(plans)

    return Result(path, recipe, made_by)


def read(run: Run, name: str) -> xr.Dataset | None:
    """A result of a run by its name in `results`; None where the run declares none.

    Raises
    ------
    InputError
        If the file is missing, damaged or stale.
    """
    result = results(run).get(name)
    if result is None:
        return None
    if not result.is_fresh():
        state = "stale or damaged" if result.path.is_file() else "missing"
        raise InputError(
            f"the result {name!r} of run {run.name!r} is {state}: python -m token_geometry run {run.name}"
        )
    return store.read(result.path)


def steps(run: Run) -> list[Step]:
    """Every notebook of a run with its parameters, in order."""
    return [step for result in results(run).values() for step in result.steps]


def is_fresh(run: Run) -> bool:
    """Whether all results of a run are whole and made from what it declares now."""
    return all(result.is_fresh() for result in results(run).values())


def check(run: Run) -> None:
    """Refuse at once what would fail in a notebook.

    Raises
    ------
    InputError
        As `Extraction.check`, `Calibration.check` and `Truth.check`.
    """
    for _, request in (*requests(run), *control_requests(run)):
        request.check()
    validated = calibration(run)
    if validated:
        validated.check()
    for _, request in truths(run):
        request.check()


def model_names(run: Run) -> list[str]:
    """Every model that a notebook of a run loads, once."""
    asked = [request.model for _, request in (*requests(run), *control_requests(run), *truths(run))]
    validated = calibration(run)
    return list(dict.fromkeys(asked + ([validated.model] if validated else [])))


def memory_estimates(run: Run) -> list[int]:
    """Bytes of memory that each extraction, and each reading of statements, of a run takes, about."""
    extractions = [_estimate(request).memory for _, request in (*requests(run), *control_requests(run))]
    return extractions + [_truth_memory(request) for _, request in truths(run)]


def work_estimates(run: Run) -> dict[str, int]:
    """Weights times tokens that each extraction of a run takes, by the name of its step: what is long."""
    found = {}
    for name, request in (*requests(run), *control_requests(run)):
        parameters_of_model = estimates.shape_of(models.resolve(request.model))["parameters"]
        found[f"extraction-{name}"] = parameters_of_model * _estimate(request).passes * request.n_tokens
    return found


def describe(run: Run) -> str:
    """What a run will do: each notebook with its parameters, and estimates of disk and memory."""
    lines = [f"run {run.name}: {run.title}", ""]
    requested = (*requests(run), *control_requests(run))
    extractions = {f"extraction-{name}": _estimate(request) for name, request in requested}
    check = calibration(run)
    memories = {"calibration": _calibration_memory(check)} if check else {}
    memories |= {name: _truth_memory(request) for name, request in truths(run)}
    for step in steps(run):
        name = f"  ({step.name})" if step.name != step.notebook else ""
        lines.append(f"notebooks/{step.notebook}.ipynb{name}")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in step.parameters.items()]
        if step.name in extractions:
            found = extractions[step.name]
            lines.append(
                f"    → {found.passes} forward passes, {estimates.size(found.disk)} of disk, "
                f"{estimates.size(found.memory)} of memory"
            )
        elif step.name in memories:
            lines.append(f"    → {estimates.size(memories[step.name])} of memory")
    total = sum(found.disk for found in extractions.values())
    lines += ["", f"in all about {estimates.size(total)} of disk"]
    return "\n".join(lines)


def _estimate(request: Extraction) -> estimates.Estimate:
    n_passes = request.n_passes
    if n_passes is None:
        n_passes = len(prompts.load_corpus(request.corpus).texts) * len(request.shuffle_levels)
    return estimates.estimate(request, n_passes, n_at_once=request.batch_size or 1)


def _calibration_memory(request: Calibration) -> int:
    """Bytes of the model, which a calibration always loads in float32, and of its hidden states."""
    shape = estimates.shape_of(models.resolve(request.model))
    return 4 * (shape["parameters"] + 2 * (shape["layers"] + 1) * request.n_tokens * shape["width"])


def _truth_memory(request: Truth) -> int:
    """Bytes of the blocks that are read, in float32, and of the states at the last tokens."""
    shape = estimates.shape_of(models.resolve(request.model))
    embeddings = shape["vocabulary"] * shape["width"]
    blocks = (shape["parameters"] - embeddings) * request.n_layers // shape["layers"]
    n_statements = sum(len(drawn.texts) for drawn in request.draw())
    return 4 * (embeddings + blocks + 2 * (request.n_layers + 1) * n_statements * shape["width"])


def _file_name(model: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in model)


def _relative(path: Path) -> Path:
    # notebooks run at the root: so the record of a run names no folder of this machine
    return path.relative_to(project.root())


def _parameters(request: Extraction | Calibration | Truth) -> dict:
    values = {f.name: getattr(request, f.name) for f in fields(request)}
    # papermill knows lists and no other sequences
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
