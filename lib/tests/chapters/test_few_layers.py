"""Charts of models of two to five layers: an axis or a legend names layers, and nothing between two."""

import re
from xml.etree import ElementTree

import pytest
import vl_convert
from IPython.display import Markdown
from test_chapters import once, outputs
from test_one_model import run

CHAPTERS = ("model-comparison", "index", "shuffling", "effects", "loss", "estimators")
SVG = "{http://www.w3.org/2000/svg}"


def layers_named(spec):
    """The layers that each axis and legend of layers of a chart names, as Vega draws them."""
    for group in ElementTree.fromstring(vl_convert.vegalite_to_svg(spec)).iter(f"{SVG}g"):
        if " titled 'layer' " in group.get("aria-label", ""):
            parts = [g for g in group.iter(f"{SVG}g") if re.search("role-(axis|legend)-label", g.get("class", ""))]
            yield group.get("aria-label"), [text.text for part in parts for text in part.iter(f"{SVG}text")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chapter", "n_layers"),
    [
        pytest.param(chapter, n, marks=[pytest.mark.slow] * ((chapter, n) != ("model-comparison", 3)))
        for chapter in CHAPTERS
        for n in ((2, 3, 5) if chapter == "model-comparison" else (2, 5))
    ],
)
def test_axes_and_legends_name_every_layer_of_a_few_and_nothing_between_two(chapter, n_layers, monkeypatch):
    # the largest is the run of one model that other tests look at, which is drawn once
    results, seen = run() if n_layers == 5 else once({"one": n_layers}, n_prompts=4), 0
    for name, value in outputs(chapter, results, monkeypatch).items():
        for axis, labels in [] if isinstance(value, Markdown) else layers_named(value.to_dict()):
            named = sorted(int(label) for label in labels if label)  # fails at 1.5
            assert named == list(range(named[0], named[-1] + 1)), (name, axis)
            assert named[0] in (0, 1) and n_layers - named[-1] in (0, 1), (name, axis)  # the overlap has no last
            seen += 1
    assert seen
