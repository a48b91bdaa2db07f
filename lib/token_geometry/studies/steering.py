"""The causal test of Marks & Tegmark, arXiv:2310.06824: does a direction decide how a model judges statements?"""

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr

from token_geometry.base import files
from token_geometry.models import blocks
from token_geometry.requests.truth_controls import PROMPT
from token_geometry.states import steering
from token_geometry.states.model import LanguageModel
from token_geometry.stats import probes
from token_geometry.stats.intervals import CONFIDENCE, N_RESAMPLES, resample_weights
from token_geometry.texts.statements import Statements

MOST, IN_ALL = 40, 160  # statements of a data set, half of them true, and of all, that are steered
BAND = 1 / 4  # share of the layers whose states are moved: that of the request and those before it

_TABLE = files.table(__file__)
DIRECTIONS, LEFT_OUT, QUESTION = list(_TABLE["directions"]), _TABLE["left_out"], PROMPT["question"]
FEW_SHOT = "".join(f"{text}{QUESTION}{PROMPT['words'][truth]}\n" for text, truth in PROMPT["examples"])


@torch.inference_mode()
def steer(
    model: LanguageModel, sets: Sequence[Statements], states: torch.Tensor, ids: list[list[int]],
    *, bos: bool, layer: int, seed: int,
) -> tuple[xr.Dataset, list[str]]:  # fmt: skip
    """Ask a model whether statements are true, and again with directions added to the false, taken from the true.

    `states`, shape (layer, statement, width), and `ids` are of the bare statements of all `sets`. Directions learn
    from those that are not steered. Lines say what could not be steered."""
    tokenizer, head, context = model.tokenizer, model.head, blocks.context(model.model.config) or np.inf
    asking = [FEW_SHOT, *(QUESTION + PROMPT["words"][truth] for truth in (True, False))]
    start, true, false = tokenizer(asking, add_special_tokens=False)["input_ids"]
    end = os.path.commonprefix([true, false])
    rows = [[tokenizer.bos_token_id] * bos + start + row + end for row in ids]
    fitting, lines = [row for row in rows if len(row) <= context], []
    reason = "words" if len(end) == min(len(true), len(false)) else "model"
    known = torch.tensor(start).to(model.device)
    if reason == "words" or not (head and fitting and head.is_all(known) and model.shares_prefixes(fitting)):
        return xr.Dataset(), [LEFT_OUT[reason].format(model=model.source.name)]
    top = max(1, min(layer, model.n_layers - 1))  # the last state is behind the final norm
    band = range(max(1, top - round(BAND * model.n_layers) + 1), top + 1)
    random = np.random.default_rng(seed).standard_normal((len(DIRECTIONS) - 2, states.shape[-1]))
    found, ends = {}, np.cumsum([len(s.texts) for s in sets])
    for i, (one, behind) in enumerate(zip(sets, ends, strict=True)):
        own, own_states = rows[behind - len(one.texts) : behind], states[:, behind - len(one.texts) : behind]
        fits = np.array([len(row) <= context for row in own])
        order = np.random.default_rng(seed).permutation(len(own))
        members = [order[fits[order] & (one.labels[order] == truth)] for truth in (0, 1)]
        n = min(MOST, IN_ALL // len(sets), *map(len, members)) // 2 * one.is_binary
        said = {"data": one.name, "n": (~fits).sum(), "context": context}
        lines += [LEFT_OUT["long"].format(**said)] * (not fits.all())
        lines += [LEFT_OUT["few"].format(**said)] * (one.is_binary and not n)
        if n:
            chosen = np.concatenate([some[:n] for some in members])  # the false ones first
            rest, sign = np.setdiff1d(order, chosen), np.repeat([1.0, -1.0], n)[:, None, None]
            moves = {at: sign * _directions(own_states[at, rest], one.labels[rest], random) for at in band}
            shifts = {at: torch.from_numpy(move).flatten(0, 1).float() for at, move in moves.items()}
            variants = [own[place] for place in chosen for _ in range(1 + len(DIRECTIONS))]
            last = steering.last_states(model, variants, len(end), shifts)
            answers = torch.tensor([true[len(end)], false[len(end)]]).repeat_interleave(len(variants))
            losses = head.predicted(last.repeat(2, 1), answers)[0]
            found[i] = _effects(-np.diff(np.exp(-losses).reshape(2, 2, n, -1), axis=0)[0], seed=seed)
            lines += [LEFT_OUT["prompt"].format(**said)] * bool(found[i]["indirect_effect"].isnull().all())
    if not found:
        return xr.Dataset(), lines
    steered = xr.concat(found.values(), pd.Index(found, name="dataset")).reindex(dataset=range(len(sets)))
    attrs = {"band": f"{band[0]} to {band[-1]}", "few_shot": f"{FEW_SHOT}…{QUESTION}"}
    return steered.drop_vars("dataset").assign_attrs(attrs), lines


def _directions(states: torch.Tensor, labels: np.ndarray, random: np.ndarray) -> np.ndarray:
    """No vector and those of `DIRECTIONS`, as long as the class means are apart along them, random ones in all."""
    points = states.double().numpy()
    (mean,), components = probes.mass_mean(points, labels), probes.principal_components(points)
    scores, axes = components.scores[:, : probes.N_COMPONENTS], components.axes[: probes.N_COMPONENTS]
    learned = np.vstack([probes.logistic_regression(scores, labels) @ axes, random])
    learned /= np.linalg.norm(learned, axis=1, keepdims=True)
    lengths = np.array([learned[0] @ mean, *[np.linalg.norm(mean)] * len(random)])
    return np.stack([0 * mean, mean, *lengths[:, None] * learned])


def _effects(difference: np.ndarray, *, seed: int) -> xr.Dataset:
    """What steering makes of P(TRUE) - P(FALSE), with intervals over resampled statements.

    `difference` is of false and true statements, shape (2, statement, variant), the first variant unsteered.
    Indirect effects are NaN where the interval of the difference between true and false ones is not above 0."""
    n, ends = difference.shape[1], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    weights = [resample_weights(np.arange(n), N_RESAMPLES, seed + truth) for truth in (0, 1)]
    false, true = (np.vstack([np.ones(n), w]) @ side / n for w, side in zip(weights, difference, strict=True))
    added, subtracted, truth = false[:, 1:] - false[:, :1], true[:, :1] - true[:, 1:], true[:, 0] - false[:, 0]
    change = np.stack([added, subtracted, (added + subtracted) / 2], axis=-1)
    share = change / (truth if np.quantile(truth[1:], ends[0]) > 0 else truth * np.nan)[:, None, None]
    right = np.sum((difference[..., 0] > 0) == [[False], [True]])
    found = {"prompt_difference": ("truth", difference[..., 0].mean(axis=1)), "n_steered": ((), 2 * n)}
    judged, dims = (right / (2 * n), *probes.interval(right, np.array(2 * n))), ("direction", "sense")
    for place, end in enumerate(("", "_low", "_high")):
        found[f"prompt_accuracy{end}"] = (), judged[place]
        for name, part in (("steered_difference", change), ("indirect_effect", share)):
            found[f"{name}{end}"] = dims, np.quantile(part[1:], ends[place - 1], axis=0) if place else part[0]
    coords = {"direction": DIRECTIONS, "sense": ["add", "subtract", "both"], "truth": ["false", "true"]}
    return xr.Dataset(found, coords)
