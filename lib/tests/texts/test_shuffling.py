"""Block shuffles: what a level permutes, and what decides the order."""

import hashlib

import numpy as np
import pytest

from token_geometry.texts import shuffling


def checksum(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_level_1_permutes_four_blocks_and_keeps_the_order_inside():
    tokens = np.arange(16)
    shuffled = shuffling.shuffle_blocks(tokens, np.array([2, 0, 3, 1]))
    assert shuffled.tolist() == [8, 9, 10, 11, 0, 1, 2, 3, 12, 13, 14, 15, 4, 5, 6, 7]


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4, 5])
def test_level_s_permutes_4_to_the_s_blocks(level):
    permutation = shuffling.block_permutation(level, seed=0, text_sha256=checksum("text"))
    assert sorted(permutation) == list(range(4**level))
    tokens = np.arange(1024)
    shuffled = shuffling.shuffle_blocks(tokens, permutation)
    blocks = shuffled.reshape(4**level, -1)
    assert (np.diff(blocks, axis=1) == 1).all()
    assert (blocks[:, 0] == permutation * (1024 // 4**level)).all()


def test_level_0_is_the_identity():
    tokens = np.arange(64)
    permutation = shuffling.block_permutation(0, seed=3, text_sha256=checksum("text"))
    assert (shuffling.shuffle_blocks(tokens, permutation) == tokens).all()


def test_a_shuffle_is_decided_by_seed_level_and_text_alone():
    def shuffle(level=3, seed=0, text="text"):
        return shuffling.block_permutation(level, seed=seed, text_sha256=checksum(text)).tolist()

    assert shuffle() == shuffle()
    assert shuffle() != shuffle(seed=1)
    assert shuffle() != shuffle(text="another text")
    assert shuffle()[:16] != shuffle(level=2)


def test_blocks_go_everywhere():
    # over 400 texts each of 4 blocks comes first 100 times, within five deviations
    first = [shuffling.block_permutation(1, seed=0, text_sha256=checksum(str(text)))[0] for text in range(400)]
    assert (np.abs(np.bincount(first, minlength=4) - 100) < 5 * np.sqrt(400 * 3 / 16)).all()


@pytest.mark.parametrize("level, n_tokens", [(1, 1022), (5, 512), (6, 1024)])
def test_a_level_whose_blocks_do_not_divide_the_prompt_is_refused(level, n_tokens, refused):
    with refused("shuffle_levels", f"n_tokens = {n_tokens}", "accepted: 0 to"):
        shuffling.check_shuffle_levels([0, level], n_tokens)
    shuffling.check_shuffle_levels([0, 1, 5], 1024)


@pytest.mark.parametrize("level", [-1, 10_000, 10**9])
def test_a_level_far_from_any_prompt_is_refused_at_once(level, refused):
    with refused("shuffle_levels", str(level), "accepted: 0 to 5") as caught:
        shuffling.check_shuffle_levels([level], 1024)
    assert "multiple" not in str(caught.value)  # of which a prompt could have no tokens


def test_bleu_is_the_geometric_mean_of_the_shares_of_runs_that_are_kept():
    tokens = np.array([1, 2, 3, 4, 5, 6, 7, 8])
    assert shuffling.bleu(tokens, tokens) == 1
    halves = shuffling.shuffle_blocks(tokens, np.array([1, 0]))  # 5 6 7 8 1 2 3 4
    assert shuffling.bleu(halves, tokens) == pytest.approx((1 * 6 / 7 * 4 / 6 * 2 / 5) ** 0.25)
    assert shuffling.bleu(tokens[::-1], tokens) == 0
    assert shuffling.bleu(np.array([1, 2, 3, 4]), np.array([1, 2, 8, 9]), n=1) == 0.5
    # 1 1 occurs twice here and once there
    assert shuffling.bleu(np.array([1, 1, 1, 2]), np.array([1, 1, 2, 1]), n=2) == pytest.approx((1 * 2 / 3) ** 0.5)


def test_bleu_falls_with_the_level_and_knows_the_order_from_the_permutation():
    tokens = np.random.default_rng(0).integers(0, 300, 1024)
    found = []
    for level in range(6):
        permutation = shuffling.block_permutation(level, seed=0, text_sha256=checksum("text"))
        shuffled = shuffling.shuffle_blocks(tokens, permutation)
        assert (shuffling.shuffle_blocks(shuffled, permutation.argsort()) == tokens).all()
        found.append(shuffling.bleu(shuffled, tokens))
    assert found[0] == 1 and sorted(found, reverse=True) == found and found[4] > 0.2 > found[5]
