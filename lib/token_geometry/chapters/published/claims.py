"""Claims of a publication, each a number with a sign that is computed from any evidence in the same way."""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from token_geometry.chapters.published.evidence import Estimate, Evidence, of_all
from token_geometry.chapters.results import RunResults


@dataclass(frozen=True)
class Claim:
    """A statement, with the sign that its number has if it holds.

    `quantity` is what the number counts, `source` the version of the paper that states it, or whose published
    arrays show it, and `shuffled` says whether it compares shuffle levels. `scale` is that of the ID that it is
    about, if any. `compute` gives the number for one model that has the scale.
    """

    text: str
    quantity: str
    sign: int
    source: str
    shuffled: bool
    scale: int | None
    compute: Callable[[Evidence], Estimate | None]

    def on(self, evidence: Evidence) -> Estimate | None:
        """The number for a model; None where the model's data do not allow it."""
        alike = evidence.levels[0] == evidence.levels[1]
        if (alike and self.shuffled) or self.scale not in (None, *evidence.scales):
            return None
        estimate = self.compute(evidence)
        return estimate if estimate is not None and np.isfinite(estimate.value) else None


def _shuffling(observable: str, *, peak_of: int | None = None, **at: int) -> Callable[[Evidence], Estimate]:
    # with `peak_of`: in the layer where the ID of structured text at that scale is largest
    def compute(evidence: Evidence) -> Estimate:
        layer = {"layer": evidence.peak_layer(evidence.levels[0], peak_of)} if peak_of else {}
        return evidence.change(observable, [at | layer | {"shuffle_level": s} for s in evidence.levels])

    return compute


def _peak_height(evidence: Evidence) -> Estimate:
    points = [{"shuffle_level": s, "scale": 2, "layer": evidence.peak_layer(s, 2)} for s in evidence.levels]
    return evidence.change("intrinsic_dimension", points)


def _cosine_at_the_end(evidence: Evidence) -> Estimate:
    last = int(evidence.mean("cosine_similarity", evidence.levels[0])["layer"].max())
    return _shuffling("cosine_similarity", layer=last)(evidence)


def _overlap_gain(evidence: Evidence) -> Estimate | None:
    mean = evidence.mean("neighborhood_overlap", evidence.levels[0], k=1)
    if not mean.size:
        return None
    at = {"shuffle_level": evidence.levels[0], "k": 1}
    layers = int(mean["layer"][0]), int(mean.idxmax("layer"))
    return evidence.change("neighborhood_overlap", [at | {"layer": layer} for layer in layers])


def _correlation_lead(evidence: Evidence) -> Estimate | None:
    found = evidence.strongest(2)
    if found is None:
        return None
    peak = evidence.peak_layer(evidence.levels[0], 2)
    return Estimate(found[0] / evidence.n_blocks - peak / evidence.n_blocks)


def _largest_correlation(scale: int) -> Callable[[Evidence], Estimate | None]:
    return lambda evidence: (evidence.strongest(scale) or (None, None))[1]


FIRST, ARRAYS = "version 1", "arrays of version 1"

CLAIMS = (
    Claim("Shuffling raises the maximum over layers of the ID at scale 2",
          "ID", 1, FIRST, True, 2, _peak_height),
    Claim("Shuffling moves that maximum to an earlier layer",
          "share of the depth", -1, ARRAYS, True, 2, lambda evidence: evidence.depth_change(2)),
    Claim("At scale 64, shuffling lowers the ID where that of structured text is largest",
          "ID", -1, ARRAYS, True, 64, _shuffling("intrinsic_dimension", peak_of=64, scale=64)),
    Claim("Shuffling lowers the NO (k = 2) where the ID of structured text is largest",
          "NO", -1, FIRST, True, 2, _shuffling("neighborhood_overlap", peak_of=2, k=2)),
    Claim("Shuffling raises the mean cosine similarity of the last layer",
          "cosine", 1, FIRST, True, None, _cosine_at_the_end),
    Claim("Shuffling raises the loss",
          "nats", 1, FIRST, True, None, _shuffling("loss")),
    Claim("The NO (k = 1) of structured text grows after the first layer",
          "NO", 1, ARRAYS, False, None, _overlap_gain),
    Claim("Prompts with a higher loss have a higher ID at scale 2",
          "Pearson’s r", 1, FIRST, False, 2, _largest_correlation(2)),
    Claim("Prompts with a higher loss have a higher ID at scale 4",
          "Pearson’s r", 1, "both versions", False, 4, _largest_correlation(4)),
    Claim("The correlation at scale 2 is largest before the ID is",
          "share of the depth", -1, ARRAYS, False, 2, _correlation_lead),
)  # fmt: skip
"""What is compared, in the order of the table."""

VERDICTS = {1: "agrees", 0: "open", -1: "disagrees"}
"""What a sign against the claimed one says."""


def compare(results: RunResults) -> pd.DataFrame:
    """Every claim for every published model and every model of a run, one row per claim and model.

    Columns `claim`, `quantity`, `source`, `model_title`, `side` (`published` or `run`), `value`, `low`, `high`
    (interval of 95%; NaN where there is none), `verdict` (of `VERDICTS`; `missing`: no data for it in the run).
    """
    rows = []
    for claim, evidence in itertools.product(CLAIMS, of_all(results)):
        found = claim.on(evidence)
        # a run's number without an interval, as of few prompts, decides nothing; some published ones never had one
        is_open = found and evidence.side == "run" and np.isnan(found.low)
        verdict = VERDICTS[0 if is_open else found.sign() * claim.sign] if found else "missing"
        told = {"claim": claim.text, "quantity": claim.quantity, "source": claim.source}
        told |= {"model_title": evidence.title, "side": evidence.side}
        rows.append(told | asdict(found or Estimate(np.nan)) | {"verdict": verdict})
    return pd.DataFrame(rows)


def peaks(results: RunResults) -> pd.DataFrame:
    """Layer and height of the largest mean ID at scale 2 of every model, structured and shuffled.

    Columns `model_title`, `side`, `shuffle_level`, `layer`, `relative_depth`, `mean`, `low`, `high` (interval
    of the mean at that layer), `n_prompts`.
    """
    rows = []
    for evidence in of_all(results):
        for level in dict.fromkeys(evidence.levels) if 2 in evidence.scales else ():
            at: dict = {"shuffle_level": level, "layer": evidence.peak_layer(level, 2)}
            height = asdict(evidence.at("intrinsic_dimension", at | {"scale": 2}))
            row: dict = {"model_title": evidence.title, "side": evidence.side} | at
            row |= {"relative_depth": at["layer"] / evidence.n_blocks, "mean": height.pop("value")}
            rows.append(row | height | {"n_prompts": evidence.n_prompts})
    return pd.DataFrame(rows)
