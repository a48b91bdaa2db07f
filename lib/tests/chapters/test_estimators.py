"""The chapter on three estimators says whether they agree, and that they do not where they do not."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from test_chapters import observed, results_of

from token_geometry.chapters import estimators
from token_geometry.chapters.shuffling.frames import shuffling_effect


def made(*signs, n_prompts=12):
    """Results in which full shuffling changes each estimate by 1 in this direction, and the loss follows it so."""
    results = results_of(n_prompts=n_prompts, n_shuffled=n_prompts)
    dataset, random = results.observables, np.random.default_rng(0)
    loss = 0.2 * (dataset["loss"] - dataset["loss"].mean())
    for (name, at), sign in zip(estimators.CHOSEN.values(), signs, strict=True):
        values = dataset[name].sel(at)
        noise = values.copy(data=0.02 * random.normal(size=values.shape)).where(values.notnull())
        changed = 5 + noise + sign * (dataset["shuffle_level"] / 2 + loss)
        dataset[name].loc[at] = changed.transpose(*values.dims)
    return results


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signs", "words"),
    [
        ((1, 1, 1, 1), "It is positive by GRIDE at scale 4, GRIDE at scale 16, ESS, TLE: the estimators agree."),
        (
            (-1, -1, -1, -1),
            "It is negative by GRIDE at scale 4, GRIDE at scale 16, ESS, TLE: the estimators agree.",
        ),
        (
            (1, 1, -1, 1),
            "It is positive by GRIDE at scale 4, GRIDE at scale 16, TLE and is negative by ESS: the estimators co",
        ),
        ((1, 0, 0, 1), "the estimators leave it open whether they agree."),
    ],
)
@pytest.mark.parametrize("say", [estimators.shuffled, estimators.with_loss])
def test_the_sentences_say_whether_the_estimators_agree(say, signs, words):
    lines = say(made(*signs)).data.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert words in line
        assert ("contradict one another" in line) == (1 in signs and -1 in signs), line


def test_the_effect_is_of_every_estimator_at_every_layer_but_the_embeddings():
    results = made(1, 1, 1, 1)
    frame = shuffling_effect(results, estimators.dimensions(results.ends), by="estimator")
    assert set(frame["estimator"]) == set(estimators.CHOSEN)
    assert frame.groupby("model_title")["layer"].agg(["min", "max"]).values.tolist() == [[1, 6], [1, 4]]
    assert frame["low"].min() > 0


def taken_apart(share, *, noise=0.0, n_prompts=12):
    """Results with prompts of 2048 tokens, of whose ID the first 512 give this share."""
    results = results_of(n_prompts=n_prompts, n_shuffled=n_prompts)
    longer = observed({"one": 6, "two": 4}, (0,), n_prompts, n_prompts, seed=3)
    longer = longer.assign_coords(n_subset=[128, 512]).assign_attrs(n_tokens=2048)
    whole, random = longer["intrinsic_dimension"], np.random.default_rng(1)
    varied = share + noise * random.normal(size=n_prompts)
    made = (whole * xr.DataArray(varied, dims="prompt")).expand_dims(subset=longer["subset"].values)
    dims = longer["subset_dimension"].isel(n_subset=1).dims
    longer["subset_dimension"].loc[{"n_subset": 512}] = made.transpose(*dims).values
    return dataclasses.replace(results, longer=longer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "noise", "word"),
    [(0.97, 0.01, "are enough"), (0.7, 0.01, "are not enough"), (1.2, 0.01, "are not enough"),
     (0.9, 0.1, "may or may not be enough")],
)  # fmt: skip
def test_longer_prompts_take_the_place_of_the_others_and_say_whether_500_tokens_are_enough(share, noise, word):
    results = taken_apart(share, noise=noise)
    frame = estimators.by_number(results)
    assert set(frame["n_points"]) == {128, 512, 2048} and set(frame["part"]) == set(estimators.KINDS.values())
    assert frame["low"].notnull().all() and set(frame["n_prompts"]) == {12}
    for line in estimators.number(results).data.splitlines():
        assert "from 2048" in line
        assert line.count(f"500 tokens {word} to come within a tenth of it: the first 512 give") == 3, line
        assert line.count(f"give {share:.2f} (") == 3 or noise > 0.05, line


def test_a_run_without_longer_prompts_says_nothing_of_500_tokens_and_few_prompts_decide_nothing():
    results = taken_apart(0.97, n_prompts=4)
    assert "may or may not be enough" in estimators.number(results).data
    plain = dataclasses.replace(results, longer=None)
    assert "enough" not in estimators.number(plain).data
    assert set(estimators.by_number(plain)["n_points"]) == {16, 32, 64}
