"""Chart of the times of the stages."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

_PARTS = alt.Scale(domain=["forward pass", "observables"], range=["#9aa5b1", charts.MODEL_COLORS[0]])


@charts.figure("seconds per prompt")
def times(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Bar chart: median seconds per prompt of each stage, one panel per procedure."""
    # a scale that begins at zero, with room for the numbers behind the bars
    scale, rows = alt.Scale(domainMax=frame["median"].max() * 1.15), []
    for name, part in frame.groupby("procedure", sort=False):
        x = alt.X("median:Q", title="seconds per prompt", scale=scale)
        y = alt.Y("stage:N", title=None, sort=charts.unique(part["stage"]), axis=alt.Axis(labelLimit=220))
        tips = charts.tooltip("stage:N", "median:Q .4f", "minimum:Q .4f", "share:Q .1%")
        base = alt.Chart(part).encode(x=x, y=y, tooltip=tips)
        bars = base.mark_bar().encode(color=alt.Color("part:N", title=None, scale=_PARTS))
        text = base.mark_text(align="left", dx=4, fontSize=11).encode(text=alt.Text("median:Q", format=".2f"))
        rows.append(alt.layer(bars, text).properties(width=400, height=alt.Step(24), title=name))
    return alt.vconcat(*rows)
