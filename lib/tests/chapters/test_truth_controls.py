"""The chapter on controls of truth: sentences, tables and charts of known numbers, by the schema of the study."""

import ast

import numpy as np
import pytest
import xarray as xr
from IPython.display import Markdown
from test_chapters import code_cells, label

from token_geometry.chapters import charts, truth_controls
from token_geometry.chapters.truth import charts as truth_charts
from token_geometry.chapters.truth.results import TruthResults
from token_geometry.stats import probes

NAMES = ["cities", "neg_cities", "sp_en_trans", "neg_sp_en_trans"]
TRAINS = [*NAMES, "cities + neg_cities", "sp_en_trans + neg_sp_en_trans", "all but cities", "all but sp_en_trans"]
N, LAYERS = 400, 7
PREDICTORS = list(dict.fromkeys([*truth_controls.LIKELIHOOD, *truth_controls.CONFOUNDS]))
DIRECTIONS = [*truth_controls.DIRECTIONS, *(f"random_{i}" for i in range(5))]


def with_ends(name, dims, values, n=N):
    """A share and its Wilson interval."""
    values = np.asarray(values, dtype=float)
    low, high = probes.interval(values * n, np.array(n))
    return {name: (dims, values), f"{name}_low": (dims, low), f"{name}_high": (dims, high)}


def null_of(name, dims, values):
    """Quantiles of the accuracy with permuted labels."""
    return {
        f"{name}null_accuracy": ((*dims, "quantile"), np.broadcast_to([0.45, 0.5, 0.55], (*np.shape(values), 3)))
    }


def made(title="Model", steered=True, names=NAMES, n_prompt_right=300):
    """A data set of the study: from layer 3 on probes find the labels; likelihood errs about negations."""
    k, layers = len(names), np.arange(LAYERS)
    negated = np.array([name.startswith("neg_") for name in names])
    curve = np.where(layers >= 3, 0.85, 0.5)
    accuracy = np.broadcast_to(curve, (2, k, LAYERS)).copy()
    accuracy[:, -1] = 0.5  # nothing on the last data set
    null = np.broadcast_to([0.45, 0.5, 0.55], (2, k, LAYERS, 3))
    predictor = np.full((len(PREDICTORS), k), 0.5)
    for name, value in {"direction": 0.85, "direction_and_likelihood": 0.9, "last_token": 0.6}.items():
        predictor[PREDICTORS.index(name)] = value
    predictor[PREDICTORS.index("likelihood_last_word")] = np.where(negated, 0.4, 0.8)
    trains = TRAINS if names == NAMES else list(names)
    group = np.full((len(trains), k), 0.7)
    for i, train in enumerate(trains):
        for j in range(k):
            if train in names:
                group[i, j] = 0.8 if negated[names.index(train)] == negated[j] else 0.2
    disagreeing = np.where(negated, 240, 80)
    right = np.where(negated, 0.9, 0.5)
    low, high = probes.interval(right * disagreeing, disagreeing)
    r = np.where(negated, -0.6, 0.5)[:, None] * np.ones(3)
    dims = ("probe", "dataset", "layer")
    variables = {
        "chance": ("dataset", np.full(k, 0.5)),
        "n_statements": ("dataset", np.full(k, N)),
        **with_ends("accuracy", dims, accuracy),
        "null_accuracy": ((*dims, "quantile"), null),
        "p_value": (dims, np.where(accuracy > 0.55, 1 / 201, 0.6)),
        "untrained_accuracy": (
            ("control", "dataset", "layer"),
            np.array([0.48, 0.5, 0.52])[:, None, None] + 0 * null[:1, :, :, 0],
        ),
        **with_ends("predictor_accuracy", ("predictor", "dataset"), predictor),
        **null_of("predictor_", ("predictor", "dataset"), predictor),
        **null_of("group_", ("train", "dataset"), group),
        **null_of("disagreement_", ("dataset",), right),
        **null_of("truth_direction_", ("dataset",), right),
        "disagreement_accuracy": ("dataset", right),
        "disagreement_accuracy_low": ("dataset", low),
        "disagreement_accuracy_high": ("dataset", high),
        "n_disagreeing": ("dataset", disagreeing),
        "projection_correlation": (("dataset", "measure"), r),
        "projection_correlation_low": (("dataset", "measure"), r - 0.1),
        "projection_correlation_high": (("dataset", "measure"), r + 0.1),
        "projection_correlation_within": (("dataset", "measure"), r / 2),
        "projection_correlation_within_low": (("dataset", "measure"), r / 2 - 0.1),
        "projection_correlation_within_high": (("dataset", "measure"), r / 2 + 0.1),
        "label": ("statement", np.tile(np.arange(N) % 2, k)),
        "log_probability": (("statement", "measure"), np.tile(np.arange(N) % 2, k)[:, None] + 0.0 * r[:1]),
        **with_ends("group_accuracy", ("train", "dataset"), group),
        "truth_direction_layer": ((), 5),
        **with_ends("truth_direction_accuracy", ("dataset",), np.full(k, 0.75)),
    }
    if steered:
        effect = np.zeros((len(DIRECTIONS), k, 3)) + np.linspace(-0.02, 0.02, len(DIRECTIONS))[:, None, None]
        effect[0], effect[1] = 0.6, 0.1
        dims = ("dataset", "direction", "sense")
        effect = effect.swapaxes(0, 1)
        variables |= {
            "indirect_effect": (dims, effect),
            "indirect_effect_low": (dims, effect - 0.05),
            "indirect_effect_high": (dims, effect + 0.05),
            **with_ends("prompt_accuracy", ("dataset",), np.full(k, n_prompt_right / N)),
            "prompt_difference": (("dataset", "truth"), np.tile([-0.3, 0.4], (k, 1))),
        }
    coords = {
        "dataset": ("statement", np.repeat(names, N)),
        "dataset_name": ("dataset", names),
        "layer": layers,
        "probe": ["mass_mean", "ridge"],
        "quantile": [0.025, 0.5, 0.975],
        "predictor": PREDICTORS,
        "measure": ["sum", "mean", "last_word"],
        "train": trains,
    }
    coords |= (
        {"direction": DIRECTIONS, "sense": ["add", "subtract", "both"], "truth": ["false", "true"]}
        if steered
        else {}
    )
    found = xr.Dataset(variables, coords=coords)
    known = {"n_permutations": 200, "left_out": "data set 'x': left\ndata set 'y': out"}
    return found.assign_attrs(model="model", model_title=title, layer=4, **known)


def results_of(*datasets):
    return TruthResults(datasets or (made(),), ())


def rows(table):
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.data.splitlines()[2:]]


def test_accuracies_are_held_against_permuted_labels_and_untrained_networks():
    text = truth_controls.nulls(results_of()).data
    assert text.startswith(
        "Model, layer 4: ridge does better than permuted labels and than the largest class on 3 of 4 data sets"
    )
    assert "cities 85% (81% to 88%), neg\\_cities" in text and "neg\\_sp\\_en\\_trans" not in text
    assert text.endswith("Permuted labels give 45% to 55%, untrained networks 48% to 52%.")
    table = rows(truth_controls.null_table(results_of()))
    assert table[0][2:] == ["85% (81% to 88%)"] * 2 + ["45% to 55%", "48% to 52%", "layers 3 to 6"]
    assert table[3][-1] == "none" and len(table) == 4
    frame = truth_controls.null_frame(results_of())
    assert frame["curve"].nunique() == 5 and len(frame) == 5 * 4 * LAYERS
    permuted = frame[frame["curve"] == "ridge, labels permuted"]
    assert (permuted[["accuracy", "low", "high"]] == [0.5, 0.45, 0.55]).all(axis=None)


def test_transfer_is_told_by_what_was_learned_and_never_over_both_polarities():
    text = truth_controls.transferred(results_of()).data
    assert "learned from one data set, on other topics of the same polarity 80% (80%);" in text
    assert "; one data set, on other topics of the opposite polarity 20% (20%)" in text
    assert "a data set and its negation, on negated statements of other topics 70%" in text
    assert "all other topics, on affirmative statements 70%" in text
    assert "truth direction at layer 5, where its variance ratio is largest: cities 75% (71% to 79%), neg" in text
    assert "neg\\_sp\\_en\\_trans 75% (71% to 79%); permuted labels 45% to 55%." in text
    frame = truth_controls.group_frame(results_of())
    order = ["cities", "sp_en_trans", "neg_cities", "neg_sp_en_trans"]
    assert frame["test"].drop_duplicates().tolist() == order
    assert frame["train"].drop_duplicates().tolist() == [*order, *TRAINS[4:]]
    assert set(frame["cell"]) == {"80", "20", "70"}


def test_a_cell_that_permuted_labels_reach_is_in_brackets():
    one = made()
    one["group_accuracy"][0, 1] = 0.52
    frame = truth_controls.group_frame(results_of(one)).set_index(["train", "test"])
    assert frame.loc[("cities", "neg_cities"), "cell"] == "(52)"


def test_what_the_direction_knows_beside_likelihood_is_told_by_data_set():
    text = truth_controls.likelihood(results_of()).data
    assert "more than permuted labels would on neg\\_cities 90% (86% to 93%), neg\\_sp\\_en\\_trans" in text
    assert "; as many as permuted labels would on cities 50% (39% to 61%)" in text and "fewer" not in text
    row = rows(truth_controls.likelihood_table(results_of()))[1]
    assert row[2:] == [
        "40% (35% to 45%)", "85% (81% to 88%)", "90% (87% to 93%)", "240", "90% (86% to 93%)",
        "−0.60 (−0.70 to −0.50)", "−0.30 (−0.40 to −0.20)", "1.00",
    ]  # fmt: skip


def test_confounds_that_tell_the_label_are_named_and_others_are_not():
    text = truth_controls.confounds(results_of()).data
    assert "last token on cities 60% (55% to 65%)" in text and "length" not in text
    frame = truth_controls.predictor_frame(results_of())
    assert set(frame["name"]) == {*truth_controls.LIKELIHOOD.values(), *truth_controls.CONFOUNDS.values()}


def test_the_effect_of_directions_stands_beside_that_of_random_ones():
    lines = truth_controls.caused(results_of()).data.splitlines()
    lines = [line for line in lines if line]
    assert len(lines) == 4
    assert (
        "the prompt is answered right for 75% (71% to 79%) of the statements;" in lines[0]
        and "cannot" not in lines[0]
    )
    assert "is −0.30 on false and 0.40 on true ones; indirect effect: mass-mean" in lines[0]
    assert "mass-mean 0.60 (0.55 to 0.65), logistic regression 0.10 (0.05 to 0.15)" in lines[0]
    assert lines[0].endswith("random directions −0.01 to 0.02.")
    frame = truth_controls.effect_frame(results_of())
    assert len(frame) == 2 * 3 * 4 and (frame["null_high"] <= 0.02).all()
    unable = truth_controls.caused(results_of(made(n_prompt_right=205))).data
    assert unable.startswith("Model cannot do the task on cities 51% (46% to 56%), neg\\_cities 51% (46% to 56%)")
    assert unable.endswith(": no more answers are right than by chance.")


def test_what_says_nothing_is_no_better_than_permuted_labels_that_do_worse():
    one = made()
    # as where all points are one, and the labels are balanced in every fold
    for name in ("null_accuracy", "predictor_null_accuracy"):
        one[name] = one[name] - 0.07
    one["p_value"] = one["p_value"] * 0 + 1 / 201
    assert rows(truth_controls.null_table(results_of(one)))[0][-1] == "layers 3 to 6"
    assert "length" not in truth_controls.confounds(results_of(one)).data


def test_what_was_left_out_is_said_once_with_its_data_sets_and_models():
    text = truth_controls.basis(results_of()).data
    assert "Model: 1600 statements, directions at layer 4, 200 permutations" in text
    assert "- Model: x: left.\n- Model: y: out." in text
    other = made(title="Other").assign_attrs(left_out="data set 'x': left\ndata set 'y': left\nno *more*")
    some = made(title="Some").assign_attrs(left_out=other.left_out)
    text = truth_controls.basis(results_of(made(), other, some)).data
    assert text.endswith(
        "- Model: x: left.\n- Model: y: out.\n- Other, Some: each of x, y: left.\n- Other, Some: no \\*more\\*."
    )


def test_a_model_without_untrained_networks_lacks_their_range_alone():
    results = results_of(made().drop_vars(["untrained_accuracy", "control"], errors="ignore"))
    assert truth_controls.nulls(results).data.endswith("Permuted labels give 45% to 55%, untrained networks –.")
    assert rows(truth_controls.null_table(results))[0][5] == "–"
    assert truth_controls.null_frame(results)["curve"].nunique() == 4


def test_a_model_that_was_not_steered_has_one_line():
    assert truth_controls.caused(results_of(made(steered=False))).data == "Model: not steered."
    assert truth_controls.effect_frame(results_of(made(steered=False))).empty


def test_a_single_data_set_has_no_transfer():
    one = made(names=["cities"])
    one["truth_direction_layer"] = -1
    assert truth_controls.transferred(results_of(one)).data.startswith("No direction was tested")


CASES = {
    "three models": lambda: results_of(made("One"), made("Two", steered=False), made("Three", steered=False)),
    "one model": results_of,
    "nothing": lambda: TruthResults((), ("The results x are missing.",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("error")
def test_the_chapter_draws_and_says_all_of_any_run(case, monkeypatch):
    shown = outputs(CASES[case](), monkeypatch)
    assert sum(name.startswith("fig-") for name in shown) == 5
    for name, value in shown.items():
        if isinstance(value, Markdown):
            assert value.data.strip() and "nan" not in value.data, name
            assert (value.data == "The results x are missing.") == (case == "nothing")
        else:
            spec = value.to_dict()
            assert len(spec["description"]) > 40 and len(charts.chart_html(spec)) < 400_000, name


def outputs(results, monkeypatch):
    """What every code cell of the chapter shows for these results."""
    namespace, shown = {}, {}
    for number, cell in enumerate(code_cells("truth-controls")):
        tree = ast.parse(cell.source).body
        if any("open_results" in ast.dump(part) for part in tree):
            namespace |= {"results": results, "charts": truth_charts, "truth_controls": truth_controls}
            continue
        *body, last = tree
        exec(compile(ast.Module(body, []), "chapter", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "chapter", "eval"), namespace)
            shown[label(cell) or f"cell {number}"] = value
    return shown
