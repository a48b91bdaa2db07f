"""The chapter on confounds finds what was planted: correlations that a confound makes, and others."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from test_chapters import results_of

from token_geometry.chapters import confounds
from token_geometry.chapters import results as results_module

N_PROMPTS = 24


def made(monkeypatch, *, own=0.0, corpus="sotu", genres=(), shift=0.0, **changes):
    """Results whose ID follows the different tokens, as the loss does, and by `own` what else the loss follows.

    `shift` is by how much ID and loss of each further genre are higher than in the one before.
    """

    def of_genre(number):
        results = results_of(levels=(0,), n_prompts=N_PROMPTS, n_shuffled=N_PROMPTS, control=False)
        random, dataset = np.random.default_rng(number + 5), results.observables
        tokens, rest, noise = (xr.DataArray(row, dims="prompt") for row in random.normal(size=(3, N_PROMPTS)))
        planted = {
            "distinct_tokens": 500 + 10 * tokens,
            "loss": 3 + tokens + rest + shift * number,
            "intrinsic_dimension": 9 + tokens + own * rest + 0.5 * noise + shift * number,
        }
        for name, values in planted.items():
            dataset[name] = (0 * dataset[name] + values).transpose(*dataset[name].dims)
        return results

    results = of_genre(0)
    every = {f"genre-{name}": of_genre(n + 1).observables for n, name in enumerate(genres)}
    monkeypatch.setattr(results_module, "read", lambda run, name: every[name])
    sections = {"genres": dict.fromkeys(genres)}
    run = dataclasses.replace(results.run, corpus=corpus, sections=sections, **changes)
    return dataclasses.replace(results, run=run)


@pytest.mark.parametrize(("own", "survives"), [(0.0, False), (1.0, True)])
def test_a_correlation_that_the_different_tokens_make_is_gone_where_they_are_fixed(monkeypatch, own, survives):
    cells = confounds.correlations(confounds.samples(made(monkeypatch, own=own)), confounds.partial)
    as_it_is, fixed = (cells[cells["measure"] == name] for name in (confounds.AS_IT_IS, confounds.TOKENS))
    assert len(as_it_is) == len(fixed) == 2 * 8 and set(cells["n_prompts"]) == {N_PROMPTS}
    assert (as_it_is["q_value"] <= 0.01).all() and (as_it_is["low"] > 0.3).all()
    assert ((fixed["q_value"] <= 0.05) == survives).all() and ((fixed["low"] > 0) == survives).all()
    said = confounds.survival(cells, confounds.AS_IT_IS, confounds.TOKENS).data
    assert "sotu: 16 of 16 as it is, " in said
    expected = "Model two +2, +4, +8" if survives else f"0 of 16 {confounds.TOKENS}."
    assert expected in said.replace("\\", "")


def test_the_dimension_is_the_mean_of_the_middle_third(monkeypatch):
    results = made(monkeypatch)
    dataset = results.observables
    dataset["intrinsic_dimension"] = 0 * dataset["intrinsic_dimension"] + dataset["layer"]
    dimension = confounds.samples(results)["sotu"]["dimension"]
    assert (dimension.sel(model="one") == 3).all()  # layers 2, 3, 4 of 6
    assert (dimension.sel(model="two") == 2).all()  # layer 2 of 4


@pytest.mark.slow
def test_what_genres_differ_in_makes_no_correlation_within_them(monkeypatch):
    results = made(monkeypatch, genres=("python-docs", "python-source"), shift=9.0)
    samples = confounds.samples(results)
    assert [*samples] == ["sotu", "python-docs", "python-source", confounds.WITHIN]
    assert samples[confounds.WITHIN].sizes["prompt"] == 3 * N_PROMPTS
    cells = confounds.correlations(samples, confounds.partial).query("texts == @confounds.WITHIN")
    cells = cells.set_index(["measure", "model_title", "scale"])["correlation"]
    r = cells.loc[confounds.AS_IT_IS]
    assert r.between(0.4, 0.85).all()  # that of the prompts, and not that of the means
    assert abs(cells.loc[confounds.TOKENS]).max() < 0.4
    parts = [samples[name].sel(model="one", scale=2) for name in [*samples][:3]]
    x, y = (np.concatenate([part[n] - part[n].mean() for part in parts]) for n in ("dimension", "loss"))
    assert r.loc["Model one", 2] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-4)
    said = confounds.between(results, samples).data
    assert "6 orders, and no p-value below 0.17" in said and "1.00 at scale 2" in said


def test_a_confound_that_is_not_known_or_the_same_in_all_is_left_out_and_said(monkeypatch):
    results = made(monkeypatch)
    results.observables["token_rarity"] = 0 * results.observables["token_rarity"] + 0.1
    samples = confounds.samples(results)
    assert [*confounds.names(samples["sotu"])] == ["distinct_tokens", "cosine_0"]
    said = confounds.about(results, samples).data
    assert "Not known, or the same in all: rarity of tokens, length of the text, year." in said
    cells = confounds.correlations(samples, confounds.partial)
    assert set(cells["measure"]) == {
        confounds.AS_IT_IS,
        confounds.TOKENS,
        "at fixed cosine of the embeddings",
        confounds.ALL,
    }
    assert len(cells) == 4 * 2 * 8


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_prompts", [1, 2, 3])
def test_from_few_prompts_there_is_what_can_be_taken_and_it_is_said(monkeypatch, n_prompts):
    results = made(monkeypatch, genres=("python-docs", "python-source"))
    few = dataclasses.replace(results, observables=results.observables.isel(prompt=slice(n_prompts)))
    samples = confounds.samples(few)
    own = {"sotu": samples["sotu"]}
    cells = confounds.correlations(own, confounds.partial)
    assert cells.empty == (n_prompts < 3)
    said = [f(cells).data for f in (confounds.table, confounds.survival)]
    assert all((text == confounds.NONE) == (n_prompts < 3) for text in said)
    assert f"sotu: {n_prompts} prompt" in confounds.about(few, samples).data


@pytest.mark.model
def test_length_and_year_are_those_of_the_texts(monkeypatch):
    results = made(monkeypatch)
    ids = [*confounds.corpora.find_corpus("sotu").texts][:N_PROMPTS]
    found = dataclasses.replace(results, observables=results.observables.assign_coords(prompt=ids))
    sample = confounds.samples(found)["sotu"]
    assert sample["year"].values.tolist() == [float(key[:4]) for key in ids]
    assert sample["length"].values[0] == len(confounds.corpora.find_corpus("sotu").texts[ids[0]])
    monkeypatch.setattr(confounds.corpora, "is_at_hand", lambda corpus: False)
    assert "length" not in confounds.samples(found)["sotu"]


def test_a_run_may_name_the_confounds(monkeypatch):
    results = made(monkeypatch, confounds=["cosine_0", "distinct_tokens"])
    samples = confounds.samples(results)
    assert [*confounds.names(samples["sotu"])] == ["cosine_0", "distinct_tokens"]
    table = confounds.table(confounds.correlations(samples, confounds.with_confounds, quantity="loss")).data
    assert len(table.splitlines()) == 4 and "| sotu: different tokens | **0." in table
