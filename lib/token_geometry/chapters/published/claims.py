"""Claims of a publication, each a number with a sign that is computed from any evidence in the same way."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import pandas as pd

from token_geometry.chapters.published.evidence import Estimate, Evidence, Published, of_all, peak_layer, strongest
from token_geometry.chapters.results import RunResults


@dataclass(frozen=True)
class Claim:
    """A statement with a sign."""

    text: str
    """The statement."""

    quantity: str
    """What the number counts."""

    sign: int
    """Sign of the number if the statement holds."""

    source: str
    """`paper` where its authors state it, `arrays` where it is read from the arrays they published."""

    shuffled: bool
    """Whether it compares shuffle levels."""

    compute: Callable[[Evidence], Estimate]
    """The number, for one model."""

    def on(self, evidence: Evidence) -> Estimate | None:
        """The number for a model; None where the model's data do not allow it."""
        if evidence.levels[0] == evidence.levels[1] and self.shuffled:
            return None
        estimate = self.compute(evidence)
        return estimate if estimate is not None and np.isfinite(estimate.value) else None


def _peak_height(scale: int):
    def compute(evidence: Evidence) -> Estimate | None:
        if scale not in evidence.scales:
            return None
        return evidence.change(
            "intrinsic_dimension",
            [
                {"shuffle_level": s, "scale": scale, "layer": peak_layer(evidence, s, scale)}
                for s in evidence.levels
            ],
        )

    return compute


def _at_structured_peak(observable: str, *, peak_scale: int, **at: int):
    def compute(evidence: Evidence) -> Estimate | None:
        if peak_scale not in evidence.scales:
            return None
        layer = peak_layer(evidence, evidence.levels[0], peak_scale)
        if layer not in evidence.mean(observable, evidence.levels[0], **at)["layer"]:
            return None
        return evidence.change(observable, [at | {"shuffle_level": s, "layer": layer} for s in evidence.levels])

    return compute


def _cosine_at_the_end(evidence: Evidence) -> Estimate:
    last = int(evidence.mean("cosine_similarity", evidence.levels[0])["layer"].max())
    return evidence.change("cosine_similarity", [{"shuffle_level": s, "layer": last} for s in evidence.levels])


def _loss(evidence: Evidence) -> Estimate:
    return evidence.change("loss", [{"shuffle_level": s} for s in evidence.levels])


def _overlap_gain(evidence: Evidence) -> Estimate | None:
    mean = evidence.mean("neighborhood_overlap", evidence.levels[0], k=1)
    if not mean.size:
        return None
    layers = int(mean["layer"][0]), int(mean.idxmax("layer"))
    return evidence.change(
        "neighborhood_overlap", [{"shuffle_level": evidence.levels[0], "k": 1, "layer": layer} for layer in layers]
    )


def _largest_correlation(scale: int):
    def compute(evidence: Evidence) -> Estimate | None:
        found = strongest(evidence, scale)
        return found and found[1]

    return compute


def _correlation_lead(scale: int):
    def compute(evidence: Evidence) -> Estimate | None:
        found = strongest(evidence, scale)
        if found is None:
            return None
        peak = peak_layer(evidence, evidence.levels[0], scale)
        return Estimate(evidence.depth(found[0]) - evidence.depth(peak))

    return compute


CLAIMS = (
    Claim("Shuffling raises the peak of the ID at scale 2", "ID", 1, "paper", True, _peak_height(2)),
    Claim(
        "Shuffling moves that peak to an earlier layer",
        "share of the depth", -1, "arrays", True, lambda evidence: evidence.depth_change(2),
    ),
    Claim(
        "At scale 64, shuffling lowers the ID where structured text has its peak",
        "ID", -1, "arrays", True, _at_structured_peak("intrinsic_dimension", peak_scale=64, scale=64),
    ),
    Claim(
        "Shuffling lowers the NO (k = 2) where the ID of structured text peaks",
        "NO", -1, "paper", True, _at_structured_peak("neighborhood_overlap", peak_scale=2, k=2),
    ),
    Claim(
        "Shuffling raises the mean cosine similarity of the last layer",
        "cosine", 1, "paper", True, _cosine_at_the_end,
    ),
    Claim("Shuffling raises the loss", "nats", 1, "paper", True, _loss),
    Claim(
        "The NO (k = 1) of structured text grows after the first layer",
        "NO", 1, "arrays", False, _overlap_gain,
    ),
    Claim(
        "Prompts with a higher loss have a higher ID at scale 2",
        "Pearson’s r", 1, "paper", False, _largest_correlation(2),
    ),
    Claim(
        "Prompts with a higher loss have a higher ID at scale 4",
        "Pearson’s r", 1, "paper", False, _largest_correlation(4),
    ),
    Claim(
        "The correlation at scale 2 is largest before the ID is",
        "share of the depth", -1, "arrays", False, _correlation_lead(2),
    ),
)  # fmt: skip
"""What is compared, in the order of the table."""

VERDICTS = {1: "agrees", 0: "open", -1: "disagrees"}
"""What a sign against the claimed one says."""


@cache
def _on_published(claim: Claim, evidence: Published) -> Estimate | None:
    return claim.on(evidence)


def compare(results: RunResults) -> pd.DataFrame:
    """Every claim for every published model and every model of a run.

    Returns
    -------
    pandas.DataFrame
        One row per claim and model: `claim`, `quantity`, `source`, `model_title`, `side` (`published` or `run`),
        `value`, `low`, `high` (interval of 95%; NaN where there is none), `verdict` (of `VERDICTS`; `missing`
        where the run holds no data for it).
    """
    rows = []
    for claim in CLAIMS:
        for evidence in of_all(results):
            published = isinstance(evidence, Published)
            found = _on_published(claim, evidence) if published else claim.on(evidence)
            rows.append(
                {
                    "claim": claim.text,
                    "quantity": claim.quantity,
                    "source": claim.source,
                    "model_title": evidence.title,
                    "side": evidence.side,
                    **asdict(found or Estimate(np.nan)),
                    "verdict": VERDICTS[found.sign() * claim.sign] if found else "missing",
                }
            )
    return pd.DataFrame(rows)


def peaks(results: RunResults, *, scale: int = 2) -> pd.DataFrame:
    """Layer and height of the largest mean ID of every model, structured and shuffled.

    Returns
    -------
    pandas.DataFrame
        Columns `model_title`, `side`, `shuffle_level`, `layer`, `relative_depth`, `mean`, `low`, `high` (interval
        of the mean at that layer), `n_prompts`.
    """
    rows = []
    for evidence in of_all(results):
        for level in dict.fromkeys(evidence.levels) if scale in evidence.scales else ():
            layer = peak_layer(evidence, level, scale)
            height = evidence.at("intrinsic_dimension", {"shuffle_level": level, "scale": scale, "layer": layer})
            rows.append(
                {
                    "model_title": evidence.title,
                    "side": evidence.side,
                    "shuffle_level": level,
                    "layer": layer,
                    "relative_depth": evidence.depth(layer),
                    "mean": height.value,
                    "low": height.low,
                    "high": height.high,
                    "n_prompts": evidence.n_prompts,
                }
            )
    return pd.DataFrame(rows)
