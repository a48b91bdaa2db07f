"""Frame of the figure on the first page."""

import pandas as pd

from token_geometry.chapters.results import RunResults
from token_geometry.chapters.shuffling.frames import scales


def headline(results: RunResults) -> pd.DataFrame:
    """ID of the first model at two scales, structured and shuffled."""
    frame = scales(results.ends, scales=[2, results.reference_scale])
    return frame[frame["model_title"] == results.titles[0]]
