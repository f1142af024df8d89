"""Integer non-linearities: tables against their definition, errors against float64."""

import math
from decimal import Decimal
from fractions import Fraction

import nonlinearity
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.integers.fixed_point import Multiplier, quantize_multiplier
from mu_ref.integers.nonlinear import center, exp2_weights, norm_multiplier, probabilities, turn
from mu_ref.integers.tables import TABLES, interpolate, make_tables, table, turn_steps


def test_the_shipped_tables_are_those_of_the_definition() -> None:
    made = make_tables()
    assert made.keys() == TABLES.keys()
    for name, values in made.items():
        assert table(name).tolist() == values


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("gate_silu", lambda x: 1 / (1 + math.exp(-x))),
        ("gate_gelu", lambda x: 0.5 * (1 + math.erf(x / math.sqrt(2)))),
        ("tanh", math.tanh),
        ("exp2", lambda x: 2.0**-x),
        ("rsqrt", lambda x: 1 / math.sqrt(x)),
        ("sine", lambda x: math.sin(2 * math.pi * x)),
        (
            "gate_gelu_tanh",
            lambda x: 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ),
    ],
)
def test_tables_agree_with_the_machine_s_library(name: str, function: object) -> None:
    """An independent computation; binary64 is good to well below one unit of the tables."""
    spec = TABLES[name]
    points = np.arange(spec.first, spec.last + 1) / spec.per_unit
    expected = [function(float(x)) * 2**spec.bits for x in points]  # type: ignore[operator]
    assert np.abs(table(name) - expected).max() <= 0.5 + 1e-5


@pytest.mark.parametrize("name", TABLES)
def test_the_last_two_points_of_a_table_have_a_line_between_them(name: str) -> None:
    before, last = table(name)[-2:].tolist()
    x = (len(table(name)) - 2) * 256 + np.array([0, 64, 255, 256])
    exact = [before + (last - before) * share / 256 for share in (0, 64, 255, 256)]
    assert interpolate(name, x, 8).tolist() == [math.floor(value + 0.5) for value in exact]


def test_a_table_is_read_between_its_points_by_hand() -> None:
    low, high = (int(v) for v in table("exp2")[:2])
    assert interpolate("exp2", np.array([0, 256]), 8).tolist() == [low, high]
    assert interpolate("exp2", np.array([64]), 8).tolist() == [
        math.floor(Fraction(3 * low + high, 4) + Fraction(1, 2))
    ]


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[int, np.ndarray]]:
    return nonlinearity.all_errors(np.random.default_rng(0))


# The second figure is what docs/integer.md states for 16 bits.
LARGEST_16 = {
    "gelu_tanh": 1.5, "gelu": 1.5, "silu": 1.5, "relu": 0.5, "softcap": 2.5, "softmax": 0.6,
    "norm rms": 0.6, "norm layer": 1.5, "rope": 1.1,
}  # fmt: skip


@pytest.mark.parametrize("name", LARGEST_16)
def test_errors_stay_below_what_the_chapter_says(
    name: str, errors: dict[str, dict[int, np.ndarray]]
) -> None:
    assert errors.keys() == LARGEST_16.keys()
    eight, sixteen = errors[name][8], errors[name][16]
    assert eight.size >= 256
    assert np.abs(eight).max() <= 1
    assert np.abs(eight).max() <= 0.55  # half a step is rounding to 8 bits itself
    assert np.abs(sixteen).max() <= LARGEST_16[name]


@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=9), st.floats(1e-5, 0.1))
def test_softmax_in_exact_integers(row: list[int], scale: float) -> None:
    by = quantize_multiplier(scale * math.log2(math.e) * 2**16)
    weights = exp2_weights(np.array([row]), np.ones((1, len(row)), bool), by)[0]
    points = table("exp2").tolist()
    for q, weight in zip(row, weights, strict=True):
        below = max(row) - q
        u = min((below * by.m + (1 << (30 - by.shift))) >> (31 - by.shift), 31 << 16)
        i, rest = divmod(u & 0xFFFF, 256)
        line = ((points[i] << 8) + (points[i + 1] - points[i]) * rest + 128) >> 8
        assert weight == line >> (u >> 16)
    total = int(weights.sum())
    for bits in (8, 15):
        expected = [math.floor(Fraction(int(w) << bits, total) + Fraction(total // 2, total))
                    for w in weights]  # fmt: skip
        assert probabilities(weights, bits).tolist() == expected


def test_softmax_of_a_row_without_keys_is_zero() -> None:
    by = quantize_multiplier(2.0**10)
    scores = np.array([[5, -7, 9]])
    weights = exp2_weights(scores, np.array([[False, False, False]]), by)
    assert weights.tolist() == [[0, 0, 0]]
    assert probabilities(weights, 8).tolist() == [[0, 0, 0]]
    masked = exp2_weights(scores, np.array([[True, False, True]]), by)
    alone = exp2_weights(scores[:, [0, 2]], np.ones((1, 2), bool), by)
    assert masked[0, [0, 2]].tolist() == alone[0].tolist()
    assert masked[0, 1] == 0


def test_rows_are_centred_and_weighed_each_by_itself() -> None:
    """Two rows whose sizes are far apart: the larger one shifts alone, and weighs alone."""
    rows = np.array([[[1, 2, 3], [30000, -30000, 0]], [[0, 0, 3], [-1, -2, -3]]])
    together, shifts = center(rows)
    by = quantize_multiplier(2.0**12)
    weights = exp2_weights(rows, np.ones((2, 2, 3), bool), by)
    for at in np.ndindex(2, 2):
        alone, shift = center(rows[at][None])
        assert together[at].tolist() == alone[0].tolist()
        assert shifts[at].tolist() == shift[0].tolist()
        one = exp2_weights(rows[at][None], np.ones((1, 3), bool), by)
        assert weights[at].tolist() == one[0].tolist()
    assert shifts[..., 0].tolist() == [[0, 2], [0, 0]]  # 3 * 30000 has 17 bits


@given(st.integers(1, 2**62 - 1), st.floats(1e-6, 1e4))
def test_the_inverse_root_is_good_to_2_to_the_minus_18(square_sum: int, static: float) -> None:
    by = norm_multiplier(np.array([square_sum]), quantize_multiplier(static))
    got = Decimal(int(by.m[0])) * Decimal(2) ** (int(by.shift[0]) - 31)
    exact = Decimal(static) / Decimal(square_sum).sqrt()
    assert abs(got / exact - 1) < Decimal(2) ** -18


def test_a_row_of_zeros_has_no_root() -> None:
    assert norm_multiplier(np.array([0]), Multiplier(2**30, 0)).m.tolist() == [0]


@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=12))
def test_the_mean_is_subtracted_exactly_up_to_the_shift(row: list[int]) -> None:
    centred, shift = center(np.array([row]))
    k = int(shift[0, 0])
    exact = [len(row) * x - sum(row) for x in row]
    expected = [(x + (1 << k >> 1)) >> k for x in exact]
    assert centred[0].tolist() == expected
    assert max(abs(x) for x in expected) <= 2**15


@pytest.mark.parametrize("theta", [10000.0, 30.0, 1.0, 123456.789])
@pytest.mark.parametrize("d_head", [2, 6, 64])
def test_a_turn_step_is_the_angle_of_one_position(theta: float, d_head: int) -> None:
    steps = turn_steps(theta, d_head)
    speeds = theta ** (-np.arange(0, d_head, 2) / d_head)
    np.testing.assert_allclose(steps / 2.0**64, speeds / (2 * np.pi), rtol=1e-13)


@given(st.integers(0, 2**64 - 1))
def test_cosine_and_sine_of_any_phase(phase: int) -> None:
    cos, sin = turn(np.array([phase], np.uint64))
    angle = 2 * math.pi * (phase / 2**64)
    assert abs(cos[0] - math.cos(angle) * 2**15) <= 0.52
    assert abs(sin[0] - math.sin(angle) * 2**15) <= 0.52


def test_quarters_of_a_turn_are_exact() -> None:
    cos, sin = turn(np.array([0, 1 << 62, 2 << 62, 3 << 62], np.uint64))
    one = 2**15
    assert cos.tolist() == [one, 0, -one, 0]
    assert sin.tolist() == [0, one, 0, -one]
