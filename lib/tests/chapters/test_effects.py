"""The chapter on the effect of order: what was planted is found at its scale, with intervals that cover."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from test_chapters import results_of

from token_geometry.base import project
from token_geometry.chapters import effects
from token_geometry.chapters.frames import peak, window
from token_geometry.chapters.published import arrays
from token_geometry.chapters.shuffling.prose import effect_by_layer
from token_geometry.stats import intervals

N_PROMPTS, N_SHUFFLED = 14, 10
EFFECTS = {2: 2.0, 64: -3.0}


def made(models=None, n_shuffled=N_SHUFFLED, noise=0.3, effects_of=EFFECTS):
    """Results in which full shuffling changes the ID of every layer by the effect of its scale."""
    models = models or {"one": 12, "two": 9, "three": 6}
    results = results_of(models, n_prompts=N_PROMPTS, n_shuffled=n_shuffled)
    dimension, random = results.observables["intrinsic_dimension"], np.random.default_rng(0)
    values = 10 + noise * random.normal(size=dimension.shape)
    layer = dimension["layer"] / 12
    values = dimension.copy(data=values) + 2 * layer * (1 - layer)
    for scale, effect in effects_of.items():
        values.loc[{"shuffle_level": 2, "scale": scale}] += effect
    results.observables["intrinsic_dimension"] = values.where(dimension.notnull()).transpose(*dimension.dims)
    return results


@pytest.mark.parametrize(
    ("n_blocks", "layers"), [(30, (10, 20)), (32, (11, 21)), (18, (6, 12)), (4, (2, 2)), (2, (1, 1)), (1, (1, 1))]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_middle_layers_are_those_of_the_middle_third(n_blocks, layers, dtype):
    depth = (np.arange(40) / n_blocks).astype(dtype)
    depth = xr.DataArray(np.where(depth <= 1, depth, np.nan), coords={"layer": np.arange(40)})
    assert (window(depth).start, window(depth).stop) == layers
    assert window(depth, (0, 1)) == slice(1, n_blocks)


def test_the_frame_has_scipys_intervals_of_the_mean_over_the_middle_layers():
    results = made()
    frame = effects.frame(results, "difference").set_index(["model_title", "scale"])
    ratios = effects.frame(results, "log ratio").set_index(["model_title", "scale"])
    for title, layers, model in (("Model one", range(4, 9), "one"), ("Model three", range(2, 5), "three")):
        dimension = results.observables["intrinsic_dimension"].sel(model=model, layer=list(layers))
        first, last = (dimension.sel(shuffle_level=s).values[:N_SHUFFLED].mean(1) for s in (0, 2))
        for number, scale in enumerate(dimension["scale"].values):
            change, row = (last - first)[:, number], frame.loc[title, scale]
            expected = [change.mean(), *stats.ttest_1samp(change, 0).confidence_interval()]
            assert row[["mean", "low", "high"]].tolist() == pytest.approx(expected, abs=1e-4)
            logs = np.log(last / first)[:, number]
            expected = np.exp([logs.mean(), *stats.ttest_1samp(logs, 0).confidence_interval()])
            assert ratios.loc[title, scale][["mean", "low", "high"]].tolist() == pytest.approx(expected, abs=1e-4)
            assert row["n_prompts"] == N_SHUFFLED
            assert row["mean"] == pytest.approx(EFFECTS.get(int(scale), 0), abs=0.3)


def test_published_models_have_the_values_of_their_arrays_and_an_interval_around_them():
    frame = effects.frame(results_of(levels=(0,)), "difference")
    assert set(frame["model_title"]) == {"Llama-3-8B", "Mistral-7B-v0.1", "Pythia-6.9B"}
    with xr.open_dataset(project.root() / "data" / "published" / "geometry-of-tokens.nc") as given:
        mean = given["intrinsic_dimension_mean"].sel(model="mistral-7b", scale=64, layer=slice(11, 21)).values
        std = given["intrinsic_dimension_std"].sel(model="mistral-7b", scale=64, layer=slice(11, 21)).values
    row = frame[(frame["model_title"] == "Mistral-7B-v0.1") & (frame["scale"] == 64)].iloc[0]
    assert row["mean"] == pytest.approx((mean[-1] - mean[0]).mean(), abs=1e-4)
    half = stats.t.ppf(0.975, 49) * np.hypot(std[0].mean(), std[-1].mean()) / 7
    assert (row["low"], row["high"]) == pytest.approx((row["mean"] - half, row["mean"] + half), abs=1e-3)
    assert row["high"] < 0 and row["n_prompts"] == arrays.tokens().attrs["n_prompts"] == 50


def rows(table):
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.data.splitlines()[2:]]


@pytest.mark.slow
def test_the_table_says_the_sign_of_each_model_and_of_all():
    table = rows(effects.signs(made()))
    assert [row[0] for row in table[-2:]] == [
        "mean over 3 models of the run",
        "mean over 6 models with those published",
    ]
    for row in [*table[:3], table[-2]]:
        assert row[1] == str(N_SHUFFLED) and (row[3], row[5]) == ("raised", "lowered"), row
    two = rows(effects.signs(made({"one": 12, "two": 9})))
    assert two[-2][2:] == ["not given below 3 models", "–"] * 2 and "over 5 models" in two[-1][0]
    few = rows(effects.signs(made(n_shuffled=4)))
    assert few[0][3] == few[0][5] == "open ($p$ = 0.12)" and few[-2][3] == "open"


@pytest.mark.slow
def test_other_summaries_of_a_plain_effect_give_its_sign_and_a_peak_at_the_end_is_none():
    results = made(noise=0.01)
    dataset = results.observables
    for name in ("ess", "tle"):
        dataset[name] = dataset[name] * 0 + dataset["shuffle_level"]
    every = effects.multiverse(results)
    own = every[every["model_title"] == "Model one"].set_index(["summary", "scale"])
    assert own.loc[("ESS", 2), "holds"] and not own.loc[("ESS", 64), "holds"]
    assert own.query("summary not in ('ESS', 'TLE') and scale in (2, 64)")["holds"].all()
    assert len(own.loc[:, 2, :]) == 13
    (line,) = (row for row in rows(effects.holds(every, "model_title")) if row[0] == "Model one")
    assert (line[1], line[6]) == ("+ 13/13", "− 11/13")
    dimension = dataset["intrinsic_dimension"]
    dimension.loc[{"model": "one", "shuffle_level": 2, "scale": 2, "layer": 12}] = 99
    every = effects.multiverse(results).query("model_title == 'Model one' and scale == 2")
    assert not {name for name in every["summary"] if name.startswith("peaks")}
    top = peak(results.ends["intrinsic_dimension"].sel(model="one", shuffle_level=2, scale=2))
    assert (
        not top.inside and str(top) == "is largest at 99.0 in layer 12, where the layers end, so there is no peak"
    )


def test_the_list_of_layers_keeps_to_discoveries():
    layers = {2: 3.0}
    results = made({"one": 12}, effects_of=layers, noise=1.0)
    text = effect_by_layer(results).data
    assert "at scale 2 it raises the ID in layers 1 to 12 and lowers it in none" in text
    nothing = effect_by_layer(made({"one": 12}, effects_of={}, noise=1.0)).data
    assert "at scale 64 it raises the ID in none and lowers it in none" in nothing
    change = made({"one": 12}, effects_of={}, noise=1.0).ends["intrinsic_dimension"].sel(model="one")
    alone = intervals.mean_interval(effects.change(change.sel(layer=slice(1, None))))["p_value"]
    assert bool((alone < 0.05).any())  # each by itself, some would have been listed


N_STUDIES, N_PERMUTATIONS, N_LAYERS = 4000, 3, 31


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["difference", "log ratio"])
def test_intervals_of_the_declared_summary_cover_a_known_effect(measure):
    # the layers of a prompt go together, and so do its permutations
    random, effect, n_prompts = np.random.default_rng(8), -2.0, 12

    def correlated(*shape):
        steps = random.normal(size=(*shape, N_LAYERS))
        for layer in range(1, N_LAYERS):
            steps[..., layer] = 0.9 * steps[..., layer - 1] + np.sqrt(1 - 0.9**2) * steps[..., layer]
        return steps

    prompt, reaction = correlated(N_STUDIES, n_prompts, 1), 0.6 * correlated(N_STUDIES, n_prompts, 1)
    first = 12 + prompt + 0.3 * correlated(N_STUDIES, n_prompts, 1)
    last = 12 + prompt + reaction + 0.5 * correlated(N_STUDIES, n_prompts, N_PERMUTATIONS)
    last = first * np.exp(-0.2 + 0.05 * reaction) if measure == "log ratio" else last + effect
    first, last = (
        np.broadcast_to(one, (N_STUDIES, n_prompts, N_PERMUTATIONS, N_LAYERS)).mean(2) for one in (first, last)
    )
    values = xr.DataArray(
        np.stack([first, last]),
        dims=("shuffle_level", "study", "prompt", "layer"),
        coords={"prompt": np.arange(n_prompts), "layer": np.arange(N_LAYERS)},
    )
    values.coords["relative_depth"] = values["layer"] / (N_LAYERS - 1)
    found = effects.found(values, measure)
    truth = -0.2 if measure == "log ratio" else effect
    covered = float(((found["low"] < truth) & (truth < found["high"])).mean())
    assert 0.93 < covered < 0.97
    assert 0 < float((found["high"] - found["low"]).mean()) < 2


def test_a_prompt_of_which_one_permutation_failed_counts_with_the_others():
    results = made()
    repeated = results.observables.expand_dims(permutation=3).copy(deep=True)
    repeated["intrinsic_dimension"][{"permutation": 1, "prompt": 0, "shuffle_level": 2}] = np.nan
    averaged = dataclasses.replace(results, observables=repeated.mean("permutation", keep_attrs=True))
    expected = effects.frame(results, "difference")
    assert np.allclose(effects.frame(averaged, "difference")["mean"], expected["mean"])
