"""What the performance chapter says of results of benchmarks: tables of what they hold, and findings."""

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
from IPython.display import Markdown

from token_geometry.chapters import markup, numbers
from token_geometry.chapters.performance.results import COMMANDS, NAMES, folder, read_benchmark, times
from token_geometry.requests.extraction import Extraction
from token_geometry.runs import declaration, results

N_SELECTED = 257  # neighbors of a token that are looked for: the 256 of the largest scale, and itself
_CPU = "observables-cpu"
LIMIT, LIMIT_SECONDS = 0.6, 3.0  # share that 12 of SmolLM2's 30 blocks may take; time that a second load may


def open_benchmarks() -> dict[str, dict]:
    """Results by name of file, empty where there is none; an `InputError` names one that lacks something."""

    def check(name: str, result: dict) -> None:
        result.update(file=name, title=result.get("title") or result.get("model", {}).get("title", ""))
        for one, (file, _) in SHOWN.items():
            if name.replace("reduced", "gpu").startswith(file):
                show(one, result)

    names = [*COMMANDS, *sorted(path.stem for path in folder().glob("observables-cpu-*.json"))]
    return {name: read_benchmark(name, partial(check, name)) or {} for name in names}


def show(name: str, *found: dict, **options) -> Markdown:
    """What `SHOWN` makes of one or several results: sentences, or a table with a column per block."""
    file, make = SHOWN[name]
    made = [(result["title"], one) for result in found if result for one in make(result, **options)]
    if not made:
        command = next(command for key, command in COMMANDS.items() if key.startswith(file))
        return Markdown(f"Not measured: `{command}` measures it.")
    if isinstance(made[0][1], str):
        return markup.bullets(sentence for _, sentence in made)
    columns = [_numbers(block) for _, block in made]
    titles = [markup.escaped(block.get("title", title)) or "value" for title, block in made]
    places = dict.fromkeys(words for column in columns for words in column)
    rows = [[words, *(column.get(words, "–") for column in columns)] for words in places]
    return markup.table(pd.DataFrame(rows, columns=["quantity", *titles]))


def _numbers(block: dict, start: str = "") -> dict[str, str]:
    found = {}  # words for the place of all that a block and those in it hold → how it is spelled
    for key, value in block.items():
        words = start + NAMES.get(key, key.replace("bytes", "MB").replace("_", " ").removeprefix("n "))
        unit = 1e6 if "MB" in words else 1
        if isinstance(value, dict) and "median" not in value:
            found |= _numbers(value, f"{words}: ")
        elif isinstance(value, dict):
            middle, low, high = (numbers.short(value[name] / unit) for name in ("median", "min", "max"))
            found[words] = f"{middle} ({low} to {high})"
        elif value is not None and key != "title":
            found[words] = markup.escaped(value) if isinstance(value, str) else numbers.short(value / unit)
    return found


def _provenance(result: dict) -> list[str]:
    given, versions = result["parameters"], result["versions"]
    keys = ("n_prompts", "n_tokens", "memory_tokens", "dtype")
    parts = {"model": result["title"]} | {key: given[key] for key in keys if key in given} | result["device"]
    parts |= {key: versions[key] for key in ("torch", "transformers")} | {"date": result["created"][:10]}
    found = [f"{words} {text}" for words, text in _numbers(parts).items() if text]
    return [f"{result['file']}: {', '.join(found)}."]


def _stages(result: dict) -> Iterator[dict]:
    rows = (frame := times(result)).groupby("procedure", sort=False).sum(numeric_only=True).reset_index()
    rows = pd.concat([frame, rows.assign(stage="together")])
    for column in ("minimum", "median", "share"):
        yield dict(zip(rows["procedure"] + ": " + rows["stage"], rows[column], strict=True), title=column)


def _bounds(result: dict) -> Iterator[str]:
    for procedure, frame in times(result).set_index("stage").groupby("procedure", sort=False):
        took, alone = frame["median"], frame.loc[frame["part"] == "forward pass", "median"].sum()
        parts = f"{numbers.seconds(alone)} s of it for the forward pass ({alone / took.sum():.0%})"
        parts += f" and {numbers.seconds(took.sum() - alone)} s after it"
        start = f"{markup.escaped(result['title'])}, {procedure}: a prompt takes {numbers.seconds(took.sum())} s"
        yield f"{start}, {parts}; longest: {took.idxmax()} ({numbers.seconds(took.max())} s)."


def _operations(result: dict) -> Iterator[dict]:
    model, n, n_clouds = result["model"], result["parameters"]["n_tokens"], result["model"]["layers"] + 1
    took = {name: result["seconds"]["library"][name]["median"] for name in ("forward", "head", "neighbors")}
    # one per weight and token; N² times the attention's width each for its scores and for their use
    blocks = model["block_parameters"] * n + 2 * n**2 * model["attention_width"] * model["layers"]
    gram, rate = n**2 * model["width"] * n_clouds, blocks / took["forward"]
    needed = {"forward": blocks, "head": model["width"] * model["vocabulary"] * n, "Gram matrices": gram}
    lists = {"clouds": n_clouds, "rows": n_clouds * n, "points": n, "nearest": min(N_SELECTED, n)}
    yield {
        "multiply-adds": needed | {"blocks, per second": rate, "Gram matrices / blocks": gram / blocks},
        "seconds": took | {"Gram matrices at the rate of the blocks": gram / rate},
        "distances, neighbors, cosine / Gram matrices at this rate": took["neighbors"] * rate / gram,
        "lists of neighbors": lists | {"distances read": n_clouds * n**2},
        "geometry on one core (s)": sum(result.get("geometry", {}).get("core_seconds", {}).values()) or None,
    }


def _memory(result: dict) -> Iterator[dict]:
    for entry in (sizes := result["memory_by_prompts"]):
        yield entry | {"relative to the first": entry["peak_memory_bytes"] / sizes[0]["peak_memory_bytes"]}


def _rates(result: dict) -> Iterator[dict]:
    rate, paper, gpu = result["prompts_per_second"], result["extrapolation"], result["device"]["gpu"]
    yield {
        "title": gpu or "CPU at reduced shapes, which says nothing about a GPU",
        "prompts per batch": result["parameters"].get("batch_size", 1),
        "prompts per second": {"model alone": rate["forward"], "tables, shard, observables too": rate["whole"]},
        **{key: result[key] for key in ("share_outside_forward", "ratios", "peak_gpu_memory_bytes")},
        f"minutes for {paper['n_prompts']} prompts of the paper": paper["seconds"] / 60 if gpu else None,
    }


def _limits(result: dict) -> list[str]:
    n_layers, largest = result["part"]["n_layers"], max(filter(None, result["ratios"].values()))
    slowest = max((load["seconds"]["load"]["max"] for load in result["second_loads"]), default=0)
    return [
        f"The first {n_layers} blocks take at most {largest:.1%} of what all take; {LIMIT:.0%} are the limit.",
        f"Second loads take at most {slowest:.2f} s; {LIMIT_SECONDS:.0f} s are the limit." * bool(slowest),
    ]


def _run_cost(result: dict, run: declaration.Run | None = None) -> list[str]:
    given = result["parameters"]["model"], result["parameters"]["n_tokens"]
    requests = [r for r in results.requests(run, Extraction) if (r.model, r.n_tokens) == given] if run else []
    if not requests or any(r.n_prompts is None for r in requests):
        return ["The run has no model and prompt length of this benchmark: these figures do not say its cost."]
    passes = sum(r.n_prompts * len(r.shuffle_levels) for r in requests)
    cost = times(result).groupby("procedure", sort=False)["median"].sum() * passes / 60
    spelled = ", ".join(f"{minutes:.2g} minutes ({procedure})" for procedure, minutes in cost.items())
    return [f"The run {run.name} takes {numbers.count(passes, 'prompt')}, shuffled ones included: {spelled}."]


SHOWN: dict[str, tuple[str, Callable]] = {
    "provenance": ("", _provenance),
    "stages": ("observables", _stages),
    "operations": ("observables", _operations),
    "bounds": ("observables", _bounds),
    "ratios": (_CPU, lambda r: [r["ratios"] | {k: r[k] for k in ("bytes_per_prompt", "added_memory_bytes")}]),
    "agreement": (_CPU, lambda r: [r["agreement"]]),
    "memory": (_CPU, _memory),
    "kernels": (_CPU, lambda r: [v | {"title": k.replace("_", " ")} for k, v in r.get("geometry", {}).items()]),
    "run": (_CPU, _run_cost),
    "rates": ("observables-gpu", _rates),
    "loads": ("loading", lambda r: [{key: r[key] for key in ("whole", "part", "ratios")}]),
    "limits": ("loading", _limits),
    "second loads": ("loading", lambda r: r["second_loads"]),
    "pipeline": ("pipeline", lambda r: r["by_cores"]),
}
"""What is shown, by name: how the names of its files begin; what makes of a result sentences or columns."""
