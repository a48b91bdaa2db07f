"""Tests of the estimates that are printed before an extraction starts."""

from types import SimpleNamespace

import numpy as np
import pytest

from token_geometry.extraction import estimates
from token_geometry.requests import sizes
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.protocol import Estimate

SHAPE = {"layers": 2, "width": 64, "vocabulary": 64, "parameters": 100_000}


def job(**shape) -> SimpleNamespace:
    request = Extraction(model="smollm2-135m", corpus="sotu", n_tokens=64, n_prompts=1, output="unused")
    return SimpleNamespace(request=request, devices=("cpu",), shape=SHAPE | shape)


def test_a_large_vocabulary_costs_time_once_and_with_every_prompt():
    # the least of three, which a loaded machine disturbs little
    small, large = (
        np.min([estimates.core_seconds(job(vocabulary=size)) for _ in range(3)], axis=0) for size in (64, 262_144)
    )
    assert large[0] > 20 * small[0] and large[1] > 1.2 * small[1]


def test_time_goes_with_the_parameters_of_the_model():
    few, many = (estimates.core_seconds(job(parameters=n))[1] for n in (1e5, 1e10))
    assert many > 20 * few


def test_what_is_done_once_is_not_counted_for_every_pass(monkeypatch):
    monkeypatch.setattr(estimates, "core_seconds", lambda job: (60.0, 1.0))
    monkeypatch.setattr(estimates.torch, "get_num_threads", lambda: 1)
    one = job()
    one.request = SimpleNamespace(
        output=".", batch_size=1, estimate_of=lambda *_, n_at_once: Estimate(memory=n_at_once, disk=1)
    )
    missing = [SimpleNamespace(prompt=SimpleNamespace(id=str(n))) for n in range(60)]
    assert "about 2 minutes on cpu" in estimates.describe(one, missing)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (91, "1.5 minutes"), (5400, "1.5 hours")]
)
def test_durations_are_said_in_one_unit(seconds, words):
    assert sizes.duration(seconds) == words
