"""Means, paired differences and resamples agree with scipy, and say nothing where they cannot; pooling covers."""

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
    found = intervals.mean_interval(x.sel(shuffle_level=5, drop=True) - x.sel(shuffle_level=0, drop=True))
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


def test_seven_prompts_have_a_sign_flip_test_and_no_interval_and_eight_have_both(values):
    few = values.isel(prompt=slice(7)).copy()
    few[0], few[1], few[2, 4] = [-1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7], np.nan
    found = intervals.mean_interval(few)
    assert found["low"].isnull().all() and found["high"].isnull().all()
    for row, p_value in zip(few.values[:3], found["p_value"].values[:3], strict=True):
        known = row[np.isfinite(row)]
        expected = stats.permutation_test((known,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert p_value == pytest.approx(expected.pvalue)
    assert found["p_value"].values[1] == 2 / 2**7
    assert intervals.mean_interval(values.isel(prompt=slice(8)))["low"].notnull().all()


def test_a_sign_flip_test_does_not_depend_on_the_unit(values):
    few = values.isel(prompt=slice(5)) - 9
    p_value = intervals.mean_interval(few)["p_value"]
    assert float(p_value.min()) < 1
    for factor in (1e-9, 1e9):
        np.testing.assert_array_equal(intervals.mean_interval(factor * few)["p_value"], p_value)


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


MEAN = 1.5


def drawn(random, n_models, n_prompts, *, models=1.0, prompts=1.0, rest=1.0):
    """Effects of models and prompts, each with a part of the model, of the prompt, and of its own."""
    parts = (models, (n_models, 1)), (prompts, (1, n_prompts)), (rest, (n_models, n_prompts))
    values = MEAN + sum(random.normal(0, deviation, shape) for deviation, shape in parts)
    return xr.DataArray(values, dims=("model", "prompt"))


def test_the_error_is_that_of_resampled_models_and_prompts():
    random = np.random.default_rng(0)
    values = drawn(random, 40, 60, rest=0.3)
    means = []
    for _ in range(3000):
        rows, columns = random.integers(0, 40, 40), random.integers(0, 60, 60)
        means.append(values.values[rows][:, columns].mean())
    found = intervals.pooled(values)
    assert float(found["mean"]) == pytest.approx(values.values.mean())
    ends = np.quantile(means, [0.025, 0.975])
    assert [float(found["low"]), float(found["high"])] == pytest.approx(ends, abs=0.08 * np.ptp(ends))


@pytest.mark.slow
@pytest.mark.parametrize(("n_models", "prompts"), [(3, 0.0), (4, 0.0), (4, 1.0), (4, 3.0), (12, 2.0)])
def test_intervals_cover_the_mean_of_all_models_and_prompts(n_models, prompts):
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        found = intervals.pooled(drawn(random, n_models, 12, prompts=prompts))
        inside += float(found["low"]) < MEAN < float(found["high"])
    assert 0.925 < inside / 2000 < 0.985


def test_without_common_prompts_it_is_the_t_interval_of_the_means_of_the_models():
    values = drawn(np.random.default_rng(2), 4, 12, prompts=0.0)
    values = values - values.mean("model") + values.mean()  # so no two models vary together
    found, means = intervals.pooled(values, further=[2.0, 0.5]), [*values.mean("prompt").values, 2.0, 0.5]
    expected = stats.t.interval(0.95, 5, np.mean(means), stats.sem(means))
    assert (float(found["low"]), float(found["high"])) == pytest.approx(expected)
    assert (int(found["n_models"]), int(found["n_prompts"])) == (6, 12)


def test_two_models_are_not_pooled_and_seven_prompts_have_no_interval():
    values = drawn(np.random.default_rng(3), 4, 12)
    two, seven = intervals.pooled(values[:2]), intervals.pooled(values[:, :7])
    assert bool(two["mean"].isnull()) and bool(two["low"].isnull()) and int(two["n_models"]) == 2
    assert float(seven["mean"]) == pytest.approx(values.values[:, :7].mean()) and bool(seven["low"].isnull())
    values[1, 3] = np.nan
    assert int(intervals.pooled(values)["n_prompts"]) == 11
    assert int(intervals.pooled(values.where(False))["n_prompts"]) == 0


def test_what_prompts_share_counts_by_the_models_that_read_them():
    values = drawn(np.random.default_rng(3), 3, 12, prompts=4.0)
    known, further = values.values, [1.0, 2.5]
    means = np.array([*known.mean(axis=1), *further])
    pairs = [np.cov(known[i], known[j])[0, 1] for i, j in ((0, 1), (0, 2), (1, 2))]
    # the mean over five models holds three of twelve prompts
    of_models, of_prompts = means.var(ddof=1) / 5, np.mean(pairs) / 12 * (3 / 5) ** 2
    freedom = (of_models + of_prompts) ** 2 / (of_models**2 / 4 + of_prompts**2 / 11)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(of_models + of_prompts)
    found = intervals.pooled(values, further=further)
    assert float(found["mean"]) == pytest.approx(means.mean())
    assert float(found["high"] - found["mean"]) == pytest.approx(half)
