"""Every number of small models, of two prompts of a real one and of what seeds draw is what it was."""

import golden
import numpy as np
import pytest


def check(found, *beginnings):
    expected = golden.read(*beginnings)
    assert found.keys() == expected.keys(), "numbers came or went: python lib/tests/golden.py"
    lines = [golden.moved(name, np.asarray(found[name]), expected[name]) for name in found]
    assert not any(lines), "\n".join(filter(None, lines))


def test_what_seeds_draw_is_what_they_drew():
    check(golden.of_draws(), golden.EXACT)


@pytest.mark.slow
def test_every_number_of_small_models_is_what_it_was():
    check(golden.of_small_models(), *golden.CONFIGS, "calibration")


@pytest.mark.slow
@pytest.mark.model
def test_every_observable_of_two_prompts_is_what_it_was():
    check(golden.of_two_prompts(), "smollm2-135m")


def test_a_number_that_moves_is_named_with_its_place():
    expected = np.arange(6.0).reshape(2, 3)
    found = expected.copy()
    found[1, 0] += 0.1
    assert golden.moved("llama/loss", found, expected) == "llama/loss: 1 of 6 moved, at (1, 0) from 3 to 3.1"
    assert not golden.moved("llama/loss", expected * (1 + 1e-5), expected)
    assert golden.moved("draws/rows", expected[::-1], expected) and golden.moved("x", found[0], expected)
