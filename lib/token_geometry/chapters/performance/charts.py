"""Chart of the times of the stages."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts

_COLORS = {"forward pass": "#9aa5b1", "observables": charts.MODEL_COLORS[0]}


@charts.figure("seconds per prompt")
def times(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Bar chart: median seconds per prompt of each stage, one panel per procedure."""
    # a scale that begins at zero, with room for the numbers behind the bars
    scale = alt.Scale(domainMax=frame["median"].max() * 1.15)
    base = alt.Chart(frame).encode(
        x=alt.X("median:Q", title="seconds per prompt", scale=scale),
        y=alt.Y("stage:N", title=None, sort=charts.unique(frame["stage"]), axis=alt.Axis(labelLimit=220)),
        tooltip=["stage:N", "median:Q", "minimum:Q", alt.Tooltip("share:Q", format=".1%")],
    )
    colors = alt.Scale(domain=list(_COLORS), range=list(_COLORS.values()))
    bars = base.mark_bar().encode(color=alt.Color("part:N", title=None, scale=colors))
    numbers = base.mark_text(align="left", dx=4, fontSize=11).encode(text=alt.Text("median:Q", format=".2f"))
    chart = alt.layer(bars, numbers).properties(width=400, height=alt.Step(24))
    facet = alt.Facet("procedure:N", sort=charts.unique(frame["procedure"]))
    return chart.facet(facet, columns=1).resolve_scale(y="independent")
