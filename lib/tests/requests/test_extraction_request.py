"""The request of an extraction: what its names stand for is found out once, before anything is started."""

import dataclasses
import json

import pytest
import transformers

from token_geometry.models import loading, sources
from token_geometry.requests.calibration import Calibration
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.truth import Truth
from token_geometry.texts import corpora


@pytest.fixture(scope="module")
def request_for(tmp_path_factory, save_tiny):
    """Function that makes a request for a tiny model and four texts."""
    folder = tmp_path_factory.mktemp("tiny")
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=40,
    )
    save_tiny(config, folder / "model")
    lines = [json.dumps({"text": " ".join(f"w{n}" for n in range(start, start + 40))}) for start in range(2, 6)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    given = {"model": str(folder / "model"), "corpus": str(folder / "texts.jsonl"), "output": str(folder / "out")}
    return lambda **changes: Extraction(**(given | {"n_prompts": 4, "n_tokens": 16, "device": "cpu"} | changes))


def test_the_model_and_the_corpus_of_an_extraction_are_resolved_once(request_for, monkeypatch, tmp_path):
    from token_geometry.extraction import extraction

    counts = {"resolve": 0, "find_corpus": 0}

    def counted(module, name):
        original = getattr(module, name)

        def count(*arguments, **options):
            counts[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, count)

    counted(sources, "resolve")
    counted(corpora, "find_corpus")
    directory = extraction.extract(request_for(output=str(tmp_path / "out")))
    assert len(list(directory.glob("*.nc"))) == 4
    assert counts == {"resolve": 1, "find_corpus": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"corpus": "nowhere.jsonl"}, ["corpus 'nowhere.jsonl'"]),
        ({"n_prompts": 5}, ["n_prompts is 5", "has 4 texts", "1 to 4"]),
        ({"n_tokens": 64}, ["n_tokens is 64", "up to 40"]),
        ({"model": "nothing"}, ["unknown model 'nothing'"]),
    ],
)
def test_a_check_notices_what_can_be_known_without_loading_weights(
    request_for, changes, words, refused, monkeypatch
):
    monkeypatch.setattr(loading, "load_model", None)
    with refused(*words):
        request_for(**changes).check()


def test_a_check_of_prompts_that_are_named_asks_for_no_number_of_texts(request_for):
    request_for(n_prompts=9, prompt_ids=["0"]).check()


def test_the_others_check_their_corpus_and_their_layers_too(request_for, refused):
    given = {name: getattr(request_for(), name) for name in ("model", "corpus", "device")}
    with refused("n_prompts is 7", "has 4 texts"):
        Calibration(**given, output="x.nc", n_prompts=7).check()
    with refused("layer is 4", "accepted: 0 to 3"):
        Truth(model=given["model"], layer=4, datasets=["cities"], output="x.nc", device="cpu").check()


def test_the_recipe_of_a_request_is_that_of_its_job_and_leaves_out_how_it_is_carried_out(request_for):
    request = request_for()
    job = request.resolve()
    assert request.recipe() == job.recipe and request.plan_recipe() == job.plan_recipe
    other = dataclasses.replace(request, n_parts=2, part=1, batch_size=3, keep_neighbors=False, output="elsewhere")
    assert other.plan_recipe() == request.plan_recipe()
