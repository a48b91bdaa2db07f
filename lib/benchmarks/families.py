"""Read a tiny random model of every causal family that transformers registers, and compare with transformers.

    python lib/benchmarks/families.py --output data/families.json [--only llama mamba]

Every class is made from its family's own configuration, saved and loaded through the library: whole and in
part, in three types of numbers, one text and several, prompts and statements, with loss and logits. Each is
equal to transformers' own, or refused in one line, or failed. A class that hangs or ends its process failed.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import tiny_models
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from token_geometry.base.errors import InputError
from token_geometry.models import sources
from token_geometry.states.model import LanguageModel

DTYPES = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
"""Types of numbers, and how far states may be from transformers' relative to their norm."""

SECONDS = 120
"""Time that one family may take."""

IDS = np.random.default_rng(2).integers(3, 88, size=24)
TEXTS = [IDS[:12].tolist(), IDS[:7].tolist(), [*IDS[:5].tolist(), 9, 8], IDS[20:23].tolist()]


class Mismatch(Exception):
    """Something is not what transformers gives."""


def settings() -> list[tuple[str, dict]]:
    """Every registered family by its defaults, and the encoders among them once more as decoders."""
    found = []
    for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        found.append((model_type, {}))
        kind = CONFIG_MAPPING[model_type]
        if getattr(kind, "is_decoder", None) is False and not hasattr(kind, "decoder_layers"):
            found.append((model_type, {"is_decoder": True}))
    return found


def examine(model_type: str, setting: dict) -> dict:
    """Outcome of one family, a row of the table."""
    row = {
        "model_type": model_type,
        "class": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type],
        "setting": setting,
        "outcome": "equal",
        "line": "",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "tiny"
        try:
            row |= _compare(model_type, setting, folder)
        except InputError as error:
            line = str(error).replace(name, "").replace("/tiny", "tiny")
            row |= {"outcome": "refused" if "\n" not in line else "failed", "line": line}
        except Exception as error:
            row |= {"outcome": "failed", "line": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    return row


def _compare(model_type: str, setting: dict, folder: Path) -> dict:
    try:
        tiny_models.save(tiny_models.config_of(model_type, **setting), folder)
        source = sources.resolve(str(folder))
    except Exception as error:
        return _without_model(model_type, folder, error)
    row: dict = {"dtypes": {}}
    for dtype, tolerance in DTYPES.items():
        try:
            whole = LanguageModel(source, dtype=dtype, device="cpu")
            row["dtypes"][dtype] = "equal"
            counts_from = _compare_whole(whole, folder, dtype, tolerance)
        except InputError as error:
            if dtype == "float32":
                raise
            row["dtypes"][dtype] = _line(error, folder)
            continue
        if dtype == "float32":
            row["hidden_states"] = counts_from
            row["statements"] = _compare_statements(whole)
        row.setdefault("parts", {})[dtype] = _compare_parts(whole, source, dtype, folder)
    return row


def _without_model(model_type: str, folder: Path, reason: Exception) -> dict:
    # transformers itself makes no such model; what does the library say to someone who has its files?
    tiny_models.save_files(tiny_models.config_of(model_type), folder)
    try:
        LanguageModel(sources.resolve(f"{folder}@random"), device="cpu").forward(IDS)
    except InputError:
        raise
    raise Mismatch(f"transformers makes no such model ({reason}), and the library reads one")


def _compare_whole(whole: LanguageModel, folder: Path, dtype: str, tolerance: float) -> str:
    states = whole.forward(IDS, logits=True)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    bos = [0] * whole.prepend_bos
    ids = torch.tensor([[*bos, *IDS]])
    with torch.inference_mode():
        output = reference(ids, output_hidden_states=True, use_cache=False)
        embeddings = reference.get_input_embeddings()(ids)
    theirs = [state[0, len(bos) :].float() for state in output.hidden_states]
    shifted = [embeddings[0, len(bos) :].float(), *theirs[:-2], theirs[-1]]
    counts_from = "embeddings"
    if not _equal(states.hidden, theirs, tolerance):
        counts_from = "first block"
        if not _equal(states.hidden, shifted, tolerance):
            raise Mismatch(f"states in {dtype}: {[*map(_differ, states.hidden, theirs)]}")
    logits = output.logits[0].float()
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none").double().numpy()
    _close(f"loss in {dtype}", states.token_loss[1 - len(bos) :], loss, 1e-4 if dtype == "float32" else 0.05)
    entropy = torch.distributions.Categorical(logits=logits[:-1]).entropy().double().numpy()
    _close(f"entropy in {dtype}", states.token_entropy[1 - len(bos) :], entropy, 10 * tolerance)
    points, logits = states.logits.double(), logits[len(bos) :].double()
    far = torch.cdist(logits, logits)
    _close(f"logits in {dtype}", torch.cdist(points, points) / far.max(), far / far.max(), 10 * tolerance)
    single = whole.forward(IDS[::-1].copy())
    both = whole.forward_batch(np.stack([IDS, IDS[::-1]]))
    for one, other in zip(both, (states, single), strict=True):
        if not _equal(one.hidden, other.hidden, 10 * tolerance):
            raise Mismatch(f"states of a batch in {dtype} are not those of its prompts")
    return counts_from


def _compare_statements(whole: LanguageModel) -> str:
    found = whole.read_texts(TEXTS, bos=whole.prepend_bos, losses=False)[0]
    for i, text in enumerate(TEXTS):
        if not _equal(found[:, i], whole.forward(np.array(text)).hidden[:, -1], 1e-3):
            raise Mismatch(f"states of a statement of {len(text)} tokens")
    return "shared beginnings" if whole._shares_prefixes else "batches"


def _compare_parts(whole: LanguageModel, source, dtype: str, folder: Path) -> str:
    expected = whole.forward(IDS).hidden
    for layer in range(whole.n_layers):
        try:
            part = LanguageModel(source, dtype=dtype, device="cpu", n_layers=layer).forward(IDS).hidden
        except InputError as error:
            return _line(error, folder)
        if not torch.equal(part, expected[: layer + 1]):
            raise Mismatch(f"states of the first {layer} blocks in {dtype} are not those of the whole model")
    return "equal"


def _line(error: InputError, folder: Path) -> str:
    if "\n" in str(error):
        raise Mismatch(f"several lines: {error}")
    return str(error).replace(str(folder), "tiny")


def _equal(one, other, tolerance: float) -> bool:
    return len(one) == len(other) and all(_differ(a, b) <= tolerance for a, b in zip(one, other, strict=True))


def _differ(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm()) if one.shape == other.shape else float("inf")


def _close(what: str, found, expected, tolerance: float) -> None:
    worst = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
    if not worst <= tolerance * max(1.0, float(np.abs(np.asarray(expected)).max())):
        raise Mismatch(f"{what} is {worst} from transformers'")


def examine_all(wanted: list[tuple[str, dict]]) -> list[dict]:
    """Rows of families, each read in a process that is replaced when it ends or hangs."""
    rows: list[dict] = []
    while len(rows) < len(wanted):
        rest = wanted[len(rows) :]
        command = [sys.executable, __file__, "--work", json.dumps(rest)]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines: queue.Queue = queue.Queue()
        threading.Thread(target=_pump, args=(worker, lines), daemon=True).start()
        for model_type, setting in rest:
            try:
                line = lines.get(timeout=SECONDS)
            except queue.Empty:
                line = None
            if line is None:
                worker.kill()
                reason = f"took more than {SECONDS} s" if worker.wait() == -9 else "ended its process"
                kind = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
                row = {"model_type": model_type, "class": kind, "setting": setting}
                rows.append(row | {"outcome": "failed", "line": reason})
                break
            rows.append(json.loads(line))
            print(f"{model_type} {setting or ''}: {rows[-1]['outcome']} {rows[-1]['line']}", flush=True)
    return rows


def _pump(worker: subprocess.Popen, lines: queue.Queue) -> None:
    for line in worker.stdout:
        if line.startswith("{"):
            lines.put(line)
    lines.put(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="model types")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    if options.work:
        for model_type, setting in options.work:
            print(json.dumps(examine(model_type, setting)), flush=True)
        return
    rows = examine_all([one for one in settings() if not options.only or one[0] in options.only])
    counts = Counter(row["outcome"] for row in rows)
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.items()))
    if options.output:
        table = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
        registered = len(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        classes = len(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))
        table |= {"n_model_types": registered, "n_classes": classes, "counts": counts, "families": rows}
        options.output.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
