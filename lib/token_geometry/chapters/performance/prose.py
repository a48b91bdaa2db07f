"""What the performance chapter says of the observables: sentences, a table, alt texts."""

from collections.abc import Callable

import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters import markup
from token_geometry.chapters.numbers import Number, count, interval, large, seconds
from token_geometry.chapters.performance.frames import times
from token_geometry.chapters.performance.results import COMMANDS, PROCEDURES, Benchmarks, median, stage_seconds
from token_geometry.requests.extraction import Extraction
from token_geometry.runs import results

N_SELECTED = 257
"""Neighbors of a token that are looked for: the 256 of the largest scale, and itself."""


def availability(benchmarks: Benchmarks) -> Markdown:
    """On what machine and when the results were measured, and how to make those that are missing."""
    lines = [_provenance(found) for found in (benchmarks.cpu, benchmarks.shapes) if found]
    for name in benchmarks.missing:
        stand_in = " Figures at reduced shapes on a CPU stand in for it." if benchmarks.shapes else ""
        lines.append(
            f"There is no data/benchmarks/{name}.json: `{COMMANDS[name]}` makes it."
            + (stand_in if name == "observables-gpu" else "")
        )
    return markup.bullets(lines)


def _provenance(result: dict) -> str:
    device, versions = result["device"], result["versions"]
    where = f"{device['processor']}, {count(device['cores'], 'core')}, {count(device['threads'], 'thread')}"
    if device["gpu"]:
        where = f"{device['gpu']}; {where}"
    return (
        f"{_subject(result)}, {count(result['parameters']['n_prompts'], 'prompt')}, on {where}; "
        f"torch {versions['torch']}, transformers {versions['transformers']}; {result['created'][:10]}."
    )


def _subject(result: dict) -> str:
    return f"{result['model']['title']}, {result['parameters']['n_tokens']} tokens per prompt"


def stage_table(result: dict | None) -> Markdown:
    """Table of the stages of each procedure, with sums."""
    if not result:
        return markup.table(pd.DataFrame([{"stage": "no measurement", "median (s)": "–"}]))
    frame, rows = times(result), []
    for procedure, part in frame.groupby("procedure", sort=False):
        sums = {"stage": "together", **part[["minimum", "median", "share"]].sum().to_dict()}
        for row in [*part.to_dict("records"), sums]:
            rows.append(
                {
                    "stage": row["stage"],
                    "procedure": procedure,
                    "minimum (s)": seconds(row["minimum"]),
                    "median (s)": seconds(row["median"]),
                    "share of the median": f"{row['share']:.1%}",
                }
            )
    return markup.table(pd.DataFrame(rows))


def _missing(name: str) -> Callable[[dict | None], str]:
    text = f"Not measured yet: `{COMMANDS[name]}` makes data/benchmarks/{name}.json."
    return lambda result: "" if result else text


@markup.unless(_missing("observables-cpu"))
def ratios(result: dict) -> Markdown:
    """How the times of both procedures compare (median; lowest to highest), and what they write and hold."""
    ratio, n_bytes = result["ratios"], result["bytes_per_prompt"]
    lines = [
        f"The observables of a prompt took the reference procedure {_times(ratio['reference_to_library'])} "
        "what they took this library.",
        f"With the forward pass on both sides, it is {_times(ratio['reference_to_library_with_forward'])}.",
        "Most of the reference's time is a loop that looks up the size of the matrix for every token; with "
        f"sets of neighbors in its place, it is {_times(ratio['reference_by_sets_to_library'])}.",
        f"The observables of this library took {_times(ratio['library_to_forward'])} the forward pass.",
        f"For a prompt, the reference procedure wrote {n_bytes['reference'] / 1e6:.0f} MB, this library "
        f"{n_bytes['library'] / 1e6:.1f} MB.",
    ]
    added = result["added_memory_bytes"]
    if None not in added.values():
        lines.append(
            f"At its peak, the reference procedure held {added['reference'] / 1e6:.0f} MB beyond what its "
            f"processes held before, this library {added['library'] / 1e6:.0f} MB, the hidden states and the "
            "forward pass included."
        )
    return markup.bullets(lines)


def other_models(measured: Benchmarks) -> Markdown:
    """Ratios and agreement of each of the other models that were measured."""
    if not measured.others:
        return Markdown(f"No other model was measured: `{COMMANDS['observables-cpu']} --model MODEL` does so.")
    parts = []
    for result in measured.others:
        parts.append(f"{result['model']['title']}, {count(result['parameters']['n_prompts'], 'prompt')}:")
        parts += [ratios(result).data, agreement(result).data]
    return Markdown("\n\n".join(parts))


def _times(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3g} times ({interval(spread['min'], spread['max'], '.3g')})"


@markup.unless(_missing("observables-cpu"))
def memory(result: dict) -> Markdown:
    """How the peak memory of an extraction depends on the number of prompts."""
    entries = result["memory_by_prompts"]
    if not entries:
        return Markdown("The benchmark was run without `--memory-prompts`: no figures.")
    peaks = [
        f"{entry['peak_memory_bytes'] / 1e6:.0f} MB for {count(entry['n_prompts'], 'prompt')}" for entry in entries
    ]
    text = (
        "Peak memory of an extraction of prompts of "
        f"{result['parameters']['memory_tokens']} tokens: {', '.join(peaks)}"
    )
    if len(entries) > 1:
        first, last = entries[0]["peak_memory_bytes"], entries[-1]["peak_memory_bytes"]
        text += f", a change of {Number(last / first - 1):+.1%}"
    return Markdown(text + ".")


@markup.unless(_missing("observables-cpu"))
def agreement(result: dict) -> Markdown:
    """How far the numbers of the two procedures are apart."""
    found = result["agreement"]
    small = {name: f"{Number(value):.1g}" for name, value in found.items()}
    left_out = found["layers_left_out"]
    lines = [
        f"Over {count(found['layers_compared'], 'cloud')} and all scales, the ID differs by at most "
        f"{small['dimension_relative']} and its error by at most {small['dimension_error_relative']}, "
        "both relative to DADApy's."
        + (f" {left_out} clouds are left out, whose distinct points the two count differently." * bool(left_out)),
        f"The mean cosine differs by at most {small['cosine']}, the NO by at most {small['overlap']}.",
        f"In {count(found['layers_without_ties'], 'cloud')} without ties, NO, reciprocity and layer overlap "
        f"differ from a count in matrices of all pairs by at most {small['overlap_without_ties']}, "
        f"{small['reciprocity_without_ties']} and {small['layer_overlap_without_ties']}, and the mean "
        f"angle from that of the states in float64 by at most {small['angle_without_ties']} degrees.",
        f"Of {found['lists_without_ties']} lists of 32 neighbors whose order the reference's single-precision "
        f"distances decide, {found['lists_without_ties_that_differ']} differ; "
        f"in {found['lists_with_ties']} further lists those distances tie.",
    ]
    return markup.bullets(lines)


@markup.unless(_missing("observables-cpu"))
def bounds(result: dict) -> Markdown:
    """What the operations of each stage are, against the time that it takes."""
    model, n_tokens = result["model"], result["parameters"]["n_tokens"]
    took = {name: s["median"] for name, s in stage_seconds(result, "library").items()}
    forward, gram = forward_operations(model, n_tokens), gram_operations(model, n_tokens)
    n_clouds, rate = model["layers"] + 1, forward / took["forward"]
    ideal = gram / rate
    rest = median(result, "library", forward=False)
    share = 1 - rest / median(result, "library")
    return markup.bullets(
        [
            f"{_subject(result)}: the blocks need about {large(forward)} multiply-adds and take "
            f"{seconds(took['forward'])} s, {large(rate)} per second. The logits need "
            f"{large(model['width'] * model['vocabulary'] * n_tokens)} more and take "
            f"{seconds(took['head'])} s.",
            f"The Gram matrices of the {n_clouds} clouds need $N^2 D$ each, {large(gram)} together, "
            f"{gram / forward:.1%} of the blocks, {seconds(ideal)} s at their rate. Distances and neighbors take "
            f"{seconds(took['neighbors'])} s, {took['neighbors'] / ideal:.2g} times that.",
            f"The nearest {min(N_SELECTED, n_tokens)} of {n_tokens} have to be selected in each of "
            f"{n_clouds * n_tokens} rows: {large(n_clouds * n_tokens**2)} distances are read for it.",
            f"The forward pass is {share:.0%} of the time. Were all the rest free, a prompt would take "
            f"{seconds(median(result, 'library', forward=True))} s and not "
            f"{seconds(median(result, 'library'))} s.",
        ]
    )


def forward_operations(model: dict, n_tokens: int) -> float:
    """Multiply-adds of the blocks: one per weight and token, and N² for scores and for their use.

    The causal half of the scores that a kernel may skip is counted.
    """
    attention = 2 * n_tokens**2 * model["attention_width"] * model["layers"]
    return model["block_parameters"] * n_tokens + attention


def gram_operations(model: dict, n_tokens: int) -> float:
    """Multiply-adds of the Gram matrices of all layers."""
    return n_tokens**2 * model["width"] * (model["layers"] + 1)


@markup.unless(_missing("observables-gpu"))
def throughput(result: dict) -> Markdown:
    """Prompts per second at the shapes of Llama-3-8B, and what that makes of the paper's prompts."""
    rate, extrapolation = result["prompts_per_second"], result["extrapolation"]
    lines = []
    if not result["device"]["gpu"]:
        lines.append(
            "No GPU was at hand: these figures are from the CPU at reduced shapes, and say nothing about a GPU."
        )
    lines += [
        f"In batches of {result['parameters'].get('batch_size', 1)}, {rate['forward']:.3g} prompts per second "
        f"pass through the model alone, {rate['whole']:.3g} with tables, "
        f"shard and observables. Outside the forward pass lies {result['share_outside_forward']:.0%} of the time, "
        f"{result['ratios']['library_to_forward_unsynchronised']:.2g} times what that takes.",
    ]
    if result["device"]["gpu"]:
        lines.append(
            f"At this rate the {extrapolation['n_prompts']} prompts of the paper take "
            f"{extrapolation['seconds'] / 60:.2g} minutes (extrapolated from {result['parameters']['n_prompts']})."
        )
    if result["peak_gpu_memory_bytes"]:
        lines.append(f"The GPU's memory held at most {result['peak_gpu_memory_bytes'] / 1e9:.1f} GB.")
    return markup.bullets(lines)


def run_cost(benchmarks: Benchmarks) -> Markdown:
    """What the measured times make of the forward passes that the run declares."""
    result, run = benchmarks.cpu, benchmarks.run
    if not result:
        return Markdown(_missing("observables-cpu")(result))
    measured = result["parameters"]["model"], result["parameters"]["n_tokens"]
    requests = [r for r in results.requests(run, Extraction) if (r.model, r.n_tokens) == measured]
    if not requests or any(r.n_prompts is None for r in requests):
        return Markdown(
            f"The run {run.name} has no model and prompt length of this benchmark, so its cost does not follow "
            "from these figures."
        )
    passes = sum(r.n_prompts * len(r.shuffle_levels) for r in requests)
    ours, theirs = (passes * median(result, name) / 60 for name in PROCEDURES)
    return Markdown(
        f"The run {run.name} takes {count(passes, 'prompt')} through {result['model']['title']}, shuffled ones "
        f"included: {ours:.2g} minutes at these medians, and {theirs:.2g} by the reference procedure."
    )


@markup.unless(_missing("observables-cpu"))
def longest(result: dict) -> Markdown:
    """Time of each procedure, and its longest stage."""
    frame, lines = times(result), []
    for procedure in result["seconds"]:
        part = frame[frame["procedure"] == PROCEDURES[procedure]]
        stage = part.loc[part["median"].idxmax()]
        lines.append(
            f"{PROCEDURES[procedure].capitalize()} takes {seconds(median(result, procedure))} s, of which "
            f"{seconds(median(result, procedure, forward=False))} s after the forward pass; its longest stage is "
            f"{stage['stage']} with {seconds(stage['median'])} s."
        )
    return markup.bullets(lines)
