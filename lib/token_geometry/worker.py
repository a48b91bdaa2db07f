"""Worker: one of the processes of several machines, or of a cluster, that share an extraction.

Started by a launcher, once a process: `torchrun … -m token_geometry.worker -p model smollm2-135m …`, or on GPUs
`accelerate launch --module token_geometry.worker …`. The process takes its number from accelerate's
`PartialState`, makes every n-th shard of n processes, and gathers nothing: the shards are the result."""

import argparse
import contextlib
import dataclasses
import os
import sys
from datetime import timedelta

import torch.distributed
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from token_geometry.base import InputError, parameters, processes
from token_geometry.extraction import engine, plan
from token_geometry.extraction.work import begin
from token_geometry.requests.extraction import Extraction
from token_geometry.runs import declaration, results

_LONGEST = timedelta(days=30)  # how long a process waits for the others: the first to start, the last to end


def main(argv: list[str] | None = None) -> int:
    """Take part in an extraction; returns the exit status."""
    options = _parser().parse_args(argv)
    processes.end_with(os.getppid())
    try:
        for request in _requests(options):
            share(request)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except InputError as error:
        print(f"error: {error}")
        return 1
    return 0


def share(request: Extraction) -> None:
    """Make this process's part of an extraction; `InputError` as of `extraction.extract`, or if its
    `num_processes` is not 1 nor how many came up in all."""
    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    job = request.resolve(n_models=n_here, place=int(os.environ.get("LOCAL_RANK", "0")))
    # gloo, also where there are GPUs: the processes only have to agree on the prompts
    state = PartialState(cpu=True, timeout=_LONGEST)
    if request.num_processes not in (1, state.num_processes):
        problem = f"num_processes is {request.num_processes} and {state.num_processes} came up"
        launcher = "the launcher (torchrun --nproc-per-node; accelerate launch starts one on a CPU)"
        raise InputError(f"{problem}: start as many with {launcher}")
    with contextlib.ExitStack() as stack:
        found: list = [None]
        if state.is_main_process:
            print(f"{state.num_processes} processes")
            found = [stack.enter_context(begin(job, plan.prepare(job), n_processes=state.num_processes))]
        (work,) = broadcast_object_list(found)
        engine.make(job, work, place=state.process_index, n_processes=state.num_processes)
        state.wait_for_everyone()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m token_geometry.worker", description=__doc__.split("\n")[0])
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="values",
                        help="a parameter of notebooks/extraction.ipynb, as for papermill")  # fmt: skip
    parser.add_argument("--run", help="a run of data/runs, whose extractions are made in turn")
    return parser


def _requests(options) -> list[Extraction]:
    if options.run:
        declared = results.requests(declaration.load(options.run), Extraction)
        # however many the run declares for one machine, the launcher decides
        return [dataclasses.replace(request, num_processes=1) for request in declared]
    return [parameters.build(Extraction, parameters.of_words(Extraction, dict(options.values)), noun="parameter")]


if __name__ == "__main__":
    sys.exit(main())
