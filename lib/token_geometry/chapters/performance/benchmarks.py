"""Results of the benchmarks as the performance chapter reads them: frames, charts, sentences.

The files of `data/benchmarks` are written by the commands of `lib/benchmarks`; a chapter only reads them,
and says which command makes what is missing.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import altair as alt
import pandas as pd
from IPython.display import Markdown

from token_geometry.base import project
from token_geometry.base.errors import InputError
from token_geometry.chapters import charts, sentences
from token_geometry.requests.extraction import Extraction
from token_geometry.runs import declaration, results

COMMANDS = {
    "observables-cpu": "python lib/benchmarks/observables.py",
    "observables-gpu": "python lib/benchmarks/gpu.py",
    "observables-reduced": "python lib/benchmarks/gpu.py --device cpu",
}
"""File of `data/benchmarks`, without suffix → the command that makes it."""

PROCEDURES = {"library": "this library", "reference": "reference procedure"}

STAGES = {
    "forward": "forward pass: blocks",
    "head": "forward pass: logits, loss",
    "neighbors": "distances and neighbors",
    "cosine": "cosine similarity",
    "writing": "shard: writing, reading",
    "observables": "observables",
}
"""Stages of this library, in the order of the charts, with the names that a reader sees."""

REFERENCE_STAGES = {
    "forward": STAGES["forward"],
    "head": STAGES["head"],
    "distances": "distance matrices to disk",
    "dimension": "duplicates and GRIDE",
    "overlap": "neighborhood overlap",
    "cosine": "cosine matrices",
}
"""The same for the reference procedure."""

N_SELECTED = 257
"""Neighbors of a token that are looked for: the 256 of the largest scale, and itself."""

_FORWARD = ("forward", "head")
_COLORS = {"forward pass": "#9aa5b1", "observables": charts.MODEL_COLORS[0]}


@dataclass(frozen=True)
class Benchmarks:
    """The benchmark results that are there."""

    run: declaration.Run
    """Run whose cost is estimated from them."""

    cpu: dict | None
    """Both procedures side by side on the CPU."""

    others: tuple[dict, ...]
    """The same for other models."""

    shapes: dict | None
    """The shapes of Llama-3-8B on a GPU or, where there is no such result, reduced ones on a CPU."""

    missing: tuple[str, ...]
    """Keys of `COMMANDS` of the results that this chapter lacks."""


def open_benchmarks(run: str = "", *, folder: Path | None = None) -> Benchmarks:
    """Read the results of the benchmarks.

    Parameters
    ----------
    run
        Name of a run; empty for that of the active Quarto profile.
    folder
        Where the files are; by default `data/benchmarks`.

    Raises
    ------
    InputError
        If there is no such run, or a file is damaged.
    """
    folder = folder or project.root() / "data" / "benchmarks"
    cpu, gpu, reduced = (_read(folder / f"{name}.json", command) for name, command in COMMANDS.items())
    missing = [name for name, found in zip(COMMANDS, (cpu, gpu), strict=False) if found is None]
    paths = sorted(folder.glob("observables-cpu-*.json"))
    others = tuple(_read(path, f"{COMMANDS['observables-cpu']} --model") for path in paths)
    declared = declaration.load(run)
    return Benchmarks(run=declared, cpu=cpu, others=others, shapes=gpu or reduced, missing=tuple(missing))


def _read(path: Path, command: str) -> dict | None:
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        median(result, "library")
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no whole result of a benchmark: make it again with {command}") from None
    return result


def stage_seconds(result: dict, procedure: str) -> dict[str, dict[str, float]]:
    """Seconds a prompt of each stage: minimum, median, maximum; the forward pass comes first.

    The reference procedure has no forward pass of its own: it gets that of the library.
    """
    ours = result["seconds"]["library"]
    if procedure == "library":
        return {stage: ours[stage] for stage in STAGES if stage in ours}
    theirs = result["seconds"][procedure]
    return {stage: (ours if stage in _FORWARD else theirs)[stage] for stage in REFERENCE_STAGES}


def median(result: dict, procedure: str, *, forward: bool | None = None) -> float:
    """Sum of the medians of the stages: of the forward pass, of all else, or (None) of all."""
    stages = stage_seconds(result, procedure)
    return sum(s["median"] for name, s in stages.items() if forward is None or forward == (name in _FORWARD))


def times(result: dict | None) -> pd.DataFrame:
    """Seconds a prompt of each stage of each procedure, as a tidy frame; empty without a result."""
    rows = []
    for procedure in result["seconds"] if result else ():
        total = median(result, procedure)
        names = STAGES if procedure == "library" else REFERENCE_STAGES
        for stage, seconds in stage_seconds(result, procedure).items():
            rows.append(
                {
                    "procedure": PROCEDURES[procedure],
                    "stage": names[stage],
                    "part": "forward pass" if stage in _FORWARD else "observables",
                    "minimum": seconds["min"],
                    "median": seconds["median"],
                    "share": seconds["median"] / total,
                }
            )
    columns = ["procedure", "stage", "part", "minimum", "median", "share"]
    return pd.DataFrame(rows, columns=columns)


# --- charts -----------------------------------------------------------------------------


def time_chart(frame: pd.DataFrame, *, description: str) -> alt.Chart:
    """Bars of the median seconds of each stage, one panel a procedure, on one scale.

    Parameters
    ----------
    frame
        From `times`.
    description
        Alt text: chart type, axes, finding.
    """
    if frame.empty:
        return charts.no_data("seconds a prompt", description)
    frame = frame.assign(text=[_seconds(value) for value in frame["median"]]).round(5)
    base = alt.Chart(frame).encode(
        # a scale that begins at zero, with room for the numbers behind the bars
        x=alt.X("median:Q", title="seconds a prompt", scale=alt.Scale(domainMax=frame["median"].max() * 1.15)),
        y=alt.Y("stage:N", title=None, sort=list(dict.fromkeys(frame["stage"])), axis=alt.Axis(labelLimit=220)),
        tooltip=[
            alt.Tooltip("stage:N"),
            alt.Tooltip("median:Q", title="median (s)", format=".4f"),
            alt.Tooltip("minimum:Q", title="minimum (s)", format=".4f"),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    colors = alt.Scale(domain=list(_COLORS), range=list(_COLORS.values()))
    bars = base.mark_bar().encode(color=alt.Color("part:N", title=None, scale=colors))
    numbers = base.mark_text(align="left", dx=4, fontSize=11).encode(text="text:N")
    chart = alt.layer(bars, numbers).properties(width=400, height=alt.Step(24))
    order = list(dict.fromkeys(frame["procedure"]))
    if len(order) > 1:
        panels = alt.Facet("procedure:N", sort=order)
        chart = chart.facet(facet=panels, columns=1).resolve_scale(y="independent")
    return chart.properties(description=description)


# --- sentences, tables, alt texts -------------------------------------------------------


def availability(benchmarks: Benchmarks) -> Markdown:
    """On what machine and when the results were measured, and how to make those that are missing."""
    lines = [_provenance(found) for found in (benchmarks.cpu, benchmarks.shapes) if found]
    for name in benchmarks.missing:
        stand_in = " Figures at reduced shapes on a CPU stand in for it." if benchmarks.shapes else ""
        lines.append(
            f"There is no data/benchmarks/{name}.json: `{COMMANDS[name]}` makes it."
            + (stand_in if name == "observables-gpu" else "")
        )
    return sentences.bullets(lines)


def _provenance(result: dict) -> str:
    device, versions = result["device"], result["versions"]
    where = f"{device['processor']}, {_count(device['cores'], 'core')}, {_count(device['threads'], 'thread')}"
    if device["gpu"]:
        where = f"{device['gpu']}; {where}"
    return (
        f"{_subject(result)}, {_count(result['parameters']['n_prompts'], 'prompt')}, on {where}; "
        f"torch {versions['torch']}, transformers {versions['transformers']}; {result['created'][:10]}."
    )


def _subject(result: dict) -> str:
    return f"{result['model']['title']}, {result['parameters']['n_tokens']} tokens a prompt"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def stage_table(result: dict | None) -> Markdown:
    """Table of the stages of each procedure, with sums."""
    if not result:
        return sentences.table(pd.DataFrame([{"stage": "no measurement", "median (s)": "–"}]))
    frame, rows = times(result), []
    for procedure, part in frame.groupby("procedure", sort=False):
        sums = {"stage": "together", **part[["minimum", "median", "share"]].sum().to_dict()}
        for row in [*part.to_dict("records"), sums]:
            rows.append(
                {
                    "stage": row["stage"],
                    "procedure": procedure,
                    "minimum (s)": _seconds(row["minimum"]),
                    "median (s)": _seconds(row["median"]),
                    "share of the median": f"{row['share']:.1%}",
                }
            )
    return sentences.table(pd.DataFrame(rows))


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.2g}"


def ratios(result: dict | None) -> Markdown:
    """How the times of both procedures compare (median; lowest to highest), and what they write and hold."""
    if not result:
        return _nothing("observables-cpu")
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
    return sentences.bullets(lines)


def other_models(measured: Benchmarks) -> Markdown:
    """Ratios and agreement of each of the other models that were measured."""
    if not measured.others:
        return Markdown(f"No other model was measured: `{COMMANDS['observables-cpu']} --model MODEL` does so.")
    parts = []
    for result in measured.others:
        parts.append(f"{result['model']['title']}, {_count(result['parameters']['n_prompts'], 'prompt')}:")
        parts += [ratios(result).data, agreement(result).data]
    return Markdown("\n\n".join(parts))


def _times(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3g} times ({spread['min']:.3g} to {spread['max']:.3g})"


def memory(result: dict | None) -> Markdown:
    """How the peak memory of an extraction depends on the number of prompts."""
    if not result:
        return _nothing("observables-cpu")
    entries = result["memory_by_prompts"]
    if not entries:
        return Markdown("The benchmark was run without `--memory-prompts`: no figures.")
    peaks = [
        f"{entry['peak_memory_bytes'] / 1e6:.0f} MB for {_count(entry['n_prompts'], 'prompt')}"
        for entry in entries
    ]
    text = (
        "Peak memory of an extraction of prompts of "
        f"{result['parameters']['memory_tokens']} tokens: {', '.join(peaks)}"
    )
    if len(entries) > 1:
        first, last = entries[0]["peak_memory_bytes"], entries[-1]["peak_memory_bytes"]
        text += f", a change of {last / first - 1:+.1%}"
    return Markdown(text + ".")


def agreement(result: dict | None) -> Markdown:
    """How far the numbers of the two procedures are apart."""
    if not result:
        return _nothing("observables-cpu")
    found = result["agreement"]
    left_out = found["layers_left_out"]
    lines = [
        f"Over {_count(found['layers_compared'], 'cloud')} and all scales, the ID differs by at most "
        f"{found['dimension_relative']:.1g} and its error by at most {found['dimension_error_relative']:.1g}, "
        "both relative to DADApy's."
        + (f" {left_out} clouds are left out, whose distinct points the two count differently." * bool(left_out)),
        f"The mean cosine differs by at most {found['cosine']:.1g}, the NO by at most {found['overlap']:.1g}.",
        f"In {_count(found['layers_without_ties'], 'cloud')} without ties, NO, reciprocity and layer overlap "
        f"differ from a count in matrices of all pairs by at most {found['overlap_without_ties']:.1g}, "
        f"{found['reciprocity_without_ties']:.1g} and {found['layer_overlap_without_ties']:.1g}, and the mean "
        f"angle from that of the states in float64 by at most {found['angle_without_ties']:.1g} degrees.",
        f"Of {found['lists_without_ties']} lists of 32 neighbors whose order the reference's single-precision "
        f"distances decide, {found['lists_without_ties_that_differ']} differ; "
        f"in {found['lists_with_ties']} further lists those distances tie.",
    ]
    return sentences.bullets(lines)


def bounds(result: dict | None) -> Markdown:
    """What the operations of each stage are, against the time that it takes."""
    if not result:
        return _nothing("observables-cpu")
    model, n_tokens = result["model"], result["parameters"]["n_tokens"]
    seconds = {name: s["median"] for name, s in stage_seconds(result, "library").items()}
    forward, gram = forward_operations(model, n_tokens), gram_operations(model, n_tokens)
    n_clouds, rate = model["layers"] + 1, forward / seconds["forward"]
    ideal = gram / rate
    rest = median(result, "library", forward=False)
    share = 1 - rest / median(result, "library")
    return sentences.bullets(
        [
            f"{_subject(result)}: the blocks need about {_spelled(forward)} multiply-adds and take "
            f"{_seconds(seconds['forward'])} s, {_spelled(rate)} a second. The logits need "
            f"{_spelled(model['width'] * model['vocabulary'] * n_tokens)} more and take "
            f"{_seconds(seconds['head'])} s.",
            f"The Gram matrices of the {n_clouds} clouds need $N^2 D$ each, {_spelled(gram)} together, "
            f"{gram / forward:.1%} of the blocks, {_seconds(ideal)} s at their rate. Distances and neighbors take "
            f"{_seconds(seconds['neighbors'])} s, {seconds['neighbors'] / ideal:.2g} times that.",
            f"The nearest {min(N_SELECTED, n_tokens)} of {n_tokens} have to be selected in each of "
            f"{n_clouds * n_tokens} rows: {_spelled(n_clouds * n_tokens**2)} distances are read for it.",
            f"The forward pass is {share:.0%} of the time. Were all the rest free, a prompt would take "
            f"{_seconds(median(result, 'library', forward=True))} s and not "
            f"{_seconds(median(result, 'library'))} s.",
        ]
    )


def forward_operations(model: dict, n_tokens: int) -> float:
    """Multiply-adds of the blocks: one a weight and token, and N² for scores and for their use.

    The causal half of the scores that a kernel may skip is counted.
    """
    attention = 2 * n_tokens**2 * model["attention_width"] * model["layers"]
    return model["block_parameters"] * n_tokens + attention


def gram_operations(model: dict, n_tokens: int) -> float:
    """Multiply-adds of the Gram matrices of all layers."""
    return n_tokens**2 * model["width"] * (model["layers"] + 1)


def _spelled(number: float) -> str:
    for unit, word in ((1e9, " billion"), (1e6, " million")):
        if number >= unit:
            return f"{number / unit:.3g}{word}"
    return f"{number:.0f}"


def throughput(result: dict | None) -> Markdown:
    """Prompts per second at the shapes of Llama-3-8B, and what that makes of the paper's prompts."""
    if not result:
        return _nothing("observables-gpu")
    rate, extrapolation = result["prompts_per_second"], result["extrapolation"]
    lines = []
    if not result["device"]["gpu"]:
        lines.append(
            "No GPU was at hand: these figures are from the CPU at reduced shapes, and say nothing about a GPU."
        )
    lines += [
        f"In batches of {result['parameters'].get('batch_size', 1)}, {rate['forward']:.3g} prompts a second pass "
        f"through the model alone, {rate['whole']:.3g} with tables, "
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
    return sentences.bullets(lines)


def run_cost(benchmarks: Benchmarks) -> Markdown:
    """What the measured times make of the forward passes that the run declares."""
    result, run = benchmarks.cpu, benchmarks.run
    if not result:
        return _nothing("observables-cpu")
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
        f"The run {run.name} takes {_count(passes, 'prompt')} through {result['model']['title']}, shuffled ones "
        f"included: {ours:.2g} minutes at these medians, and {theirs:.2g} by the reference procedure."
    )


def _nothing(name: str) -> Markdown:
    return Markdown(f"Not measured yet: `{COMMANDS[name]}` makes data/benchmarks/{name}.json.")


def describe_times(result: dict | None) -> str:
    """Alt text of the bars of the stages, with the finding."""
    text = "Bar chart: median seconds a prompt of each stage"
    if not result:
        return f"{text}."
    panels = ", one panel a procedure" if len(result["seconds"]) > 1 else ""
    findings = []
    for procedure in result["seconds"]:
        frame = times(result)
        frame = frame[frame["procedure"] == PROCEDURES[procedure]]
        longest = frame.loc[frame["median"].idxmax()]
        findings.append(
            f"{PROCEDURES[procedure]} takes {_seconds(median(result, procedure))} s, of which "
            f"{_seconds(median(result, procedure, forward=False))} s after the forward pass; its longest stage is "
            f"{longest['stage']} with {_seconds(longest['median'])} s"
        )
    return f"{text}{panels}; " + "; ".join(findings) + "."
