"""Forecasts: what a run will do and take, and what of it cannot work, before it is started."""

import json

from token_geometry.base.errors import InputError
from token_geometry.requests.protocol import Estimate
from token_geometry.requests.sizes import spelled
from token_geometry.runs import results
from token_geometry.runs.declaration import Run


def describe(run: Run) -> tuple[str, int]:
    """What a run will do, and how many of its notebooks cannot work; nothing is loaded or downloaded for it.

    Each notebook is named with its parameters, estimates of disk and memory, as far as these can be known, and
    its problem.
    """
    lines, disk, n_problems, steps = [f"run {run.name}: {run.title}", ""], 0, 0, results.steps(run)
    for step in steps:
        request, estimate, problem = step.request, Estimate(), ""
        for ask in (request.check, request.estimate):
            try:
                estimate = ask() or estimate
            except InputError as error:
                problem = problem or str(error)
        name = f"  ({step.name})" if step.name != request.notebook else ""
        lines.append(f"notebooks/{request.notebook}.ipynb{name}")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in request.parameters().items()]
        takes = [f"{estimate.passes} forward passes"] if estimate.passes else []
        takes += [f"{spelled(estimate.disk)} of disk"] if estimate.disk else []
        takes += [f"{spelled(estimate.memory)} of memory"] if estimate.memory else []
        lines += [f"    → {', '.join(takes)}"] if takes else []
        lines += [f"    ! {problem}"] if problem else []
        disk, n_problems = disk + estimate.disk, n_problems + bool(problem)
    lines += ["", f"in all about {spelled(disk)} of disk"]
    if n_problems:
        lines.append(f"{n_problems} of {len(steps)} notebooks cannot work: see the lines that begin with !")
    return "\n".join(lines), n_problems
