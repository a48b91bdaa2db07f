"""Forecasts: what a run will do and take, and what of it cannot work, before it is started."""

import json
from dataclasses import dataclass

from token_geometry.base.errors import InputError
from token_geometry.requests.protocol import Estimate, Step
from token_geometry.requests.sizes import spelled
from token_geometry.runs import results
from token_geometry.runs.declaration import Run


@dataclass(frozen=True)
class Forecast:
    """What is known of a step beforehand."""

    step: Step
    """The step."""

    estimate: Estimate
    """What it will take; nothing where that cannot be known."""

    problem: str
    """Why it cannot work; empty where no reason is known."""


def forecasts(run: Run) -> list[Forecast]:
    """What is known of every step of a run; nothing is loaded or downloaded for it."""
    return [_forecast(step) for step in results.steps(run)]


def describe(run: Run, found: list[Forecast]) -> str:
    """What a run will do: each notebook with its parameters, estimates of disk and memory, and its problem."""
    lines = [f"run {run.name}: {run.title}", ""]
    for one in found:
        step, estimate = one.step, one.estimate
        name = f"  ({step.name})" if step.name != step.request.notebook else ""
        lines.append(f"notebooks/{step.request.notebook}.ipynb{name}")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in step.request.parameters().items()]
        takes = [f"{estimate.passes} forward passes"] if estimate.passes else []
        takes += [f"{spelled(estimate.disk)} of disk"] if estimate.disk else []
        takes += [f"{spelled(estimate.memory)} of memory"] if estimate.memory else []
        lines += [f"    → {', '.join(takes)}"] if takes else []
        lines += [f"    ! {one.problem}"] if one.problem else []
    lines += ["", f"in all about {spelled(sum(one.estimate.disk for one in found))} of disk"]
    n_problems = sum(bool(one.problem) for one in found)
    if n_problems:
        lines.append(f"{n_problems} of {len(found)} notebooks cannot work: see the lines that begin with !")
    return "\n".join(lines)


def _forecast(step: Step) -> Forecast:
    problem, estimate = "", Estimate()
    try:
        step.request.check()
    except InputError as error:
        problem = str(error)
    try:
        estimate = step.request.estimate()
    except InputError as error:
        problem = problem or str(error)
    return Forecast(step, estimate, problem)
