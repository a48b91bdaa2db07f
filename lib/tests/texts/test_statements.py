"""Statements: what the generator promises of them, and CSV files of any kind."""

import itertools
import os
from collections import Counter

import numpy as np
import pandas as pd
import pytest

import make_statements
from token_geometry.base import project
from token_geometry.stats import probes
from token_geometry.texts import statements

FOLDER = project.root() / "data" / "statements"
BINARY = [name for name in statements.names() if name != "maths"]

WORLD = [
    ("Alba", "Italy"),
    ("Brno", "Czechia"),
    ("Cadiz", "Spain"),
    ("Davos", "Switzerland"),
    ("Essen", "Germany"),
]
WORLD = [(name, country, 600_000) for name, country in WORLD]


def table(name):
    return pd.read_csv(FOLDER / f"{name}.csv", keep_default_na=False)


# The committed data sets


def test_all_data_sets_of_the_report_are_there():
    expected = "cities neg_cities larger_than smaller_than cities_cities_conj cities_cities_disj"
    assert set(statements.names()) >= {*expected.split(), "sp_en_trans", "neg_sp_en_trans", "elements", "maths"}


@pytest.mark.parametrize("name", BINARY)
def test_half_of_the_statements_are_true_and_none_is_there_twice(name):
    found = statements.load(name)
    assert found.is_binary and found.labels.mean() == 0.5
    assert (found.n_repeated, found.n_contradictory) == (0, 0)
    assert len(found.texts) == found.n_rows


@pytest.mark.parametrize(
    ("name", "column"), [("cities", "country"), ("sp_en_trans", "meaning"), ("elements", "symbol")]
)
def test_no_word_of_a_statement_gives_its_label_away(name, column):
    entries = table(name)
    by_label = [Counter(entries.loc[entries["label"] == label, column]) for label in (0, 1)]
    assert by_label[0] == by_label[1]


def test_a_city_is_in_its_country_and_in_no_other():
    entries = table("cities")
    assert ((entries["country"] == entries["correct_country"]) == entries["label"]).all()
    assert entries.groupby("city")["label"].agg(["size", "sum"]).eq([2, 1]).all(axis=None)
    assert entries["statement"].str.fullmatch(r"The city of .+ is in (the )?[A-Z].+\.").all()


@pytest.mark.parametrize("name", ["cities", "sp_en_trans"])
def test_a_negated_data_set_has_the_same_rows_with_the_other_labels(name):
    pair = [statements.load(name), statements.load(f"neg_{name}")]
    assert statements.opposites(pair) == {name: f"neg_{name}", f"neg_{name}": name}
    assert all(" not " in text for text in pair[1].texts)
    drawn = [one.draw(100, seed=3) for one in pair]
    assert np.array_equal(drawn[0].rows, drawn[1].rows)
    assert np.array_equal(drawn[0].labels, 1 - drawn[1].labels)


def test_larger_and_smaller_than_are_opposites():
    pair = [statements.load(name) for name in ("smaller_than", "larger_than")]
    assert statements.opposites(pair)["larger_than"] == "smaller_than"
    entries = table("larger_than")
    assert ((entries["n1"] > entries["n2"]) == entries["label"]).all()
    assert len(entries) == 45 * 44 and not {60, 70, 80, 90} & {*entries["n1"]}


@pytest.mark.parametrize(("name", "rule"), [("cities_cities_conj", all), ("cities_cities_disj", any)])
def test_a_compound_is_as_true_as_its_parts_make_it(name, rule):
    entries = table(name)
    parts = zip(entries["label1"], entries["label2"], strict=True)
    assert [rule(pair) for pair in parts] == (entries["label"] == 1).tolist()


def test_the_vocabulary_has_more_than_150_words_with_one_meaning_each():
    entries = table("sp_en_trans")
    right = entries[entries["label"] == 1]
    assert len(right) >= 150 and right["word"].is_unique and right["meaning"].is_unique


def test_maths_has_nine_classes_of_operations_and_the_answers_4_and_7():
    found, entries = statements.load("maths"), table("maths")
    assert found.classes == list(range(1, 10)) and not found.is_binary
    values = [eval(text.removeprefix("What is ").rstrip("?")) for text in found.texts]
    assert values == entries["answer"].tolist() and {*values} == {4, 7}
    assert entries.groupby("operations")["label"].nunique().eq(1).all()


def test_the_committed_files_are_what_the_generator_writes(tmp_path):
    random = np.random.default_rng([0, 3])
    words = make_statements.translations(make_statements.read_source("spanish"), random)
    make_statements.write(words, tmp_path / "words.csv")
    assert (tmp_path / "words.csv").read_bytes() == (FOLDER / "sp_en_trans.csv").read_bytes()


# Groups

CYCLES = [("sp_en_trans", "meaning"), ("neg_sp_en_trans", "meaning"), ("elements", "symbol")]


@pytest.mark.parametrize(("name", "column"), CYCLES)
def test_statements_that_share_an_answer_are_of_one_group_and_in_one_fold(name, column):
    found, entries = statements.load(name), table(name)
    groups = pd.Series(found.groups())
    assert groups.groupby(entries[column]).nunique().eq(1).all()
    assert groups.value_counts().max() <= len(found.texts) / 10
    for train, test in probes.folds(found.labels, found.groups(), seed=0):
        assert not {*entries[column].iloc[train]} & {*entries[column].iloc[test]}


@pytest.mark.parametrize("name", ["cities", "neg_cities"])
def test_rare_countries_are_of_one_group_and_a_negation_has_the_groups_of_what_it_negates(name):
    found, entries = statements.load(name), table(name)
    groups, sizes = pd.Series(found.groups()), entries["country"].value_counts()
    rare = entries["country"].isin(sizes.index[sizes == 2])
    assert rare.sum() > 20 and groups[rare].groupby(entries["country"]).nunique().eq(1).all()
    assert groups.value_counts().max() <= len(found.texts) / 10
    assert np.array_equal(groups, statements.load("cities").groups())


def test_a_ring_of_words_in_any_file_is_cut_in_few_places(csv_file):
    n = 100  # as one permutation of all answers makes it
    lines = [f"thing{i} is word{(i + j) % n} indeed,{1 - j}" for i in range(n) for j in (0, 1)]
    found = statements.load(csv_file("statement,label", *lines))
    groups = found.groups().reshape(n, 2)
    assert (groups[:, 0] == groups[:, 1]).all()
    assert (groups[:, 0] != np.roll(groups[:, 0], 1)).sum() <= 20
    assert np.unique(groups, return_counts=True)[1].max() <= 20


def test_words_of_many_statements_join_nothing(csv_file):
    lines = [f"all share this but n{i},{i % 2}" for i in range(40)]
    groups = statements.load(csv_file("statement,label", *lines)).groups()
    assert np.array_equal(groups, np.arange(40) // 2)


def test_topic_and_polarity_are_known_by_the_name():
    known = {"cities": ("cities", 1), "neg_cities": ("cities", -1), "smaller_than": ("numbers", -1)}
    known |= {"larger_than": ("numbers", 1), "cities_cities_conj": ("cities", 1), "my own": ("my own", 1)}
    assert {name: statements.kind(name) for name in known} == known


# The generator's rules


@pytest.mark.parametrize("n", [2, 3, 8, 9])
def test_values_change_places_by_twos_and_three_in_a_ring(n):
    found = make_statements.swapped(list(range(n)), np.random.default_rng(0))
    assert sorted(found) == list(range(n)) and all(value != place for place, value in enumerate(found))
    assert sum(found[value] != place for place, value in enumerate(found)) == 3 * (n % 2)


def made_cities(rows):
    return make_statements.cities(rows, np.random.default_rng(0))


def test_small_cities_city_states_and_names_that_occur_twice_are_left_out():
    extra = [("Singapore", "Singapore", 10**6), ("Mexico City", "Mexico", 10**6), ("Village", "Italy", 1000)]
    extra += [("Twice", "Italy", 10**6), ("Twice", "Spain", 10**6)]
    assert {entry["city"] for entry in made_cities(WORLD + extra)} == {name for name, _, _ in WORLD}


def test_a_wrong_country_has_no_city_of_that_name_not_even_a_small_one():
    small = [("Alba", country, 20_000) for _, country, _ in WORLD if country != "Germany"]
    wrong = [entry for entry in made_cities(WORLD + small) if not entry["label"] and entry["city"] == "Alba"]
    assert [entry["country"] for entry in wrong] == ["Germany"]


def test_countries_that_have_an_article_get_it():
    assert make_statements.spoken("Netherlands") == "the Netherlands"
    assert make_statements.spoken("Italy") == "Italy"


# CSV files


@pytest.fixture
def csv_file(tmp_path):
    def write(*lines, name="own.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_text("\n".join(lines), encoding=encoding)
        return str(path)

    return write


GOOD = ["a is a,1", "a is b,0", "b is b,1", "b is a,0"]


def test_further_columns_a_byte_order_mark_and_quoted_commas_do_no_harm(csv_file):
    lines = ["city,label,statement", 'x,1,"Yes, it is."', "y,0,It is not.", "z,1,None", "w,0,nan"]
    found = statements.load(csv_file(*lines, encoding="utf-8-sig"))
    assert found.texts == ("Yes, it is.", "It is not.", "None", "nan")
    assert found.labels.tolist() == [1, 0, 1, 0] and found.name == "own"


def test_labels_that_are_words_are_classes(csv_file):
    found = statements.load(csv_file("statement,label", "a,False", "b,True", "c,False", "d,True"))
    assert found.is_binary and found.labels.tolist() == [0, 1, 0, 1]
    words = ["a,noun", "b,verb", "c,other", "d,noun", "e,verb", "f,other"]
    found = statements.load(csv_file("statement,label", *words))
    assert found.classes == [1, 2, 3] and not found.is_binary
    assert found.label_names[:2] == ("noun", "verb")


def labelled(csv_file, *values):
    """Statements of which two have each label."""
    return statements.load(csv_file("statement,label", *(f"s{i},{v}" for i, v in enumerate(values * 2))))


@pytest.mark.parametrize(
    "pair",
    ["correct incorrect", "right wrong", "Yes No", "TRUE FALSE", "t f", "accurate inaccurate", "honest lie"]
    + ["1 0", "1.0 0.0", "1 -1", "1.0 -1.0", "true untrue"],
)
def test_known_words_and_numbers_are_true_and_false_by_their_meaning(csv_file, pair):
    true, false = pair.split()
    for values in ((true, false), (false, true)):
        found = labelled(csv_file, *values)
        assert found.is_binary
        assert found.labels.tolist() == [int(value == true) for value in values * 2]


@pytest.mark.parametrize("pair", ["cat dog", "positive negative", "1 2", "0.25 0.75", "maybe true", "yes true"])
def test_two_classes_that_are_not_known_as_true_and_false_are_no_truth(csv_file, pair):
    found = labelled(csv_file, *pair.split())
    assert not found.is_binary and found.classes == [1, 2]


def test_numbers_that_mean_true_and_false_are_shown_as_0_and_1(csv_file):
    assert labelled(csv_file, "1.0", "0.0").label_names == ("1", "0", "1", "0")
    assert labelled(csv_file, "-1", "1").label_names == ("0", "1", "0", "1")


def test_labels_spelled_in_two_ways_do_not_contradict_each_other(csv_file):
    found = statements.load(csv_file("statement,label", "a,true", "a,True", "b,False", "c,FALSE", "d,True"))
    assert (found.n_repeated, found.n_contradictory) == (1, 0)
    assert found.labels.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("1", "0", "inf"), ["the label 'inf'", "numbers below 2^53"]),
        (("1", "-Infinity"), ["the label '-Infinity'"]),
        (("1", "0", "1e20"), ["the label '1e20'"]),
        (("1", "0", "nan"), ["row 3", "the label is 'nan'", "2 such rows"]),
        (("True", "False", "None"), ["row 3", "the label is 'None'"]),
        (("1", "false"), ["numbers and words as labels ('1', 'false')"]),
    ],
)
def test_labels_that_are_missing_mixed_or_without_bound_are_refused(csv_file, refused, values, words):
    with refused("own.csv", *words):
        labelled(csv_file, *values)


def test_a_blank_at_the_end_of_a_statement_stays_since_a_label_may_concern_the_last_token(csv_file):
    found = statements.load(csv_file("statement,label", "it is ,1", "it is,0", " it was , 1", '"it is\t",0'))
    assert found.texts == ("it is ", "it is", " it was ", "it is\t")
    assert found.n_repeated == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Ice\0 is cold.,1", ["line 2", "NUL"]),
        ('"He said \\"no\\".",1', ["line 2", "backslash", "double it"]),
        ('x,1\n"It ends in \\"no\\" or so, here",1', ["line 3", "backslash"]),
    ],
)
def test_text_that_csv_would_mangle_is_refused_with_its_line(csv_file, refused, line, words):
    with refused("own.csv", *words):
        statements.load(csv_file("statement,label", line, *GOOD))


def test_backslashes_and_quotation_marks_as_csv_has_them_are_read(csv_file):
    lines = ['"He said ""no"".",1', '"C:\\",0', 'G\\"odel is a name,1', '"a \\""b\\"" c",0']
    found = statements.load(csv_file("statement,label", *lines))
    assert found.texts == ('He said "no".', "C:\\", 'G\\"odel is a name', 'a \\"b\\" c')


def test_a_column_that_is_there_twice_is_refused(csv_file, refused):
    with refused("own.csv", "two columns 'label'"):
        statements.load(csv_file("statement,label,label", "a,1,0", "b,0,1"))


def test_a_pipe_or_a_directory_is_no_data_set(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name in ("pipe", "folder"):
        with refused(f"{name}.csv", "and no file"):
            statements.load(str(tmp_path / f"{name}.csv"))


def test_a_repeated_statement_counts_once_and_one_with_two_labels_not_at_all(csv_file):
    found = statements.load(csv_file("statement,label", *GOOD, "a is a,1", "c is c,0", "c is c,1"))
    assert found.texts == ("a is a", "a is b", "b is b", "b is a")
    assert (found.n_repeated, found.n_contradictory) == (1, 2)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["text,label", *GOOD], ["own.csv", "no column 'statement'", "'text', 'label'"]),
        (["statement,truth", *GOOD], ["no column 'label'"]),
        (["statement,label", *GOOD, " ,1"], ["row 5", "the statement is empty"]),
        (["statement,label", "a is a,", *GOOD], ["row 1", "the label is empty"]),
        (["statement,label", "a,1", "b,1"], ["the label '1' only", "two classes"]),
        (["statement,label"], ["no statements"]),
        (["statement,label", *GOOD, "c is c,2"], ["one statement only has the label '2'"]),
        (["statement,label", "Yes, it is.,1", "No, it is not.,0"], ["no CSV file"]),
        ([], ["no CSV file"]),
    ],
)
def test_a_file_that_is_no_data_set_is_refused_with_its_name_and_the_reason(csv_file, refused, lines, words):
    with refused("data set", *words):
        statements.load(csv_file(*lines))


def test_semicolons_between_columns_are_named(csv_file, refused):
    with refused("no column 'statement'", "commas"):
        statements.load(str(csv_file("statement;label", "Snow is white.;1")))


def test_measurements_are_no_labels(csv_file, refused):
    lines = [f"statement {i},{i / 10}" for i in range(200)]
    with refused("200 different labels", "2 to 50"):
        statements.load(csv_file("statement,label", *lines))


def test_a_data_set_that_does_not_exist_is_refused_with_the_nearest_one(refused, tmp_path):
    with refused("unknown data set 'citys'", "did you mean 'cities'"):
        statements.load("citys")
    with refused("nothing.csv", "accepted: cities", "a .csv file that exists"):
        statements.load(str(tmp_path / "nothing.csv"))
    with refused("no-such-user", "a .csv file that exists"):
        statements.load("~no-such-user/x.csv")
    with refused("datasets is empty"):
        statements.draw_all([], None, seed=0)


def test_a_data_set_whose_labels_teach_nothing_is_left_out_in_a_line_unless_all_is_compared_with_it(
    csv_file, refused
):
    files = {
        "label '1' only": ["a,1", "b,1"],
        "200 different labels": [f"{i},{i / 10}" for i in range(200)],
        "one statement only has the label '2'": [*GOOD, "c is c,2"],
    }
    paths = {why: csv_file("statement,label", *lines, name=f"{why[:3]}.csv") for why, lines in files.items()}
    found, lines = statements.draw_all(["cities", *paths.values(), "maths"], 40, seed=0)
    assert [one.name for one in found] == ["cities", "maths"] and len(found[0].texts) == 40
    for line, (why, path) in zip(lines, paths.items(), strict=True):
        assert line.startswith(f"data set {path!r}") and why in line and line.endswith("; it is left out")
    for why, path in paths.items():
        with refused(why):
            statements.draw_all([path, "cities"], None, seed=0)
    with refused("no column 'label'"):  # a file that is no data set at all is another matter
        statements.draw_all(["cities", csv_file("statement,labels", *GOOD)], None, seed=0)


def test_two_data_sets_of_one_name_are_refused(csv_file, refused):
    with refused("two of the name 'cities'"):
        statements.draw_all(["cities", csv_file("statement,label", *GOOD, name="cities.csv")], None, seed=0)


def test_a_draw_keeps_the_classes_in_proportion_and_the_order_of_the_file():
    found = statements.load("maths")
    drawn = found.draw(90, seed=0)
    assert Counter(drawn.labels.tolist()) == dict.fromkeys(range(1, 10), 10)
    assert all(first < second for first, second in itertools.pairwise(drawn.rows))
    assert found.draw(90, seed=0).texts == drawn.texts != found.draw(90, seed=1).texts
    assert found.draw(10_000, seed=0) is found and found.draw(None, seed=0) is found
