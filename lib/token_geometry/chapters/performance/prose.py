"""What the performance chapter says of the observables: sentences, a table, alt texts."""

from collections.abc import Iterator

import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters import markup
from token_geometry.chapters.numbers import Number, count, interval, large, seconds
from token_geometry.chapters.performance import frames
from token_geometry.chapters.performance.results import COMMANDS, Benchmarks, measured, median, stage_seconds
from token_geometry.requests.extraction import Extraction
from token_geometry.runs import results
from token_geometry.runs.declaration import Run

N_SELECTED = 257
"""Neighbors of a token that are looked for: the 256 of the largest scale, and itself."""

KERNELS = {
    "product": "Gram matrices in single precision",
    "product_float64": "products in double precision, where single precision leaves rows open",
    "selection": "the nearest of each row",
    "lookup": "which tokens these are",
    "cosine": "deviation of the cosine",
    "angles": "angles between neighbors",
    "local_dimensions": "local dimensions",
    "rest": "norms, sums, mirrored halves and decisions",
}
"""Parts of the geometry's time on one core, with the names that a reader sees."""


def availability(benchmarks: Benchmarks) -> Markdown:
    """On what machine and when the results were measured, and how to make those that are missing."""
    lines = [_provenance(found) for found in (benchmarks.cpu, benchmarks.shapes) if found]
    for name in benchmarks.missing:
        stand_in = " Figures at reduced shapes on a CPU stand in for it."
        stand_in *= name == "observables-gpu" and bool(benchmarks.shapes)
        lines.append(f"There is no data/benchmarks/{name}.json: `{COMMANDS[name]}` makes it.{stand_in}")
    return markup.bullets(lines)


def _provenance(result: dict) -> str:
    device, versions = result["device"], result["versions"]
    gpu = f"{device['gpu']}; " if device["gpu"] else ""
    vectors = f" ({device['vector_instructions']['torch']})" if "vector_instructions" in device else ""
    return (
        f"{_subject(result)}, {count(result['parameters']['n_prompts'], 'prompt')}, on {gpu}"
        f"{device['processor']}{vectors}, {count(device['cores'], 'core')}, {count(device['threads'], 'thread')}; "
        f"torch {versions['torch']}, transformers {versions['transformers']}; {result['created'][:10]}."
    )


def _subject(result: dict) -> str:
    return f"{result['model']['title']}, {result['parameters']['n_tokens']} tokens per prompt"


def stage_table(result: dict | None) -> Markdown:
    """Table of the stages of each procedure, with sums."""
    if not result:
        return markup.table(pd.DataFrame([{"stage": "no measurement", "median (s)": "–"}]))
    rows, numbers = [], ["minimum", "median", "share"]
    for procedure, part in frames.times(result).groupby("procedure", sort=False):
        for stage, low, middle, share in [*part[["stage", *numbers]].values, ["together", *part[numbers].sum()]]:
            rows.append([stage, procedure, seconds(low), seconds(middle), f"{share:.1%}"])
    columns = ["stage", "procedure", "minimum (s)", "median (s)", "share of the median"]
    return markup.table(pd.DataFrame(rows, columns=columns))


@measured("observables-cpu")
def ratios(result: dict) -> list[str]:
    """How the times of both procedures compare (median; lowest to highest), and what they write and hold."""
    n_bytes, added = result["bytes_per_prompt"], result["added_memory_bytes"]
    times = {
        name: f"{spread['median']:.3g} times ({interval(spread['min'], spread['max'], '.3g')})"
        for name, spread in result["ratios"].items()
    }
    lines = [
        f"The observables of a prompt took the reference procedure {times['reference_to_library']} "
        "what they took this library.",
        f"With the forward pass on both sides, it is {times['reference_to_library_with_forward']}.",
        "Most of the reference's time is a loop that looks up the size of the matrix for every token; with "
        f"sets of neighbors in its place, it is {times['reference_by_sets_to_library']}.",
        f"The observables of this library took {times['library_to_forward']} the forward pass.",
        f"For a prompt, the reference procedure wrote {n_bytes['reference'] / 1e6:.0f} MB, this library "
        f"{n_bytes['library'] / 1e6:.1f} MB.",
    ]
    if "local_dimensions_to_forward" in times:
        lines.append(
            "ESS and TLE, which the reference does not estimate and these ratios leave out, took "
            f"{times['local_dimensions_to_forward']} the forward pass."
        )
    if None not in added.values():
        lines.append(
            f"At its peak, the reference procedure held {added['reference'] / 1e6:.0f} MB beyond what its "
            f"processes held before, this library {added['library'] / 1e6:.0f} MB, the hidden states and the "
            "forward pass included."
        )
    return lines


def other_models(benchmarks: Benchmarks) -> Markdown:
    """Ratios and agreement of each of the other models that were measured."""
    if not benchmarks.others:
        return Markdown(f"No other model was measured: `{COMMANDS['observables-cpu']} --model MODEL` does so.")
    parts = []
    for result in benchmarks.others:
        parts.append(f"{result['model']['title']}, {count(result['parameters']['n_prompts'], 'prompt')}:")
        parts += [ratios(result).data, agreement(result).data]
    return Markdown("\n\n".join(parts))


@measured("observables-cpu")
def memory(result: dict) -> Markdown:
    """How the peak memory of an extraction depends on the number of prompts."""
    peaks = [(entry["peak_memory_bytes"], entry["n_prompts"]) for entry in result["memory_by_prompts"]]
    if not peaks:
        return Markdown("The benchmark was run without `--memory-prompts`: no figures.")
    change = f", a change of {Number(peaks[-1][0] / peaks[0][0] - 1):+.1%}" * (len(peaks) > 1)
    spelled = ", ".join(f"{size / 1e6:.0f} MB for {count(n, 'prompt')}" for size, n in peaks)
    tokens = f"{result['parameters']['memory_tokens']} tokens"
    return Markdown(f"Peak memory of an extraction of prompts of {tokens}: {spelled}{change}.")


@measured("observables-cpu")
def agreement(result: dict) -> list[str]:
    """How far the numbers of the two procedures are apart."""
    found = result["agreement"]
    small = {name: f"{Number(value):.1g}" for name, value in found.items()}
    n_out = found["layers_left_out"]
    left_out = f" {n_out} clouds are left out, whose distinct points the two count differently." * bool(n_out)
    return [
        f"Over {count(found['layers_compared'], 'cloud')} and all scales, the ID differs by at most "
        f"{small['dimension_relative']} and its error by at most {small['dimension_error_relative']}, "
        f"both relative to DADApy's.{left_out}",
        f"The mean cosine differs by at most {small['cosine']}, the NO by at most {small['overlap']}.",
        f"In {count(found['layers_without_ties'], 'cloud')} without ties, NO, reciprocity and layer overlap "
        f"differ from a count in matrices of all pairs by at most {small['overlap_without_ties']}, "
        f"{small['reciprocity_without_ties']} and {small['layer_overlap_without_ties']}, and the mean "
        f"angle from that of the states in float64 by at most {small['angle_without_ties']} degrees.",
        f"Of {found['lists_without_ties']} lists of 32 neighbors whose order the reference's single-precision "
        f"distances decide, {found['lists_without_ties_that_differ']} differ; "
        f"in {found['lists_with_ties']} further lists those distances tie.",
    ]


@measured("observables-cpu")
def bounds(result: dict) -> list[str]:
    """What the operations of each stage are, against the time that it takes.

    The blocks need one multiply-add per weight and token, and N² of the width of the attention for its scores and
    for their use (the causal half that a kernel may skip is counted); the Gram matrices of all layers N² D each.
    """
    model, n_tokens = result["model"], result["parameters"]["n_tokens"]
    took = {name: s["median"] for name, s in stage_seconds(result, "library").items()}
    n_clouds = model["layers"] + 1
    forward = model["block_parameters"] * n_tokens + 2 * n_tokens**2 * model["attention_width"] * model["layers"]
    head, gram = model["width"] * model["vocabulary"] * n_tokens, n_tokens**2 * model["width"] * n_clouds
    rate = forward / took["forward"]
    whole, alone, rest = (median(result, "library", forward=part) for part in (None, True, False))
    return [
        f"{_subject(result)}: the blocks need about {large(forward)} multiply-adds and take "
        f"{seconds(took['forward'])} s, {large(rate)} per second. The logits need {large(head)} more and take "
        f"{seconds(took['head'])} s.",
        f"The Gram matrices of the {n_clouds} clouds need $N^2 D$ each, {large(gram)} together, "
        f"{gram / forward:.1%} of the blocks, {seconds(gram / rate)} s at their rate. Distances and neighbors "
        f"take {seconds(took['neighbors'])} s, {took['neighbors'] / (gram / rate):.2g} times that.",
        f"The nearest {min(N_SELECTED, n_tokens)} of {n_tokens} have to be selected in each of "
        f"{n_clouds * n_tokens} rows: {large(n_clouds * n_tokens**2)} distances are read for it.",
        f"The forward pass is {1 - rest / whole:.0%} of the time. Were all the rest free, a prompt would take "
        f"{seconds(alone)} s and not {seconds(whole)} s.",
        result.get("geometry") and _geometry(result["geometry"]),
    ]


def _geometry(found: dict) -> str:
    """Where the geometry of a prompt spends its time on one core, and what bounds it."""
    took, peak = found["core_seconds"], found["peak_gigaflops"]
    parts = "; ".join(f"{KERNELS[name]} {seconds(took[name])} s" for name in sorted(took, key=took.get)[::-1])
    rates = " and ".join(
        f"{found['gigaflops'][name]:.0f} of {peak[name]:.0f} ({KERNELS[name]})" for name in found["gigaflops"]
    )
    return (
        f"On one core the geometry of a prompt takes {seconds(sum(took.values()))} s: {parts}. The products "
        f"run at {rates} billion operations per second that a large product reaches on this processor, which "
        "bounds them; the other parts are passes over the $N^2$ distances or over the states."
    )


@measured("observables-gpu")
def throughput(result: dict) -> list:
    """Prompts per second at the shapes of Llama-3-8B, and what that makes of the paper's prompts."""
    rate, extrapolation, given = result["prompts_per_second"], result["extrapolation"], result["parameters"]
    on_gpu, memory = result["device"]["gpu"], result["peak_gpu_memory_bytes"]
    return [
        not on_gpu
        and "No GPU was at hand: these figures are from the CPU at reduced shapes, and say nothing about a GPU.",
        f"In batches of {given.get('batch_size', 1)}, {rate['forward']:.3g} prompts per second "
        f"pass through the model alone, {rate['whole']:.3g} with tables, "
        f"shard and observables. Outside the forward pass lies {result['share_outside_forward']:.0%} of the time, "
        f"{result['ratios']['library_to_forward_unsynchronised']:.2g} times what that takes.",
        on_gpu
        and f"At this rate the {extrapolation['n_prompts']} prompts of the paper take "
        f"{extrapolation['seconds'] / 60:.2g} minutes (extrapolated from {given['n_prompts']}).",
        memory and f"The GPU's memory held at most {memory / 1e9:.1f} GB.",
    ]


@measured("observables-cpu")
def run_cost(result: dict, *, run: Run) -> Markdown:
    """What the measured times make of the forward passes that the run declares."""
    given = result["parameters"]["model"], result["parameters"]["n_tokens"]
    requests = [r for r in results.requests(run, Extraction) if (r.model, r.n_tokens) == given]
    if not requests or any(r.n_prompts is None for r in requests):
        return Markdown(
            f"The run {run.name} has no model and prompt length of this benchmark, so its cost does not follow "
            "from these figures."
        )
    passes = sum(r.n_prompts * len(r.shuffle_levels) for r in requests)
    ours, theirs = (passes * median(result, name) / 60 for name in ("library", "reference"))
    return Markdown(
        f"The run {run.name} takes {count(passes, 'prompt')} through {result['model']['title']}, shuffled ones "
        f"included: {ours:.2g} minutes at these medians, and {theirs:.2g} by the reference procedure."
    )


@measured("observables-cpu")
def longest(result: dict) -> Iterator[str]:
    """Time of each procedure, and its longest stage."""
    for procedure, part in frames.times(result).set_index("stage").groupby("procedure", sort=False):
        took, after = part["median"], part.loc[part["part"] != "forward pass", "median"]
        yield (
            f"{procedure.capitalize()} takes {seconds(took.sum())} s, of which {seconds(after.sum())} s after the "
            f"forward pass; its longest stage is {took.idxmax()} with {seconds(took.max())} s."
        )
