"""Public measurement of an array of points."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr

import token_geometry
from token_geometry.geometry import manifolds
from token_geometry.observables import catalog, labelled, tables


def clouds(dtype=np.float64):
    """Three layers of 300 points of 1, 3 and 6 dimensions, with three repeated points in the first."""
    points = np.stack([manifolds.sample("torus", dimension=d, n_points=300, seed=0) for d in (1, 3, 6)])
    points[0, 200:203] = points[0, :3]
    return points.astype(dtype)


def test_an_array_of_points_has_every_observable_that_needs_no_model_with_name_and_unit():
    found = token_geometry.measure(clouds())
    assert set(found.data_vars) == {
        "intrinsic_dimension", "intrinsic_dimension_error", "neighbor_distance", "neighborhood_overlap",
        "cosine_similarity", "cosine_similarity_std", "neighbor_angle", "neighbor_angle_histogram", "reciprocity",
        "layer_overlap", "n_points", "ess", "tle", "subset_dimension", "subset_distance",
    }  # fmt: skip
    assert found.sizes["layer"] == 3 and found["scale"].values.tolist() == [2, 4, 8, 16, 32, 64, 128, 256]
    assert all(variable.attrs["long_name"] and variable.attrs["units"] for variable in found.variables.values())
    assert found["neighbor_angle"].attrs["units"] == "degree"
    assert all(found[name].dims == catalog.CATALOG[name].dims for name in found.data_vars)
    assert found["n_points"].values.tolist() == [297, 300, 300]
    assert found["intrinsic_dimension"].sel(scale=2).values == pytest.approx([1, 3, 6], rel=0.25)
    for name in ("ess", "tle"):  # they take the bend of a torus of few points for further dimensions
        assert (np.abs(np.log(found[name].values / [1.1, 3.8, 9.5])) < 0.1).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_arrays_and_tensors_of_every_floating_type_give_the_same(dtype):
    tensor = torch.from_numpy(clouds()).to(dtype).requires_grad_()
    expected = token_geometry.measure(tensor.detach().double().numpy())
    xr.testing.assert_allclose(token_geometry.measure(tensor), expected, rtol=1e-5, atol=2e-4)


def test_odd_arrays_give_what_plain_ones_give():
    points = clouds(np.float32)
    expected = token_geometry.measure(points)
    for odd in (points[:, ::-1][:, ::-1], points.astype(">f4"), np.asfortranarray(points), points.tolist()):
        xr.testing.assert_allclose(token_geometry.measure(odd), expected, rtol=1e-5, atol=2e-4)
    points.flags.writeable = False
    xr.testing.assert_identical(token_geometry.measure(points), expected)


def test_one_layer_gives_what_it_gives_among_others_but_for_what_compares_layers():
    among = token_geometry.measure(clouds()).isel(layer=1, drop=True)
    alone = token_geometry.measure(clouds()[1])
    xr.testing.assert_identical(alone, among.drop_vars(["neighborhood_overlap", "layer_overlap", "layer_other"]))


def test_layers_may_have_names():
    found = token_geometry.measure(clouds(), layers=["first", "middle", "last"])
    assert found["layer"].values.tolist() == found["layer_other"].values.tolist() == ["first", "middle", "last"]


def test_measuring_the_states_of_a_prompt_gives_the_observables_of_its_shard(readings):
    for reading in readings:
        measured = token_geometry.measure(reading.hidden)
        for name, values in catalog.observables(reading.shard, of_model=False).items():
            np.testing.assert_allclose(measured[name], values, rtol=1e-4, atol=1e-6)


def test_states_that_are_one_but_for_rounding_have_no_estimate_and_count_as_one_point():
    points = clouds(np.float32)
    points[1] = points[1, 0] * (1 + 8 * np.finfo(np.float32).eps * np.random.default_rng(0).normal(size=(300, 64)))
    found = token_geometry.measure(points)
    assert found["n_points"].values.tolist() == [297, 1, 300]
    assert found["intrinsic_dimension"].isnull().all("scale").values.tolist() == [False, True, False]
    assert found["cosine_similarity"].values[1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros(5), ["shape (5,)", "(layer, token, width)"]),
        (np.zeros((1, 2, 3, 4)), ["shape (1, 2, 3, 4)", "torch.cat"]),
        (np.zeros((4, 5), dtype=int), ["int64", "astype"]),
        (np.zeros((4, 5), dtype=complex), ["complex128"]),
        (np.zeros((4, 5), dtype=bool), ["bool"]),
        (np.array([[None, 1.0]]), ["object"]),
        ([[1.0, 2.0], [3.0]], ["rows of several lengths"]),
        ("points.npy", ["<U10"]),
        (torch.zeros(4, 5, dtype=torch.int32), ["torch.int32", "float()"]),
        (torch.zeros(4, 5, dtype=torch.complex64), ["torch.complex64"]),
        (torch.zeros(4, 5).to_sparse(), ["sparse", "to_dense()"]),
        (np.zeros((3, 1, 5)), ["1 tokens", "2 or more"]),
        (np.zeros((0, 4, 5)), ["0 layers", "1 or more"]),
        (np.zeros((4, 0)), ["0 coordinates"]),
        (np.full((1, 3, 2), np.nan), ["layer 0, token 0", "finite"]),
        (torch.tensor([[1.0, 2], [3, 4], [5, torch.inf]]), ["layer 0, token 2", "finite"]),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_refused_in_one_line(points, words, refused):
    with refused(*words):
        token_geometry.measure(points)


@pytest.mark.parametrize("layers", [[1, 2], [1, 1, 2], "abcd", 3])
def test_layers_that_do_not_fit_are_refused(layers, refused):
    with refused("layers is", "3 different"):
        token_geometry.measure(clouds(), layers=layers)


@pytest.mark.slow
def test_importing_the_package_imports_no_torch():
    code = "import sys, token_geometry; assert 'torch' not in sys.modules; print(token_geometry.measure.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "measure"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = token_geometry.nothing


def test_more_tokens_than_small_integers_count_keep_their_neighbors():
    short, long = (tables.tables(torch.randn(1, n, 2)) for n in (20, 60))
    assert short["neighbor_index"].dtype == np.int32 and long["neighbor_index"].dtype == np.uint16


def test_the_distance_of_a_scale_is_the_mean_of_both_neighbors_over_the_distinct_points():
    distance = np.array([[np.arange(1.0, 10), 3 * np.arange(1.0, 10), np.full(9, np.nan)]])
    shard = xr.Dataset({"neighbor_distance": (("layer", "token", "rank"), distance)})
    found = labelled.neighbor_distance(shard)["neighbor_distance"].values
    assert found.tolist() == [[(2 * rank + 2 * (rank + 1)) / 2 for rank in range(1, 9)]]


def test_what_a_shard_was_made_before_is_known_by_what_it_lacks():
    shard = xr.Dataset({"lens_entropy": ("token", np.zeros(4)), "ess": ("token", np.zeros(4))})
    found = labelled.not_taken(shard)
    assert "mean_state" in found and "tle" in found and not {"lens_entropy", "ess"} & {*found}
