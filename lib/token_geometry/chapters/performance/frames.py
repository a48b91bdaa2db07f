"""Frame of the stages that the benchmarks time."""

import pandas as pd

from token_geometry.chapters.performance.results import FORWARD, PROCEDURES, STAGES, median, stage_seconds


def times(result: dict | None) -> pd.DataFrame:
    """Seconds per prompt of each stage of each procedure, as a tidy frame; empty without a result."""
    rows = []
    for procedure in result["seconds"] if result else ():
        total, names = median(result, procedure), STAGES[procedure]
        for stage, seconds in stage_seconds(result, procedure).items():
            part = "forward pass" if stage in FORWARD else "observables"
            share = seconds["median"] / total
            rows.append([PROCEDURES[procedure], names[stage], part, seconds["min"], seconds["median"], share])
    return pd.DataFrame(rows, columns=["procedure", "stage", "part", "minimum", "median", "share"])
