"""A run of one model of five layers: one of a kind reads as one, and the first page is of this run."""

import dataclasses
import re

import book_sources
import pytest
from IPython.display import Markdown
from test_chapters import CHAPTERS, once, outputs

import pages
from token_geometry.base import project
from token_geometry.chapters import home
from token_geometry.chapters.comparison import prose as comparison
from token_geometry.chapters.loss import prose as loss
from token_geometry.chapters.markup import plain
from token_geometry.chapters.shuffling import prose as shuffling

PLURALS = r"both models|all models|of the models|\b1 (?:models|prompts|layers|of 1 )|\bof 1 \w+s\b"
ONE_AS_TWO = r"(?<![\d.−/])(−?\d+(?:\.\d+)?%?) to \1(?![\d.%/])"
"""A range that begins where it ends."""


def run(**options):
    return once({"one": 5}, **{"levels": (0, 2, 4), "n_prompts": 10, "n_shuffled": 10} | options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "chapter", [pytest.param(name, marks=[pytest.mark.slow] * (name != "index")) for name in CHAPTERS]
)
@pytest.mark.parametrize("options", [{}, {"levels": (0,)}, {"n_prompts": 1, "n_shuffled": 1, "n_scales": 1}])
def test_one_model_one_layer_and_one_value_read_as_one(chapter, options, monkeypatch):
    for name, value in outputs(chapter, run(**options), monkeypatch).items():
        text = plain(value) if isinstance(value, Markdown) else value.to_dict()["description"]
        assert not re.search(PLURALS, text), (name, re.search(PLURALS, text)[0], text)
        # the interval of an estimate may be as narrow as it is spelled
        found = re.search(ONE_AS_TWO, re.sub(r"\([^()]* to [^()]*\)", "", text))
        assert not found, (name, found[0], text)
        if isinstance(value, Markdown) and "|" not in value.data:
            for paragraph in value.data.split("\n"):
                sentences = [one for one in re.split(r"(?<=\.) (?=[A-Z])", paragraph) if len(one) > 12]
                assert len({*sentences}) == len(sentences), (name, paragraph)


def test_no_page_speaks_of_both_or_all_models_where_it_may_have_one():
    for page in book_sources.pages():
        text = (project.root() / page).read_text(encoding="utf-8")
        assert not re.search(r"(in|of) (both|all) models(?! of the run)|in the other panel", text), page


def test_the_first_page_has_the_command_and_the_title_of_the_run_that_it_shows():
    results = run()
    assert "<code>make book RUN=made</code>" in home.rebuild(results).data
    assert "<code>token-geometry book made</code>" in home.rebuild(results).data
    demo = dataclasses.replace(results, run=dataclasses.replace(results.run, name="demo"))
    assert "<code>make book</code>" in home.rebuild(demo).data
    assert pages.of_run({}, results.run)["book"]["description"] == "Run made: made for a test"
    own = dataclasses.replace(results.run, title="*a* [b] <c>")
    assert pages.head(own) == r"Run made: \*a\* \[b\] \<c\>"
    assert pages.head(dataclasses.replace(results.run, title="made")) == "Run made"


def test_where_some_prompts_are_drawn_it_is_said_how_many_of_how_many():
    assert shuffling.prompt_spread(run()).data.startswith("The figures show 6 of 10 prompts. Standard deviation")
    assert "The figures show" not in shuffling.prompt_spread(run(n_prompts=6, n_shuffled=6)).data
    many = comparison.scale_order(run(n_prompts=20), layer=2).data
    assert many.startswith("Drawn are 16 of 20 structured prompts. Spearman correlation over 20 structured")
    assert "Drawn" not in comparison.scale_order(run(n_prompts=16), layer=2).data


def test_what_holds_of_all_prompts_and_of_those_at_every_level_is_said_once():
    start, end = "The run has 10 structured prompts.", "Intervals are at 95% confidence."
    assert loss.basis(run()).data == f"{start} At all 3 shuffle levels it has 10 prompts. {end}"
    twice = loss.basis(run(n_shuffled=4)).data
    assert twice.index(end) < twice.index("At all 3") < twice.index("get no interval")
    assert loss.basis(run(levels=(0,))).data == f"{start} {end}"
