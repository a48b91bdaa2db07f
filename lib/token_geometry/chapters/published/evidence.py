"""What is known of one model, published or of a run: the same questions are asked of both.

So a claim cannot be one thing for the paper and another for the run.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from scipy import special

from token_geometry.chapters.frames import FROM_ONE
from token_geometry.chapters.published import arrays
from token_geometry.chapters.results import RunResults
from token_geometry.stats import correlation, intervals

ENDS = [(1 - intervals.CONFIDENCE) / 2, (1 + intervals.CONFIDENCE) / 2]
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


class Evidence(ABC):
    """What is known of one model."""

    side: str
    """`published`, or `run`."""

    dataset: xr.Dataset
    """Its numbers at every shuffle level."""

    n_prompts: int
    """Prompts that were run at every level."""

    n_blocks: int
    """Depth of the model."""

    scales: list[int]
    """Scales that have data."""

    @property
    def title(self) -> str:
        """Name of the model."""
        return str(self.dataset["model_title"].item())

    @property
    def levels(self) -> tuple[int, int]:
        """The lowest and the highest shuffle level."""
        levels = self.dataset["shuffle_level"].values
        return int(levels.min()), int(levels.max())

    def depth(self, layer: int) -> float:
        """Share of the depth at a layer."""
        return layer / self.n_blocks

    def depth_change(self, scale: int) -> Estimate:
        """How much deeper, as a share of the depth, the ID peaks when text is shuffled."""
        first, last = (peak_layer(self, level, scale) for level in self.levels)
        return Estimate(self.depth(last) - self.depth(first))

    @abstractmethod
    def mean(self, observable: str, level: int, **at: int) -> xr.DataArray:
        """Mean over the prompts that were run at every level, over the layers from 1 that have data."""

    @abstractmethod
    def at(self, observable: str, point: dict) -> Estimate:
        """The observable at a shuffle level, layer, scale …, mean over prompts."""

    @abstractmethod
    def change(self, observable: str, points: list[dict]) -> Estimate:
        """The observable at the second point minus that at the first, mean over prompts."""

    @abstractmethod
    def correlation(self, scale: int) -> xr.Dataset:
        """Pearson correlation of ID and loss over structured prompts: `correlation`, `low`, `high` by layer."""


@dataclass(frozen=True)
class Published(Evidence):
    """Published means and deviations of one model."""

    model: str
    """Its name in the published data set."""

    side = "published"

    @cached_property
    def dataset(self) -> xr.Dataset:
        return arrays.tokens().sel(model=self.model)

    @property
    def n_prompts(self) -> int:
        return self.dataset.attrs["n_prompts"]

    @property
    def n_blocks(self) -> int:
        return int(self.dataset.attrs["n_blocks"])

    @property
    def scales(self) -> list[int]:
        return self.dataset["scale"].values.tolist()

    def mean(self, observable: str, level: int, **at: int) -> xr.DataArray:
        values = self.dataset[f"{observable}_mean"].sel(shuffle_level=level, **at)
        return values.sel(layer=FROM_ONE).dropna("layer").astype(float)

    def at(self, observable: str, point: dict) -> Estimate:
        mean, deviation = (float(self.dataset[f"{observable}_{part}"].sel(point)) for part in ("mean", "std"))
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
        return arrays.correlation().sel(model=self.model, scale=scale).dropna("layer")


@dataclass(frozen=True)
class Measured(Evidence):
    """One model of a run."""

    results: RunResults
    """The run."""

    model: str
    """The model."""

    side = "run"

    @cached_property
    def dataset(self) -> xr.Dataset:
        return self.results.shuffled.sel(model=self.model)

    @property
    def n_prompts(self) -> int:
        return self.dataset.sizes["prompt"]

    @property
    def n_blocks(self) -> int:
        return self.results.last_layer(self.model)

    @property
    def scales(self) -> list[int]:
        present = self.dataset["intrinsic_dimension"].notnull()
        return present["scale"].values[present.any(["shuffle_level", "prompt", "layer"]).values].tolist()

    def mean(self, observable: str, level: int, **at: int) -> xr.DataArray:
        values = self.dataset[observable].sel(shuffle_level=level, **at)
        return values.sel(layer=FROM_ONE).mean("prompt").dropna("layer")

    def at(self, observable: str, point: dict) -> Estimate:
        return _mean(self.dataset[observable].sel(point))

    def change(self, observable: str, points: list[dict]) -> Estimate:
        first, second = (self.dataset[observable].sel(point).reset_coords(drop=True) for point in points)
        return _mean(second - first)

    def correlation(self, scale: int) -> xr.Dataset:
        structured = self.results.structured.sel(model=self.model).isel(shuffle_level=0)
        dimension = structured["intrinsic_dimension"].sel(scale=scale, layer=FROM_ONE)
        return correlation.correlate(dimension, structured["loss"]).dropna("layer", subset=["correlation"])

    def depth_change(self, scale: int) -> Estimate:
        value = super().depth_change(scale).value
        if self.n_prompts < correlation.FEWEST_PROMPTS:
            return Estimate(value)
        # with one seed the resamples of both levels hold the same prompts
        layers = [
            intervals.resampled_means(
                self.dataset["intrinsic_dimension"]
                .sel(shuffle_level=level, scale=scale, layer=FROM_ONE)
                .dropna("layer")
            ).idxmax("layer")
            for level in self.levels
        ]
        ends = ((layers[1] - layers[0]) / self.n_blocks).quantile(ENDS)
        return Estimate(value, *map(float, ends))


def _mean(values: xr.DataArray) -> Estimate:
    interval = intervals.mean_interval(values)
    return Estimate(*(float(interval[name]) for name in ("mean", "low", "high")))


def published() -> list[Published]:
    """The published models."""
    return [Published(model) for model in arrays.tokens()["model"].values.tolist()]


def measured(results: RunResults) -> list[Measured]:
    """The models of a run."""
    return [Measured(results, model) for model in results.observables["model"].values.tolist()]


def peak_layer(evidence: Evidence, level: int, scale: int) -> int:
    """Layer from 1 at which the mean ID is largest."""
    return int(evidence.mean("intrinsic_dimension", level, scale=scale).idxmax("layer"))


def strongest(evidence: Evidence, scale: int) -> tuple[int, Estimate] | None:
    """Layer and value of the largest correlation of ID and loss; None where there is none."""
    found = evidence.correlation(scale) if scale in evidence.scales else None
    if found is None or not found["layer"].size:
        return None
    best = found.sel(layer=found["correlation"].idxmax("layer"))
    return int(best["layer"]), Estimate(*(float(best[name]) for name in ("correlation", "low", "high")))


def of_all(results: RunResults) -> list[Evidence]:
    """The published models and those of a run."""
    return [*published(), *measured(results)]
