"""Correlations agree with scipy on known cases, for all cells at once, and say nothing where they cannot."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from token_geometry.base.errors import InputError
from token_geometry.stats import correlation

RANDOM = np.random.default_rng(5)
N_PROMPTS = 16


@pytest.fixture(scope="module")
def pair():
    """A quantity over layer and prompt that follows another, with equal values among them."""
    loss = RANDOM.normal(3, 0.3, N_PROMPTS).round(1)
    strength = np.array([-2.0, 0.0, 1.0, 4.0])[:, None]
    dimension = strength * loss + RANDOM.normal(size=(4, N_PROMPTS))
    return xr.DataArray(dimension, dims=("layer", "prompt")), xr.DataArray(loss, dims="prompt")


def scipy_coefficient(method):
    def coefficient(x, y, axis=-1):
        if method == "spearman":
            x, y = stats.rankdata(x, axis=axis), stats.rankdata(y, axis=axis)
        return stats.pearsonr(x, y, axis=axis).statistic

    return coefficient


@pytest.mark.parametrize("method", correlation.METHODS)
def test_correlation_and_p_value_are_those_of_scipy(pair, method):
    x, y = pair
    found = correlation.correlate(x, y, method=method)
    for layer in range(4):
        expected = getattr(stats, f"{method}r")(x.isel(layer=layer), y)
        assert float(found["correlation"][layer]) == pytest.approx(expected.statistic, abs=1e-12)
        assert float(found["p_value"][layer]) == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found["n_prompts"] == N_PROMPTS).all()


@pytest.mark.parametrize("method", correlation.METHODS)
def test_intervals_are_the_bca_intervals_of_scipy_on_the_same_resamples(pair, method):
    x, y = pair
    found = correlation.correlate(x, y, method=method, n_resamples=999, seed=3)
    for layer in range(4):
        expected = stats.bootstrap(
            (x.values[layer], y.values), scipy_coefficient(method), paired=True, vectorized=True,
            n_resamples=999, method="BCa", rng=np.random.default_rng(3),
        ).confidence_interval  # fmt: skip
        assert float(found["low"][layer]) == pytest.approx(expected.low, abs=1e-9)
        assert float(found["high"][layer]) == pytest.approx(expected.high, abs=1e-9)


def test_intervals_cover_the_true_correlation_as_often_as_they_say():
    truth, n_samples = 0.6, 400
    z = np.random.default_rng(1).normal(size=(2, n_samples, 40))
    x = xr.DataArray(z[0], dims=("sample", "prompt"))
    y = xr.DataArray(truth * z[0] + np.sqrt(1 - truth**2) * z[1], dims=("sample", "prompt"))
    found = correlation.correlate(x, y, n_resamples=500)
    covered = float(((found["low"] <= truth) & (truth <= found["high"])).mean())
    assert 0.9 < covered < 0.98


def test_the_seed_decides_the_interval_and_nothing_else(pair):
    first, again, other = (correlation.correlate(*pair, seed=seed, n_resamples=200) for seed in (0, 0, 1))
    xr.testing.assert_identical(first, again)
    assert (first["correlation"] == other["correlation"]).all()
    assert (first["low"] != other["low"]).any()


@pytest.mark.parametrize("method", correlation.METHODS)
def test_a_partial_correlation_is_that_of_the_residuals(pair, method):
    x, y = pair
    z = x.isel(layer=3)
    found = correlation.correlate(x.isel(layer=[0, 1, 2]), y, given=z, method=method)
    rank = stats.rankdata if method == "spearman" else np.asarray
    design = np.stack([np.ones(N_PROMPTS), rank(z.values)]).T
    for layer in range(3):
        both = np.stack([rank(x.values[layer]), rank(y.values)]).T
        rest = (both - design @ np.linalg.lstsq(design, both, rcond=None)[0]).T
        expected = stats.pearsonr(*rest).statistic
        assert float(found["correlation"][layer]) == pytest.approx(expected, abs=1e-12)
        t = expected * np.sqrt((N_PROMPTS - 3) / (1 - expected**2))
        assert float(found["p_value"][layer]) == pytest.approx(2 * stats.t.sf(abs(t), N_PROMPTS - 3))


@pytest.mark.parametrize("method", correlation.METHODS)
def test_at_several_fixed_quantities_it_is_that_of_the_residuals_with_its_interval(method):
    random = np.random.default_rng(8)
    held = random.normal(size=(3, 30))
    x, y = held.sum(0) + random.normal(size=(2, 30))
    arrays = [xr.DataArray(values, dims="prompt") for values in (x, y, *held)]
    found = correlation.correlate(arrays[0], arrays[1], given=arrays[2:], method=method)
    rank = stats.rankdata if method == "spearman" else np.asarray
    design = np.column_stack([np.ones(30), *map(rank, held)])
    rest = [r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in map(rank, (x, y))]
    expected = stats.pearsonr(*rest).statistic
    assert float(found["correlation"]) == pytest.approx(expected, abs=1e-12)
    assert float(found["low"]) < expected < float(found["high"])
    t = expected * np.sqrt((30 - 5) / (1 - expected**2))
    assert float(found["p_value"]) == pytest.approx(2 * stats.t.sf(abs(t), 30 - 5))
    # one of them alone is as it was, and the sum of two that are held adds nothing that could be held
    one = [correlation.correlate(*arrays[:2], given=given, method=method) for given in (arrays[2], [arrays[2]])]
    xr.testing.assert_identical(*one)
    assert np.isnan(correlation.correlate(*arrays[:2], given=[*arrays[2:4], arrays[2] * 2])["correlation"])


@pytest.mark.slow
def test_the_p_value_by_permutation_is_scipys_and_is_uniform_where_nothing_correlates():
    random = np.random.default_rng(2)
    y = random.normal(size=12)
    x = np.array([0.8 * y + random.normal(size=12), random.normal(size=12)])
    for row, value in zip(x, correlation.permutation_p(x, y), strict=True):
        expected = stats.permutation_test(
            (row,), lambda a: abs(stats.pearsonr(a, y).statistic), permutation_type="pairings",
            alternative="greater", n_resamples=4999, rng=random,
        ).pvalue  # fmt: skip
        assert value == pytest.approx(expected, abs=0.02)
    # both follow a third quantity, which is held fixed
    cause = random.normal(size=(300, 12))
    pairs = cause[:, None] + 0.5 * random.normal(size=(300, 2, 12))
    p = np.array([correlation.permutation_p(a[None], b, c)[0] for (a, b), c in zip(pairs, cause, strict=True)])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert correlation.permutation_p(pairs[0, :1], pairs[0, 1])[0] < 0.05


def test_no_p_value_by_permutation_is_below_one_in_their_number_and_one():
    y = np.random.default_rng(0).normal(size=30)
    found = correlation.permutation_p(np.array([y, -2 * y]), y)
    assert found.tolist() == [1 / (1 + correlation.N_PERMUTATIONS)] * 2


def test_where_nothing_can_be_permuted_there_is_no_p_value():
    random = np.random.default_rng(1)
    x, y, one = random.normal(size=(2, 9)), random.normal(size=9), np.ones(9)
    assert np.isnan(correlation.permutation_p(x, one)).all()
    assert np.isnan(correlation.permutation_p(x, y, one * 3)).all()
    assert np.isnan(correlation.permutation_p(x[:, :3], y[:3], x[0, :3])).all()
    x[0, 4] = np.nan
    assert np.isnan(correlation.permutation_p(x, y)).tolist() == [True, False]


def test_a_correlation_that_a_third_quantity_explains_vanishes_when_it_is_held_fixed():
    random = np.random.default_rng(0)
    cause = xr.DataArray(random.normal(size=500), dims="prompt")
    x, y = (cause + 0.3 * random.normal(size=500) for _ in range(2))
    assert float(correlation.correlate(x, y)["correlation"]) > 0.85
    held = correlation.correlate(x, y, given=cause)
    assert float(held["low"]) < 0 < float(held["high"])


def test_prompts_that_lack_a_value_do_not_take_part(pair):
    x, y = pair
    x = x.copy()
    x[1, [2, 5]] = np.nan
    x[2] = np.nan
    found = correlation.correlate(x, y)
    kept = [i for i in range(N_PROMPTS) if i not in (2, 5)]
    expected = stats.pearsonr(x.values[1, kept], y.values[kept]).statistic
    assert float(found["correlation"][1]) == pytest.approx(expected)
    assert found["n_prompts"].values.tolist() == [16, 14, 0, 16]
    assert np.isnan(found["correlation"][2]) and np.isnan(found["low"][2])
    xr.testing.assert_allclose(found.isel(layer=0), correlation.correlate(*pair).isel(layer=0))


@pytest.mark.parametrize("n_prompts", [0, 1, 2, 3, 7])
def test_few_prompts_have_no_interval_and_two_no_correlation(pair, n_prompts):
    x, y = (v.isel(prompt=slice(n_prompts)) for v in pair)
    found = correlation.correlate(x, y)
    assert found["low"].isnull().all() and found["high"].isnull().all()
    assert bool(found["correlation"].notnull().all()) == (n_prompts > 2)


def test_a_constant_has_no_correlation(pair):
    constant = pair[0] * 0 + 0.1
    for method in correlation.METHODS:
        found = correlation.correlate(constant, pair[1], method=method)
        assert found[["correlation", "low", "high", "p_value"]].isnull().all().to_array().all()


def test_pooled_levels_of_a_prompt_are_resampled_together_and_have_no_p_value(pair):
    levels = xr.DataArray([0.0, 0.0, 0.0], dims="shuffle_level")
    x, y = (v + levels for v in pair)
    pooled, single = correlation.correlate(x, y, pool="shuffle_level"), correlation.correlate(*pair)
    for name in ("correlation", "low", "high", "n_prompts"):  # repeating each prompt teaches nothing
        np.testing.assert_allclose(pooled[name], single[name])
    assert pooled["p_value"].isnull().all()


def test_an_unknown_method_is_refused(pair):
    with pytest.raises(InputError, match="method 'kendal'"):
        correlation.correlate(*pair, method="kendal")


def test_false_discovery_is_benjamini_and_hochbergs_example():
    # the fifteen p-values of their paper, of which four are discoveries at 0.05
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
         0.7590, 1.0]  # fmt: skip
    family = xr.DataArray(p, dims="layer")
    assert int((correlation.false_discovery(family, over=["layer"]) <= 0.05).sum()) == 4
    untested = xr.concat([family, xr.full_like(family, np.nan)], "scale")
    adjusted = correlation.false_discovery(untested, over=["layer", "scale"])
    assert adjusted.dims == ("scale", "layer") and int((adjusted <= 0.05).sum()) == 4
    assert adjusted.isel(scale=1).isnull().all()
    two = xr.concat([family, family], "model")
    np.testing.assert_allclose(correlation.false_discovery(two, over=["layer"])[1], adjusted[0])


def test_many_prompts_are_left_out_in_groups_and_the_interval_hardly_knows_it(monkeypatch):
    random = np.random.default_rng(4)
    x = xr.DataArray(random.exponential(size=150), dims="prompt")
    y = x + xr.DataArray(random.exponential(size=150), dims="prompt")
    each = correlation.correlate(x, y)
    monkeypatch.setattr(correlation, "_N_GROUPS", 50)
    grouped = correlation.correlate(x, y)
    for end in ("low", "high"):
        assert float(grouped[end]) == pytest.approx(float(each[end]), abs=0.01)


def test_a_partial_rank_correlation_is_that_of_what_other_ranks_leave_of_the_ranks():
    random = np.random.default_rng(0)
    given = np.stack([np.arange(50), random.integers(0, 5, 50)])
    y = given[0] + 9 * random.normal(size=50)
    x = np.stack([given[0] + 9 * random.normal(size=50), y**3, random.normal(size=50)])
    y[0] = x[0, 7] = np.nan
    found = correlation.partial_rank(x, y, given)
    for row, value in zip(x, found, strict=True):
        kept = np.isfinite(row) & np.isfinite(y)
        design = np.column_stack([np.ones(kept.sum()), *map(stats.rankdata, given[:, kept])])
        rest = [r - design @ np.linalg.lstsq(design, r)[0] for r in map(stats.rankdata, (row[kept], y[kept]))]
        assert value == pytest.approx(np.corrcoef(rest)[0, 1], abs=1e-12)
    assert found[1] == pytest.approx(1) and abs(found[0]) < 0.4
    assert np.isnan(correlation.partial_rank(x[:, :4], y[:4], given[:, :4])).all()


def test_a_p_value_by_permutation_does_not_depend_on_the_unit_and_a_constant_has_none():
    random = np.random.default_rng(3)
    x, y = random.normal(size=(2, 20)), random.normal(size=20)
    expected = correlation.permutation_p(x, y)
    for unit in (1e-12, 1e12):
        np.testing.assert_array_equal(correlation.permutation_p(unit * x, y), expected)
        assert np.isnan(correlation.permutation_p(np.full((1, 20), unit / 3), y)).all()


def test_no_correlation_is_beyond_one():
    x, held = np.random.default_rng(0).normal(size=(2, 500, 9))
    for values in ([x, 3 * x], [x, x + held, held]):
        found = correlation._coefficients(np.stack(values), np.ones((1, 9)), "pearson")
        assert np.abs(found).max() <= 1 and found.min() > 1 - 1e-9
