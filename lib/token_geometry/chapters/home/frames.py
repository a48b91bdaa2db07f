"""Frame of the figure on the first page."""

import pandas as pd

from token_geometry.chapters.frames import by_observable
from token_geometry.chapters.results import RunResults


def headline(results: RunResults) -> pd.DataFrame:
    """ID of the first model at two scales, structured and shuffled, as of `by_observable`."""
    scales = (2, results.reference_scale)
    chosen = {f"scale {scale}": ("intrinsic_dimension", {"scale": scale}) for scale in scales}
    frame = by_observable(results.ends, chosen)
    return frame[frame["model_title"] == results.titles[0]]
