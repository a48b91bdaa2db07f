"""What loading costs, as the performance chapter reads it from the file of `lib/benchmarks/loading.py`."""

from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters import markup
from token_geometry.chapters.numbers import interval
from token_geometry.chapters.performance.results import read_benchmark

COMMAND = "python lib/benchmarks/loading.py"
"""Command that makes `data/benchmarks/loading.json`."""

BOUND = 0.6
"""Share of a whole load that 12 of SmolLM2's 30 blocks may take."""

SECONDS = 3.0
"""What the second load of a GGUF model may take."""


def open_result(folder: Path | None = None) -> dict | None:
    """Read the result; None where there is none.

    Parameters
    ----------
    folder
        Where the file is; by default `data/benchmarks`.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    return read_benchmark("loading", COMMAND, _check, folder=folder)


def _check(result: dict) -> None:
    table(result), findings(result), second_loads(result)


def _missing(result: dict | None) -> str:
    return "" if result else f"Not measured yet: `{COMMAND}` makes data/benchmarks/loading.json."


def table(result: dict | None) -> Markdown:
    """Table of a whole and a partial load."""
    if not result:
        return markup.table(pd.DataFrame([{"blocks": "no measurement", "weights (MB)": "–"}]))
    rows = [
        {
            "blocks": "all" if load["n_layers"] is None else f"the first {load['n_layers']}",
            "weights (MB)": _megabytes(load["weight_bytes"]),
            "read from the disk (MB)": _megabytes(load["read_bytes"]),
            "added to the memory (MB)": _megabytes(load["added_memory_bytes"]),
            "time to the first use (s)": f"{load['seconds_load'] + load['seconds_first_use']:.2f}",
        }
        for load in (result["whole"], result["part"])
    ]
    return markup.table(pd.DataFrame(rows))


@markup.unless(_missing)
def findings(result: dict) -> Markdown:
    """How a partial load compares with a whole one."""
    ratios = result["ratios"]
    lines = [
        f"{result['title']}, in {result['parameters']['dtype']}: "
        f"a load of {result['part']['n_layers']} blocks, with "
        f"the embeddings, takes {ratios['weight']:.1%} of the bytes of the weights."
    ]
    for name, words in (
        ("added_memory", "To the memory it adds {} of what a whole load adds"),
        ("read", "With what the system reads ahead, from the disk come {} of the bytes of a whole load"),
    ):
        if ratios[name] is not None:  # where the system can tell
            bound = "no more than" if ratios[name] <= BOUND else "more than"
            lines.append(f"{words.format(f'{ratios[name]:.1%}')}, {bound} the {BOUND:.0%} that are the limit.")
    return markup.bullets(lines)


@markup.unless(_missing)
def second_loads(result: dict) -> Markdown:
    """How long GGUF models take to load when their weights have been expanded before."""
    lines = []
    for load in result["second_loads"]:
        seconds = load["seconds"]["load"]
        verdict = "less" if seconds["max"] < SECONDS else "not always less"
        lines.append(
            f"{load['title']}: {seconds['median']:.2f} s with the tokenizer ("
            f"{interval(seconds['min'], seconds['max'], '.2f')}), {verdict} than {SECONDS:.0f} s, "
            f"and {load['seconds']['first_use']['median']:.2f} s "
            "more until every weight was used."
        )
    return markup.bullets(lines or ["The benchmark was run without GGUF models: no figures."])


@markup.unless(_missing)
def provenance(result: dict) -> Markdown:
    """On what machine, with what versions and when the loads were measured."""
    device, versions = result["device"], result["versions"]
    return Markdown(
        f"Measured on {device['processor']}, torch {versions['torch']}, transformers {versions['transformers']}; "
        f"{result['created'][:10]}."
    )


def _megabytes(n_bytes: int | None) -> str:
    return "–" if n_bytes is None else f"{n_bytes / 1e6:.0f}"
