"""Published numbers of other works (`data/published/README.md`), in the shapes of a run's own results."""

from functools import cache

import numpy as np
import pandas as pd
import xarray as xr
from scipy import special

from token_geometry.base import project
from token_geometry.chapters.frames import tidy
from token_geometry.stats.intervals import CONFIDENCE


@cache
def tokens() -> xr.Dataset:
    """Means and standard deviations over prompts that were published with *The Geometry of Tokens*.

    `<observable>_mean` and `<observable>_std` (divisor n) over `model`, `shuffle_level` and the further
    dimensions of the observable; `structured_…`, over all structured prompts; `pearson_id_loss` over `model`,
    `layer` and `scale`. `relative_depth` is a coordinate. NaN where nothing was published.
    From Viswanathan et al., arXiv:2501.10573, and the arrays of its authors' public code."""
    path = project.root() / "data" / "published" / "geometry-of-tokens.nc"
    with xr.open_dataset(path, engine="netcdf4") as dataset:
        dataset = dataset.load().drop_vars("hub_id").astype(float)
    return dataset.assign_coords(relative_depth=dataset["layer"] / dataset.attrs["n_blocks"])


def summary(observable: str) -> pd.DataFrame:
    """Mean and standard deviation over prompts of an observable, with the columns of `frames.summary`."""
    dataset = tokens()
    n_prompts, mean = dataset.attrs["n_prompts"], dataset[f"{observable}_mean"]
    # published with the divisor n
    std = dataset[f"{observable}_std"] * np.sqrt(n_prompts / (n_prompts - 1))
    return tidy(xr.Dataset({"mean": mean, "std": std, "n_prompts": mean.notnull() * n_prompts}))


def correlation() -> xr.Dataset:
    """Published Pearson correlation of ID and loss by layer and scale, with Fisher's interval by the prompts."""
    coefficient, n_prompts = tokens()["pearson_id_loss"], tokens().attrs["n_prompts"]
    half, z = special.ndtri((1 + CONFIDENCE) / 2) / np.sqrt(n_prompts - 3), np.arctanh(coefficient)
    return xr.Dataset({"correlation": coefficient, "low": np.tanh(z - half), "high": np.tanh(z + half)})
