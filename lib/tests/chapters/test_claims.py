"""Every claim's number on evidence whose numbers are known, sign for sign."""

import numpy as np
import pytest
import xarray as xr

from token_geometry.chapters.published import arrays as published
from token_geometry.chapters.published import claims, evidence
from token_geometry.chapters.results import RunResults
from token_geometry.runs import declaration
from token_geometry.stats import intervals

N_LAYERS, N_PROMPTS = 9, 8
OWN = np.array([-0.5, 0.3, 0.1, -0.2, 0.4, -0.1, 0.25, -0.25])  # what each prompt adds to its ID and loss

# a course over layers per shuffle level: no two layers, levels or scales are alike
STRUCTURED = {2: [1, 2, 3, 4, 5, 9, 6, 5, 4], 4: [1, 2, 3, 7, 4, 3, 2, 2, 2], 64: [1, 3, 5, 7, 11, 8, 6, 4, 2]}
SHUFFLED = {2: [1, 2, 4, 12, 8, 7, 6, 5, 4], 4: [1, 2, 9, 5, 4, 3, 2, 2, 1], 64: [1, 2, 3, 4, 5, 6, 7, 6, 5]}
OVERLAP = {0: np.linspace(0.2, 0.6, N_LAYERS) + np.eye(N_LAYERS)[6], 5: np.linspace(0.1, 0.3, N_LAYERS)}
COSINE = {0: np.linspace(0.3, 0.1, N_LAYERS), 5: np.linspace(0.2, 0.7, N_LAYERS)}
LOSS = {0: 2.0, 5: 6.5}
# how strongly ID and loss go together, by layer: strongest in layer 2 at scale 2, in layer 7 at scale 4
STRENGTH = {2: [0.1, 0.2, 3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 4: [0.1, 0.2, 0.3, 0.4, 0.3, 0.3, 0.3, 4, 0.3]}


@pytest.fixture(scope="module")
def made():
    noise = np.random.default_rng(0).normal(size=(2, N_PROMPTS, N_LAYERS, 3))
    noise -= noise.mean(axis=1, keepdims=True)
    own = OWN - OWN.mean()
    dimension = np.empty((2, N_PROMPTS, N_LAYERS, 3))
    for place, scale in enumerate((2, 4, 64)):
        slope = np.array(STRENGTH.get(scale, np.ones(N_LAYERS)))
        for level, course in enumerate((STRUCTURED, SHUFFLED)):
            dimension[level, ..., place] = (
                np.array(course[scale]) + own[:, None] * slope + 0.05 * noise[level, ..., place]
            )
    dims = ("model", "shuffle_level", "prompt", "layer")

    def course(values):
        return np.stack([np.broadcast_to(values[level], (N_PROMPTS, N_LAYERS)) for level in (0, 5)])[None]

    overlap = np.stack(
        [course(OVERLAP), course({level: values - 0.05 for level, values in OVERLAP.items()})], axis=-1
    )
    dataset = xr.Dataset(
        {
            "intrinsic_dimension": ((*dims, "scale"), dimension[None]),
            "neighborhood_overlap": ((*dims, "k"), overlap),
            "cosine_similarity": (dims, course(COSINE)),
            "loss": (dims[:3], np.stack([LOSS[level] + own for level in (0, 5)])[None]),
        },
        coords={"model": ["m"], "shuffle_level": [0, 5], "prompt": [f"p{n}" for n in range(N_PROMPTS)]}
        | {"layer": range(N_LAYERS), "scale": [2, 4, 64], "k": [1, 2], "model_title": ("model", ["Made"])}
        | {"relative_depth": (("model", "layer"), np.arange(N_LAYERS)[None] / (N_LAYERS - 1))},
    )
    run = declaration.Run(name="m", title="m", models=["m"], corpus="c", n_tokens=4)
    return RunResults(run=run, observables=dataset)


EXPECTED = {
    "Shuffling raises the maximum over layers of the ID at scale 2": 12 - 9,
    "Shuffling moves that maximum to an earlier layer": (3 - 5) / 8,
    "At scale 64, shuffling lowers the ID where that of structured text is largest": 5 - 11,
    "Shuffling lowers the NO (k = 2) where the ID of structured text is largest": OVERLAP[5][5] - OVERLAP[0][5],
    "Shuffling raises the mean cosine similarity of the last layer": 0.7 - 0.1,
    "Shuffling raises the loss": 4.5,
    "The NO (k = 1) of structured text grows after the first layer": OVERLAP[0][6] - OVERLAP[0][1],
    "The correlation at scale 2 is largest before the ID is": (2 - 5) / 8,
}
SIGNS = dict.fromkeys(EXPECTED, 1) | {
    "Shuffling moves that maximum to an earlier layer": -1,
    "At scale 64, shuffling lowers the ID where that of structured text is largest": -1,
    "Shuffling lowers the NO (k = 2) where the ID of structured text is largest": -1,
    "The correlation at scale 2 is largest before the ID is": -1,
}


@pytest.mark.parametrize("text", EXPECTED)
def test_the_number_of_a_claim_on_a_run_is_the_one_by_hand(text, made):
    (claim,) = (claim for claim in claims.CLAIMS if claim.text == text)
    assert claim.on(evidence.Measured(made, "m")).value == pytest.approx(EXPECTED[text], abs=1e-6)
    assert claim.sign == SIGNS[text]


@pytest.mark.parametrize(("scale", "layer"), [(2, 2), (4, 7)])
def test_the_largest_correlation_is_that_of_its_layer_and_scale(scale, layer, made):
    (claim,) = (claim for claim in claims.CLAIMS if claim.text.endswith(f"higher ID at scale {scale}"))
    cloud = made.observables.sel(model="m", shuffle_level=0)
    found = claim.on(evidence.Measured(made, "m"))
    by_layer = [
        np.corrcoef(cloud["intrinsic_dimension"].sel(scale=scale, layer=n), cloud["loss"])[0, 1]
        for n in range(1, N_LAYERS)
    ]
    assert int(np.argmax(by_layer)) + 1 == layer and claim.sign == 1
    assert found.value == pytest.approx(max(by_layer))


def test_a_verdict_is_the_sign_of_the_number_against_that_of_the_claim(made):
    frame = claims.compare(made).query("side == 'run'").set_index("claim")
    for text, sign in SIGNS.items():
        verdict = "agrees" if np.isfinite(frame.loc[text, "low"]) else "open"
        assert np.sign(EXPECTED[text]) == sign and frame.loc[text, "verdict"] == verdict, text
    assert frame["verdict"].value_counts()["agrees"] >= len(SIGNS) - 2  # two never have an interval, or seldom
    assert claims.VERDICTS == {1: "agrees", 0: "open", -1: "disagrees"}


def test_peaks_are_those_of_both_levels(made):
    frame = claims.peaks(made).query("side == 'run'").set_index("shuffle_level")
    assert frame["layer"].to_dict() == {0: 5, 5: 3}
    assert frame["relative_depth"].to_dict() == {0: 5 / 8, 5: 3 / 8}
    assert frame["mean"].to_dict() == pytest.approx({0: 9, 5: 12}, abs=1e-6)


@pytest.mark.parametrize("side", evidence.of_all(), ids=lambda side: side.title)
def test_the_number_of_every_claim_on_published_arrays_is_the_one_by_hand(side):
    tokens = published.tokens().sel(model=str(side.dataset["model"].values))
    n_blocks = tokens.sizes["layer"] - 1
    ends = [tokens.sel(shuffle_level=level) for level in (0, 5)]

    def values(name, level, **at):
        return ends[level][f"{name}_mean"].sel(at).values

    peak = {
        (level, scale): 1 + int(np.nanargmax(values("intrinsic_dimension", level, scale=scale)[1:]))
        for level in (0, 1)
        for scale in (2, 64)
    }
    ids = {scale: [values("intrinsic_dimension", level, scale=scale) for level in (0, 1)] for scale in (2, 64)}
    overlap = [
        values("neighborhood_overlap", 0, k=1),
        *(values("neighborhood_overlap", level, k=2) for level in (0, 1)),
    ]
    cosine = [values("cosine_similarity", level) for level in (0, 1)]
    last = int(np.flatnonzero(np.isfinite(cosine[0])).max())
    strongest = published.correlation().sel(model=tokens["model"], scale=2)["correlation"]
    strongest = int(strongest["layer"][int(np.nanargmax(strongest.where(strongest["layer"] >= 1).values))])
    expected = {
        "Shuffling raises the maximum over layers of the ID at scale 2": ids[2][1][peak[1, 2]]
        - ids[2][0][peak[0, 2]],
        "Shuffling moves that maximum to an earlier layer": (peak[1, 2] - peak[0, 2]) / side.n_blocks,
        "At scale 64, shuffling lowers the ID where that of structured text is largest": ids[64][1][peak[0, 64]]
        - ids[64][0][peak[0, 64]],
        "Shuffling lowers the NO (k = 2) where the ID of structured text is largest": overlap[2][peak[0, 2]]
        - overlap[1][peak[0, 2]],
        "Shuffling raises the mean cosine similarity of the last layer": cosine[1][last] - cosine[0][last],
        "The NO (k = 1) of structured text grows after the first layer": np.nanmax(overlap[0][1:]) - overlap[0][1],
        "The correlation at scale 2 is largest before the ID is": (strongest - peak[0, 2]) / side.n_blocks,
    }
    assert side.n_blocks in (n_blocks, 32)
    for claim in claims.CLAIMS:
        if claim.text in expected:
            assert claim.on(side).value == pytest.approx(float(expected[claim.text]), abs=1e-9), claim.text


def test_the_interval_of_a_change_of_depth_is_the_middle_of_its_resamples(made):
    own = evidence.Measured(made, "m")
    courses = [np.array(course[4][1:]) for course in (STRUCTURED, SHUFFLED)]
    # so that the peak is another one in some two of a hundred resamples
    apart = 19.5 * OWN[:, None] * np.eye(8)[4]
    layer = {"layer": np.arange(1, N_LAYERS)}
    first, last = (xr.DataArray(course + apart, dims=("prompt", "layer"), coords=layer) for course in courses)
    both = xr.concat([first, last], "shuffle_level").assign_coords(shuffle_level=[0, 5]).expand_dims(scale=[4])
    own.dataset = xr.Dataset({"intrinsic_dimension": both})
    peaks = [intervals.resampled_means(one).idxmax("layer") for one in (first, last)]
    low, high = np.quantile((peaks[1] - peaks[0]) / 8, [0.025, 0.975])
    found = own.depth_change(4)
    assert (found.low, found.high) == (low, high)
