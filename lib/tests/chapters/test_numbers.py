"""Numbers are spelled in one way: minus sign, powers of ten, intervals, counts, layers."""

import re

import book_sources
import numpy as np
import pytest
from IPython.display import Markdown

from token_geometry.base import project
from token_geometry.chapters import markup, numbers
from token_geometry.chapters.numbers import Number


@pytest.mark.parametrize(
    ("value", "spec", "spelled"),
    [
        (-1.25, "+.1f", "−1.2"),
        (1.25, "+.2f", "+1.25"),
        (-0.5, ".0%", "−50%"),
        (2.4e-7, ".1g", "2 × 10⁻⁷"),
        (1e-12, ".0e", "10⁻¹²"),
        (0.0, ".0e", "0"),
        (12.0, ".0f", "12"),
    ],
)
def test_a_number_has_a_minus_sign_and_its_powers_of_ten_spelled_out(value, spec, spelled):
    assert f"{Number(value):{spec}}" == spelled


def test_an_estimate_has_its_interval_in_brackets_and_more_digits_where_it_is_small():
    assert numbers.estimate(-1.5, -2, -1, sign="+") == "−1.50 (−2.00 to −1.00)"
    assert numbers.estimate(0.004, -0.001, 0.009) == "0.0040 (−0.0010 to 0.0090)"
    assert numbers.estimate(0.004, 0, 1, digits=2, name="95% interval ") == "0.00 (95% interval 0.00 to 1.00)"
    assert numbers.estimate(3, np.nan, np.nan) == "3.00"


def test_counts_and_layers_are_spelled_out():
    assert [numbers.count(n, "prompt") for n in (0, 1, 2)] == ["0 prompts", "1 prompt", "2 prompts"]
    assert numbers.layers(np.array([2, 3, 4, 8, 10, 11])) == "layers 2 to 4, 8 and 10 to 11"
    assert (numbers.layers(np.array([7])), numbers.layers(np.array([], int))) == ("layer 7", "none")
    assert (numbers.layers(slice(2, 4)), numbers.layers(slice(2, 2))) == ("layers 2 to 4", "layer 2")
    assert (numbers.span(np.array([9, 5])), numbers.span(np.array([5, 5]))) == ("5 to 9", "5")
    assert numbers.span(np.array([-0.121, -0.119]), ".2f") == "−0.12"


def test_an_alt_text_says_what_the_page_says_without_markup():
    text = markup.bullets([f"{markup.escaped('a_b-c <d>')}: $S = 0$ has 5% of `x`.", "Two."])
    assert markup.plain(text) == "a_b-c <d>: S = 0 has 5% of x. Two."
    assert markup.plain(Markdown("one")) == markup.plain("one") == "one"


def test_pages_and_chapters_have_one_spelling_of_percent_and_of_a_data_set():
    sources = book_sources.pages()
    assert len(sources) > 10
    for name in sources:
        text = (project.root() / name).read_text(encoding="utf-8")
        assert not re.search(r"\d\s%", text), name
        # in prose: names in code are written as one word
        assert not re.search(r"(the|a|one|each|every) datasets?\b", text), name
