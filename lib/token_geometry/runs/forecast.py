"""Forecasts: what a run or one request will do and take, and what of it cannot work, before it is started."""

import functools
import json
from dataclasses import fields, replace

from token_geometry.base import InputError
from token_geometry.base.lazy import torch
from token_geometry.geometry import manifolds
from token_geometry.models import devices, sources
from token_geometry.requests import sizes
from token_geometry.requests.calibration import N_CLOUDS, PRECISIONS, Calibration
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.protocol import Estimate, Request
from token_geometry.requests.sizes import duration, spelled
from token_geometry.requests.truth import Truth
from token_geometry.runs import declaration, results

STARTS = 5.0  # seconds that a notebook takes to start, to import and to load, with another beside it
TOKENS = 12  # of a statement, about
PROBES = 4e-4  # seconds of components and probes per statement and layer, on one core


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
        disk, seconds, n_problems = disk + found.disk, seconds + STARTS + found.seconds, n_problems + bool(problem)
        models = () if problem else map(sources.resolve, request.models)
        downloads |= {source.name.split("@")[0]: source.to_download() for source in models}
    some = [f"{m} ({spelled(n) if n else 'size not known'})" for m, n in downloads.items() if n is not None]
    took = f", about {duration(seconds)} on this machine" if seconds else ""
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
    return (found if problem else timed(request, found)), problem


def timed(request: Request, found: Estimate) -> Estimate:
    """An estimate with the seconds on this machine, which follow from a short probe of it where models are run."""
    if not isinstance(request, Extraction | Truth | Calibration):
        return found
    from token_geometry.extraction import estimates  # which takes torch

    if isinstance(request, Extraction):
        n_passes = len(range(request.part, found.passes, request.n_parts))
        return estimates.take(request.resolve(dry=True), n_passes, n_processes=request.num_processes)
    device, shape = devices.choose_device(request.device), sizes.shape_of(sources.resolve(request.model))
    width, n_threads = shape["width"], 1 if device != "cpu" else torch.get_num_threads()
    once = functools.partial(estimates.probed, device, "float32", layers=0, vocabulary=1)
    if isinstance(request, Truth):
        block = (shape["parameters"] - shape["vocabulary"] * width) / shape["layers"]
        n_texts = [len(drawn.texts) for drawn in request.resolve()[1]]
        untrained = getattr(request, "n_untrained", 0) * sum(n_texts) or n_texts[0]
        n_blocks = sum(n_texts) * request.n_layers + untrained * request.layer
        passes = once(64, width=width, parameters=block)[1] / 64 * TOKENS * n_blocks
        return replace(found, seconds=(passes + PROBES * sum(n_texts) * (request.n_layers + 1)) / n_threads)
    cloud = once(request.n_points, width=64, parameters=0)[1] / 2
    n_clouds = len(manifolds.FAMILIES) * len(request.dimensions) * (N_CLOUDS + request.n_replicates)
    each = estimates.probed(device, "float32", request.n_tokens, **shape)[1]
    # a pass in each precision, and brute force, which takes nearly as long as all of these
    passes = 1.8 * len(PRECISIONS) * request.n_prompts * each
    return replace(found, seconds=(n_clouds * cloud + passes) / n_threads)
