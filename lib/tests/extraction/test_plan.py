"""What an extraction's directory says of itself: as it was written, or refused in one line."""

import json

import pytest

from token_geometry.base import store
from token_geometry.extraction import plan

RECIPE = {"model": {"sha256": "ab"}, "n_tokens": 64}
WHOLE = {
    "recipe": RECIPE,
    "recipe_digest": store.digest(RECIPE),
    "plan_digest": "cd",
    "request": {"model": "m", "n_tokens": 64, "shuffle_levels": [0], "filter_models": []},
    "model_title": "M",
    "model_commit": "",
    "n_examined": 2,
    "n_too_short": 0,
    "shards": [{"prompt": "a", "shuffle_level": 0, "file": "a.nc"}],
}


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan.save_plan(tmp_path, WHOLE)
    assert plan.read_plan(tmp_path) == WHOLE
    assert [path.name for path in tmp_path.iterdir()] == [plan.PLAN]


@pytest.mark.parametrize("key", [*WHOLE, "checksum"])
@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [3], {"n_tokens": 1}])
def test_a_plan_with_another_value_is_refused_whatever_its_type(key, value, tmp_path, refused):
    plan.save_plan(tmp_path, WHOLE)
    found = json.loads((tmp_path / plan.PLAN).read_text())
    (tmp_path / plan.PLAN).write_text(json.dumps(found | {key: value}))
    with refused(tmp_path / plan.PLAN, "damaged", "delete it"):
        plan.read_plan(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"null", b'"x"', b"\xff", b"[" * 100_000, b'{"checksum": NaN}']
)
def test_a_plan_that_is_no_plan_is_refused(content, tmp_path, refused):
    (tmp_path / plan.PLAN).write_bytes(content)
    with refused(tmp_path / plan.PLAN, "damaged", "delete it"):
        plan.read_plan(tmp_path)


def test_a_plan_of_before_plans_had_a_checksum_says_how_to_go_on(tmp_path, refused):
    (tmp_path / plan.PLAN).write_text(json.dumps(WHOLE))
    with refused("older than version 0.2", "delete it", "keeps the shards that are whole"):
        plan.read_plan(tmp_path)


NEEDED = [key for key in WHOLE if key != "model_commit"]  # which older plans lack
FORGED = [{key: value} for key in NEEDED for value in (None, 3.5, {}, [3], [{"prompt": "a"}])]
FORGED += [{"request": WHOLE["request"] | {key: {"a": 1}}} for key in ("model", "n_tokens", "shuffle_levels")]
FORGED += [{"recipe": {"model": "m"}}, {"shards": [{"prompt": 3, "file": "a.nc"}]}]
FORGED += [{"shards": [{"prompt": "a", "file": name}]} for name in ("../a.nc", "/a.nc", "..", "", "notes.txt", 3)]


@pytest.mark.parametrize("changes", FORGED, ids=str)
def test_a_plan_with_a_checksum_that_was_made_for_it_is_refused_where_it_is_none_of_ours(
    changes, tmp_path, refused
):
    """Whoever extracts anew takes away what an older plan names: never what is not beside it."""
    plan.save_plan(tmp_path, WHOLE | changes)
    with refused(tmp_path / plan.PLAN, "delete it"):
        plan.read_plan(tmp_path)


@pytest.mark.parametrize("key", NEEDED)
def test_a_plan_that_lacks_something_is_refused_though_its_checksum_is_right(key, tmp_path, refused):
    plan.save_plan(tmp_path, {name: value for name, value in WHOLE.items() if name != key})
    with refused(tmp_path / plan.PLAN, key, "delete it"):
        plan.read_plan(tmp_path)


def test_a_plan_that_is_a_directory_is_refused(tmp_path, refused):
    (tmp_path / plan.PLAN).mkdir()
    with refused(tmp_path / plan.PLAN, "delete it"):
        plan.read_plan(tmp_path)
