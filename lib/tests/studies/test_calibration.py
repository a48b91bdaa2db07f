"""The calibration: shapes of known dimension, other code, other precisions, and the chapter's words."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import token_geometry
from token_geometry.base import parameters, project, store
from token_geometry.chapters import markup
from token_geometry.chapters.calibration import charts as calibration_charts
from token_geometry.chapters.calibration import frames as calibration_frames
from token_geometry.chapters.calibration import prose
from token_geometry.geometry import gride, manifolds, neighbors
from token_geometry.geometry.manifolds import FAMILIES, N_COORDINATES
from token_geometry.observables import labelled
from token_geometry.requests.calibration import Calibration
from token_geometry.runs import declaration
from token_geometry.studies import calibration

SMOOTH = [name for name, family in FAMILIES.items() if not family.noisy]


def rank(points) -> int:
    """Number of coordinates that a cloud needs."""
    return np.linalg.matrix_rank(points - points.mean(0))


def estimate(family, dimension, *, n_points=1024, seeds=range(6)):
    """ID and error at every scale, of one sample per seed."""
    samples = [manifolds.sample(family, dimension=dimension, n_points=n_points, seed=seed) for seed in seeds]
    table = neighbors.neighbor_table(torch.from_numpy(np.stack(samples)))
    return gride.estimate(np.moveaxis(gride.ratios(table.distance), -1, -2), labelled.SCALES // 2)


@pytest.mark.parametrize("dimension", [1, 2, 7, 20, 32])
@pytest.mark.parametrize(
    ("family", "extra"), [("torus", 32), ("sphere", 1), ("hypercube", 0), ("gaussian", 0), ("roll", 1)]
)
def test_a_manifold_spans_as_many_coordinates_as_its_formula_needs(family, extra, dimension):
    points = manifolds.sample(family, dimension=dimension, n_points=200, seed=0)
    assert points.shape == (200, N_COORDINATES)
    assert rank(points) == dimension + min(extra, dimension)


def test_torus_and_sphere_have_their_radius_whatever_the_orthogonal_map():
    for dimension in (1, 6):
        torus = manifolds.sample("torus", dimension=dimension, n_points=50, seed=1)
        np.testing.assert_allclose(np.linalg.norm(torus, axis=1), np.sqrt(dimension))
        sphere = manifolds.sample("sphere", dimension=dimension, n_points=50, seed=1)
        np.testing.assert_allclose(np.linalg.norm(sphere, axis=1), 1)


def test_the_roll_is_an_isometric_image_of_a_cuboid():
    # a short way along the spiral is as long as the way along the side that was rolled up
    random = np.random.default_rng(0)
    radius = np.sort(np.linalg.norm(manifolds.roll(random, 20_000, 1), axis=1))
    length = (radius * np.sqrt(1 + radius**2) + np.arcsinh(radius)) / 2
    uniform = (length - length[0]) / (length[-1] - length[0])
    np.testing.assert_allclose(uniform, np.linspace(0, 1, 20_000), atol=0.02)


def test_noise_fills_all_coordinates_and_keeps_its_size():
    points = manifolds.sample("noisy_torus", dimension=2, n_points=4000, seed=0)
    assert rank(points) == N_COORDINATES
    spread = np.linalg.svd(points - points.mean(0), compute_uv=False)[4:] / np.sqrt(4000)
    np.testing.assert_allclose(spread, manifolds.NOISE, rtol=0.2)


def test_a_sample_is_determined_by_its_seed():
    first, again, other = (manifolds.sample("torus", dimension=3, n_points=20, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
@pytest.mark.parametrize("family", SMOOTH)
def test_dimension_of_a_manifold_is_within_three_error_bars_at_scale_2(family, dimension):
    found, error = (part[:, 0] for part in estimate(family, dimension))
    # one sample in 370 is outside by chance
    assert (abs(found - dimension) <= 3 * error).sum() >= 5


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [6, 8, 10])
@pytest.mark.parametrize("family", ["sphere", "gaussian"])
def test_without_edges_and_circles_dimensions_up_to_ten_are_within_three_error_bars(family, dimension):
    found, error = (part[:, 0] for part in estimate(family, dimension))
    assert abs(found.mean() - dimension) <= 3 * error.mean()


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 8, 10, 15, 20])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_dimension_is_within_three_error_bars_of_what_brute_force_expects_of_so_many_points(
    family, dimension
):
    found, error = (part[:, 0] for part in estimate(family, dimension))
    expected = manifolds.expected_dimension(family, dimension=dimension, n_points=1024, n_clouds=12, seed=100)
    # the error takes ratios for independent, and points that are one another's neighbors share theirs: samples
    # spread by 1.3 errors, and one in 50 is outside
    assert (abs(found - expected) <= 3 * error).sum() >= 4
    assert abs(found.mean() - expected) <= 3 * error.mean()


@pytest.mark.slow
def test_the_expected_dimension_of_a_circle_is_one():
    # a circle has no edge, and 4000 points on it are so close that it is straight
    found = manifolds.expected_dimension("torus", dimension=1, n_points=4000, n_clouds=8, seed=0)
    assert abs(found - 1) < 4 / np.sqrt(8 * 4000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "low", "high"),
    [
        ("torus", 0.10, 0.30),
        ("sphere", -0.25, -0.10),
        ("hypercube", -0.30, -0.15),
        ("gaussian", -0.25, -0.10),
        ("roll", -0.30, -0.12),
    ],
)
def test_at_dimension_20_a_cloud_of_1024_points_is_biased_by_a_known_amount(family, low, high):
    found, _ = estimate(family, 20)
    assert low < found[:, 0].mean() / 20 - 1 < high


def test_noise_raises_the_dimension_at_small_scales_only():
    found, error = estimate("noisy_torus", 2)
    mean = found.mean(0)
    assert mean[0] > 3 * 2  # scale 2 sees the noise
    assert abs(mean[5] - 2) < 0.5  # scale 64 sees the torus
    assert (np.diff(mean[:6]) < 0).all()


def test_the_turns_of_the_roll_raise_the_dimension_at_a_large_scale():
    found, error = (part.mean(0) for part in estimate("roll", 2))
    assert abs(found[0] - 2) < 3 * error[0]
    assert found[6] > 2.3  # scale 128 reaches the next turn


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"output": "calibration"}, ["output is 'calibration'", ".nc"]),
        ({"n_prompts": 0}, ["n_prompts is 0", "1 or more"]),
        ({"n_tokens": 7}, ["n_tokens is 7", "8 or more"]),
        ({"n_points": 7}, ["n_points is 7", "8 or more"]),
        ({"n_replicates": 0}, ["n_replicates is 0", "1 or more"]),
        ({"seed": -1}, ["seed is -1", "0 or more"]),
        ({"dimensions": []}, ["dimensions is []", "1 to 32"]),
        ({"dimensions": [2, 2]}, ["dimensions is [2, 2]", "different"]),
        ({"dimensions": [0]}, ["dimensions is [0]", "1 to 32"]),
        ({"device": "cuda:7"}, ["device 'cuda:7' does not exist here"]),
    ],
)
def test_a_calibration_that_cannot_work_is_refused(refused, arguments, words):
    given = {"model": "smollm2-135m", "corpus": "sotu", "output": "calibration.nc"} | arguments
    with refused(*words):
        parameters.build(Calibration, given, noun="parameter").check()


@pytest.mark.model
def test_more_prompts_than_the_corpus_has_are_refused(refused, tmp_path):
    (tmp_path / "text.txt").write_text("Too short.")
    request = Calibration(model="smollm2-135m", corpus=str(tmp_path), output=str(tmp_path / "out.nc"))
    with refused("n_tokens = 1024", "lower n_tokens"):
        calibration.calibrate(request)
    assert not (tmp_path / "out.nc").exists()


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A calibration on one prompt of 128 tokens, and its request."""
    request = Calibration(
        model="smollm2-135m",
        corpus="sotu",
        output=str(tmp_path_factory.mktemp("calibration") / "calibration.nc"),
        n_prompts=1,
        n_tokens=128,
        n_points=128,
        n_replicates=2,
        dimensions=[1, 2, 8],
        device="cpu",
    )
    return request, calibration.calibrate(request)


@pytest.fixture
def results(calibrated):
    return calibration_frames.CalibrationResults(declaration.load("ci"), calibrated[1])


def test_a_calibration_is_written_with_its_recipe(calibrated):
    request, dataset = calibrated
    stored = store.read(Path(request.output))
    assert stored.attrs["recipe_digest"] == store.digest(request.recipe())
    assert stored.sizes == dataset.sizes
    assert stored["manifold_id"].dims == ("manifold", "dimension", "scale", "replicate")
    assert stored["manifold"].values.tolist() == list(FAMILIES)
    # scales that 128 points do not have are missing, the others are there
    present = stored["manifold_id"].notnull().all(["manifold", "dimension", "replicate"])
    assert present.values.tolist() == [scale < 128 for scale in labelled.SCALES]


def test_local_dimensions_of_the_samples_are_those_of_measuring_them(calibrated, results):
    request, dataset = calibrated
    drawn = manifolds.sample(
        "sphere", dimension=request.dimensions[0], n_points=request.n_points, seed=request.seed * 2**16
    )
    measured = token_geometry.measure(drawn)
    for name in ("ess", "tle"):
        found = dataset[f"manifold_{name}"].sel(manifold="sphere", dimension=request.dimensions[0], replicate=0)
        assert float(found) == pytest.approx(float(measured[name]), rel=1e-6)
    assert "of the true dimension the estimators find GRIDE at scale 2" in prose.local(results).data


def test_the_device_is_not_part_of_the_recipe_and_everything_else_is(calibrated):
    request, _ = calibrated
    changes = {
        "n_prompts": 2,
        "n_tokens": 64,
        "seed": 1,
        "n_points": 64,
        "n_replicates": 1,
        "dimensions": [1],
        "model": "gemma3-270m",
        "corpus": "python-docs",
    }
    assert dataclasses.replace(request, device="auto").recipe() == request.recipe()
    for name, value in changes.items():
        assert dataclasses.replace(request, **{name: value}).recipe() != request.recipe(), name


def test_real_prompts_agree_with_dadapy_and_brute_force(results, live_dadapy):
    assert results.dataset.attrs["dadapy_version"] == live_dadapy["dadapy"]
    found = calibration_frames.differences(results).max()
    assert calibration_frames.differences(results)["intrinsic dimension"].count() >= 31 * 5
    assert found["intrinsic dimension"] < 1e-4
    assert found["error"] < 1e-3
    assert found["neighborhood_overlap"] < 1e-6
    assert found["cosine_similarity"] < 1e-6


def test_without_dadapy_the_chapter_says_so_and_the_other_comparisons_are_there(results):
    hidden = np.random.default_rng(0).normal(size=(3, 40, 8))
    alone = calibration.reference(hidden, with_dadapy=False)
    assert alone["reference_intrinsic_dimension"].isnull().all()
    assert alone["reference_neighborhood_overlap"].notnull().any() and alone["reference_cosine_similarity"].all()
    dataset = results.dataset.copy()
    for name in ("reference_intrinsic_dimension", "reference_intrinsic_dimension_error"):
        dataset[name] = dataset[name] * np.nan
    dataset.attrs["dadapy_missing"] = "DADApy cannot be had here: \x1b[1m[cause]\x1b[0m"
    shown = dataclasses.replace(results, dataset=dataset)
    words = prose.agreement(shown).data
    assert "was not run where this was computed. DADApy cannot be had here: \\[cause\\]." in words
    assert "neighborhood overlap from a count" in words and "nan" not in words
    spec = calibration_charts.differences(calibration_frames.difference_frame(shown), finding="d").to_dict()
    assert spec["mark"]["type"] == "text"


def test_a_wrong_value_would_show_in_the_differences(results, live_dadapy):
    broken = results.dataset.copy(deep=True)
    broken["intrinsic_dimension"][0, 0, 5, 2] *= 1.01
    shown = dataclasses.replace(results, dataset=broken)
    assert float(calibration_frames.differences(shown)["intrinsic dimension"].max()) > 5e-3
    assert "is broken" in prose.agreement(shown).data
    assert "broken" not in prose.agreement(results).data


def test_fewer_bits_change_the_geometry_more(results):
    dataset = results.dataset.isel(layer=slice(1, None))
    change = abs(dataset["intrinsic_dimension"] - dataset["intrinsic_dimension"].isel(precision=0, drop=True))
    change = change.sel(scale=32).mean(["prompt", "layer"])
    assert float(change.sel(precision="float32")) == 0
    assert 0 < float(change.sel(precision="Q8_0")) < float(change.sel(precision="Q4_0"))
    assert 0 < float(change.sel(precision="bfloat16")) < float(change.sel(precision="Q4_0"))
    assert float(dataset["loss"].sel(precision="Q4_0")[0]) > float(dataset["loss"].sel(precision="float32")[0])


def test_quantized_weights_take_sixteen_values_per_block(smollm2):
    model = calibration.load(smollm2.source, "Q4_0", device="cpu")
    inside = model.model.base_model.layers[3].mlp.up_proj.weight.reshape(-1, 32)
    assert max(len(block.unique()) for block in inside[:200]) <= 16
    embedding = model.model.get_input_embeddings().weight[100:104].reshape(-1, 32)
    untouched = (
        calibration.load(smollm2.source, "float32", device="cpu").model.get_input_embeddings().weight[100:104]
    )
    assert torch.equal(embedding, untouched.reshape(-1, 32))


@pytest.mark.parametrize("chart", ["manifolds", "scales", "differences", "precisions"])
def test_every_chart_draws_its_data_and_carries_its_description(results, chart, request):
    if chart == "differences":
        request.getfixturevalue("live_dadapy")
    frames = {
        "manifolds": calibration_frames.manifold_frame,
        "scales": calibration_frames.manifold_frame,
        "differences": calibration_frames.difference_frame,
        "precisions": calibration_frames.precision_frame,
    }
    frame = frames[chart](results)
    spec = getattr(calibration_charts, chart)(frame, finding="what it shows").to_dict()
    assert spec["description"].endswith(". what it shows")
    assert not frame.empty and "mark_text" not in spec


def test_controls_leave_out_a_token_two_coordinates_and_the_scores_of_some_tokens():
    random = np.random.default_rng(0)
    hidden = np.zeros((2, 256, 16), np.float32)
    hidden[..., :5] = random.normal(size=(2, 256, 5))
    hidden[..., 14:] = 50 * random.normal(size=(2, 256, 2))
    hidden[:, 3] *= 100
    ids = np.arange(256)
    ids[100:164] = 7  # one token in four; of the others each is once
    found = calibration.controlled(hidden, ids)

    def estimate(points, scored=slice(None)):
        distance = neighbors.neighbor_table(torch.from_numpy(points)).distance
        mu = np.moveaxis(gride.ratios(distance), -1, -2)[..., scored]
        return gride.estimate(mu, labelled.SCALES // 2)[0]

    frequent = ids == 7
    expected = [
        estimate(hidden), estimate(np.delete(hidden, 3, 1)), estimate(hidden[..., :14]),
        estimate(hidden, ~frequent), estimate(hidden, frequent),
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.sel(control="without the two coordinates of largest variance").isel(
        scale=0
    ).values == pytest.approx(5, abs=1)
    # where no token is frequent, there is nothing to say of these
    assert np.isnan(calibration.controlled(hidden, np.arange(256))[-1]).all()


def test_the_controls_stand_in_a_table_of_the_middle_third(results):
    lines = prose.controls(results).data.splitlines()
    of = results.dataset["controlled_dimension"].mean("prompt")
    n_blocks = of.sizes["layer"] - 1
    middle = [n for n in range(n_blocks + 1) if n_blocks / 3 <= n <= 2 * n_blocks / 3]
    assert lines[2].startswith(f"| as it is | {float(of[0, middle, 0].mean()):.1f} |") and len(lines) == 2 + 5
    as_observed = results.dataset["intrinsic_dimension"].sel(precision="float32")
    np.testing.assert_allclose(of[0], as_observed.mean("prompt").transpose("layer", "scale"), rtol=1e-4)


def test_the_bias_is_said_of_both_scales_with_the_clouds_that_differ_most(results):
    lines = prose.bias(results).data.splitlines()
    estimates = results.dataset["manifold_id"].mean("replicate").drop_sel(manifold="noisy_torus")
    for scale, line in zip((2, 64), lines, strict=False):
        at = estimates.sel(scale=scale)
        one_sign = [d for d in at.dimension.values if len(set(np.sign(at.sel(dimension=d).values - d))) == 1]
        assert (
            f"At scale {scale}, the bias" in line
            and f"one sign in {len(one_sign)} of {at.dimension.size} " in line
        )
        widest = max(at.dimension.values, key=lambda d: float(at.sel(dimension=d).std()))
        most = at.sel(dimension=widest)
        assert f"dimension {widest} differ most: {float(most.min()):.1f} (" in line
        assert f" and {float(most.max()):.1f} (" in line


def test_the_calibration_of_a_run_without_one_is_refused_with_what_it_has(refused, monkeypatch):
    entries = project.entries
    monkeypatch.setattr(
        project, "entries", lambda name: {k: v for k, v in entries(name).items() if k != "calibration"}
    )
    with refused("run 'ci': unknown result 'calibration'", "accepted: observables"):
        calibration_frames.open_results("ci")


def test_alt_texts_hold_the_findings_and_no_markup(results, live_dadapy):
    for finding, words in (
        (prose.within_bars, "error bars of the truth"),
        (prose.scale_findings, "Noisy torus of dimension 2"),
        (prose.agreement, "differs from DADApy's by at most"),
        (prose.precision_findings, "With 4-bit weights (Q4_0)"),
    ):
        text = markup.plain(finding(results))
        assert words in text
        assert "\n" not in text and "$" not in text and " - " not in text
