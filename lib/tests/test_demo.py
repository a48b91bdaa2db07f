"""What the demo run shows, where its results are present (`make book` makes them)."""

import pytest

from token_geometry import frames, runs


@pytest.fixture(scope="module")
def results():
    if not runs.is_fresh(runs.load("demo")):
        pytest.skip("the demo run has no fresh results here; `make book` computes them")
    return frames.open_results("demo")


def dimension(results, level, scale):
    chosen = results.shuffled["intrinsic_dimension"].sel(model="smollm2-135m", layer=slice(10, 22))
    return chosen.sel(shuffle_level=level, scale=scale).mean("prompt")


def test_the_id_of_structured_text_at_scale_64_peaks_between_12_and_15(results):
    assert 12 < float(dimension(results, 0, 64).max()) < 15


def test_the_id_of_shuffled_text_at_scale_64_stays_below_11(results):
    assert float(dimension(results, 5, 64).max()) < 11


def test_at_scale_2_the_shuffled_id_is_the_larger_one(results):
    assert float(dimension(results, 5, 2).sel(layer=20)) > float(dimension(results, 0, 2).sel(layer=20))


def test_every_prompt_has_as_many_points_in_gemma_as_in_smollm2(results):
    points = results.structured["n_points"].sel(layer=9).squeeze("shuffle_level")
    assert (points == results.observables.attrs["n_tokens"]).all()


def test_all_variables_are_there_for_every_structured_prompt(results):
    assert results.structured.sizes["prompt"] == 16
    assert results.shuffled.sizes["prompt"] == 4
    assert bool(results.structured["loss"].notnull().all())
