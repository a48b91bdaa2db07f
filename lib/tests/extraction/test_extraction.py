"""Extractions: what the shards hold, and that an interrupted one goes on where it stopped."""

import dataclasses
import json
import shutil

import numpy as np
import oracles
import pytest
import xarray as xr

from token_geometry.base import store
from token_geometry.chapters import markup
from token_geometry.chapters.results import RunResults
from token_geometry.chapters.shuffling import prose
from token_geometry.extraction import extraction, locks, plan
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.reduction import Reduction
from token_geometry.runs import declaration
from token_geometry.studies import reduction
from token_geometry.texts import shuffling

STRUCTURED = Extraction(
    model="smollm2-135m",
    corpus="sotu",
    output="",
    n_prompts=3,
    n_tokens=144,
    shuffle_levels=[0],
    device="cpu",
)
SHUFFLED = dataclasses.replace(STRUCTURED, n_prompts=2, shuffle_levels=[1, 2])

DIMENSIONS = {
    "intrinsic_dimension": ("layer", "scale"),
    "intrinsic_dimension_error": ("layer", "scale"),
    "ess": ("layer",),
    "tle": ("layer",),
    "neighbor_distance": ("layer", "scale"),
    "neighborhood_overlap": ("layer", "k"),
    "cosine_similarity": ("layer",),
    "cosine_similarity_std": ("layer",),
    "neighbor_angle": ("layer",),
    "neighbor_angle_histogram": ("layer", "angle"),
    "reciprocity": ("layer", "k"),
    "layer_overlap": ("layer", "layer_other"),
    "n_points": ("layer",),
    "subset_dimension": ("layer", "subset", "n_subset", "scale"),
    "subset_distance": ("layer", "subset", "n_subset", "scale"),
    "ess_loss_correlation": ("layer",),
    "tle_loss_correlation": ("layer",),
    "lens_entropy": ("layer",),
    "lens_loss": ("layer",),
    "loss": (),
    "entropy": (),
    "bleu": (),
    "mean_state": ("coordinate",),
    "distinct_tokens": (),
    "token_rarity": (),
    "logit_intrinsic_dimension": ("scale",),
}
"""Fixed names of the observables dataset, and what follows `model, shuffle_level, prompt`."""


def reduce_(directories, **options):
    """The observables of one or more directories."""
    given = directories if isinstance(directories, list) else [directories]
    return reduction.compute(Reduction(extraction=[str(one) for one in given], output="observables.nc", **options))


@pytest.fixture(scope="module")
def structured(tmp_path_factory):
    output = str(tmp_path_factory.mktemp("structured"))
    return extraction.extract(dataclasses.replace(STRUCTURED, output=output))


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    output = str(tmp_path_factory.mktemp("shuffled"))
    return extraction.extract(dataclasses.replace(SHUFFLED, output=output))


@pytest.fixture
def copy(structured, tmp_path):
    """A copy of the structured extraction, to be damaged, and the request that made it."""
    output = shutil.copytree(structured, tmp_path / "copy")
    return output, dataclasses.replace(STRUCTURED, output=str(output))


def times(directory):
    return {path.name: path.stat().st_mtime_ns for path in directory.glob("*.nc")}


def values(directory):
    """Shards without what differs from run to run."""
    return [shard.drop_attrs() for shard in oracles.read_shards(directory)]


# Shards


def test_a_directory_holds_a_shard_for_every_prompt_and_level_and_the_plan(structured, shuffled):
    assert len(times(structured)) == 3
    assert len(times(shuffled)) == 4
    planned = plan.read_plan(shuffled)
    names = times(shuffled).keys() | {plan.PLAN, locks.FOLDER}
    assert {path.name for path in shuffled.iterdir()} == names
    assert sorted(times(shuffled)) == sorted(entry["file"] for entry in planned["shards"])
    assert planned["n_too_short"] == 0 and planned["n_examined"] == 2


def test_a_shard_says_what_made_it(structured):
    for shard in oracles.read_shards(structured):
        recipe = json.loads(shard.attrs["recipe"])
        assert recipe["n_tokens"] == 144 and recipe["dtype"] == "float32"
        assert shard.attrs["recipe_digest"] == store.digest(recipe)
        assert {"torch", "transformers", "numpy"} <= json.loads(shard.attrs["versions"]).keys()
        for variable in shard.data_vars.values():
            assert {"long_name", "units"} <= variable.attrs.keys()


def test_a_shuffled_prompt_has_the_blocks_of_the_structured_one(structured, shuffled):
    plain = {shard.attrs["prompt"]: shard for shard in oracles.read_shards(structured)}
    for shard in oracles.read_shards(shuffled):
        permutation = shard["block_permutation"].values
        assert len(permutation) == 4 ** shard.attrs["shuffle_level"]
        expected = shuffling.block_permutation(
            shard.attrs["shuffle_level"], seed=0, text_sha256=shard.attrs["text_sha256"]
        )
        assert permutation.tolist() == expected.tolist()
        tokens = plain[shard.attrs["prompt"]]["token_id"].values
        found = shard["token_id"].values
        assert found.tolist() == shuffling.shuffle_blocks(tokens, permutation).tolist()
        assert found.tolist() != tokens.tolist()


def test_shuffled_prompts_are_harder_to_predict(structured, shuffled):
    plain = {shard.attrs["prompt"]: shard for shard in oracles.read_shards(structured)}
    for shard in oracles.read_shards(shuffled):
        if shard.attrs["shuffle_level"] == 2:
            assert shard["loss"] > plain[shard.attrs["prompt"]]["loss"] + 1


# Resuming


def test_only_what_is_missing_or_damaged_is_computed_again(structured, copy):
    output, request = copy
    before = times(output)
    deleted, cut, kept = sorted(before)
    (output / deleted).unlink()
    content = (output / cut).read_bytes()
    (output / cut).write_bytes(content[: len(content) // 2])
    extraction.extract(request)
    after = times(output)
    assert after.keys() == before.keys()
    assert after[kept] == before[kept]
    assert after[cut] != before[cut] and after[deleted] != before[deleted]
    for found, expected in zip(values(output), values(structured), strict=True):
        xr.testing.assert_identical(found, expected)


def test_a_complete_extraction_is_not_touched(copy):
    output, request = copy
    before = times(output)
    extraction.extract(dataclasses.replace(request, device="auto"))
    assert times(output) == before


def test_more_prompts_keep_the_shards_that_are_there(copy):
    output, request = copy
    before = times(output)
    extraction.extract(dataclasses.replace(request, n_prompts=4))
    after = times(output)
    assert len(after) == 4
    assert before.items() <= after.items()


def test_fewer_prompts_keep_the_shards_that_are_there_unless_they_may_be_overwritten(copy):
    output, request = copy
    before = times(output)
    extraction.extract(dataclasses.replace(request, n_prompts=2))
    assert times(output) == before
    assert len(list(oracles.read_shards(output))) == 2
    extraction.extract(request)
    extraction.extract(dataclasses.replace(request, n_prompts=2, overwrite=True))
    after = times(output)
    assert len(after) == 2
    assert after.items() <= before.items()


def test_prompts_may_be_named(structured, tmp_path):
    drawn = {shard.attrs["prompt"]: shard for shard in oracles.read_shards(structured)}
    wanted = list(drawn)[:0:-1]
    request = dataclasses.replace(STRUCTURED, output=str(tmp_path), prompt_ids=wanted)
    named = list(oracles.read_shards(extraction.extract(request)))
    assert [shard.attrs["prompt"] for shard in named] == wanted
    for shard in named:
        xr.testing.assert_identical(shard.drop_attrs(), drawn[shard.attrs["prompt"]].drop_attrs())
    assert plan.read_plan(tmp_path)["request"]["prompt_ids"] == wanted
    # the number that would have been drawn does not matter, the names do
    others = [dataclasses.replace(request, n_prompts=9), dataclasses.replace(request, prompt_ids=wanted[:1])]
    digests = [store.digest(other.plan_recipe()) for other in (request, *others)]
    assert digests[0] == digests[1] != digests[2]


def test_a_corpus_by_alias_and_the_same_texts_in_a_file_are_one_corpus(structured, sotu, tmp_path):
    path = tmp_path / "sotu.jsonl"
    rows = [json.dumps({"id": key, "text": text}) for key, text in reversed([*sotu.texts.items()])]
    path.write_text("\n".join(rows), encoding="utf-8")
    request = dataclasses.replace(STRUCTURED, corpus=str(path), output=str(tmp_path / "out"))
    found, expected = (reduce_(d) for d in (extraction.extract(request), structured))
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert found.attrs["recipe"] == expected.attrs["recipe"]


def test_an_untrained_control_is_extracted_as_another_model(tmp_path, structured):
    request = dataclasses.replace(
        STRUCTURED, model="smollm2-135m@random", n_prompts=1, output=str(tmp_path / "control")
    )
    (control,) = oracles.read_shards(extraction.extract(request))
    trained = next(iter(oracles.read_shards(structured)))
    np.testing.assert_array_equal(control["token_id"], trained["token_id"])
    assert control["loss"] > trained["loss"] + 5
    assert json.loads(control.attrs["recipe"])["model"]["weights"] == "random, seed 0"
    assert plan.read_plan(tmp_path / "control")["model_title"].endswith(", untrained")


def test_the_state_before_the_final_norm_may_take_the_place_of_the_one_after(structured, tmp_path, refused):
    expected = next(iter(oracles.read_shards(structured)))
    before = dataclasses.replace(STRUCTURED, n_prompts=1, output=str(tmp_path / "before"), final_norm=False)
    (found,) = oracles.read_shards(extraction.extract(before))
    last = expected.sizes["layer"] - 1
    np.testing.assert_array_equal(
        found["neighbor_distance"].sel(layer=slice(0, last - 1)),
        expected["neighbor_distance"].sel(layer=slice(0, last - 1)),
    )
    distances = (dataset["neighbor_distance"].sel(layer=last) for dataset in (found, expected))
    assert not np.allclose(*distances)
    assert found["loss"] == expected["loss"]
    dataset = reduce_(tmp_path / "before")
    assert "before the final norm" in dataset["layer"].attrs["long_name"]
    assert "before the norm" in json.loads(dataset.attrs["layer_index_map"])["layer L"]
    with refused("another final_norm"):
        extraction.extract(dataclasses.replace(before, final_norm=True))
    with refused("final_norm"):
        reduce_([structured, tmp_path / "before"])


def test_an_extraction_of_another_recipe_is_refused_unless_overwritten(copy, refused):
    output, request = copy
    before = times(output)
    other = dataclasses.replace(request, seed=1)
    with refused(output, "another seed", "0", "1", "overwrite"):
        extraction.extract(other)
    assert times(output) == before
    extraction.extract(dataclasses.replace(other, overwrite=True))
    assert len(times(output)) == 3
    assert not times(output).items() & before.items()
    assert all(json.loads(s.attrs["recipe"])["seed"] == 1 for s in oracles.read_shards(output))


def test_device_and_processes_do_not_make_results_stale():
    request = dataclasses.replace(STRUCTURED, output="a")
    same = dataclasses.replace(request, device="cuda", num_processes=8, output="b", overwrite=True)
    assert same.recipe() == request.recipe()
    assert same.plan_recipe() == request.plan_recipe()
    for change in ({"n_tokens": 512}, {"seed": 1}, {"dtype": "bfloat16"}, {"corpus": "python-docs"}):
        other = dataclasses.replace(request, **change)
        assert store.digest(other.recipe()) != store.digest(request.recipe())


# Bad input


@pytest.mark.model
@pytest.mark.parametrize(
    "change, words",
    [
        ({"output": ""}, ["output"]),
        ({"n_prompts": 0}, ["n_prompts is 0"]),
        ({"n_prompts": -3}, ["n_prompts is -3"]),
        ({"n_tokens": 2}, ["n_tokens is 2"]),
        ({"n_tokens": 1000, "shuffle_levels": [5]}, ["shuffle_levels", "n_tokens = 1000"]),
        ({"shuffle_levels": []}, ["shuffle_levels is []"]),
        ({"shuffle_levels": [1, 1]}, ["shuffle_levels is [1, 1]"]),
        ({"dtype": "int8"}, ["'int8'", "float32"]),
        ({"device": "cuda:99"}, ["'cuda:99'", "cpu"]),
        ({"num_processes": 0}, ["num_processes is 0"]),
        ({"model": "smollm"}, ["model 'smollm'"]),
        ({"corpus": "nowhere"}, ["corpus 'nowhere'"]),
        ({"filter_models": ["gemma"]}, ["model 'gemma'", "gemma3-270m"]),
        ({"prompt_ids": ["a", "b", "a"]}, ["prompt_ids", "'a' twice"]),
        ({"model": "llama-7b-pth"}, ["llama-7b-pth", "consolidated"]),
        ({"n_tokens": 16384}, ["n_tokens is 16384", "'smollm2-135m'", "up to 8192"]),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_refused(change, words, tmp_path, refused):
    output = tmp_path / "out"
    request = dataclasses.replace(STRUCTURED, **({"output": str(output)} | change))
    with refused(*words):
        extraction.extract(request)
    assert not output.exists()


def test_more_prompts_than_the_corpus_has_are_refused(tmp_path, sotu, refused):
    path = tmp_path / "corpus.jsonl"
    texts = [*list(sotu.texts.values())[:2], "Too short."]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    request = dataclasses.replace(STRUCTURED, corpus=str(path), output=str(tmp_path / "out"))
    with refused("2 of its 3 texts", "n_tokens = 144", "1 are shorter", "n_prompts = 3"):
        extraction.extract(request)


@pytest.mark.model
def test_an_output_that_is_a_file_is_refused(tmp_path, refused):
    (tmp_path / "file").write_text("")
    with refused("output", tmp_path / "file"):
        extraction.extract(dataclasses.replace(STRUCTURED, output=str(tmp_path / "file")))


def test_an_incomplete_extraction_gives_no_observables(copy, refused):
    output, _ = copy
    next(output.glob("*.nc")).unlink()
    with refused(output, "1 of 3 shards are missing"):
        list(oracles.read_shards(output))
    with refused(output, "incomplete"):
        reduce_(output)


def test_a_damaged_extraction_gives_no_observables(copy, refused):
    output, _ = copy
    shard = next(output.glob("*.nc"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with refused(shard, "damaged"):
        reduce_(output)
    (output / plan.PLAN).write_text('{"recipe": ')
    with refused(plan.PLAN, "damaged"):
        reduce_(output)


def test_a_shard_of_another_recipe_gives_no_observables(copy, refused):
    output, _ = copy
    path = next(output.glob("*.nc"))
    shard = store.read(path)
    store.write(shard.assign_attrs(store.make_attrs("x", {"seed": 1})), path)
    with refused(path, "another recipe"):
        list(oracles.read_shards(output))


def test_a_folder_without_extraction_gives_no_observables(tmp_path, refused):
    with refused(tmp_path, plan.PLAN):
        reduce_(tmp_path)
    with refused("extraction", "empty"):
        reduce_([])


def test_extractions_that_do_not_fit_together_are_refused(structured, shuffled, tmp_path, refused):
    other = tmp_path / "other"
    shutil.copytree(shuffled, other)
    planned = plan.read_plan(other)
    planned["recipe"]["seed"] = planned["request"]["seed"] = 1
    plan.save_plan(other, planned)
    with refused("seed", "0", "1"):
        reduce_([structured, other])


# Observables


@pytest.fixture(scope="module")
def observed(structured, shuffled):
    return reduce_([str(structured), str(shuffled)])


def test_observables_have_the_fixed_names_and_dimensions(observed):
    outer = ("model", "shuffle_level", "prompt")
    assert {name: variable.dims for name, variable in observed.data_vars.items()} == {
        name: outer + inner for name, inner in DIMENSIONS.items()
    }
    assert dict(observed.sizes) == {
        "model": 1,
        "shuffle_level": 3,
        "prompt": 3,
        "layer": 31,
        "layer_other": 31,
        "scale": 8,
        "k": 31,
        "angle": 36,
        "subset": 2,
        "n_subset": 1,
        "coordinate": 576,
    }
    assert observed["scale"].values.tolist() == [2, 4, 8, 16, 32, 64, 128, 256]
    assert observed["k"].values.tolist() == list(range(1, 32))
    assert observed["model"].values.tolist() == ["smollm2-135m"]
    np.testing.assert_allclose(observed["relative_depth"].sel(model="smollm2-135m"), np.arange(31) / 30)


def test_observables_say_what_they_are_and_what_made_them(observed):
    bare = [name for name, v in observed.data_vars.items() if not {"long_name", "units"} <= {*v.attrs}]
    assert bare == []
    assert {"Conventions", "versions", "models", "dtype", "seed", "recipe"} <= observed.attrs.keys()
    assert json.loads(observed.attrs["models"])["smollm2-135m"]["sha256"].startswith("b179c9523d")


def test_observables_say_how_layers_are_counted_and_what_the_prompts_had_to_pass(observed):
    counted = json.loads(observed.attrs["layer_index_map"])
    assert counted["layer L"] == "the same, after the final norm"
    assert [row["call_upto"] for row in counted["map"]] == ["0", "l", "none", "none"]
    passed = json.loads(observed.attrs["prompt_filter"])
    ids = observed["prompt"].values.tolist()
    assert [one["prompts"] for one in passed] == [ids, ids[:2]]
    assert [(one["n_examined"], one["n_too_short"]) for one in passed] == [(3, 0), (2, 0)]
    assert all(one["n_tokens_at_least"] == 144 and one["tokenizers"] == ["smollm2-135m"] for one in passed)
    run = declaration.load("ci")
    text = prose.basis(RunResults(run=run, observables=observed)).data
    assert "Of 3 texts that were examined, none had fewer tokens" in text
    assert all(markup.escaped(key) in text for key in ids)


def test_structured_and_shuffled_prompts_are_merged_and_missing_ones_are_nan(observed):
    assert observed["shuffle_level"].values.tolist() == [0, 1, 2]
    there = np.isfinite(observed["loss"].sel(model="smollm2-135m"))
    np.testing.assert_array_equal(there, [[1, 1, 1], [1, 1, 0], [1, 1, 0]])
    inner = observed["cosine_similarity"].sel(model="smollm2-135m")
    np.testing.assert_array_equal(np.isfinite(inner).all("layer"), there)
    np.testing.assert_array_equal(np.isfinite(inner).any("layer"), there)


def test_merging_changes_no_number(observed, structured, shuffled):
    for directory in (structured, shuffled):
        alone = reduce_(directory)
        xr.testing.assert_equal(observed.reindex_like(alone)[list(alone.data_vars)], alone)


def test_observables_survive_writing_and_reading(observed, tmp_path):
    store.write(observed, tmp_path / "observables.nc")
    xr.testing.assert_identical(store.read(tmp_path / "observables.nc"), observed)


def test_shares_lie_between_zero_and_one(observed):
    for name in ("neighborhood_overlap", "reciprocity", "layer_overlap"):
        values = observed[name].values[np.isfinite(observed[name].values)]
        assert values.size and values.min() >= 0 and values.max() <= 1
    diagonal = observed["layer_overlap"].sel(shuffle_level=0).isel(model=0, prompt=0)
    np.testing.assert_array_equal(np.diag(diagonal), 1)


@pytest.mark.model
def test_files_that_no_extraction_has_written_are_left_alone(tmp_path):
    request = {"model": "smollm2-135m", "corpus": "sotu", "n_tokens": 64, "output": str(tmp_path)}
    extraction.extract(Extraction(n_prompts=2, **request))
    (tmp_path / "mine.nc").write_bytes(b"mine")
    two = {path.name for path in tmp_path.glob("*.nc")}
    extraction.extract(Extraction(n_prompts=1, **request))
    assert {path.name for path in tmp_path.glob("*.nc")} == two
    extraction.extract(Extraction(n_prompts=1, overwrite=True, **request))
    extraction.extract(Extraction(n_prompts=1, seed=1, overwrite=True, **request))
    assert (tmp_path / "mine.nc").read_bytes() == b"mine"


def test_a_plan_that_is_damaged_says_how_to_go_on(tmp_path, refused):
    (tmp_path / plan.PLAN).write_text("{}")
    with refused("is damaged", "delete it"):
        plan.read_plan(tmp_path)


def test_a_negative_seed_is_refused_before_anything_is_loaded(tmp_path, refused):
    with refused("seed is -1; accepted: 0 or more"):
        extraction.extract(Extraction(model="smollm2-135m", corpus="sotu", output=str(tmp_path / "x"), seed=-1))
