"""The chapter on geometry and loss says what its data hold, and says otherwise when they do."""

import numpy as np
import pytest
import xarray as xr
from test_chapters import results_of

from token_geometry.chapters.loss import charts as loss_charts
from token_geometry.chapters.loss import frames as loss_frames
from token_geometry.chapters.loss import prose as loss_prose

N_PROMPTS = 16


def made(slope, *, noise=0.3, of_level=0.0, levels=(0, 1, 2), n_prompts=N_PROMPTS, seed=0):
    """Results whose ID at scale 4 rises by `slope` with the loss, and both by `of_level` a shuffle level."""
    results = results_of(levels=levels, n_prompts=n_prompts, n_shuffled=n_prompts)
    dataset, random = results.observables, np.random.default_rng(seed)
    level = dataset["shuffle_level"]
    own = xr.DataArray(random.normal(size=n_prompts), dims="prompt")
    shape = dataset["intrinsic_dimension"].sel(scale=4).shape
    error = dataset["intrinsic_dimension"].sel(scale=4).copy(data=noise * random.normal(size=shape))
    dimension = 9 + slope * own + of_level * level + error
    dataset["loss"] = (3 + 0.5 * own + of_level * level) + 0 * dataset["loss"]
    dataset["entropy"] = dataset["loss"] - 0.3
    exists = dataset["relative_depth"].notnull()
    dataset["intrinsic_dimension"].loc[{"scale": 4}] = dimension.where(exists).transpose(
        *dataset["intrinsic_dimension"].sel(scale=4).dims
    )
    return results


@pytest.mark.parametrize(
    ("slope", "words"),
    [(1.0, "a positive correlation"), (-1.0, "a negative correlation"), (0.0, "an interval that includes zero")],
)
def test_the_sentence_on_the_middle_layers_follows_the_data(slope, words):
    lines = loss_prose.middle(made(slope)).data.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.split(" At scale")[0].endswith(f"{words}.")
        assert "the ID at scale 4 correlates with the loss" in line


def test_what_shuffling_alone_makes_correlate_is_gone_when_the_levels_are_centered():
    results = made(0.0, of_level=3.0)
    frame = loss_frames.level_frame(results)
    assert set(frame["measure"]) == {"S = 0", "S = 1", "S = 2", loss_frames.POOLED, loss_frames.WITHIN}
    by_name = frame.groupby("measure")
    assert (by_name.get_group(loss_frames.POOLED)["low"] > 0.6).all()
    assert by_name.get_group(loss_frames.WITHIN)["correlation"].abs().max() < 0.6
    # levels of a prompt are not independent: no p-value, no discovery
    assert by_name.get_group(loss_frames.POOLED)["q_value"].isnull().all()
    assert "The 3 means of the levels alone have $r$ = 1.00" in loss_prose.levels(results).data


def test_a_correlation_through_the_cosine_similarity_vanishes_when_it_is_held_fixed():
    results = made(1.0)
    dataset = results.observables
    own = dataset["loss"].isel(model=0, shuffle_level=0, drop=True)
    cosine = dataset["cosine_similarity"]
    noise = cosine.copy(data=np.random.default_rng(1).normal(size=cosine.shape))
    dataset["cosine_similarity"] = own + 1e-3 * noise + 0 * cosine
    frame = loss_frames.partial_frame(results).groupby("measure")
    assert (frame.get_group("as it is")["low"] > 0.5).all()
    held = frame.get_group("at fixed cosine similarity")
    assert (held["low"] < held["correlation"]).all() and held["correlation"].abs().max() < 0.8
    assert (held["discovered"] == "yes").mean() < 0.2
    assert "above zero in 6 of 6 layers without" in loss_prose.partial(results).data
    dataset.coords["model_title"] = ("model", ["One-1 (Q4_1)", *dataset["model_title"].values[1:]])
    assert "above zero in 6 of 6 layers without" in loss_prose.partial(results).data.splitlines()[0]


def test_the_scatter_is_at_the_layer_of_the_strongest_correlation():
    results = made(1.0)
    dimension = results.observables["intrinsic_dimension"]
    at = {"model": "one", "shuffle_level": 0, "scale": 4, "layer": 3}
    dimension.loc[at] = -results.observables["loss"].sel(model="one", shuffle_level=0)
    frame = loss_frames.scatter_frame(results)
    one = frame[frame["model_title"] == "Model one"]
    assert set(one["panel"]) == {"Model one, layer 3"} and len(one) == N_PROMPTS
    assert set(one["prompt"]) == set(results.observables["prompt"].values)
    assert "Model one: $r$ = −1.00" in loss_prose.scatter(frame, "loss", "intrinsic_dimension").data
    table = loss_prose.strongest_table(results).data.splitlines()
    assert table[2].startswith("| Model one | ID at scale 4 | 3 | −1.00")


@pytest.mark.slow
def test_discoveries_are_as_rare_as_promised_where_nothing_correlates():
    frames = [loss_frames.dimension_frame(made(0.0, noise=1.0, levels=(0,), seed=seed)) for seed in range(3)]
    share = np.mean([(frame["discovered"] == "yes").mean() for frame in frames])
    assert share < 0.05
    assert (loss_frames.dimension_frame(made(1.0)).query("scale == 4")["discovered"] == "yes").all()


@pytest.mark.slow
def test_every_layer_scale_and_method_is_in_the_charts():
    results = made(1.0)
    frame = loss_frames.dimension_frame(results)
    assert len(frame) == (6 + 4) * 8 * 3  # layers of both models, scales, measures
    chart = loss_charts.correlation_curves(frame, choose="scale", initial=4, finding="d").to_dict()
    assert chart["params"][-1]["value"] == 4
    (points,) = [layer for layer in chart["spec"]["layer"] if "fill" in layer["encoding"]]
    assert points["encoding"]["fill"]["condition"]["scale"] == points["encoding"]["color"]["scale"]
    assert {"Pearson", "Spearman"} == set(loss_frames.quantity_frame(results)["method"])
    logits = loss_frames.logit_frame(results)
    assert set(logits["scale"]) == {2, 4, 8}
    spec = loss_charts.logit_scatter(logits, finding="d", initial=4).to_dict()
    assert {p["name"] for p in spec["params"]} >= {"hovered_left", "hovered_right"}


def test_the_mean_entropy_and_its_correlation_with_the_loss_are_spelled_out():
    text = loss_prose.logits(made(1.0)).data
    assert "the entropy with the loss with $r$ = 1.00" in text
    for scale in (2, 4, 8):
        assert f"at scale {scale}" in text
