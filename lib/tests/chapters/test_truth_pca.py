"""The chapter on truth: runs of layers above chance, aligned layers, transfer without a mean over opposites."""

import numpy as np
import pytest
import xarray as xr

from token_geometry.base import project, store
from token_geometry.chapters.truth import charts, frames, prose
from token_geometry.chapters.truth.results import TruthResults
from token_geometry.stats import probes

NAMES = ["cities", "neg_cities", "sp_en_trans", "neg_sp_en_trans"]


def results_of(**variables):
    n = variables.pop("n", 4)
    coords = {"dataset_name": ("dataset", NAMES[:n])}
    dataset = xr.Dataset({"n_classes": ("dataset", [2] * n)} | variables, coords=coords)
    return TruthResults((dataset.assign_attrs(model_title="Model", layer=2, basis="cities"),), ())


def separation(values, n=400):
    """Data set of one curve with its Wilson intervals."""
    low, high = probes.interval(np.round(np.array(values) * n), np.array(n))
    curves = {"separation": values, "separation_low": low, "separation_high": high}
    found = {name: (("dataset", "layer"), [curve]) for name, curve in curves.items()}
    found["layer"] = np.arange(len(values))
    return results_of(**found, chance=("dataset", [0.5]), n=1)


SMOLLM2 = [0.5] * 12 + [0.57, 0.67, 0.72, 0.78, 0.8, 0.82, 0.83, 0.82, 0.8, 0.76, 0.7, 0.6] + [0.52] * 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (SMOLLM2, "above chance in layers 12 to 23."),
        ([0.5, 0.6, 0.5, 0.7, 0.8], "above chance in layers 1 and 3 to 4."),
        ([0.5, 0.5, 0.6], "above chance in layer 2."),
        ([0.5, 0.5, 0.4], "above chance in no layer."),
    ],
)
def test_the_layers_above_chance_are_named_though_accuracy_falls_again(values, words):
    text = prose.separated(separation(values)).data
    assert text.endswith(words) and f"highest in layer {int(np.argmax(values))}" in text


def test_the_layers_of_the_slider_are_turned_onto_one_another():
    random = np.random.default_rng(0)
    plane = random.normal(size=(60, 2)) * [3, 2.7]
    layers = []
    for layer in range(5):  # the same picture, turned and mirrored, in another unit
        angle = random.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * [1, (-1) ** layer]
        layers.append((1 + layer) * np.pad(plane @ (turn if layer != 2 else np.eye(2)), ((0, 0), (0, 1))))
    dims = ("statement", "layer", "kept_component")
    results = results_of(
        layer_projection=(dims, np.stack(layers, axis=1)),
        layer=np.arange(5),
        dataset=("statement", ["cities"] * 60),
        n=1,
    )
    frame = frames.emergence_frame(results)
    drawn = frame[frame["layer"] == 2][["x", "y"]].values
    np.testing.assert_allclose(drawn, plane / plane[:, 0].std(), atol=0.006)  # that of the projection, as it was
    for layer in (0, 1, 3, 4):
        one = frame[frame["layer"] == layer][["x", "y"]].values
        # each in units of its own first axis
        np.testing.assert_allclose(one / one.std(), drawn / drawn.std(), atol=0.02)


def transfer(names=NAMES, **accuracies):
    """Transfer of one probe; accuracies by `topic` and `polarity`, same or other."""
    n, word = len(names), {True: "same", False: "other"}
    topic, polarity = [name.removeprefix("neg_") for name in names], [name[:4] == "neg_" for name in names]
    pairs = [
        [f"{word[topic[i] == topic[j]]}_{word[polarity[i] == polarity[j]]}" for j in range(n)] for i in range(n)
    ]
    matrix = [[accuracies[pair] for pair in row] for row in pairs]
    dims = ("probe", "train_dataset", "test_dataset")
    return results_of(
        dataset=("statement", np.repeat(names, 400)),
        chance=("dataset", [0.5] * n),
        transfer_accuracy=(dims, [matrix]),
        probe=["mass_mean"],
        train_dataset=names,
        test_dataset=names,
        n=n,
    )


ACCURACIES = {"same_same": 1.0, "same_other": 0.05, "other_same": 0.8, "other_other": 0.3}


def test_transfer_to_the_same_and_to_the_opposite_polarity_is_never_averaged():
    text = prose.transferred(transfer(**ACCURACIES)).data
    assert "another topic, same polarity: mass-mean 80%." in text
    assert "another topic, opposite polarity: mass-mean 30%" in text
    assert "same topic, opposite polarity: mass-mean 5%" in text
    assert prose.transferred(transfer(names=NAMES[:1], **ACCURACIES)).data.startswith("No probe was tested")


def test_the_heat_map_has_the_polarities_apart_and_the_layer_in_its_title():
    frame = frames.transfer_frame(transfer(**ACCURACIES))
    order = ["cities", "sp_en_trans", "neg_cities", "neg_sp_en_trans"]
    assert frame["train"].drop_duplicates().tolist() == frame["test"].drop_duplicates().tolist() == order
    assert frame["panel"].unique().tolist() == ["Model, layer 2"]
    spec = charts.transfer(frame, finding="").to_dict()
    assert spec["spec"]["layer"][0]["encoding"]["x"]["sort"] == order


def test_a_picture_of_a_layer_says_which():
    dims = ("statement", "layer", "kept_component")
    points = np.random.default_rng(0).normal(size=(8, 5, 3))
    texts = ("statement", np.array([f"s{i}" for i in range(8)]))
    shown = {"statement_text": texts, "label_name": ("statement", ["0", "1"] * 4), "n_classes": ("dataset", [2])}
    results = results_of(
        layer_projection=(dims, points), layer=np.arange(5), dataset=("statement", ["cities"] * 8), n=1, **shown
    )
    drawn = charts.projection(frames.projection_frame(results), finding="").to_dict()
    assert drawn["concat"][0]["title"]["text"] == ["Model", "layer 2"]
    points = frames.emergence_frame(results)
    moved = charts.emergence(points, frames.text_frame(results), finding="", initial=2).to_dict()
    assert moved["concat"][0]["title"]["text"]["expr"] == "[\"Model\", 'layer ' + shown_layer]"


def test_data_sets_of_more_classes_have_a_section_of_their_own():
    found = store.read(project.root() / "data" / "published" / "families" / "truth-smollm2-135m.nc")
    results = TruthResults((found,), ())
    own = frames.class_frame(results)
    assert own["dataset"].unique().tolist() == ["maths"] and own["label"].nunique() == 9 and len(own) == 200
    for frame in (
        frames.separation_frame(results),
        frames.transfer_frame(results).rename(columns={"test": "dataset"}),
    ):
        assert "maths" not in frame["dataset"].tolist() and frame["dataset"].nunique() == 9
    charts.projection(own, choose="dataset", finding="").to_dict()
    [line] = prose.told_apart(results).data.splitlines()
    accuracy = found["probe_accuracy"].sel(probe="logistic_regression", layer=12).values[-1]
    plane = found["separation"].sel(layer=12).values[-1]
    assert f", layer 12, maths: logistic regression finds the class of {accuracy:.0%} (" in line
    assert f"and of {plane:.0%} (" in line and line.endswith("; the largest of 9 classes has 12%.")
