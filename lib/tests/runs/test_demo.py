"""What the demo run shows, where its results are present (`make book` makes them)."""

import pytest

from token_geometry.chapters import findings
from token_geometry.chapters.comparison.frames import control_pairs
from token_geometry.chapters.effects import change as by_shuffling
from token_geometry.chapters.loss.frames import dimension_frame
from token_geometry.chapters.loss.prose import middle
from token_geometry.chapters.published import claims
from token_geometry.chapters.results import open_results
from token_geometry.runs import declaration
from token_geometry.runs import results as results_of_runs
from token_geometry.stats.correlation import correlate
from token_geometry.stats.intervals import mean_interval

pytestmark = [pytest.mark.slow, pytest.mark.model]


@pytest.fixture(scope="module")
def results():
    if not all(step.found() for step in results_of_runs.results(declaration.load("demo")).values()):
        pytest.skip("the demo run has no fresh results here; `make book` computes them")
    return open_results("demo")


def dimension(results, level, scale):
    chosen = results.shuffled["intrinsic_dimension"].sel(model="smollm2-135m", layer=slice(10, 22))
    return chosen.sel(shuffle_level=level, scale=scale).mean("prompt")


def test_the_id_of_structured_text_at_scale_64_peaks_between_12_and_15(results):
    assert 12 < float(dimension(results, 0, 64).max()) < 15


def test_the_id_of_shuffled_text_at_scale_64_stays_below_11(results):
    assert float(dimension(results, 5, 64).max()) < 11


def test_at_scale_2_the_shuffled_id_is_the_larger_one(results):
    assert float(dimension(results, 5, 2).sel(layer=20)) > float(dimension(results, 0, 2).sel(layer=20))


def test_the_effect_of_shuffling_in_smollm2_is_lower_at_scale_64_than_at_2(results):
    layers = results.middle_layers("smollm2-135m")
    change = results.ends["intrinsic_dimension"].sel(model="smollm2-135m", layer=layers).mean("layer")
    found = mean_interval(by_shuffling(change))
    assert float(found["mean"].sel(scale=2)) > 0
    assert float(found["high"].sel(scale=64)) < 0
    between = change.sel(scale=64, drop=True) - change.sel(scale=2, drop=True)
    assert float(mean_interval(by_shuffling(between))["high"]) < 0
    said = findings.text(results).data.splitlines()
    assert len(said) == 9 and "open in SmolLM2" in said[2] and all(" to " in line for line in said[2:])


def test_both_models_agree_that_shuffling_raises_the_loss_and_that_the_id_follows_the_loss(results):
    compared = claims.compare(results).query("side == 'run'").set_index("claim")
    for claim in ("Shuffling raises the loss", "Prompts with a higher loss have a higher ID at scale 4"):
        assert (compared.loc[claim, "verdict"] == "agrees").all()


def test_the_id_at_scale_4_follows_the_loss_in_every_middle_layer_of_both_models(results):
    frame = dimension_frame(results).query("measure == 'Pearson, ID' and scale == 4")
    for (model, title), line in zip(results.models, middle(results).data.splitlines(), strict=True):
        layers = results.middle_layers(model)
        inside = frame[(frame["model_title"] == title) & frame["layer"].between(layers.start, layers.stop)]
        assert (inside["correlation"] > 0.6).all() and (inside["discovered"] == "yes").all()
        assert title in line and "a positive correlation. At scale 64" in line


def test_the_entropy_of_a_prompt_follows_its_loss(results):
    both = results.structured[["entropy", "loss"]]
    assert (correlate(both["entropy"], both["loss"])["low"] > 0.5).all()
    assert bool(results.structured["logit_intrinsic_dimension"].notnull().all())


def test_the_untrained_control_predicts_worse_on_the_same_prompts(results):
    ((name, trained, control),) = control_pairs(results)
    assert name == "smollm2-135m@random" and trained.sizes["prompt"] == control.sizes["prompt"] == 2
    assert (control["loss"] > trained["loss"] + 3).all()


def test_every_prompt_has_as_many_points_in_gemma_as_in_smollm2(results):
    points = results.structured["n_points"].sel(layer=9)
    assert (points == results.observables.attrs["n_tokens"]).all()


def test_all_variables_are_there_for_every_structured_prompt(results):
    assert results.structured.sizes["prompt"] == 16
    assert results.shuffled.sizes["prompt"] == 4
    assert bool(results.structured["loss"].notnull().all())
