"""Truth: states at the last token, principal components, probes, and the notebook that is also a chapter."""

import dataclasses
import json
import subprocess

import forked
import numpy as np
import program
import pytest
import readme
import torch
import transformers
import xarray as xr
from sklearn.decomposition import PCA

from token_geometry.base import InputError, project, store
from token_geometry.chapters import charts
from token_geometry.chapters.performance import results as benchmark_results
from token_geometry.chapters.truth import charts as truth_charts
from token_geometry.chapters.truth import frames as truth_frames
from token_geometry.chapters.truth import prose as truth_prose
from token_geometry.chapters.truth import results as truth_results
from token_geometry.models import sources
from token_geometry.requests.truth import Truth
from token_geometry.runs import declaration
from token_geometry.states import prefix_trees
from token_geometry.states.model import LanguageModel
from token_geometry.stats import probes
from token_geometry.studies import truth
from token_geometry.texts import statements

FIXED = {
    "projection": ("statement", "component"),
    "explained_variance_ratio": ("component",),
    "label": ("statement",),
    "statement_text": ("statement",),
    "dataset": ("statement",),
    "separation": ("dataset", "layer"),
    "probe_accuracy": ("probe", "dataset", "layer"),
    "transfer_accuracy": ("probe", "train_dataset", "test_dataset"),
}

# States


def transformers_states(model, tokenizer, texts, *, bos, side):
    """hidden_states of one padded batch at the last token that is none of the padding."""
    rows = [
        [tokenizer.bos_token_id] * bos + tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts
    ]
    width = max(map(len, rows))
    padding = [[0] * (width - len(row)) for row in rows]
    ids = [pad + row if side == "left" else row + pad for row, pad in zip(rows, padding, strict=True)]
    ones = [[1] * len(row) for row in rows]
    mask = [pad + one if side == "left" else one + pad for one, pad in zip(ones, padding, strict=True)]
    with torch.inference_mode():
        output = model(torch.tensor(ids), attention_mask=torch.tensor(mask), output_hidden_states=True)
    last = torch.tensor([width - 1 if side == "left" else len(row) - 1 for row in rows])
    return torch.stack([layer[torch.arange(len(rows)), last] for layer in output.hidden_states])


MIXED = [
    "Rome.",
    "The city of Lima is in Peru.",
    "It is the case both that one is two and that the sea is dry.",
    "No.",
]
MIXED += statements.load("cities").draw(8, seed=0).texts


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bos", [False, True], ids=["without BOS", "with BOS"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared beginnings", "padded batches"])
def test_states_are_those_of_transformers_for_statements_of_mixed_length(smollm2, bos, side, shared, monkeypatch):
    monkeypatch.setattr(smollm2, "_shares_prefixes", shared)
    ids = smollm2.tokenizer(MIXED, add_special_tokens=False)["input_ids"]
    found = smollm2.read_texts(ids, bos=bos, losses=False)[0]
    expected = transformers_states(smollm2.model, smollm2.tokenizer, MIXED, bos=bos, side=side)
    assert found.shape == (31, len(MIXED), 576)
    for layer in (0, 1, 12, 29, 30):
        scale = float(expected[layer].abs().max())
        torch.testing.assert_close(found[layer], expected[layer], rtol=0, atol=1e-5 * scale)


def test_the_first_blocks_alone_give_the_same_states(smollm2):
    few = LanguageModel(smollm2.source, device="cpu", n_layers=5)
    ids = smollm2.tokenizer(MIXED, add_special_tokens=False)["input_ids"]
    assert sum(p.numel() for p in few.model.parameters()) < 0.4 * sum(
        p.numel() for p in smollm2.model.parameters()
    )
    torch.testing.assert_close(
        few.read_texts(ids, losses=False)[0], smollm2.read_texts(ids, losses=False)[0][:6], rtol=1e-5, atol=1e-4
    )


def test_gemma_reads_statements_with_its_bos_through_shared_beginnings(gemma3):
    ids = gemma3.tokenizer(MIXED, add_special_tokens=False)["input_ids"]
    found = gemma3.read_texts(ids, bos=True, losses=False)[0]
    expected = transformers_states(gemma3.model, gemma3.tokenizer, MIXED, bos=True, side="right")
    assert gemma3._shares_prefixes is True
    scale = expected[10].abs().max()
    torch.testing.assert_close(found[10] / scale, expected[10] / scale, rtol=0, atol=1e-5)


def test_a_family_that_cannot_share_beginnings_is_read_in_batches(tmp_path, save_tiny):
    config = transformers.BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    model = LanguageModel(sources.resolve(save_tiny(config, tmp_path)), device="cpu")
    ids = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 4, 3]]
    found = model.read_texts(ids, losses=False)[0]
    assert model._shares_prefixes is False
    for i, row in enumerate(ids):
        states = model.forward(np.array(row)).hidden[:, -1]
        torch.testing.assert_close(found[:, i], states, rtol=1e-5, atol=1e-5)


def test_a_tree_has_every_shared_beginning_once_and_sees_only_what_is_before_it():
    rows = [[1, 2, 3], [1, 2, 4, 5], [7], [1, 2]]
    (tree,) = prefix_trees.trees(rows, n_nodes=100)
    assert len(tree.token_ids) == 6
    for text, last in zip(tree.texts, tree.last, strict=True):
        seen = torch.nonzero(tree.sees[last])[:, 0]
        assert tree.token_ids[seen].tolist() == rows[text]
        assert tree.depth[seen].tolist() == list(range(len(rows[text])))
    assert sorted(t for small in prefix_trees.trees(rows, n_nodes=4) for t in small.texts) == [0, 1, 2, 3]


@pytest.mark.model
def test_llama_reads_its_statements_with_bos_and_smollm2_without(tmp_path, write_meta):
    write_meta(tmp_path / "tiny", n_files=1)
    llama, smollm2 = sources.resolve(str(tmp_path / "tiny")), sources.resolve("smollm2-135m")
    *_, bos = truth.read(llama, ["One.", "Two is one."], n_layers=1, device="cpu")
    assert bos is True
    *_, bos = truth.read(smollm2, ["One."], n_layers=0, device="cpu")
    assert bos is False


# Components and probes


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_components_are_those_of_scikit_learn_up_to_sign(shape):
    points = np.random.default_rng(0).standard_normal(shape) * np.geomspace(100, 1, shape[1])
    ours = probes.principal_components(points)
    theirs = PCA(svd_solver="full").fit(points)
    np.testing.assert_allclose(ours.variance_ratio[:39], theirs.explained_variance_ratio_[:39], rtol=1e-9)
    sign = np.sign((ours.axes[:10] * theirs.components_[:10]).sum(axis=1))
    np.testing.assert_allclose(ours.scores[:, :10] * sign, theirs.transform(points)[:, :10], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(ours.axes[:10] * sign[:, None], theirs.components_[:10], atol=1e-9)


def test_points_that_are_all_one_have_no_components_and_probes_guess():
    same, labels = np.zeros((20, 5)), np.arange(20) % 2
    parts = probes.folds(labels, np.arange(20), seed=0)
    found = probes.principal_components(same, labels)
    assert (found.variance_ratio == 0).all() and (found.scores == 0).all()
    assert all(probes.cross_validate(fit, same, labels, parts) == 0.5 for fit in probes.FITS.values())
    assert probes.variance_ratio(same, labels) == 0


def cloud(direction, n=200, width=30, seed=0):
    """Two classes apart along a direction, amid noise; labels in turn."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(seed).standard_normal((n, width))
    return noise + np.outer(2.0 * labels - 1, direction), labels


AXIS, OTHER = 1.5 * np.eye(30)[:2]


@pytest.mark.parametrize("probe", probes.FITS)
def test_a_probe_finds_classes_that_are_apart_and_nothing_in_noise(probe):
    points, labels = cloud(AXIS)
    parts = probes.folds(labels, np.arange(200) // 2, seed=0)
    assert probes.cross_validate(probes.FITS[probe], points, labels, parts) > 0.85
    noise, _ = cloud(0 * AXIS)
    assert 0.35 < probes.cross_validate(probes.FITS[probe], noise, labels, parts) < 0.65


def test_whitening_turns_the_direction_away_from_noise_that_both_classes_share():
    points, labels = cloud(AXIS)
    points[:, 1] = 5 * points[:, 1] + 2 * points[:, 0]  # correlated with the direction, and large
    parts = probes.folds(labels, np.arange(200) // 2, seed=0)
    plain, white = (
        probes.cross_validate(probes.FITS[name], points, labels, parts)
        for name in ("mass_mean", "mass_mean_whitened")
    )
    assert white > plain + 0.1


def test_ccs_finds_truth_without_labels_from_statements_and_their_opposites():
    first, labels = cloud(2 * AXIS)
    second, _ = cloud(-2 * AXIS, seed=1)
    weights = probes.contrast_consistent_search(first, second, np.ones((1, 200), bool), seed=0)[0]
    answers = (first - first.mean(axis=0)) @ weights[:-1] + weights[-1] > 0
    assert max((answers == labels).mean(), (answers != labels).mean()) > 0.95


def test_ccs_goes_the_way_of_the_gradient_that_autograd_finds():
    first, _ = cloud(AXIS)
    second, _ = cloud(-AXIS, seed=1)
    masks = np.stack([np.arange(200) < 150, np.arange(200) >= 50])
    found = probes.contrast_consistent_search(first, second, masks, seed=3)
    unit = np.sqrt(((first - first.mean(axis=0)) ** 2).mean())
    draws = torch.randn(first.shape[1], 2 * probes.CCS_RESTARTS, generator=torch.Generator().manual_seed(3))
    for fold, mask in enumerate(masks):
        sides = [
            torch.tensor((p[mask] - p[mask].mean(axis=0)) / unit, dtype=torch.float32) for p in (first, second)
        ]
        ends = []
        for draw in draws.T.split(probes.CCS_RESTARTS)[fold]:
            weights = (draw / len(draw) ** 0.5).requires_grad_()
            shift = torch.zeros((), requires_grad=True)
            optimizer = torch.optim.Adam([weights, shift], lr=probes.CCS_RATE)
            for step in range(probes.CCS_STEPS + 1):
                p, q = (torch.sigmoid(side @ weights + shift) for side in sides)
                loss = ((p + q - 1) ** 2 + torch.minimum(p, q) ** 2).mean()
                if step < probes.CCS_STEPS:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            ends.append((loss.item(), torch.cat([weights / unit, shift[None]]).detach().numpy()))
        np.testing.assert_allclose(found[fold], min(ends, key=lambda end: end[0])[1], atol=1e-4)


def test_directions_of_truth_and_polarity_are_told_apart():
    first, labels = cloud(AXIS + OTHER)
    second, _ = cloud(-(AXIS - OTHER), seed=1)  # row by row the negation: the other label
    found = probes.truth_directions([(first, labels, 1), (second, 1 - labels, -1)])
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert unit[0, 0] > 0.95 and unit[1, 1] > 0.95


def test_intervals_are_wilsons():
    low, high = probes.interval(np.array([8, 0]), np.array([10, 10]))
    np.testing.assert_allclose(low, [0.4902, 0.0], atol=1e-4)
    np.testing.assert_allclose(high, [0.9433, 0.2775], atol=1e-4)


def test_neighbors_of_a_file_are_in_the_same_fold():
    labels, groups = np.arange(100) % 2, np.arange(100) // 2
    parts = probes.folds(labels, groups, seed=0)
    assert len(parts) == 5 and sorted(np.concatenate([test for _, test in parts])) == list(range(100))
    assert all(not {*groups[train]} & {*groups[test]} for train, test in parts)


# Real models


def separations(model, n_layers):
    drawn = statements.load("cities").draw(400, seed=0)
    states, *_ = truth.read(sources.resolve(model), drawn.texts, n_layers=n_layers, device="cpu")
    parts = truth.folds(drawn, seed=0)
    (clouds,) = zip(*(truth.split(layer, [drawn]) for layer in states), strict=True)
    return [probes.separation(probes.principal_components(c).scores, drawn.labels, parts) for c in clouds]


@pytest.mark.model
def test_truth_of_cities_becomes_linear_in_smollm2_between_layers_10_and_13():
    found = separations("smollm2-135m", 20)
    assert max(found[:11]) < 0.58
    assert min(found[13:21]) > 0.70


@pytest.mark.model
def test_truth_of_cities_is_linear_in_gemma_at_layers_10_to_12():
    assert min(separations("gemma3-270m", 12)[10:]) > 0.85


@pytest.mark.model
def test_a_probe_of_early_layers_is_not_led_astray_about_translations():
    drawn = statements.load("sp_en_trans").draw(400, seed=0)
    states, *_ = truth.read(sources.resolve("smollm2-135m"), drawn.texts, n_layers=6, device="cpu")
    parts, fit = truth.folds(drawn, seed=0), probes.FITS["logistic_regression"]
    for points in states:
        (cloud,) = truth.split(points, [drawn])
        scores = probes.principal_components(cloud).scores[:, : probes.N_COMPONENTS]
        assert 0.45 <= probes.cross_validate(fit, scores, drawn.labels, parts) <= 0.55


# The dataset and the notebook

LINES = ["statement,label"] + [f"w{i} is w{i + j}.,{1 - j}" for i in range(12) for j in (0, 1)]
LINES += ["<script>alert(1)</script> is <b>bold</b> | `x` <!-- @ref $y$.,1", "``` ::: is not.,0"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, write_meta):
    """Folder with a tiny LLaMA in Meta's files and statements of both polarities, some with markup."""
    folder = tmp_path_factory.mktemp("truth")
    write_meta(folder / "tiny", n_files=2)
    (folder / "own.csv").write_text("\n".join(LINES))
    negated = [line.replace(" is ", " is not ", 1) for line in LINES]
    flipped = [line[:-1] + str(1 - int(line[-1])) if line[-1] in "01" else line for line in negated]
    (folder / "neg_own.csv").write_text("\n".join(flipped))
    (folder / "kinds.csv").write_text(
        "statement,label\n" + "\n".join(f"w{i} here,{'abc'[i % 3]}" for i in range(30))
    )
    (folder / "true.csv").write_text("statement,label\n" + "\n".join(f"w{i} there,1" for i in range(30)))
    return folder


@pytest.fixture(scope="module")
def executed(tiny):
    """The notebook on these, run as a user does."""
    command = [
        *forked.PYTHON,
        "-m",
        "papermill",
        str(project.root() / "notebooks" / "truth-pca.ipynb"),
        "out.ipynb",
    ]
    command += ["-p", "model", "tiny", "-p", "layer", "2", "-p", "output", "truth.nc", "-p", "device", "cpu"]
    command += ["-p", "n_statements", "24", "-p", "seed", "1", "-p", "last_layer", "3"]
    command += ["-p", "datasets", '["own.csv", "neg_own.csv", "true.csv", "kinds.csv"]']
    done = subprocess.run(command, cwd=tiny, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((tiny / "out.ipynb").read_text()), store.read(tiny / "truth.nc")


@pytest.mark.slow
def test_a_checkpoint_of_meta_and_own_files_give_the_dataset_with_the_fixed_names(executed):
    _, dataset = executed
    for name, dims in FIXED.items():
        assert dataset[name].dims == dims
    assert dataset.sizes["statement"] == 72 and dataset.sizes["layer"] == 4
    assert dataset["dataset_name"].values.tolist() == ["own", "neg_own", "kinds"]
    assert set(dataset["token_read"].values) and dataset.attrs["bos_prepended"] == 1
    accuracy = dataset["probe_accuracy"].values
    assert np.isfinite(accuracy[:, :2]).all()  # all probes of the pair
    assert np.isfinite(accuracy[0, 2]).all() and np.isnan(accuracy[1:, 2]).all()  # three classes
    for attribute in (
        "Conventions",
        "versions",
        "recipe",
        "recipe_digest",
        "model",
        "layer",
        "seed",
        "token_read",
    ):
        assert attribute in dataset.attrs


@pytest.mark.slow
def test_the_projection_is_scikit_learns_of_the_states_of_that_layer(executed, tiny):
    _, dataset = executed
    inside = dataset["dataset"].values == "own"
    texts = dataset["statement_text"].values[inside].tolist()
    model = LanguageModel(sources.resolve(str(tiny / "tiny")), device="cpu")
    rows = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    bos = model.tokenizer.bos_token_id
    states = np.stack([model.forward(np.array([bos, *row])).hidden[2, -1].numpy() for row in rows])
    theirs = PCA(svd_solver="full").fit(states.astype(np.float64))
    ratio = dataset["explained_variance_ratio"].values
    assert len(ratio) == dataset.sizes["component"] == truth.N_PROJECTED
    np.testing.assert_allclose(ratio, theirs.explained_variance_ratio_[: len(ratio)], rtol=1e-3, atol=1e-6)
    ours, theirs = dataset["projection"].values[inside, :3], theirs.transform(states)[:, :3]
    np.testing.assert_allclose(ours * np.sign((ours * theirs).sum(axis=0)), theirs, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_the_notebook_shows_the_chapter_of_what_it_computed(executed):
    notebook, _ = executed
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    shown = json.dumps([cell["outputs"] for cell in cells])
    assert "95% interval" in shown and "tiny" in shown
    assert "data set 'true.csv': the label '1' only" in shown and "left out" in shown  # and all else stands
    assert sum("label: fig-truth" in "".join(cell["source"]) and bool(cell["outputs"]) for cell in cells) == 9


@pytest.mark.slow
def test_a_statement_with_markup_is_text_in_tables_and_charts(executed):
    _, dataset = executed
    results = truth_results.TruthResults(datasets=(dataset,), notes=())
    hostile = "<script>alert(1)</script> is <b>bold</b> <!-- @ref $y$ `x`."
    dataset = dataset.copy()
    texts = dataset["statement_text"].values.astype(object)
    texts[:4] = hostile
    results = truth_results.TruthResults(datasets=(dataset.assign(statement_text=("statement", texts)),), notes=())
    table = truth_prose.tokens(results).data
    assert "<" not in table and "\\@ref" in table and "\\$y" in table
    chart = truth_charts.projection(truth_frames.projection_frame(results), finding="d")
    page = charts.chart_html(chart.to_dict())
    assert "alert(1)" in page
    assert page.count("<script") == 1 and page.count("</script>") == 1 and "<!--" not in page and "<b>" not in page


@pytest.mark.slow
def test_every_chart_draws_and_says_what_it_shows(executed):
    _, dataset = executed
    two = (dataset, dataset.assign_attrs(model_title="other"))
    for shown, notes in (((dataset,), ()), (two, ()), ((), ("missing",))):
        results = truth_results.TruthResults(shown, notes)
        points, texts = truth_frames.emergence_frame(results), truth_frames.text_frame(results)
        drawn = [
            truth_charts.projection(truth_frames.projection_frame(results), finding="d"),
            truth_charts.emergence(points, texts, finding="d", initial=2),
            truth_charts.datasets(truth_frames.dataset_frame(results), finding="d"),
            truth_charts.variance(truth_frames.variance_frame(results), finding="d"),
            truth_charts.transfer(truth_frames.transfer_frame(results), finding="d"),
            truth_charts.plane(truth_frames.plane_frame(results), finding="d"),
        ]
        curves = [
            ("dataset", truth_frames.separation_frame(results)),
            ("probe", truth_frames.probe_frame(results)),
        ]
        for color, frame in curves:
            names = {"color": color, "color_title": color, "y_title": "accuracy", "choose": "dataset"}
            drawn.append(truth_charts.over_layers(frame, **names, finding="d"))
        assert all(chart.to_dict()["description"].partition(". ")[2].startswith("d") for chart in drawn)
        sentences = [truth_prose.basis, truth_prose.separated, truth_prose.probed, truth_prose.transferred]
        text = "\n".join(sentence(results).data for sentence in sentences)
        assert ("tiny" in text) == bool(results.datasets) and "nan" not in text


def test_what_is_not_given_is_as_the_run_has_it():
    chapter = truth_results.TruthParameters(run="demo", n_statements=50)
    assert chapter.is_request and not truth_results.TruthParameters(run="demo", datasets=[]).is_request
    request = chapter.request()
    assert (request.model, request.layer, request.n_layers) == ("smollm2-135m", 12, 12)
    assert dataclasses.replace(chapter, model="gemma3-270m").request().layer == 10
    assert dataclasses.replace(chapter, model="pythia-6.9b").request().layer == 16
    assert list(request.datasets) == declaration.load("demo").sections["truth"]["datasets"]


def test_what_is_given_whole_needs_no_run(monkeypatch):
    monkeypatch.setenv("QUARTO_PROFILE", "gone")
    chapter = truth_results.TruthParameters(model="smollm2-135m", layer=3, datasets=["cities"])
    assert chapter.request().layer == 3
    with pytest.raises(InputError, match="gone"):
        dataclasses.replace(chapter, layer=None).request()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer": 31}, ["layer is 31", "smollm2-135m", "0 to 30"]),
        ({"last_layer": 99}, ["last_layer is 99", "0 to 30"]),
        ({"last_layer": 3}, ["last_layer is 3", "12"]),
        ({"layer": -1}, ["layer is -1"]),
        ({"n_statements": 1}, ["n_statements is 1", "4 or more"]),
        ({"seed": -1}, ["seed is -1"]),
        ({"output": "truth.csv"}, ["truth.csv", ".nc"]),
        ({"datasets": ["citys"]}, ["unknown data set 'citys'"]),
        ({"model": "smollm3"}, ["unknown model 'smollm3'"]),
    ],
)
def test_a_request_that_cannot_work_is_refused_before_anything_is_loaded(refused, monkeypatch, changes, words):
    monkeypatch.setattr(truth, "read", None)
    given = {"model": "smollm2-135m", "layer": 12, "datasets": ["cities"], "output": "x.nc"}
    with refused(*words):
        truth.measure(Truth(**given | changes))


def test_a_tokenizer_that_makes_nothing_of_a_text_is_refused(save_tiny, tmp_path, refused):
    config = transformers.Qwen2Config(
        vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    folder = save_tiny(config, tmp_path)  # of whose tokenizer the family's class leaves no token of most texts
    request = Truth(model=folder, layer=1, datasets=["cities"], n_statements=8, output="x.nc", device="cpu")
    with refused(folder, "makes no token of a text"):
        truth.measure(request)


def test_device_is_not_part_of_what_decides_the_numbers():
    first = Truth(model="smollm2-135m", layer=2, datasets=["cities"], output="a.nc", device="cpu")
    same = dataclasses.replace(first, device="auto", output="b.nc", last_layer=2)
    assert store.digest(first.recipe()) == store.digest(same.recipe())
    assert store.digest(first.recipe()) != store.digest(dataclasses.replace(first, seed=1).recipe())


def test_a_chapter_whose_results_are_missing_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(
        project, "results", lambda run: project.root() / "data" / "results" / f"none-{tmp_path.name}"
    )
    results = truth_results.open_results(truth_results.TruthParameters(run="demo"))
    assert results.datasets == () and len(results.notes) == 2
    assert "missing: `python -m token_geometry run demo`" in truth_prose.basis(results).data


@pytest.mark.slow
def test_an_xarray_reader_finds_everything_in_the_file(tiny, executed):
    with xr.open_dataset(tiny / "truth.nc") as dataset:
        assert dataset["separation"].attrs["long_name"]
        low, high = dataset["separation_low"], dataset["separation_high"]
        assert bool(((low <= dataset["separation"]) & (dataset["separation"] <= high)).all())


# The benchmark


@pytest.mark.slow
@pytest.mark.model
def test_the_benchmark_compares_equal_states_and_writes_what_it_measured(tmp_path, refused, monkeypatch):
    ((_, *command),) = readme.commands("python", "lib/benchmarks/truth.py")
    options = ["--n-statements", "12", "--n-repeats", "1", "--output", tmp_path / "truth-cpu.json"]
    status, _, errors = program.run(*command, *options)
    assert status == 0, errors[-2000:]
    result = json.loads((tmp_path / "truth-cpu.json").read_text())
    assert result["benchmark"] == "truth-cpu" and set(result["ratios"]) == {
        "single_to_library",
        "padded_to_library",
    }
    assert max(result["largest_relative_difference"].values()) < 1e-5
    ratio = result["seconds"]["single"]["states"]["median"] / result["seconds"]["library"]["states"]["median"]
    assert result["ratios"]["single_to_library"]["median"] == pytest.approx(ratio, rel=1e-3)
    nothing = truth_results.TruthResults((), ())
    monkeypatch.setattr(benchmark_results, "folder", lambda: tmp_path)
    assert "to layer 12 of SmolLM2" in truth_prose.costs(nothing).data
    (tmp_path / "truth-cpu.json").write_text("{}")
    with refused("truth-cpu.json", "no whole result"):
        truth_prose.costs(nothing)
    (tmp_path / "truth-cpu.json").unlink()
    assert "`python lib/benchmarks/truth.py` makes it" in truth_prose.costs(nothing).data
