"""Peak memory of an extraction of some prompts, on standard output as JSON.

A command of its own, because a peak belongs to a process: `observables.py` starts it for every
number of prompts.
"""

import argparse
import json
import sys
import tempfile
from contextlib import redirect_stdout

from common import run_command

from token_geometry.base.resources import peak_memory
from token_geometry.extraction import extraction
from token_geometry.requests.extraction import Extraction


def benchmark(options: argparse.Namespace) -> None:
    """Extract into a temporary folder and print the peak."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        request = Extraction(
            model=options.model,
            corpus=options.corpus,
            n_prompts=options.n_prompts,
            n_tokens=options.n_tokens,
            output=folder,
            device="cpu",
        )
        extraction.extract(request)
    print(json.dumps({"n_prompts": options.n_prompts, "peak_memory_bytes": peak_memory()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--corpus", default="sotu")
    parser.add_argument("--n-prompts", type=int, default=4)
    parser.add_argument("--n-tokens", type=int, default=256)
    sys.exit(run_command(parser, benchmark))
