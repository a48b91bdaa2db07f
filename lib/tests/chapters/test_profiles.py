"""The chapter on profiles tells prompts apart where there is something to tell, and refuses labels of no use."""

import dataclasses
import json

import numpy as np
import pytest
from test_chapters import results_of

from token_geometry.chapters import profiles


def labelled_run(tmp_path, labels):
    """A run of 12 prompts on a corpus with these labels; the ID follows the label `a`, and nothing else does."""
    results = results_of({"one": 6}, levels=(0,), n_prompts=12)
    rows = [{"id": f"prompt-{n}", "text": f"text {n}", "kind": label} for n, label in enumerate(labels)]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    shift = np.array([1.0 + (label == "a") for label in labels])
    results.observables["intrinsic_dimension"] *= (
        results.observables["loss"].isel(model=0, shuffle_level=0) * 0 + shift
    )
    return dataclasses.replace(results, run=dataclasses.replace(results.run, corpus=str(path)))


def test_a_label_that_the_dimension_follows_is_told_by_the_profile_and_not_by_the_loss(tmp_path):
    results = labelled_run(tmp_path, "abababababab")
    found = profiles.frame(results, label="kind")
    frame = found.set_index("features")
    assert set(frame["task"]) == {"label 'kind'"} and frame["n_prompts"].eq(12).all()
    profile, loss = frame.loc["profile of the ID"], frame.loc["loss"]
    assert profile["accuracy"] == 1 and profile["low"] > 0.7 and profile["p_value"] < 0.02
    assert frame.loc["profile at fixed loss and tokens", "accuracy"] > 0.8
    assert loss["accuracy"] < 0.9 and loss["p_value"] > 0.02
    assert frame["chance"].between(0.25, 0.6).all()  # folds have the true classes in proportion: below a half
    said = profiles.sentence(results, found).data
    assert "label 'kind', 12 prompts: profile of the ID 100 (" in said and "permuted labels" in said


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a"] * 12, ["1 different labels for 12 prompts", "two labels or more"]),
        ([*"abcdefghijkl"], ["12 different labels for 12 prompts, the rarest for 1"]),
        ([*"ababababab", "c", "c"], None),
        ([*"abababababa", "b"], None),
    ],
)
def test_labels_that_make_no_classes_are_refused(labels, words, tmp_path, refused):
    results = labelled_run(tmp_path, labels)
    if words is None:
        assert len(profiles.frame(results, label="kind"))
        return
    with refused("'kind'", results.run.corpus, *words):
        profiles.frame(results, label="kind")


def test_a_column_that_is_missing_or_has_empty_labels_is_refused(tmp_path, refused):
    results = labelled_run(tmp_path, [*"ababababab", "", "a"])
    with refused("kind", results.run.corpus):
        profiles.frame(results, label="kind")
    with refused("'sort'", results.run.corpus):
        profiles.frame(results, label="sort")
