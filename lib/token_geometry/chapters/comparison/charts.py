"""Charts of the chapter that compares models."""

import altair as alt
import pandas as pd

from token_geometry.chapters import charts
from token_geometry.chapters.curves import curves


@charts.figure("intrinsic dimension", choose="layer")
def scale_curves(frame: pd.DataFrame) -> alt.LayerChart:
    """Line chart with bands: intrinsic dimension against scale on a logarithmic axis at the layer that the
    slider chooses, one curve per model."""
    columns = ["model_title", "layer", "scale", "mean", "std", "low", "high"]
    color, fields = charts.color(frame, "model_title"), ("model_title:N", "scale:Q", "mean:Q .2f", "std:Q .2f")
    marks = charts.banded(frame[columns], charts.SCALE_AXIS, color, "intrinsic dimension", *fields)
    return alt.layer(*marks).properties(width=520, height=230)


@charts.figure("intrinsic dimension")
def scales_by_layer(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Line chart, one panel per model: intrinsic dimension against scale on a logarithmic axis, one curve per
    layer."""
    color = alt.Color("layer:Q").scale(scheme="viridis").legend(values=charts.layer_values(frame), format="d")
    own, y = frame[["model_title", "layer", "scale", "mean"]], alt.Y("mean:Q", title="intrinsic dimension")
    tips = charts.tooltip("layer:Q", "scale:Q", "mean:Q .2f")
    return _by_scale(own, curve="layer", quiet=0.1, y=y, color=color, tooltip=tips)


@charts.figure("intrinsic dimension", choose="layer")
def scales_by_prompt(frame: pd.DataFrame) -> alt.FacetChart:
    """Line chart, one panel per model: intrinsic dimension against scale on a logarithmic axis at the layer
    that the slider chooses, one curve per prompt, colored by its loss."""
    color = alt.Color("loss:Q", scale=alt.Scale(scheme="viridis"), title="loss (nats)")
    tips = charts.tooltip("prompt:N", "scale:Q", "value:Q .2f", "loss:Q .2f")
    y = alt.Y("value:Q", title="intrinsic dimension", scale=charts.whole(frame, "value"))
    return _by_scale(frame, curve="prompt", quiet=0.08, y=y, color=color, tooltip=tips)


@charts.figure("overlap of layers", choose="shuffle_level")
def layer_overlap(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Heat maps, one per model: share of common 16-neighborhoods for each pair of layers, at the shuffle level
    that the control chooses."""
    ticks = alt.Axis(values=charts.layer_values(frame), labelAngle=0)
    x = alt.X("layer:O", title="layer", axis=ticks)
    y = alt.Y("layer_other:O", title="layer", sort="descending", axis=ticks)
    color = alt.Color("overlap:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1]), title="overlap (k = 16)")
    tips = charts.tooltip("layer:O", "layer_other:O", "overlap:Q .2f")
    panel = alt.Chart(frame).mark_rect().encode(x=x, y=y, color=color, tooltip=tips)
    return charts.panels(panel, frame, alone=400, height=270, independent=("x", "y"))


@charts.figure("untrained control", choose="control")
def controls(frame: pd.DataFrame) -> alt.VConcatChart:
    """Line charts with bands, one row per observable, the trained model on the left and the control that the menu
    chooses on the right: observable against layer, one curve per shuffle level."""
    picked, rows = charts.legend_choice("shuffle_level"), []
    for observable, part in frame.groupby("observable", sort=False):
        panel = curves(part, y_title=observable, keep=("kind", "control"), picked=picked)
        panel.layer[0].name = f"row_{len(rows)}"  # which Altair asks for where a menu comes on top
        rows.append(panel.properties(width=260, height=140))
    header = {"labelFontSize": 11, "labelLimit": 255}
    return charts.rows(rows, picked, "kind", charts.unique(frame["kind"]), **header)


def _by_scale(frame: pd.DataFrame, *, curve: str, quiet: float, **encoding) -> alt.FacetChart:
    hovered = alt.selection_point(fields=[curve], on="pointerover", nearest=True, empty=True)
    opacity = charts.shown(hovered, 0.9, quiet)
    base = alt.Chart(frame).encode(x=charts.SCALE_AXIS, detail=f"{curve}:N", opacity=opacity, **encoding)
    return charts.panels(charts.traced(base).add_params(hovered), frame, alone=400, independent=())
