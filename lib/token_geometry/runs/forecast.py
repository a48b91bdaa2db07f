"""Forecasts: what a run or one request will do and take, and what of it cannot work, before it is started."""

import json
from dataclasses import fields

from token_geometry.base import InputError
from token_geometry.models import sources
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.protocol import Estimate, Request
from token_geometry.requests.sizes import duration, spelled
from token_geometry.runs import declaration, results


def describe(run: declaration.Run) -> tuple[str, int]:
    """What a run will do, as `describe_requests`."""
    text, n_problems = describe_requests({step.name: step.request for step in results.steps(run)})
    return f"run {run.name}: {run.title}\n\n{text}", n_problems


def describe_requests(requests: dict[str, Request]) -> tuple[str, int]:
    """What requests by name will do and take, and how many of them cannot work; nothing is downloaded for it."""
    lines, disk, seconds, n_problems, downloads = [], 0, 0.0, 0, {}
    for name, request in requests.items():
        found, problem = _forecast(request)
        # parameters are named that are not as they are by default
        usual = {field.name: field.default for field in fields(request)}
        usual |= {key: list(value) for key, value in usual.items() if isinstance(value, tuple)}
        chosen = [f"{key}: {json.dumps(v)}" for key, v in request.parameters().items() if v != usual[key]]
        lines += [f"notebooks/{request.notebook}.ipynb  ({name})", f"    {', '.join(chosen)}"]
        words = {f"{found.passes} forward passes": found.passes, f"about {duration(found.seconds)}": found.seconds}
        words |= {f"{spelled(found.disk)} of disk": found.disk, f"{spelled(found.memory)} of memory": found.memory}
        takes = [text for text, amount in words.items() if amount]
        lines += [f"    → {', '.join(takes)}"] if takes else []
        lines += [f"    ! {problem}"] if problem else []
        disk, seconds, n_problems = disk + found.disk, seconds + found.seconds, n_problems + bool(problem)
        models = () if problem else map(sources.resolve, request.models)
        downloads |= {source.name.split("@")[0]: source.to_download() for source in models}
    some = [f"{m} ({spelled(n) if n else 'size not known'})" for m, n in downloads.items() if n is not None]
    took = f", about {duration(seconds)} for the extractions on this machine" if seconds else ""
    lines += ["", f"in all about {spelled(disk)} of disk{took}; to download: {', '.join(some) or 'no model'}"]
    if n_problems:
        lines.append(f"{n_problems} of {len(requests)} notebooks cannot work: see the lines that begin with !")
    return "\n".join(lines), n_problems


def _forecast(request: Request) -> tuple[Estimate, str]:
    """What a request will take, as far as that can be known, and why it cannot work; empty where it can."""
    found, problem = Estimate(), ""
    for ask in (request.check, request.estimate):
        try:
            found = ask() or found
        except InputError as error:
            problem = problem or str(error)
    if min(found.memory, found.disk, found.passes) < 0:  # of a number that is refused
        found = Estimate()
    if isinstance(request, Extraction) and not problem:
        from token_geometry.extraction import estimates  # which takes torch

        n_passes = len(range(request.part, found.passes, request.n_parts))
        found = estimates.take(request.resolve(dry=True), n_passes, n_processes=request.num_processes)
    return found, problem
