"""Published numbers: what the repository holds, what its charts show, and how a run is held against it."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from token_geometry.chapters.curves import layer_curves
from token_geometry.chapters.published import arrays as published
from token_geometry.chapters.published import charts as published_charts
from token_geometry.chapters.published import claims, evidence, prose
from token_geometry.chapters.results import RunResults
from token_geometry.runs import declaration

# Recomputed from the arrays of arXiv:2501.10573, scale 2, 50 prompts: S → layer, mean, deviation of the ID peak.
PEAKS = {
    "Llama-3-8B": {0: (13, 9.55, 1.03), 5: (10, 13.89, 1.61)},
    "Mistral-7B-v0.1": {0: (14, 9.17, 1.18), 5: (12, 15.04, 0.90)},
    "Pythia-6.9B": {0: (9, 8.25, 1.79), 5: (8, 13.93, 1.09)},
}
LOSSES = {
    "Llama-3-8B": (1.87, 1.99, 2.35, 3.24, 5.12, 7.49),
    "Mistral-7B-v0.1": (1.63, 1.75, 2.10, 2.98, 4.87, 7.14),
    "Pythia-6.9B": (1.94, 2.08, 2.49, 3.49, 5.34, 7.44),
}
OVERLAPS = {
    "Llama-3-8B": (0.592, 0.930, 26),
    "Mistral-7B-v0.1": (0.591, 0.927, 26),
    "Pythia-6.9B": (0.545, 0.962, 28),
}
LAST_COSINES = {"Llama-3-8B": (0.251, 0.828), "Mistral-7B-v0.1": (0.211, 0.733), "Pythia-6.9B": (0.299, 0.792)}
CORRELATIONS = {
    "Llama-3-8B": (7, 0.786, 0.65, 0.87),
    "Mistral-7B-v0.1": (8, 0.764, 0.62, 0.86),
    "Pythia-6.9B": (8, 0.792, 0.66, 0.88),
}


def drawn(variable, **at):
    """Rows of the chart of a published observable, by model and shuffle level."""
    frame = published.summary(variable)
    column = next(iter(at), None)
    chart = layer_curves(frame, y_title=variable, finding="test", choose=column)
    (rows,) = chart.to_dict()["datasets"].values()
    found = {}
    for row in rows:
        if all(row[key] == value for key, value in at.items()):
            found.setdefault((row["model_title"], row["shuffle_level"]), []).append(row)
    return found


@pytest.mark.parametrize("model", PEAKS)
def test_the_chart_of_the_published_id_shows_the_published_peaks(model):
    curves = drawn("intrinsic_dimension", scale=2)
    for level, (layer, mean, deviation) in PEAKS[model].items():
        top = max(curves[model, level], key=lambda row: row["mean"])
        assert top["layer"] == layer
        assert top["mean"] == pytest.approx(mean, abs=0.006)
        # the published deviation has the divisor n, that of a chart n - 1
        assert top["std"] * np.sqrt(49 / 50) == pytest.approx(deviation, abs=0.006)
        assert top["n_prompts"] == 50


@pytest.mark.parametrize("model", PEAKS)
def test_the_charts_of_the_published_overlap_cosine_and_loss_show_the_published_values(model):
    first, largest, layer = OVERLAPS[model]
    overlap = drawn("neighborhood_overlap", k=1)[model, 0]
    top = max(overlap, key=lambda row: row["mean"])
    assert overlap[0]["mean"] == pytest.approx(first, abs=6e-4) and overlap[0]["layer"] == 1
    assert (top["mean"], top["layer"]) == (pytest.approx(largest, abs=6e-4), layer)
    cosine = drawn("cosine_similarity")
    ends = [cosine[model, level][-1]["mean"] for level in (0, 5)]
    assert ends == pytest.approx(LAST_COSINES[model], abs=6e-4)
    loss = published.summary("loss").query("model_title == @model").sort_values("shuffle_level")
    assert loss["mean"].values == pytest.approx(LOSSES[model], abs=0.006)


@pytest.mark.parametrize("model", PEAKS)
def test_the_published_correlation_has_its_peak_and_its_interval(model):
    names = dict(zip(published.tokens()["model_title"].values, published.tokens()["model"].values, strict=True))
    found = published.correlation().sel(model=names[model], scale=2).dropna("layer")
    best = found.sel(layer=found["correlation"].idxmax("layer"))
    layer, *numbers = CORRELATIONS[model]
    assert int(best["layer"]) == layer
    assert [float(best[name]) for name in ("correlation", "low", "high")] == pytest.approx(numbers, abs=0.006)


def made(change, *, n_prompts=8):
    """A run of one model whose ID changes by `change` ± 0.5 when it is shuffled, and peaks in layer 3."""
    random = np.random.default_rng(0)
    names = [f"p{number}" for number in range(n_prompts)]
    course = np.array([0, 4.0, 6, 8, 6, 4])
    own = random.normal(size=(n_prompts, 1))
    before = course + own
    after = course + own + change + 0.5 * (-1.0) ** np.arange(n_prompts)[:, None]
    dimension = np.stack([before, after])[None, ..., None].repeat(2, -1)
    dims = ("model", "shuffle_level", "prompt", "layer")
    constant = np.ones(dimension.shape[:-1])
    dataset = xr.Dataset(
        {
            "intrinsic_dimension": ((*dims, "scale"), dimension),
            "neighborhood_overlap": ((*dims, "k"), constant[..., None].repeat(2, -1)),
            "cosine_similarity": (dims, constant),
            # the loss follows the ID without fail
            "loss": (dims[:3], np.stack([own[:, 0], own[:, 0]])[None]),
        },
        coords={"model": ["m"], "shuffle_level": [0, 5], "prompt": names, "layer": range(6)}
        | {"scale": [2, 4], "k": [1, 2], "model_title": ("model", ["Made"])}
        | {"relative_depth": (("model", "layer"), np.arange(6)[None] / 5)},
    )
    run = declaration.Run(name="m", title="m", models=["m"], corpus="c", n_tokens=4)
    return RunResults(run=run, observables=dataset)


@pytest.mark.parametrize(("change", "verdict"), [(3, "agrees"), (-3, "disagrees"), (0, "open")])
def test_a_run_agrees_with_a_claim_where_its_interval_has_the_sign_of_the_claim(change, verdict):
    results = made(change)
    (claim,) = (
        claim
        for claim in claims.CLAIMS
        if claim.text == "Shuffling raises the maximum over layers of the ID at scale 2"
    )
    found = claim.on(evidence.Measured(results, "m"))
    peak = results.observables["intrinsic_dimension"].sel(model="m", scale=2, layer=3)
    difference = (peak.sel(shuffle_level=5) - peak.sel(shuffle_level=0)).values
    expected = stats.ttest_1samp(difference, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx(expected)
    assert claims.VERDICTS[found.sign() * claim.sign] == verdict


def test_a_correlation_without_fail_is_found_and_absent_data_are_missing():
    frame = claims.compare(made(3)).query("side == 'run'").set_index("claim")
    assert frame.loc["Prompts with a higher loss have a higher ID at scale 2", "value"] == pytest.approx(1)
    assert (
        frame.loc["At scale 64, shuffling lowers the ID where that of structured text is largest", "verdict"]
        == "missing"
    )
    assert "not in this run" in prose.claims_table(claims.compare(made(3))).data


def test_the_published_side_of_a_difference_is_that_of_two_independent_samples():
    side = evidence.Published("llama-3-8b")
    points = [{"shuffle_level": level, "layer": 32} for level in (0, 5)]
    found = side.change("cosine_similarity", points)
    errors = [
        float(published.tokens()["cosine_similarity_std"].sel(point | {"model": "llama-3-8b"})) / 7
        for point in points
    ]
    half = stats.t.ppf(0.975, 49) * np.hypot(*errors)
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half))


def test_all_published_models_and_claims_are_in_the_chart_of_claims():
    frame = claims.compare(made(3))
    (rows,) = published_charts.effects(frame, finding="test").to_dict()["datasets"].values()
    given = [(row["claim"], row["model_title"]) for row in rows if row["side"] == "published"]
    assert len(given) == len(set(given)) == 3 * len(claims.CLAIMS)


def test_every_published_model_agrees_that_shuffling_raises_the_peak_and_the_cosine_at_the_end():
    for side in evidence.of_all():
        for claim in claims.CLAIMS:
            if claim.text.startswith(("Shuffling raises", "Prompts with a higher loss")):
                assert claim.on(side).sign() == claim.sign
