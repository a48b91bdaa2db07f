"""Neighbor tables against brute force in float64, and where floating point is against them."""

import numpy as np
import pytest
import torch

from token_geometry.geometry import neighbors


def brute_force_squared(points):
    """Squared distances from differences, float64."""
    points = np.asarray(points, dtype=np.float64)
    return np.square(points[:, None] - points[None]).sum(-1)


def attention_sink_cloud(dtype=np.float32):
    """300 tokens: one of norm 1e5, and 50 that lie 1e-4 from another one."""
    random = np.random.default_rng(0)
    cloud = random.normal(size=(300, 64))
    cloud[0] *= 1e5 / np.linalg.norm(cloud[0])
    shift = random.normal(size=(50, 64))
    cloud[200:250] = cloud[100:150] + 1e-4 * shift / np.linalg.norm(shift, axis=1, keepdims=True)
    return cloud.astype(dtype)


def table_of(cloud):
    """The neighbor table of a cloud, without its layer dimension."""
    table = neighbors.neighbor_table(torch.as_tensor(cloud)[None])
    return [part[0] for part in (table.distance, table.index, table.distinct, table.angle)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distances_keep_their_digits_beside_an_attention_sink(dtype):
    cloud = attention_sink_cloud(dtype)
    expected = brute_force_squared(cloud)
    found = neighbors.squared_distances(torch.from_numpy(cloud)).numpy()
    assert expected[100, 200] == pytest.approx(1e-8, rel=1e-2)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=0)
    # some processors add the two halves of a product in different orders
    np.testing.assert_allclose(found, found.T, rtol=1e-9, atol=0)


def test_distances_keep_their_digits_far_from_the_origin():
    # a common offset, as the mean of deep layers is, cancels
    cloud = np.random.default_rng(1).normal(size=(200, 32)) + 1e4
    found = neighbors.squared_distances(torch.from_numpy(cloud)).numpy()
    np.testing.assert_allclose(found, brute_force_squared(cloud), rtol=1e-9, atol=0)


def test_bfloat16_states_have_the_distances_of_their_values():
    cloud = torch.from_numpy(attention_sink_cloud()).bfloat16()
    found = neighbors.squared_distances(cloud).numpy()
    np.testing.assert_allclose(found, brute_force_squared(cloud.double()), rtol=1e-9, atol=0)


def test_equal_points_are_at_distance_zero_wherever_they_stand():
    cloud = attention_sink_cloud()
    cloud = np.concatenate([cloud, cloud[:120]])
    found = neighbors.squared_distances(torch.from_numpy(cloud)).numpy()
    np.testing.assert_array_equal(found == 0, brute_force_squared(cloud) == 0)


def test_table_holds_the_distances_of_its_ranks_and_the_32_nearest_tokens():
    cloud = attention_sink_cloud()
    distances = np.sqrt(brute_force_squared(cloud))
    np.fill_diagonal(distances, np.inf)
    distance, index, distinct, _ = table_of(cloud)
    assert neighbors.RANKS == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    ranked = np.sort(distances, axis=1)
    np.testing.assert_allclose(distance, ranked[:, np.array(neighbors.RANKS) - 1], rtol=1e-9)
    np.testing.assert_array_equal(index, np.argsort(distances, axis=1)[:, :32])
    assert distinct.all()


def test_no_token_is_its_own_neighbor():
    cloud = np.random.default_rng(2).normal(size=(100, 3))
    for points in (cloud, np.concatenate([cloud, cloud]), np.zeros((60, 3))):
        index = table_of(points)[1]
        assert (index != np.arange(len(points))[:, None]).all()


def test_among_equal_distances_the_lower_index_comes_first():
    line = np.arange(40.0)[:, None]
    index = table_of(line)[1]
    assert index[20, :6].tolist() == [19, 21, 18, 22, 17, 23]
    assert index[0].tolist() == list(range(1, 33))
    assert table_of(np.zeros((50, 4)))[1][10].tolist() == [*range(10), *range(11, 33)]


@pytest.mark.parametrize("n_distinct", [35, 90, 400])
def test_repeated_tokens_tie_for_every_other_token_and_the_lower_index_comes_first(n_distinct):
    # repeats stand anywhere in the cloud; float64 rounding must not tell them apart
    random = np.random.default_rng(n_distinct)
    values = random.normal(size=(n_distinct, 576)).astype(np.float32)
    place = random.integers(n_distinct, size=1000)
    # distances are taken between values once, so that repeats tie exactly
    distances = brute_force_in_parts(values)[np.ix_(place, place)]
    np.fill_diagonal(distances, np.inf)
    expected = np.argsort(distances, axis=1, kind="stable")[:, :32]
    np.testing.assert_array_equal(table_of(values[place])[1], expected)


def brute_force_in_parts(points):
    return np.concatenate(
        [np.square(points[i : i + 1].astype(float) - points).sum(1)[None] for i in range(len(points))]
    )


def test_repeated_points_are_marked_and_counted_once_among_the_ranks():
    random = np.random.default_rng(3)
    values = random.normal(size=(300, 8))
    order = random.permutation(np.concatenate([np.arange(300), np.arange(100)]))
    distance, index, distinct, angle = table_of(values[order])
    first = [place == order.tolist().index(value) for place, value in enumerate(order)]
    np.testing.assert_array_equal(distinct, first)
    assert np.isnan(distance[~distinct]).all() and np.isnan(angle[~distinct]).all()
    alone = table_of(values[order][distinct])
    np.testing.assert_allclose(distance[distinct], alone[0], rtol=1e-9)
    np.testing.assert_allclose(angle[distinct], alone[3], atol=1e-6)
    # but the lists of the nearest keep them: the nearest point of a repeated one is its double
    repeated = np.flatnonzero(np.bincount(order)[order] == 2)
    np.testing.assert_array_equal(order[index[repeated, 0]], order[repeated])


def test_angle_is_the_one_between_the_vectors_to_the_two_nearest_points():
    square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.5], [9.0, 9.0]])
    assert table_of(square)[3][0] == pytest.approx(90, abs=1e-9)
    line = np.array([[0.0], [1.0], [3.0]])
    np.testing.assert_allclose(table_of(line)[3], [0, 180, 0], atol=1e-5)


@pytest.mark.parametrize("n_points", [1, 2, 20, 33])
def test_neighbors_that_a_short_prompt_has_not_are_minus_one(n_points):
    index = table_of(np.random.default_rng(4).normal(size=(n_points, 3)))[1]
    there = min(n_points - 1, 32)
    assert (index[:, :there] >= 0).all()
    assert (index[:, there:] == -1).all()


def test_ranks_that_a_short_prompt_has_not_are_missing():
    distance = table_of(np.random.default_rng(5).normal(size=(9, 3)))[0]
    np.testing.assert_array_equal(np.isfinite(distance[0]), [1, 1, 1, 1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_is_refused(value, refused):
    hidden = torch.zeros(3, 10, 4)
    hidden[2, 7, 1] = value
    with refused("layer 2", "token 7", "not finite", "float32"):
        neighbors.neighbor_table(hidden)


def test_every_layer_of_real_prompts_has_the_neighbors_of_brute_force(readings, clouds):
    for reading, layers in zip(readings, clouds, strict=True):
        for index, cloud in zip(reading.shard["neighbor_index"].values, layers, strict=True):
            np.testing.assert_array_equal(index, cloud.nearest)


def clouds_that_float32_cannot_decide():
    """Clouds on which neighbors by a Gram matrix in float32 are wrong, by name."""
    random = np.random.default_rng(7)
    cloud = random.normal(size=(300, 64))
    sink = cloud.copy()
    sink[0] = 1e5 * random.normal(size=64) / 8
    twins = cloud.copy()
    twins[150:] = twins[:150] + 1e-4 * random.normal(size=(150, 64))
    shell = random.normal(size=(300, 64))
    shell /= np.linalg.norm(shell, axis=1, keepdims=True)
    shell[0] = 0  # all others are at distance 1 but for rounding
    offset = cloud + 1e4
    clouds = {"sink": sink, "twins": twins, "shell": shell, "offset": offset}
    return {name: points.astype(np.float32) for name, points in clouds.items()}


@pytest.mark.parametrize("name", clouds_that_float32_cannot_decide())
def test_points_that_float32_cannot_decide_are_noticed_and_decided_as_in_float64(name):
    points = clouds_that_float32_cannot_decide()[name]
    table = neighbors.neighbor_table(torch.from_numpy(points)[None])
    exact = brute_force_squared(points) ** 0.5
    np.fill_diagonal(exact, np.inf)
    expected = exact.argsort(axis=1, kind="stable")[:, :32]
    assert table.redone[0] > 0
    np.testing.assert_array_equal(table.index[0], expected)
    nearest = np.sort(exact, axis=1)[:, [rank - 1 for rank in neighbors.RANKS]]
    np.testing.assert_allclose(table.distance[0], nearest, rtol=1e-4)

    # the same cloud by float32 alone, as one would write it
    norms = (points**2).sum(1)
    naive = norms[:, None] + norms - 2 * points @ points.T
    np.fill_diagonal(naive, np.inf)
    assert (naive.argsort(axis=1, kind="stable")[:, :32] != expected).any()


def test_a_distance_whose_digits_float32_loses_is_taken_in_float64_where_it_decides_no_neighbor():
    random = np.random.default_rng(3)
    points = random.normal(size=(300, 64))
    points[200:] = points[:100] + 3e-3 * random.normal(size=(100, 64))  # twins, far nearer than all others
    points = points.astype(np.float32)
    table = neighbors.neighbor_table(torch.from_numpy(points)[None])
    exact = brute_force_squared(points) ** 0.5
    np.fill_diagonal(exact, np.inf)
    np.testing.assert_allclose(table.distance[0][:, 0], exact.min(axis=1), rtol=1e-5)
    assert 200 <= table.redone[0]


def test_an_ordinary_cloud_is_decided_by_float32_but_for_few_points():
    points = torch.from_numpy(np.random.default_rng(8).normal(size=(1, 500, 64))).float()
    table = neighbors.neighbor_table(points)
    assert table.redone[0] < 100
    exact = brute_force_squared(points[0])
    np.fill_diagonal(exact, np.inf)
    np.testing.assert_array_equal(table.index[0], exact.argsort(axis=1, kind="stable")[:, :32])


def test_a_cloud_of_equal_points_has_one_distinct_point_and_no_distances():
    table = neighbors.neighbor_table(torch.ones(1, 50, 8))
    assert table.distinct[0].tolist() == [True] + [False] * 49
    assert np.isnan(table.distance).all() and np.isnan(table.angle).all()
    # all others are at distance zero: the lower index comes first
    assert table.index[0, 0].tolist() == list(range(1, 33))
    assert table.index[0, 5].tolist() == [0, 1, 2, 3, 4, *range(6, 33)]


def test_zero_and_minus_zero_are_the_same_point():
    cloud = torch.randn(40, 4)
    cloud[3], cloud[7] = torch.tensor([0.0, 1, 2, 3]), torch.tensor([-0.0, 1, 2, 3])
    assert np.flatnonzero(~neighbors.neighbor_table(cloud[None]).distinct[0]).tolist() == [7]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_points_that_are_one_but_for_rounding_are_counted_once(dtype, scale):
    # as a prompt of one token gives: the same vector at every place, but for the order of sums
    random = np.random.default_rng(9)
    noise = 1 + 8 * np.finfo(dtype).eps * random.normal(size=(300, 64))
    distance, index, distinct, angle = table_of((scale * random.normal(size=64) * noise).astype(dtype))
    assert np.flatnonzero(distinct).tolist() == [0]
    assert np.isnan(distance).all() and np.isnan(angle).all()
    assert index[5].tolist() == [0, 1, 2, 3, 4, *range(6, 33)]


def test_a_small_cloud_far_from_the_origin_is_no_rounding():
    cloud = np.random.default_rng(9).normal(size=(300, 64)).astype(np.float32)
    near, far = table_of(cloud), table_of(cloud + np.float32(2000))
    assert far[2].all()
    np.testing.assert_allclose(far[0], near[0], rtol=1e-2)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e22, 1e34])
def test_points_whose_squares_float32_does_not_hold_have_the_neighbors_of_brute_force(scale):
    cloud = np.random.default_rng(10).normal(size=(200, 16))
    expected, found = table_of(cloud), table_of((cloud * scale).astype(np.float32))
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0] * scale, rtol=1e-5)
    assert found[2].all()


def test_points_whose_squares_nothing_holds_are_refused(refused):
    with refused("overflow", "divide"):
        neighbors.neighbor_table(torch.full((1, 10, 4), 1e200, dtype=torch.float64) * torch.arange(10)[:, None])


@pytest.mark.parametrize("n_points", [127, 128, 129, 300])
def test_gram_matrices_made_by_halves_are_whole(n_points):
    points = np.random.default_rng(n_points).normal(size=(n_points, 20))
    found = neighbors.squared_distances(torch.from_numpy(points))
    np.testing.assert_allclose(found, brute_force_squared(points), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("n_points", [300, 40, 20])
def test_layers_done_at_once_as_on_a_gpu_equal_layers_done_one_by_one(n_points, dtype):
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, n_points, 48, generator=random).to(dtype)
    hidden[1] += 4
    hidden[2, 7] *= 100  # a token of huge norm
    hidden[3, 5] = hidden[3, 9]
    hidden[4] = hidden[4, 0]
    hidden[5, 3] = 0
    alone = zip(*map(neighbors._layer_table, hidden), strict=True)
    together = zip(*neighbors.layers_at_once(hidden), strict=True)
    bounds = {"angle": 1e-3, "ess": 1e-4, "tle": 1e-4, "distance": 2e-5, "part": 2e-5}
    for name, one, other in zip(neighbors.NeighborTable.__dataclass_fields__, alone, together, strict=True):
        if name != "redone":
            one, other = torch.stack(one), torch.stack(other)
            assert one.dtype == other.dtype or name in ("cosine", "cosine_std"), name
            np.testing.assert_allclose(
                other, one, rtol=bounds.get(name, 1e-6), atol=1e-2 * (name == "angle"), err_msg=name
            )


def test_clouds_of_three_points_have_the_order_of_float64():
    random = np.random.default_rng(0)
    for _ in range(60):
        first, step = random.normal(size=(2, 64))
        # two neighbors whose distances differ by what float32 makes of their coordinates
        cloud = np.stack([first, first + step, first + step[random.permutation(64)]]).astype(np.float32)
        expected = np.argsort(brute_force_squared(cloud)[0])[1:]
        assert table_of(cloud)[1][0, :2].tolist() == expected.tolist()
