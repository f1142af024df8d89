"""Rotary positions by hand: angles, NTK's theta, the centre, and that differences alone count."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from mu_ref.config import StackConfig
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.rotation import Rotation
from mu_ref.presets import tiny


def small(**fields: Any) -> StackConfig:
    return replace(tiny().stacks["decoder"], **fields)


def valid(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def test_position_one_turns_the_first_pair_by_one_radian() -> None:
    turn = Rotation(np.array([[0, 1]]), np.array([10000.0]), 4)
    assert turn.cos.shape == turn.sin.shape == (1, 2, 2)
    np.testing.assert_array_equal(turn.cos[0, 0], [1, 1])
    np.testing.assert_array_equal(turn.sin[0, 0], [0, 0])
    # pair i turns by theta ** (-2 i / d): 1 and 10000 ** -0.5 = 0.01
    np.testing.assert_allclose(turn.cos[0, 1], [0.5403023058681398, 0.9999500004166653], rtol=1e-15)
    np.testing.assert_allclose(turn.sin[0, 1], [0.8414709848078965, 0.009999833334166664])


def test_the_first_half_is_paired_with_the_second() -> None:
    ops = ReferenceOps({}, np.float64)
    turn = Rotation(np.array([[1]]), np.array([1.0]), 4)  # theta 1: every pair turns one radian
    x = np.array([[[[1.0, 2.0, 3.0, 4.0]]]])  # pairs are (1, 3) and (2, 4)
    c, s = math.cos(1), math.sin(1)
    expected = [[[[c - 3 * s, 2 * c - 4 * s, 3 * c + s, 4 * c + 2 * s]]]]
    np.testing.assert_allclose(ops.rope(x, turn, ""), expected, rtol=1e-15)


def test_a_turn_by_one_radian_by_hand() -> None:
    ops = ReferenceOps({}, np.float64)
    turn = Rotation(np.array([[1]]), np.array([10000.0]), 2)
    y = ops.rope(np.array([[[[1.0, 0.0]]]]), turn, "")
    np.testing.assert_allclose(y, [[[[math.cos(1), math.sin(1)]]]], rtol=1e-15)


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-50, 50), seeds)
def test_scores_depend_on_differences_of_positions_only(m: int, n: int, by: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, 1, 1, 1, 6))
    ops = ReferenceOps({}, np.float64)

    def score(at_q: int, at_k: int) -> float:
        theta = np.array([10000.0])
        turned = [
            ops.rope(x, Rotation(np.array([[p]]), theta, 6), "") for x, p in ((q, at_q), (k, at_k))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(m, n) == pytest.approx(score(m + by, n + by), abs=1e-12)
    size = np.linalg.norm(ops.rope(q, Rotation(np.array([[m]]), np.array([10000.0]), 6), ""))
    assert size == pytest.approx(np.linalg.norm(q), rel=1e-12)


# -- positions -------------------------------------------------------------------------------------


def test_positions_from_the_start_count_tokens() -> None:
    stack = small(rope_origin="start", rope_length="row")
    assert positions_of(stack, valid("####", "##..")).tolist() == [[0, 1, 2, 3], [0, 1, 1, 1]]


def test_centred_positions_of_four_and_five_tokens() -> None:
    stack = small(rope_origin="centre", rope_length="row")
    assert positions_of(stack, valid("####")).tolist() == [[-1, 0, 1, 2]]
    assert positions_of(stack, valid("#####")).tolist() == [[-2, -1, 0, 1, 2]]
    assert positions_of(stack, valid("#")).tolist() == [[0]]


def test_padding_moves_the_centre_only_where_the_padded_length_counts() -> None:
    row = small(rope_origin="centre", rope_length="row")
    padded = small(rope_origin="centre", rope_length="padded")
    assert positions_of(row, valid("###.."))[0, :3].tolist() == [-1, 0, 1]
    assert positions_of(padded, valid("###.."))[0].tolist() == [-2, -1, 0, 1, 2]


def test_lengths_are_counted_by_row_or_by_rectangle() -> None:
    marks = valid("###..", "#####")
    assert rope_lengths(small(rope_length="row"), marks).tolist() == [3, 5]
    assert rope_lengths(small(rope_length="padded"), marks).tolist() == [5, 5]


# -- NTK -------------------------------------------------------------------------------------------


def test_theta_is_the_nearest_float_on_every_processor() -> None:
    """1.8^(4/3) is 2.18959271840642368 to 18 digits; NumPy's power misses its last bit on some."""
    stack = small(rope_theta=500.0, rope_ntk_factor=4.0, rope_base_len=5, d_head=8)
    assert rope_theta(stack, np.array([6])).tolist() == [1094.796359203212]


def test_theta_stays_until_the_base_length_and_grows_beyond() -> None:
    stack = small(rope_theta=100.0, rope_ntk_factor=2.0, rope_base_len=4, d_head=4)
    theta = rope_theta(stack, np.array([1, 4, 8, 6]))
    # (s L / L0 - (s - 1)) ** (d / (d - 2)): L = 8 gives 2 * 2 - 1 = 3, squared 9;
    # L = 6 gives 2 * 1.5 - 1 = 2, squared 4
    np.testing.assert_allclose(theta, [100.0, 100.0, 900.0, 400.0], rtol=1e-15)


def test_the_exponent_of_theta_follows_the_width_of_a_head() -> None:
    stack = small(rope_theta=10.0, rope_ntk_factor=4.0, rope_base_len=2, d_head=6)
    # L = 6: 4 * 3 - 3 = 9, to the power 6 / 4: 27
    np.testing.assert_allclose(rope_theta(stack, np.array([6])), [270.0], rtol=1e-14)


def test_a_factor_of_one_leaves_theta() -> None:
    stack = small(rope_theta=100.0, rope_ntk_factor=1.0, rope_base_len=1)
    assert rope_theta(stack, np.array([1, 50])).tolist() == [100.0, 100.0]
