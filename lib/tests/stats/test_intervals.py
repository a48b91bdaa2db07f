"""Means, paired differences and resamples agree with scipy, and say nothing where they cannot."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from token_geometry.stats import intervals

N_PROMPTS = 16


@pytest.fixture
def values():
    """A quantity over layer and prompt, larger in the last layer than in any other."""
    drawn = np.random.default_rng(5).normal(9, 1, (4, N_PROMPTS)) + [[0], [0], [0], [20]]
    return xr.DataArray(drawn, dims=("layer", "prompt"))


def test_paired_differences_and_intervals_are_those_of_scipys_paired_t_test(values):
    x = values.rename(layer="shuffle_level").assign_coords(shuffle_level=[0, 1, 2, 5])
    x = x.copy()
    x.loc[{"shuffle_level": 5}][3] = np.nan
    found = intervals.paired_difference(x, first=0, second=5)
    kept = np.arange(N_PROMPTS) != 3
    expected = stats.ttest_rel(x.values[3, kept], x.values[0, kept])
    interval = expected.confidence_interval(intervals.CONFIDENCE)
    assert float(found["mean"]) == pytest.approx((x.values[3] - x.values[0])[kept].mean())
    assert float(found["p_value"]) == pytest.approx(expected.pvalue)
    assert (float(found["low"]), float(found["high"])) == pytest.approx((interval.low, interval.high))
    assert int(found["n_prompts"]) == 15 and int(found["n_same_sign"]) == 15


def test_one_prompt_has_a_mean_and_no_interval(values):
    found = intervals.mean_interval(values.isel(prompt=[0]))
    assert found["mean"].notnull().all() and found["low"].isnull().all() and found["p_value"].isnull().all()


def test_seven_prompts_have_a_sign_test_and_no_interval_and_eight_have_both(values):
    few = values.isel(prompt=slice(7)).copy()
    few[0], few[1] = [-1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7]
    found = intervals.mean_interval(few)
    assert found["low"].isnull().all() and found["high"].isnull().all()
    expected = [stats.binomtest(k, 7).pvalue for k in (6, 7)]
    assert found["p_value"].values[:2].tolist() == pytest.approx(expected)
    assert intervals.mean_interval(values.isel(prompt=slice(8)))["low"].notnull().all()


def test_resampled_means_give_an_interval_of_where_a_curve_peaks():
    layer = xr.DataArray(np.arange(9), dims="layer", coords={"layer": np.arange(9)})
    random = np.random.default_rng(2)
    noise = xr.DataArray(random.normal(size=(20, 9)), dims=("prompt", "layer"))
    curves = 4 - (layer - 5) ** 2 / 2 + noise
    means = intervals.resampled_means(curves, n_resamples=500)
    assert means.sizes == {"layer": 9, "resample": 500}
    ends = means.idxmax("layer").quantile([0.025, 0.975], "resample")
    assert 4 <= float(ends[0]) <= 5 <= float(ends[1]) <= 6
    expected = stats.bootstrap(
        (curves.isel(layer=0).values,), np.mean, n_resamples=500, rng=np.random.default_rng(0)
    )
    assert float(means.isel(layer=0).std("resample", ddof=1)) == pytest.approx(expected.standard_error)
