"""The chapter on three estimators says whether they agree, and that they do not where they do not."""

import numpy as np
import pytest
from test_chapters import results_of

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
