"""The table of trust: every row has a test, and says what that test holds."""

import ast
import html
import re
from collections import Counter
from pathlib import Path

import pytest

import appendices
from token_geometry.base import project

TESTS = Path(__file__).parent
AREAS = "parameters models corpora statements results devices memory network renderer cache".split()
TABLE = project.entries("trust.yml")
ROWS = [(area, row) for area, rows in TABLE.items() for row in rows]


def names_of(file):
    """The tests of a file, which is read and not run."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_area_has_rows_enough_and_no_row_is_twice():
    assert list(TABLE) == AREAS and len(ROWS) >= 80
    assert min(len(rows) for rows in TABLE.values()) >= 5
    assert all(row.keys() == {"wrong", "then", "test"} and all(row.values()) for _, row in ROWS)
    assert Counter(row["wrong"] for _, row in ROWS).most_common(1)[0][1] == 1


@pytest.mark.parametrize("file", sorted({row["test"].partition("::")[0] for _, row in ROWS}))
def test_every_test_that_is_named_is_there_and_has_the_words_that_are_said(file):
    names, text = names_of(file), (TESTS / file).read_text(encoding="utf-8")
    for _, row in ROWS:
        if row["test"].startswith(f"{file}::"):
            assert row["test"].partition("::")[2] in names, row["test"]
            for words in re.findall('"(.*?)"', row["then"]):
                assert words in text, f"{row['test']} does not hold {words!r}"


def test_the_appendix_has_every_row_in_the_table_of_its_area():
    page = (project.root() / "book" / "trust.qmd").read_text(encoding="utf-8")
    assert "{#sec-trust}" in page and 'open("book/_trust.md"' in page
    text = html.unescape(appendices.trust().replace("\\", ""))
    sections = text.split("## ")[1:]
    assert [section.partition("\n")[0].lower() for section in sections] == AREAS
    for section, rows in zip(sections, TABLE.values(), strict=True):
        lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
        assert len(lines) == len(rows)
        for line, row in zip(lines, rows, strict=True):
            wrong, then, test = line.strip("| ").split(" | ")
            assert wrong == row["wrong"] and then.replace("“", '"').replace("”", '"') == row["then"]
            assert test.rpartition(": ")[2] == row["test"].partition("::test_")[2].replace("_", " ")
