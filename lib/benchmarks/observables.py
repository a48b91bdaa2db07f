"""The reference procedure and this library, side by side on the same hidden states.

Both run in one process, prompt by prompt in turn, so that whatever else the machine does falls on
both. The numbers that they find are compared in the same run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import kernels
import numpy as np
import reference
from common import (
    BESIDE,
    FORWARD,
    OBSERVABLES,
    Passed,
    Stopwatch,
    added_memory,
    at_least,
    default_output,
    describe_shape,
    make_result,
    run_command,
    run_library,
    spread,
    stage_seconds,
    write_json,
)

from token_geometry.base.errors import InputError
from token_geometry.base.resources import peak_memory
from token_geometry.extraction.plan import ShardKey
from token_geometry.geometry import dadapy
from token_geometry.models import sources
from token_geometry.requests.extraction import Extraction
from token_geometry.states.model import LanguageModel
from token_geometry.texts import corpora, prompts

DEFAULT_MODEL = "smollm2-135m"

N_TOKENS_MIN = 64
"""With fewer there are no 32 neighbors and hardly a scale to compare."""

WARM_UP_TOKENS = 64
"""Of the first, unmeasured prompt."""

COUNTED_K, OVERLAP_K = (1, 4, 16, 31), 16
"""Neighborhoods whose reciprocity is counted again, and that of the layer overlap."""


class SideBySide:
    """Both procedures on the same prompts, with what each of them took and found."""

    def __init__(self, model: LanguageModel, request: Extraction, *, folder: Path, n_jobs: int):
        self.model, self.request, self.folder = model, request, folder
        self.parallel = joblib.Parallel(n_jobs=n_jobs)
        self.library: list[Stopwatch] = []
        self.reference: list[Stopwatch] = []
        self.n_bytes: dict[str, list[int]] = {"library": [], "reference": []}
        self.memory: dict[str, list[int]] = {"library": [], "reference": []}
        self.agreements: list[dict] = []
        self.by_sets: list[float] = []

    def run(self, prompt: prompts.Prompt) -> tuple[Passed, reference.Measured]:
        """Take a prompt through the library, then its hidden states through the reference procedure."""
        ours, theirs = Stopwatch(), Stopwatch()
        key = ShardKey(prompt, 0)
        with added_memory() as added:
            passed = run_library(self.model, key, self.request, {}, path=self.folder / key.file_name(), watch=ours)
        measured = reference.measure(
            passed.states.hidden.numpy(), folder=self.folder, parallel=self.parallel, watch=theirs
        )
        self.library.append(ours)
        self.reference.append(theirs)
        self.n_bytes["library"].append(passed.n_bytes)
        self.n_bytes["reference"].append(measured.n_bytes)
        self.by_sets.append(measured.overlap_seconds_by_sets)
        self.memory["library"] += added
        self.memory["reference"] += [measured.added_memory] if measured.added_memory is not None else []
        return passed, measured

    def warm_up(self, prompt: prompts.Prompt) -> None:
        """Start the processes and load what is loaded at first use, unmeasured."""
        short = prompts.Prompt(prompt.id, prompt.text_sha256, prompt.token_ids[:WARM_UP_TOKENS])
        self.run(short)
        for measurements in (self.library, self.reference, self.by_sets):
            measurements.clear()
        for measurements in (self.n_bytes, self.memory):
            measurements["library"].clear()
            measurements["reference"].clear()

    def results(self) -> dict:
        """Seconds, ratios, bytes, memory and agreement over all measurements."""
        return {
            "seconds": {
                "library": stage_seconds(self.library),
                "reference": stage_seconds(self.reference),
            },
            "ratios": self._ratios(),
            "bytes_per_prompt": {name: max(sizes) for name, sizes in self.n_bytes.items()},
            "added_memory_bytes": {name: max(sizes, default=None) for name, sizes in self.memory.items()},
            "peak_memory_bytes": peak_memory(),
            "agreement": combine(self.agreements),
        }

    def _ratios(self) -> dict:
        rows = [
            (ours.total(FORWARD), ours.total(OBSERVABLES), theirs.total())
            for ours, theirs in zip(self.library, self.reference, strict=True)
        ]
        return {
            "reference_to_library": spread(theirs / ours for _, ours, theirs in rows),
            "reference_by_sets_to_library": spread(
                (theirs - watch.total(("overlap",)) + by_sets) / ours
                for (_, ours, theirs), watch, by_sets in zip(rows, self.reference, self.by_sets, strict=True)
            ),
            "library_to_forward": spread(ours / forward for forward, ours, _ in rows),
            **{
                f"{name}_to_forward": spread(watch.total(stages) / watch.total(FORWARD) for watch in self.library)
                for name, stages in BESIDE.items()
            },
            "reference_to_library_with_forward": spread(
                (forward + theirs) / (forward + ours) for forward, ours, theirs in rows
            ),
        }


def compare(passed: Passed, measured: reference.Measured) -> dict:
    """Largest differences between the two procedures on one prompt.

    Layer 0 is left out, as in the paper: there a token that occurs twice is one point. So are layers
    in which the two count different numbers of points: scikit-learn's distances of equal points
    are not always zero.
    """
    observed = passed.observed
    layers = np.flatnonzero(measured.n_points == observed["n_points"].values)
    layers = layers[layers > 0]
    if not len(layers):
        raise InputError(
            f"no layer of {passed.shard.attrs['prompt']!r} has as many distinct points in both procedures: "
            "give other prompts, or fewer tokens of each"
        )
    n_scales = measured.dimension.shape[1]
    dimension, error = (
        _relative(observed[name].values[layers, :n_scales], theirs[layers])
        for name, theirs in (
            ("intrinsic_dimension", measured.dimension),
            ("intrinsic_dimension_error", measured.error),
        )
    )
    pairs = layers[np.isin(layers + 1, layers)]
    overlap = observed["neighborhood_overlap"].values[pairs] - measured.overlap[pairs]
    untied = ~measured.tied[layers]
    lists = passed.shard["neighbor_index"].values[layers] == measured.nearest[layers]
    cosine = observed["cosine_similarity"].values - measured.cosine
    untied_layers = layers[untied.all(1)]
    counted = count(passed.states.hidden, measured.nearest, untied_layers)
    layer_overlap = observed["layer_overlap"].values[np.ix_(untied_layers, untied_layers)]
    return {
        "dimension_relative": dimension,
        "dimension_error_relative": error,
        "overlap": _largest(overlap),
        "cosine": _largest(cosine),
        "overlap_without_ties": _largest(
            overlap[np.isin(pairs, untied_layers) & np.isin(pairs + 1, untied_layers)]
        ),
        "reciprocity_without_ties": _largest(
            observed["reciprocity"].sel(k=list(COUNTED_K)).values[untied_layers] - counted["reciprocity"]
        ),
        "layer_overlap_without_ties": _largest(layer_overlap - counted["layer_overlap"]),
        "angle_without_ties": _largest(observed["neighbor_angle"].values[untied_layers] - counted["angle"]),
        "layers_without_ties": len(untied_layers),
        "lists_without_ties": int(untied.sum()),
        "lists_without_ties_that_differ": int((untied & ~lists.all(-1)).sum()),
        "lists_with_ties": int((~untied).sum()),
        "layers_compared": len(layers),
        "layers_left_out": len(measured.n_points) - 1 - len(layers),
    }


def count(hidden, nearest: np.ndarray, layers: np.ndarray) -> dict[str, np.ndarray]:
    """Reciprocity, layer overlap and mean angle in degrees of some layers, by matrices of all pairs.

    `nearest` are the reference's lists of neighbors; the angles are between the states themselves, in float64.
    """
    n_points = nearest.shape[1]

    def edges(layer: int, k: int) -> np.ndarray:
        adjacency = np.zeros((n_points, n_points), dtype=bool)
        adjacency[np.arange(n_points)[:, None], nearest[layer, :, :k]] = True
        return adjacency

    mutual = np.zeros((len(layers), len(COUNTED_K)))
    for row, layer in enumerate(layers):
        graphs = [edges(layer, k) for k in COUNTED_K]
        mutual[row] = [(a & a.T).sum() / a.sum() for a in graphs]
    graphs = [edges(layer, OVERLAP_K) for layer in layers]
    common = np.array([[(a & b).sum() for b in graphs] for a in graphs]) / (n_points * OVERLAP_K)
    angles = np.zeros(len(layers))
    for row, layer in enumerate(layers):
        points = hidden[layer].double().numpy()
        first, second = (points[nearest[layer, :, place]] - points for place in (0, 1))
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        angles[row] = np.degrees(np.arccos(np.clip((first * second).sum(1) / lengths, -1, 1))).mean()
    return {"reciprocity": mutual, "layer_overlap": common, "angle": angles}


_SUMMED = ("lists_", "layers_")


def combine(agreements: list[dict]) -> dict:
    """Agreement over prompts: largest differences, and sums of what is counted."""
    return {
        name: (sum if name.startswith(_SUMMED) else max)(one[name] for one in agreements) for name in agreements[0]
    }


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return _largest(ours / theirs - 1)


def _largest(differences: np.ndarray) -> float:
    # what is NaN here exists on one side only: a scale beyond the number of points
    present = np.abs(differences[np.isfinite(differences)])
    return float(present.max()) if present.size else 0.0


def memory_by_prompts(options: argparse.Namespace) -> list[dict]:
    """Peak memory of extractions of several numbers of prompts, each a process of its own."""
    return [_extraction_memory(options, n_prompts) for n_prompts in options.memory_prompts]


def _extraction_memory(options: argparse.Namespace, n_prompts: int) -> dict:
    command = [sys.executable, str(Path(__file__).with_name("memory.py")), "--n-prompts", str(n_prompts)]
    command += ["--model", options.model, "--corpus", options.corpus, "--n-tokens", str(options.memory_tokens)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise InputError(f"memory.py with {n_prompts} prompts failed: {reason.removeprefix('error: ')}")
    return json.loads(done.stdout)


def benchmark(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    at_least("--n-tokens", options.n_tokens, N_TOKENS_MIN)
    for name in ("n_prompts", "n_repeats", "n_jobs"):
        at_least("--" + name.replace("_", "-"), getattr(options, name), 1)
    others = {"dadapy": dadapy.versions()["dadapy"]}  # refused now where it cannot be had
    # first, while this process is small and the machine has its memory for them
    by_prompts = memory_by_prompts(options)
    with tempfile.TemporaryDirectory() as folder:
        request = Extraction(
            model=options.model,
            corpus=options.corpus,
            n_prompts=options.n_prompts,
            n_tokens=options.n_tokens,
            output=folder,
            device="cpu",
        )
        request.check()
        model = LanguageModel(sources.resolve(request.model), dtype=request.dtype, device="cpu")
        selection = prompts.select_prompts(
            corpora.load_corpus(request.corpus),
            [model.tokenizer],
            n_prompts=request.n_prompts,
            n_tokens=request.n_tokens,
            seed=request.seed,
        )
        both = SideBySide(model, request, folder=Path(folder), n_jobs=options.n_jobs)
        both.warm_up(selection.prompts[0])
        for repeat in range(options.n_repeats):
            for prompt in selection.prompts:
                passed, measured = both.run(prompt)
                if repeat == 0:
                    both.agreements.append(compare(passed, measured))
        geometry = kernels.geometry(passed.states.hidden)
    results = both.results() | {
        "memory_by_prompts": by_prompts,
        "geometry": geometry,
        "model": describe_shape(model),
    }
    parameters = {name: value for name, value in vars(options).items() if name != "output"}
    parameters |= {"dtype": request.dtype, "seed": request.seed}
    report(results)
    result = make_result("observables-cpu", parameters, results, more_versions=("scikit-learn", "joblib"))
    result["versions"] |= others
    name = "observables-cpu" if options.model == DEFAULT_MODEL else f"observables-cpu-{Path(options.model).name}"
    write_json(result, options.output or default_output(name))


def report(results: dict) -> None:
    """Print what was measured."""
    for procedure, stages in results["seconds"].items():
        print(f"{procedure}, seconds a prompt (minimum, median)")
        for stage, seconds in stages.items():
            print(f"  {stage:<12} {seconds['min']:8.3f} {seconds['median']:8.3f}")
    for name, ratio in results["ratios"].items():
        words = name.replace("_", " ")
        print(f"{words}: {ratio['median']:.3g} (from {ratio['min']:.3g} to {ratio['max']:.3g})")
    for name in ("bytes_per_prompt", "added_memory_bytes"):
        for procedure, n_bytes in results[name].items():
            size = "unknown" if n_bytes is None else f"{n_bytes / 1e6:.1f} MB"
            print(f"{name.replace('_bytes', '').replace('_', ' ')}, {procedure}: {size}")
    for stage, seconds in results["geometry"]["core_seconds"].items():
        rates = [results["geometry"][name].get(stage) for name in ("gigaflops", "peak_gigaflops")]
        rate = "" if rates[0] is None else f", {rates[0]:.0f} of at most {rates[1]:.0f} GFLOP/s"
        print(f"geometry on one core, {stage.replace('_', ' ')}: {seconds:.3f} s{rate}")
    for entry in results["memory_by_prompts"]:
        print(f"peak memory of {entry['n_prompts']} prompts: {entry['peak_memory_bytes'] / 1e6:.0f} MB")
    for name, value in results["agreement"].items():
        print(f"agreement, {name.replace('_', ' ')}: {value:.3g}")


def parse() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--corpus", default="sotu")
    parser.add_argument("--n-prompts", type=int, default=4)
    parser.add_argument("--n-tokens", type=int, default=1024)
    parser.add_argument("--n-repeats", type=int, default=2, help="measurements of each prompt")
    parser.add_argument("--n-jobs", type=int, default=joblib.cpu_count(), help="processes of the reference")
    parser.add_argument(
        "--memory-prompts",
        type=int,
        nargs="*",
        default=[4, 32],
        help="numbers of prompts whose extraction's peak memory is taken",
    )
    parser.add_argument("--memory-tokens", type=int, default=256, help="tokens of each of those prompts")
    parser.add_argument("--output", type=Path, help="by default a file of data/benchmarks, one for each model")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(parse(), benchmark))
