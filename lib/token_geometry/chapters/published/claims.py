"""Claims of a publication, each a number with a sign that is computed from any evidence in the same way."""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from operator import methodcaller

import numpy as np
import pandas as pd

from token_geometry.base import files
from token_geometry.chapters.published.evidence import Estimate, Evidence, of_all
from token_geometry.chapters.results import RunResults


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An entry of `claims.yml`, which says what each is; `number` is computed for a model that has the scale."""

    text: str
    quantity: str
    sign: int
    source: str
    shuffled: bool
    scale: int | None = None
    number: Callable[[Evidence], Estimate | None]

    def on(self, evidence: Evidence) -> Estimate | None:
        """The number for a model; None where the model's data do not allow it."""
        alike = evidence.levels[0] == evidence.levels[1]
        if (alike and self.shuffled) or self.scale not in (None, *evidence.scales):
            return None
        estimate = self.number(evidence)
        return estimate if estimate is not None and np.isfinite(estimate.value) else None


def shuffling(evidence: Evidence, *, observable: str, peak_of: int | None = None, **at: int) -> Estimate:
    """Change by full shuffling; `peak_of`: in the layer where the ID of structured text is largest there."""
    layer = {"layer": evidence.peak_layer(evidence.levels[0], peak_of)} if peak_of else {}
    return evidence.change(observable, [at | layer | {"shuffle_level": s} for s in evidence.levels])


def peak_height(evidence: Evidence) -> Estimate:
    """Change of the largest ID at scale 2."""
    points = [{"shuffle_level": s, "scale": 2, "layer": evidence.peak_layer(s, 2)} for s in evidence.levels]
    return evidence.change("intrinsic_dimension", points)


def cosine_at_the_end(evidence: Evidence) -> Estimate:
    """Change of the cosine similarity of the last layer."""
    last = int(evidence.mean("cosine_similarity", evidence.levels[0])["layer"].max())
    return shuffling(evidence, observable="cosine_similarity", layer=last)


def overlap_gain(evidence: Evidence) -> Estimate | None:
    """How much larger the largest overlap (k = 1) of structured text is than that of the first layer."""
    mean = evidence.mean("neighborhood_overlap", evidence.levels[0], k=1)
    if not mean.size:
        return None
    at = {"shuffle_level": evidence.levels[0], "k": 1}
    layers = int(mean["layer"][0]), int(mean.idxmax("layer"))
    return evidence.change("neighborhood_overlap", [at | {"layer": layer} for layer in layers])


def correlation_lead(evidence: Evidence) -> Estimate | None:
    """How much deeper the correlation of ID and loss at scale 2 is largest than the ID."""
    if (found := evidence.strongest(2)) is None:
        return None
    return Estimate(found[0] / evidence.n_blocks - evidence.peak_layer(evidence.levels[0], 2) / evidence.n_blocks)


def largest_correlation(evidence: Evidence, *, scale: int) -> Estimate | None:
    """The largest correlation of ID and loss."""
    return (evidence.strongest(scale) or (None, None))[1]


depth_change = methodcaller("depth_change", 2)  # change of the depth at which the ID at scale 2 is largest
_TOLD = [(one, *call) for one in files.table(__file__)["claims"] for call in one["number"].items()]
CLAIMS = [Claim(**one | {"number": partial(globals()[name], **options)}) for one, name, options in _TOLD]
VERDICTS = {1: "agrees", 0: "open", -1: "disagrees"}  # what a sign against the claimed one says


def compare(results: RunResults) -> pd.DataFrame:
    """Every claim for every published model and every model of a run, one row per claim and model.

    Columns `claim`, `quantity`, `source`, `model_title`, `side` (`published` or `run`), `value`, `low`, `high`
    (interval of 95%; NaN where there is none), `verdict` (of `VERDICTS`; `missing`: no data for it in the run)."""
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
    of the mean at that layer), `n_prompts`."""
    rows = []
    for evidence in of_all(results):
        for level in dict.fromkeys(evidence.levels) if 2 in evidence.scales else ():
            at: dict = {"shuffle_level": level, "layer": evidence.peak_layer(level, 2)}
            height = asdict(evidence.at("intrinsic_dimension", at | {"scale": 2}))
            row: dict = {"model_title": evidence.title, "side": evidence.side} | at
            row |= {"relative_depth": at["layer"] / evidence.n_blocks, "mean": height.pop("value")}
            rows.append(row | height | {"n_prompts": evidence.n_prompts})
    return pd.DataFrame(rows)
