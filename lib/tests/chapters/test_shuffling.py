"""The chapter on shuffling sets the change of the dimension against what shuffling leaves of a prompt."""

import re

import numpy as np
import pytest
from test_chapters import results_of

from token_geometry.chapters.shuffling import charts, frames, prose


def made(slope, *, n_prompts=10, spread=0.0):
    """Results whose ID falls by `slope` times what BLEU has lost, at every layer and scale."""
    results = results_of(levels=(0, 1, 3), n_prompts=n_prompts, n_shuffled=n_prompts)
    dataset, random = results.observables, np.random.default_rng(0)
    left = {0: 1.0, 1: 0.9, 3: 0.2}
    for level, mean in left.items():
        noise = random.uniform(-0.1, 0.1, dataset["bleu"].sel(shuffle_level=level).shape) * (level > 0)
        dataset["bleu"].loc[{"shuffle_level": level}] = mean + noise
    first = dataset["intrinsic_dimension"].sel(shuffle_level=0, drop=True)
    factor = dataset["bleu"].copy(data=random.normal(1, spread, dataset["bleu"].shape))
    changed = first - slope * factor * (1 - dataset["bleu"])
    dataset["intrinsic_dimension"] = changed.transpose(*dataset["intrinsic_dimension"].dims)
    return results


def test_the_change_is_that_of_the_middle_layers_of_a_prompt_against_its_own_order():
    results = made(3.0)
    frame = frames.severity(results)
    assert set(frame["shuffle_level"]) == {1, 3} and set(frame["model_title"]) == {"Model one", "Model two"}
    np.testing.assert_allclose(frame["change"], -3 * (1 - frame["bleu"]), atol=1e-3)
    one = frame.query("model_title == 'Model one' and scale == 64 and shuffle_level == 3")
    assert len(one) == 10 and set(one["n_prompts"]) == {10}
    half = 2.262157 * one["change"].std(ddof=1) / np.sqrt(10)  # Student's, of nine degrees of freedom
    for name, value in {"mean": 0, "low": -half, "high": half}.items():
        np.testing.assert_allclose(one[name], one["change"].mean() + value, atol=2e-3)
    np.testing.assert_allclose(one["mean_bleu"], one["bleu"].mean(), atol=1e-4)


@pytest.mark.parametrize(("slope", "sign"), [(3.0, ""), (-3.0, "−")])
def test_the_sentence_has_the_rank_correlation_over_prompts_and_levels_at_two_scales(slope, sign):
    lines = prose.severity(made(slope, spread=0.02)).data.splitlines()
    assert len(lines) == 2
    for line in lines:
        pattern = rf"\$r\$ = {sign}(0\.9\d|1\.00) \({sign}[01]\.\d\d to {sign}[01]\.\d\d\) at scale (\d+)"
        assert [scale for _, scale in re.findall(pattern, line)] == ["2", "64"], line


def test_few_prompts_have_points_and_no_intervals_and_one_level_has_no_chart():
    for line in prose.severity(made(3.0, n_prompts=2)).data.splitlines():
        assert line.endswith(": too few prompts for a correlation.")
    frame = frames.severity(made(3.0, n_prompts=4))
    assert frame["mean"].notnull().all() and frame["low"].isnull().all()
    drawn = charts.severity(frame, finding="", initial=64).to_dict()
    assert any(one["name"] == "shown_scale" and one["value"] == 64 for one in drawn["params"])
    alone = results_of(levels=(0,))
    assert "one shuffle level only" in prose.severity(alone).data
    assert "no data for this figure" in str(charts.severity(frames.severity(alone), finding="").to_dict())
