"""Worker: one of several processes that share an extraction.

Started by a launcher, once a process: `torchrun … -m token_geometry.worker -p model smollm2-135m …`, or on GPUs
`accelerate launch --module token_geometry.worker …`. The process takes its number from accelerate's
`PartialState`, makes every n-th shard of n processes, and gathers nothing: the shards are the result.
"""

import argparse
import contextlib
import dataclasses
import io
import os
import select
import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed
import yaml
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from token_geometry.base import InputError, parameters, processes
from token_geometry.extraction import engine, plan
from token_geometry.extraction.launcher import MARK
from token_geometry.extraction.work import begin
from token_geometry.requests.extraction import Extraction
from token_geometry.runs import declaration, results

_LONGEST = timedelta(days=30)
"""How long a process waits for the others: the first to start, and the last to end."""


def main(argv: list[str] | None = None) -> int:
    """Take part in an extraction; returns the exit status."""
    options = _parser().parse_args(argv)
    processes.end_with(os.getppid(), *([_input_is_over] if options.ends_with_input else []))
    with contextlib.redirect_stdout(_Marked(sys.stdout)), contextlib.redirect_stderr(_Marked(sys.stderr)):
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
    """Make this process's part of an extraction.

    Raises `InputError` as `extraction.extract`, or if its `num_processes` is neither 1 nor how many came up on
    all machines.
    """
    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    job = request.resolve(n_models=n_here, place=int(os.environ.get("LOCAL_RANK", "0")))
    # gloo, also where there are GPUs: the processes only have to agree on the prompts
    state = PartialState(cpu=True, timeout=_LONGEST)
    if request.num_processes not in (1, state.num_processes):
        raise InputError(
            f"num_processes is {request.num_processes} and {state.num_processes} came up: start as many with the "
            "launcher (torchrun --nproc-per-node; accelerate launch starts one on a CPU)"
        )
    with contextlib.ExitStack() as stack:
        found: list = [None]
        if state.is_main_process:
            print(f"{state.num_processes} processes")
            found = [stack.enter_context(begin(job, plan.prepare(job), n_processes=state.num_processes))]
        (work,) = broadcast_object_list(found)
        engine.make(job, work, place=state.process_index, n_processes=state.num_processes)
        state.wait_for_everyone()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m token_geometry.worker", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="values",
                        help="a parameter of notebooks/extraction.ipynb, as for papermill")  # fmt: skip
    parser.add_argument("--parameters", type=Path, help="a YAML file of parameters")
    parser.add_argument("--run", help="a run of data/runs, whose extractions are made in turn")
    parser.add_argument("--ends-with-input", action="store_true", help="end when standard input does")
    return parser


def _requests(options) -> list[Extraction]:
    if options.run:
        declared = results.requests(declaration.load(options.run), Extraction)
        # however many the run declares for one machine, the launcher decides
        return [dataclasses.replace(request, num_processes=1) for request in declared]
    given = yaml.safe_load(options.parameters.read_text(encoding="utf-8")) if options.parameters else {}
    given |= parameters.of_words(Extraction, dict(options.values))
    return [parameters.build(Extraction, given, noun="parameter")]


class _Marked(io.TextIOBase):
    """Lines with a mark at their beginning, written whole, so that those of several processes stay apart."""

    def __init__(self, stream):
        self._stream, self._rest = stream, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._stream.write(f"{MARK}{line}\n")
        self._stream.flush()
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _input_is_over() -> bool:
    return bool(select.select([sys.stdin], [], [], 1)[0]) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    sys.exit(main())
