"""What loading costs, as the performance chapter reads it from the file of `lib/benchmarks/loading.py`."""

from collections.abc import Iterator

import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters import markup
from token_geometry.chapters.numbers import interval
from token_geometry.chapters.performance.results import measured, read_benchmark

BOUND = 0.6
"""Share of a whole load that 12 of SmolLM2's 30 blocks may take."""

SECONDS = 3.0
"""What the second load of a GGUF model may take."""


def open_result() -> dict | None:
    """Read the result; None where there is none. An `InputError` says if the file is damaged."""
    return read_benchmark("loading", lambda found: (table(found), findings(found), second_loads(found)))


def table(result: dict | None) -> Markdown:
    """Table of a whole and a partial load."""
    if not result:
        return markup.table(pd.DataFrame([{"blocks": "no measurement", "weights (MB)": "–"}]))
    rows = []
    for load in (result["whole"], result["part"]):
        blocks = "all" if load["n_layers"] is None else f"the first {load['n_layers']}"
        n_bytes = (load[name] for name in ("weight_bytes", "read_bytes", "added_memory_bytes"))
        sizes = ["–" if value is None else f"{value / 1e6:.0f}" for value in n_bytes]
        rows.append([blocks, *sizes, f"{load['seconds_load'] + load['seconds_first_use']:.2f}"])
    columns = ["blocks", "weights (MB)", "read from the disk (MB)", "added to the memory (MB)"]
    return markup.table(pd.DataFrame(rows, columns=[*columns, "time to the first use (s)"]))


@measured("loading")
def findings(result: dict) -> Iterator[str]:
    """How a partial load compares with a whole one."""
    ratios = result["ratios"]
    yield (
        f"{result['title']}, in {result['parameters']['dtype']}: a load of {result['part']['n_layers']} blocks, "
        f"with the embeddings, takes {ratios['weight']:.1%} of the bytes of the weights."
    )
    for name, words in (
        ("added_memory", "To the memory it adds {:.1%} of what a whole load adds"),
        ("read", "With what the system reads ahead, from the disk come {:.1%} of the bytes of a whole load"),
    ):
        if ratios[name] is not None:  # where the system can tell
            bound = "no more than" if ratios[name] <= BOUND else "more than"
            yield f"{words.format(ratios[name])}, {bound} the {BOUND:.0%} that are the limit."


@measured("loading")
def second_loads(result: dict) -> Iterator[str]:
    """How long GGUF models take to load when their weights have been expanded before."""
    if not result["second_loads"]:
        yield "The benchmark was run without GGUF models: no figures."
    for load in result["second_loads"]:
        seconds, first_use = (load["seconds"][name] for name in ("load", "first_use"))
        verdict = "less" if seconds["max"] < SECONDS else "not always less"
        yield (
            f"{load['title']}: {seconds['median']:.2f} s with the tokenizer ("
            f"{interval(seconds['min'], seconds['max'], '.2f')}), {verdict} than {SECONDS:.0f} s, "
            f"and {first_use['median']:.2f} s more until every weight was used."
        )


@measured("loading")
def provenance(result: dict) -> Markdown:
    """On what machine, with what versions and when the loads were measured."""
    device, versions = result["device"], result["versions"]
    return Markdown(
        f"Measured on {device['processor']}, torch {versions['torch']}, transformers {versions['transformers']}; "
        f"{result['created'][:10]}."
    )
