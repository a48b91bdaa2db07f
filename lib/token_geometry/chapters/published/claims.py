"""Claims of a publication, each computed from its numbers and from a run in the same way.

A side (`Published` or `Measured`) answers four questions about one model; a `Claim` asks them. So a claim
cannot be one thing for the paper and another for the run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol

import numpy as np
import pandas as pd
import xarray as xr
from scipy import special

from token_geometry.chapters.frames import Results
from token_geometry.chapters.published import arrays as published
from token_geometry.stats import statistics

ENDS = [(1 - statistics.CONFIDENCE) / 2, (1 + statistics.CONFIDENCE) / 2]
"""Quantiles at the ends of an interval."""


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its interval, which are NaN where no interval can be given."""

    value: float
    low: float = np.nan
    high: float = np.nan

    def sign(self) -> int:
        """1 or -1 if the interval (else the number) is on one side of zero, 0 if it holds zero."""
        low, high = (self.low, self.high) if np.isfinite(self.low) else (self.value, self.value)
        return int(low > 0) - int(high < 0)


class Side(Protocol):
    """What is known of one model."""

    title: str
    """Name of the model."""

    levels: tuple[int, int]
    """The lowest and the highest shuffle level."""

    n_prompts: int
    """Prompts that were run at every level."""

    scales: list[int]
    """Scales that have data."""

    def mean(self, observable: str, level: int, **at: int) -> xr.DataArray:
        """Mean over the prompts that were run at every level, over the layers from 1 that have data."""

    def at(self, observable: str, point: dict) -> Estimate:
        """The observable at a shuffle level, layer, scale …, mean over prompts."""

    def change(self, observable: str, points: list[dict]) -> Estimate:
        """The observable at the second point minus that at the first, mean over prompts."""

    def correlation(self, scale: int) -> xr.Dataset:
        """Pearson correlation of ID and loss over structured prompts: `correlation`, `low`, `high` by layer."""

    def depth_change(self, scale: int) -> Estimate:
        """How much deeper, as a share of the depth, the ID peaks when text is shuffled."""

    def depth(self, layer: int) -> float:
        """Share of the depth at a layer."""


@dataclass(frozen=True)
class Published:
    """Published means and deviations of one model."""

    model: str
    """Its name in the published data set."""

    @property
    def title(self) -> str:
        return str(self._dataset["model_title"].item())

    @property
    def levels(self) -> tuple[int, int]:
        levels = self._dataset["shuffle_level"].values
        return int(levels.min()), int(levels.max())

    @property
    def n_prompts(self) -> int:
        return self._dataset.attrs["n_prompts"]

    @property
    def scales(self) -> list[int]:
        return self._dataset["scale"].values.tolist()

    def mean(self, observable: str, level: int, **at: int) -> xr.DataArray:
        values = self._dataset[f"{observable}_mean"].sel(shuffle_level=level, **at)
        return values.sel(layer=slice(1, None)).dropna("layer").astype(float)

    def at(self, observable: str, point: dict) -> Estimate:
        mean, deviation = (float(self._dataset[f"{observable}_{part}"].sel(point)) for part in ("mean", "std"))
        # the published deviation has the divisor n
        half = special.stdtrit(self.n_prompts - 1, ENDS[1]) * deviation / np.sqrt(self.n_prompts - 1)
        return Estimate(mean, mean - half, mean + half)

    def change(self, observable: str, points: list[dict]) -> Estimate:
        first, second = (self.at(observable, point) for point in points)
        # Deviations were published and pairs were not: as if the two samples were independent, which
        # for two measurements of the same prompts makes the interval too wide rather than too narrow.
        half = float(np.hypot(first.high - first.value, second.high - second.value))
        value = second.value - first.value
        return Estimate(value, value - half, value + half)

    def correlation(self, scale: int) -> xr.Dataset:
        return published.correlation().sel(model=self.model, scale=scale).dropna("layer")

    def depth_change(self, scale: int) -> Estimate:
        first, last = (peak_layer(self, level, scale) for level in self.levels)
        return Estimate(self.depth(last) - self.depth(first))

    def depth(self, layer: int) -> float:
        return layer / self._dataset.attrs["n_blocks"]

    @cached_property
    def _dataset(self) -> xr.Dataset:
        return published.tokens().sel(model=self.model)


@dataclass(frozen=True)
class Measured:
    """One model of a run."""

    results: Results
    """The run."""

    model: str
    """The model."""

    @property
    def title(self) -> str:
        return str(self._shuffled["model_title"].item())

    @property
    def levels(self) -> tuple[int, int]:
        return self.results.extremes

    @property
    def n_prompts(self) -> int:
        return self._shuffled.sizes["prompt"]

    @property
    def scales(self) -> list[int]:
        present = self._shuffled["intrinsic_dimension"].notnull()
        return present["scale"].values[present.any(["shuffle_level", "prompt", "layer"]).values].tolist()

    def mean(self, observable: str, level: int, **at: int) -> xr.DataArray:
        values = self._shuffled[observable].sel(shuffle_level=level, **at)
        return values.sel(layer=slice(1, None)).mean("prompt").dropna("layer")

    def at(self, observable: str, point: dict) -> Estimate:
        return _mean(self._shuffled[observable].sel(point))

    def change(self, observable: str, points: list[dict]) -> Estimate:
        first, second = (self._shuffled[observable].sel(point).reset_coords(drop=True) for point in points)
        return _mean(second - first)

    def correlation(self, scale: int) -> xr.Dataset:
        structured = self.results.structured.sel(model=self.model).isel(shuffle_level=0)
        dimension = structured["intrinsic_dimension"].sel(scale=scale, layer=slice(1, None))
        return statistics.correlate(dimension, structured["loss"]).dropna("layer", subset=["correlation"])

    def depth_change(self, scale: int) -> Estimate:
        first, last = (peak_layer(self, level, scale) for level in self.levels)
        value = self.depth(last) - self.depth(first)
        if self.n_prompts < statistics.FEWEST_PROMPTS:
            return Estimate(value)
        # with one seed the resamples of both levels hold the same prompts
        layers = [
            statistics.resampled_means(
                self._shuffled["intrinsic_dimension"]
                .sel(shuffle_level=level, scale=scale, layer=slice(1, None))
                .dropna("layer")
            ).idxmax("layer")
            for level in self.levels
        ]
        ends = ((layers[1] - layers[0]) / self._n_blocks).quantile(ENDS)
        return Estimate(value, *map(float, ends))

    def depth(self, layer: int) -> float:
        return layer / self._n_blocks

    @property
    def _n_blocks(self) -> int:
        return int(self._shuffled["relative_depth"].count()) - 1

    @cached_property
    def _shuffled(self) -> xr.Dataset:
        return self.results.shuffled.sel(model=self.model)


def _mean(values: xr.DataArray) -> Estimate:
    interval = statistics.mean_interval(values)
    return Estimate(*(float(interval[name]) for name in ("mean", "low", "high")))


def published_sides() -> list[Published]:
    """The published models."""
    return [Published(model) for model in published.tokens()["model"].values.tolist()]


def measured_sides(results: Results) -> list[Measured]:
    """The models of a run."""
    return [Measured(results, model) for model in results.observables["model"].values.tolist()]


def peak_layer(side: Side, level: int, scale: int) -> int:
    """Layer from 1 at which the mean ID is largest."""
    return int(side.mean("intrinsic_dimension", level, scale=scale).idxmax("layer"))


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

    compute: Callable[[Side], Estimate]
    """The number, for one model."""

    def on(self, side: Side) -> Estimate | None:
        """The number for a model; None where the model's data do not allow it."""
        if side.levels[0] == side.levels[1] and self.shuffled:
            return None
        estimate = self.compute(side)
        return estimate if estimate is not None and np.isfinite(estimate.value) else None


def _peak_height(scale: int):
    def compute(side: Side) -> Estimate | None:
        if scale not in side.scales:
            return None
        return side.change(
            "intrinsic_dimension",
            [{"shuffle_level": s, "scale": scale, "layer": peak_layer(side, s, scale)} for s in side.levels],
        )

    return compute


def _at_structured_peak(observable: str, *, peak_scale: int, **at: int):
    def compute(side: Side) -> Estimate | None:
        if peak_scale not in side.scales:
            return None
        layer = peak_layer(side, side.levels[0], peak_scale)
        if layer not in side.mean(observable, side.levels[0], **at)["layer"]:
            return None
        return side.change(observable, [at | {"shuffle_level": s, "layer": layer} for s in side.levels])

    return compute


def _cosine_at_the_end(side: Side) -> Estimate:
    last = int(side.mean("cosine_similarity", side.levels[0])["layer"].max())
    return side.change("cosine_similarity", [{"shuffle_level": s, "layer": last} for s in side.levels])


def _loss(side: Side) -> Estimate:
    return side.change("loss", [{"shuffle_level": s} for s in side.levels])


def _overlap_gain(side: Side) -> Estimate | None:
    mean = side.mean("neighborhood_overlap", side.levels[0], k=1)
    if not mean.size:
        return None
    layers = int(mean["layer"][0]), int(mean.idxmax("layer"))
    return side.change(
        "neighborhood_overlap", [{"shuffle_level": side.levels[0], "k": 1, "layer": layer} for layer in layers]
    )


def _largest_correlation(scale: int):
    def compute(side: Side) -> Estimate | None:
        found = side.correlation(scale) if scale in side.scales else None
        if found is None or not found["layer"].size:
            return None
        best = found.sel(layer=found["correlation"].idxmax("layer"))
        return Estimate(*(float(best[name]) for name in ("correlation", "low", "high")))

    return compute


def _correlation_lead(scale: int):
    def compute(side: Side) -> Estimate | None:
        found = side.correlation(scale) if scale in side.scales else None
        if found is None or not found["layer"].size:
            return None
        layer = int(found["correlation"].idxmax("layer"))
        return Estimate(side.depth(layer) - side.depth(peak_layer(side, side.levels[0], scale)))

    return compute


CLAIMS = (
    Claim(
        "Shuffling raises the peak of the ID at scale 2",
        "ID",
        1, "paper", True, _peak_height(2),
    ),
    Claim(
        "Shuffling moves that peak to an earlier layer",
        "share of the depth",
        -1, "arrays", True, lambda side: side.depth_change(2),
    ),
    Claim(
        "At scale 64, shuffling lowers the ID where structured text has its peak",
        "ID",
        -1, "arrays", True, _at_structured_peak("intrinsic_dimension", peak_scale=64, scale=64),
    ),
    Claim(
        "Shuffling lowers the NO (k = 2) where the ID of structured text peaks",
        "NO",
        -1, "paper", True, _at_structured_peak("neighborhood_overlap", peak_scale=2, k=2),
    ),
    Claim(
        "Shuffling raises the mean cosine similarity of the last layer",
        "cosine",
        1, "paper", True, _cosine_at_the_end,
    ),
    Claim("Shuffling raises the loss", "nats", 1, "paper", True, _loss),
    Claim(
        "The NO (k = 1) of structured text grows after the first layer",
        "NO",
        1, "arrays", False, _overlap_gain,
    ),
    Claim(
        "Prompts with a higher loss have a higher ID at scale 2",
        "Pearson’s r",
        1, "paper", False, _largest_correlation(2),
    ),
    Claim(
        "Prompts with a higher loss have a higher ID at scale 4",
        "Pearson’s r",
        1, "paper", False, _largest_correlation(4),
    ),
    Claim(
        "The correlation at scale 2 is largest before the ID is",
        "share of the depth",
        -1, "arrays", False, _correlation_lead(2),
    ),
)  # fmt: skip
"""What is compared, in the order of the table."""

VERDICTS = {1: "agrees", 0: "open", -1: "disagrees"}
"""What a sign against the claimed one says."""


@cache
def _on_published(claim: Claim, side: Published) -> Estimate | None:
    return claim.on(side)


def compare(results: Results) -> pd.DataFrame:
    """Every claim for every published model and every model of a run.

    Returns
    -------
    pandas.DataFrame
        One row a claim and model: `claim`, `quantity`, `source`, `model_title`, `side` (`published` or `run`),
        `value`, `low`, `high` (interval of 95 %; NaN where there is none), `verdict` (of `VERDICTS`; `missing`
        where the run holds no data for it).
    """
    rows = []
    for claim in CLAIMS:
        for side in (*published_sides(), *measured_sides(results)):
            found = _on_published(claim, side) if isinstance(side, Published) else claim.on(side)
            shown = found or Estimate(np.nan)
            rows.append(
                {
                    "claim": claim.text,
                    "quantity": claim.quantity,
                    "source": claim.source,
                    "model_title": side.title,
                    "side": "published" if isinstance(side, Published) else "run",
                    "value": shown.value,
                    "low": shown.low,
                    "high": shown.high,
                    "verdict": VERDICTS[found.sign() * claim.sign] if found else "missing",
                }
            )
    return pd.DataFrame(rows)


def peaks(results: Results, *, scale: int = 2) -> pd.DataFrame:
    """Layer and height of the largest mean ID of every model, structured and shuffled.

    Returns
    -------
    pandas.DataFrame
        Columns `model_title`, `side`, `shuffle_level`, `layer`, `relative_depth`, `mean`, `low`, `high` (interval
        of the mean at that layer), `n_prompts`.
    """
    rows = []
    for side in (*published_sides(), *measured_sides(results)):
        if scale not in side.scales:
            continue
        for level in dict.fromkeys(side.levels):
            layer = peak_layer(side, level, scale)
            height = side.at("intrinsic_dimension", {"shuffle_level": level, "scale": scale, "layer": layer})
            rows.append(
                {
                    "model_title": side.title,
                    "side": "published" if isinstance(side, Published) else "run",
                    "shuffle_level": level,
                    "layer": layer,
                    "relative_depth": side.depth(layer),
                    "mean": height.value,
                    "low": height.low,
                    "high": height.high,
                    "n_prompts": side.n_prompts,
                }
            )
    return pd.DataFrame(rows)
