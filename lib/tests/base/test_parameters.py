"""Parameters of notebooks: unknown, ill-typed and missing ones are refused by name."""

import pytest

from token_geometry.base import parameters
from token_geometry.requests.extraction import Extraction

GIVEN = {"model": "smollm2-135m", "corpus": "sotu", "output": "out"}


def test_the_names_of_a_notebook_become_a_request():
    namespace = GIVEN | {
        "n_prompts": 3,
        "shuffle_levels": [0, 5],
        "In": [""],
        "_i1": "",
        "parameters": parameters,
        "Extraction": Extraction,
        "__name__": "__main__",
    }
    expected = Extraction(**GIVEN, n_prompts=3, shuffle_levels=[0, 5])
    assert parameters.collect(Extraction, namespace) == expected


def test_an_unknown_name_is_refused_with_the_nearest_one(refused):
    with refused("'n_promts'", "did you mean 'n_prompts'?", "7"):
        parameters.collect(Extraction, GIVEN | {"n_promts": 7})


@pytest.mark.parametrize(
    "name, value, accepted",
    [
        ("n_tokens", "1024", "a whole number"),
        ("n_tokens", 1024.0, "a whole number"),
        ("n_tokens", True, "a whole number"),
        ("n_tokens", None, "a whole number"),
        ("n_prompts", "all", "a whole number or None"),
        ("shuffle_levels", 5, "a list of whole numbers, such as '[5]'"),
        ("shuffle_levels", [0, "5"], "a list of whole numbers, such as '[0, 1]'"),
        ("shuffle_levels", "05", "a list of whole numbers, such as '[0, 1]'"),
        ("overwrite", "yes", "true or false"),
        ("overwrite", 1, "true or false"),
        ("model", 7, "a string"),
        ("filter_models", "gemma3-270m", 'a list of strings, such as \'["gemma3-270m"]'),
    ],
)
def test_a_value_of_another_type_is_refused(name, value, accepted, refused):
    with refused(f"'{name}'", repr(value), accepted):
        parameters.collect(Extraction, GIVEN | {name: value})


@pytest.mark.parametrize("name", GIVEN)
def test_a_missing_parameter_is_named(name, refused):
    with refused(f"'{name}'", "missing"):
        parameters.collect(Extraction, {key: value for key, value in GIVEN.items() if key != name})


def test_none_stands_for_all_prompts():
    assert parameters.collect(Extraction, GIVEN | {"n_prompts": None}).n_prompts is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("overwrite", "true", True),
        ("final_norm", "FALSE", False),
        ("batch_size", "null", None),
        ("n_prompts", "none", None),
        ("shuffle_levels", "[0, 2]", [0, 2]),
        ("prompt_ids", "['a', 'b']", ["a", "b"]),
        ("prompt_ids", '[1, "b"]', [1, "b"]),
        ("model", "true", "true"),
        ("model", "none", "none"),
    ],
)
def test_what_a_command_line_can_only_spell_as_a_string_is_taken_for_what_it_says(name, value, expected):
    assert getattr(parameters.collect(Extraction, GIVEN | {name: value}), name) == expected


def test_a_number_where_a_string_belongs_is_refused_with_papermills_way_out(refused):
    with refused("'output' is 1, of type int", "a string", "-r output"):
        parameters.collect(Extraction, GIVEN | {"output": 1})


def test_a_number_where_a_string_belongs_in_a_file_is_refused_with_the_way_out_of_yaml(refused):
    with refused("key 'output' is 2026, of type int", "a string", "quotation marks"):
        parameters.build(Extraction, GIVEN | {"output": 2026}, noun="key")


def test_old_names_are_taken_for_the_new_ones_and_said_to_be_old_in_one_line(capsys):
    # the notebook's own defaults stand beside what papermill hands over
    request = parameters.collect(Extraction, GIVEN | {"part": 0, "n_parts": 1, "shard": 2, "n_shards": 3})
    assert (request.part, request.n_parts) == (2, 3)
    assert capsys.readouterr().out.splitlines() == [
        "parameter 'shard' is an old name, and is taken for 'part': write part = 2",
        "parameter 'n_shards' is an old name, and is taken for 'n_parts': write n_parts = 3",
    ]


def test_an_old_name_beside_another_value_of_the_new_one_is_refused(refused):
    with refused("'shard' is the old name of 'part', and both are given"):
        parameters.collect(Extraction, GIVEN | {"part": 1, "shard": 2})
