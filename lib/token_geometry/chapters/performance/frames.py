"""Frame of the stages that the benchmarks time."""

import pandas as pd

from token_geometry.chapters.performance.results import (
    FORWARD,
    PROCEDURES,
    REFERENCE_STAGES,
    STAGES,
    median,
    stage_seconds,
)


def times(result: dict | None) -> pd.DataFrame:
    """Seconds per prompt of each stage of each procedure, as a tidy frame; empty without a result."""
    rows = []
    for procedure in result["seconds"] if result else ():
        total = median(result, procedure)
        names = STAGES if procedure == "library" else REFERENCE_STAGES
        for stage, seconds in stage_seconds(result, procedure).items():
            rows.append(
                {
                    "procedure": PROCEDURES[procedure],
                    "stage": names[stage],
                    "part": "forward pass" if stage in FORWARD else "observables",
                    "minimum": seconds["min"],
                    "median": seconds["median"],
                    "share": seconds["median"] / total,
                }
            )
    columns = ["procedure", "stage", "part", "minimum", "median", "share"]
    return pd.DataFrame(rows, columns=columns)
