"""Statements to a layer: this library against whole passes, one per statement and in padded batches.

All three find the same states, which is checked. They take turns, so that whatever else the machine does
falls on all of them.
"""

import argparse
import sys
from pathlib import Path

import torch
from common import (
    Stopwatch,
    at_least,
    default_output,
    describe_shape,
    make_result,
    run_command,
    spread,
    stage_seconds,
    write_json,
)

from token_geometry.base.errors import InputError
from token_geometry.base.resources import peak_memory
from token_geometry.models import sources
from token_geometry.states.model import LanguageModel
from token_geometry.studies import reading
from token_geometry.texts import statements

PROCEDURES = {
    "library": "this library",
    "single": "whole pass a statement",
    "padded": "whole passes in padded batches",
}


@torch.inference_mode()
def single(model: LanguageModel, rows: list[list[int]], layer: int) -> torch.Tensor:
    """States at the last token by one pass of the whole model a statement."""
    found = []
    for row in rows:
        output = model.model(torch.tensor([row]), output_hidden_states=True)
        found.append(output.hidden_states[layer][0, -1])
    return torch.stack(found)


@torch.inference_mode()
def padded(model: LanguageModel, rows: list[list[int]], layer: int, *, size: int) -> torch.Tensor:
    """The same in batches of the order of the file, padded on the right, with an attention mask."""
    found = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
        states = model.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[layer]
        found.append(states[torch.arange(len(batch)), mask.sum(dim=1) - 1])
    return torch.cat(found)


def benchmark(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    for name in ("n_statements", "n_repeats", "batch_size"):
        at_least("--" + name.replace("_", "-"), getattr(options, name), 1)
    drawn = statements.load(options.dataset).draw(options.n_statements, seed=0)
    whole = LanguageModel(sources.resolve(options.model), device="cpu")
    few = LanguageModel(sources.resolve(options.model), device="cpu", n_layers=options.layer)
    ids = whole.tokenizer(list(drawn.texts), add_special_tokens=False)["input_ids"]
    bos = reading.reads_bos(whole)
    rows = [[whole.tokenizer.bos_token_id] * bos + row for row in ids]
    passes = {
        "library": lambda: few.read_texts(ids, bos=bos, losses=False)[0][options.layer],
        "single": lambda: single(whole, rows, options.layer),
        "padded": lambda: padded(whole, rows, options.layer, size=options.batch_size),
    }
    (
        few.read_texts(ids[:8], bos=bos, losses=False)[0],
        padded(whole, rows[:8], options.layer, size=8),
    )  # what first use loads
    watches: dict[str, list[Stopwatch]] = {name: [] for name in passes}
    found = {}
    for _ in range(options.n_repeats):
        for name, run in passes.items():
            watch = Stopwatch()
            with watch.stage("states"):
                found[name] = run()
            watches[name].append(watch)
    scale = found["single"].abs().max()
    difference = {
        name: float((found[name] - found["single"]).abs().max() / scale) for name in ("library", "padded")
    }
    if max(difference.values()) > 1e-4:
        raise InputError(f"the procedures find different states (largest differences {difference}): none is timed")
    seconds = {name: [watch.total() for watch in one] for name, one in watches.items()}
    results = {
        "seconds": {name: stage_seconds(one) for name, one in watches.items()},
        "ratios": {
            f"{name}_to_library": spread(a / b for a, b in zip(seconds[name], seconds["library"], strict=True))
            for name in ("single", "padded")
        },
        "largest_relative_difference": difference,
        "n_tokens": sum(map(len, rows)),
        "peak_memory_bytes": peak_memory(),
        "model": describe_shape(whole),
    }
    for name, title in PROCEDURES.items():
        median = results["seconds"][name]["states"]["median"]
        print(f"{title}: {median:.2f} s for {len(rows)} statements to layer {options.layer}")
    for name, ratio in results["ratios"].items():
        print(f"{name.replace('_', ' ')}: {ratio['median']:.3g} (from {ratio['min']:.3g} to {ratio['max']:.3g})")
    parameters = {name: value for name, value in vars(options).items() if name != "output"}
    write_json(make_result("truth-cpu", parameters, results), options.output)


def parse() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=12)
    parser.add_argument("--dataset", default="cities")
    parser.add_argument("--n-statements", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=25, help="statements of a padded batch")
    parser.add_argument("--n-repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=default_output("truth-cpu"))
    return parser


if __name__ == "__main__":
    sys.exit(run_command(parse(), benchmark))
