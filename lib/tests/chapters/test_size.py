"""What goes with the size of models: the values are those of the curves, and a few models are no law."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from test_chapters import results_of

from token_geometry.chapters.comparison import size
from token_geometry.chapters.published import arrays
from token_geometry.chapters.results import over_seeds

MODELS = {"qwen2.5-coder-0.5b": 24, "qwen2.5-coder-1.5b": 28}


def test_values_are_those_of_the_mean_curves_of_the_run_and_of_the_published_arrays():
    results = results_of(MODELS, n_prompts=5)
    frame = size.frame(results).set_index(["quantity", "model"])
    of = results.observables.sel(shuffle_level=0, model="qwen2.5-coder-0.5b")
    curve = of["intrinsic_dimension"].sel(scale=64).mean("prompt").values[1:25]
    assert frame.loc[("largest ID at scale 64", "qwen2.5-coder-0.5b"), "value"] == pytest.approx(curve.max())
    depth = frame.loc[("depth of the largest ID at scale 64", "qwen2.5-coder-0.5b"), "value"]
    assert depth == pytest.approx((1 + curve.argmax()) / 24)
    r = [np.corrcoef(of["intrinsic_dimension"].sel(scale=2, layer=n), of["loss"])[0, 1] for n in range(8, 17)]
    at = ("correlation of ID and loss at scale 2", "qwen2.5-coder-0.5b")
    assert frame.loc[at, "value"] == pytest.approx(np.mean(r))
    published = arrays.tokens()["intrinsic_dimension_mean"].sel(model="mistral-7b", shuffle_level=0, scale=2)
    assert frame.loc[("largest ID at scale 2", "mistral-7b"), "value"] == pytest.approx(float(published[1:].max()))
    assert set(frame["family"]) == {"qwen2.5-coder", "llama-3", "mistral", "pythia"}
    assert frame.loc[("largest ID at scale 2", "qwen2.5-coder-1.5b"), "parameters"] == 1777088000


def test_the_order_is_spearmans_and_what_so_few_models_can_show_is_said():
    frame = size.frame(results_of(MODELS, n_prompts=5))
    part = frame[frame["quantity"] == "largest ID at scale 2"]
    expected = stats.spearmanr(part["parameters"], part["value"]).statistic
    said = size.findings(frame).data
    assert f"largest ID at scale 2: {expected:.2f} (q = " in said.replace("−", "-")
    assert "over 5 models" in said and "below 0.017, and below 5 models none below 0.05" in said
    assert "; in qwen2\\.5\\-coder 1." in said
    two = frame[frame["model"].isin(["mistral-7b", "qwen2.5-coder-0.5b"])]
    assert "takes three models" in size.findings(two).data


def test_a_model_of_the_run_is_not_counted_twice_and_one_of_unknown_size_not_at_all():
    results = results_of({"mistral-7b": 32, "own": 4}, n_prompts=5)
    frame = size.frame(results)
    assert set(frame["model"]) == {"llama-3-8b", "mistral-7b", "pythia-6.9b"}
    assert set(frame[frame["model"] == "mistral-7b"]["numbers"]) == {"of the run"}
    empty = dataclasses.replace(results, observables=results.observables.sel(model=["own"]))
    assert set(size.frame(empty)["numbers"]) == {"published"}
    assert size.findings(size.frame(empty)).data.startswith("No model of the run has a `shape`")


def test_of_several_seeds_of_a_control_the_mean_is_taken_prompt_by_prompt():
    depth = [[0, 1.0], [0, 1.0], [0, np.nan]]
    names = ["a@random", "a@random-7", "b@permuted"]
    control = xr.Dataset(
        {"loss": (("model", "prompt"), [[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]])},
        coords={
            "model": names,
            "model_title": ("model", ["A, untrained", "A, untrained (seed 7)", "B"]),
            "relative_depth": (("model", "layer"), depth),
        },
    )
    assert over_seeds(control.isel(model=[2]))["model"].values.tolist() == ["b@permuted"]
    found = over_seeds(control)
    assert found["model"].values.tolist() == ["a@random", "b@permuted"]
    assert found["model_title"].values.tolist() == ["A, untrained, mean of 2 seeds", "B"]
    np.testing.assert_array_equal(found["loss"].transpose("model", "prompt"), [[2.0, 4.0], [5.0, 5.0]])
    np.testing.assert_array_equal(found["relative_depth"], [depth[0], depth[2]])
