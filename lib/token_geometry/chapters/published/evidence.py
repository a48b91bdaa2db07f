"""What is known of one model, published or of a run: the same is asked of both, so that a claim is one thing."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import special

from token_geometry.chapters.frames import FROM_ONE
from token_geometry.chapters.published import arrays
from token_geometry.chapters.results import RunResults
from token_geometry.stats import correlation, intervals

_ENDS = [(1 - intervals.CONFIDENCE) / 2, (1 + intervals.CONFIDENCE) / 2]


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
    """What is known of one model, published or of a run."""

    side: str  # `published` or `run`
    title: str  # name of the model
    levels: tuple[int, int]  # the lowest and the highest shuffle level
    dataset: xr.Dataset  # its numbers at every shuffle level: means, or those of each prompt
    n_prompts: int  # prompts that were run at the lowest and the highest level
    n_blocks: int  # depth of the model
    scales: list[int]  # those that have data
    correlations: xr.Dataset  # Pearson's of ID and loss over structured prompts, by layer and scale

    def peak_layer(self, level: int, scale: int) -> int:
        """Layer from 1 at which the mean ID is largest."""
        return int(self.mean("intrinsic_dimension", level, scale=scale).idxmax("layer"))

    def strongest(self, scale: int) -> tuple[int, Estimate] | None:
        """Layer and value of the largest correlation of ID and loss; None where there is none."""
        if scale not in self.scales:
            return None
        found = self.correlations.sel(scale=scale).dropna("layer", subset=["correlation"])
        if not found["layer"].size:
            return None
        best = found.sel(layer=found["correlation"].idxmax("layer"))
        return int(best["layer"]), _estimate(best, "correlation")

    def depth_change(self, scale: int) -> Estimate:
        """How much deeper, as a share of the depth, the ID peaks when text is shuffled."""
        first, last = (self.peak_layer(level, scale) / self.n_blocks for level in self.levels)
        return Estimate(last - first)

    def mean(self, observable: str, level: int, **at: int) -> xr.DataArray:
        """Mean over the prompts that were run at both ends of the levels, in the layers from 1 with data."""
        values = self.dataset[observable].sel(shuffle_level=level, layer=FROM_ONE, **at)
        return (values.mean("prompt") if "prompt" in values.dims else values).dropna("layer")

    @abstractmethod
    def at(self, observable: str, point: dict) -> Estimate:
        """The observable at a shuffle level, layer, scale …, mean over prompts."""

    @abstractmethod
    def change(self, observable: str, points: list[dict]) -> Estimate:
        """The observable at the second point minus that at the first, mean over prompts."""


class Published(Evidence):
    """Published means and deviations of one model, by its name in the published data set."""

    side = "published"

    def __init__(self, model: str):
        given = arrays.tokens().sel(model=model)
        levels = given["shuffle_level"].values
        self.title, self.levels = str(given["model_title"].item()), (int(levels.min()), int(levels.max()))
        self.dataset = given.rename({name: name.removesuffix("_mean") for name in given})
        self.n_prompts, self.n_blocks = (int(self.dataset.attrs[name]) for name in ("n_prompts", "n_blocks"))
        self.scales = self.dataset["scale"].values.tolist()
        self.correlations = arrays.correlation().sel(model=model)

    def at(self, observable: str, point: dict) -> Estimate:
        mean, deviation = (float(self.dataset[f"{observable}{part}"].sel(point)) for part in ("", "_std"))
        # the published deviation has the divisor n
        half = special.stdtrit(self.n_prompts - 1, _ENDS[1]) * deviation / np.sqrt(self.n_prompts - 1)
        return Estimate(mean, mean - half, mean + half)

    def change(self, observable: str, points: list[dict]) -> Estimate:
        first, second = (self.at(observable, point) for point in points)
        # Deviations were published and pairs were not: as if the two samples were independent, which
        # for two measurements of the same prompts makes the interval too wide rather than too narrow.
        half = float(np.hypot(first.high - first.value, second.high - second.value))
        value = second.value - first.value
        return Estimate(value, value - half, value + half)


class Measured(Evidence):
    """One model of a run."""

    side = "run"

    def __init__(self, results: RunResults, model: str):
        self.dataset, self.levels = results.ends.sel(model=model), results.extremes
        self.title = str(self.dataset["model_title"].item())
        self.n_prompts, self.n_blocks = self.dataset.sizes["prompt"], results.last_layer(model)
        present = self.dataset["intrinsic_dimension"].notnull().any(["shuffle_level", "prompt", "layer"])
        self.scales = present["scale"].values[present.values].tolist()
        one = results.structured.sel(model=model, layer=FROM_ONE)
        self.correlations = correlation.correlate(one["intrinsic_dimension"], one["loss"])

    def at(self, observable: str, point: dict) -> Estimate:
        return _estimate(intervals.mean_interval(self.dataset[observable].sel(point)), "mean")

    def change(self, observable: str, points: list[dict]) -> Estimate:
        first, second = (self.dataset[observable].sel(point).reset_coords(drop=True) for point in points)
        return _estimate(intervals.mean_interval(second - first), "mean")

    def depth_change(self, scale: int) -> Estimate:
        found = super().depth_change(scale)
        if self.n_prompts < intervals.FEWEST_PROMPTS:
            return found
        dimension = self.dataset["intrinsic_dimension"].sel(scale=scale, layer=FROM_ONE)
        # with one seed the resamples of both levels hold the same prompts
        ends = (dimension.sel(shuffle_level=level).dropna("layer") for level in self.levels)
        first, last = (intervals.resampled_means(end).idxmax("layer") for end in ends)
        return Estimate(found.value, *map(float, ((last - first) / self.n_blocks).quantile(_ENDS)))


def _estimate(found: xr.Dataset, name: str) -> Estimate:
    return Estimate(*(float(found[part]) for part in (name, "low", "high")))


def of_all(results: RunResults | None = None) -> list[Evidence]:
    """The published models, and those of a run."""
    published = [Published(model) for model in arrays.tokens()["model"].values.tolist()]
    return [*published, *(Measured(results, model) for model, _ in results.models)] if results else [*published]
