"""Our integers equal ONNX's: QuantizeLinear, DequantizeLinear, MatMulInteger and QLinearMatMul.

The first three are compared with `onnx.reference`. QLinearMatMul is compared with the words of its
specification, in exact fractions, because `onnx.reference` rounds ties wrongly there (last tests).
"""

import math
from fractions import Fraction

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from parity.onnx_nodes import our_accumulator, our_qlinear_matmul

from mu_ref.integers.fixed_point import dequantize, integer_range, quantize

OPSET = 23  # the first with QuantizeLinear's `precision`
TYPES = {"int8": (8, True), "uint8": (8, False), "int16": (16, True)}
types = st.sampled_from(sorted(TYPES))


def onnx_run(op: str, *inputs: np.ndarray, **attributes: int) -> np.ndarray:
    """Run one operator of `onnx.reference`."""
    names = [f"x{i}" for i in range(len(inputs))]
    node = onnx.helper.make_node(op, names, ["y"], **attributes)
    info = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), None)
        for n, x in zip(names, inputs, strict=True)
    ]
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UNDEFINED, None)
    graph = onnx.helper.make_graph([node], op, info, [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    return ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))[0]


def any_of(data: st.DataObject, dtype: str) -> int:
    bits, signed = TYPES[dtype]
    low, high = integer_range(bits, signed=signed)
    return data.draw(st.one_of(st.integers(low, high), st.sampled_from([low, 0, high])))


# -- the border ------------------------------------------------------------------------------------


@given(st.data(), types, st.integers(-12, 12))
def test_quantizing_ties_equals_quantize_linear(data, dtype: str, exponent: int) -> None:
    """Halves of a power of two: exact in float32, and every other one is a tie."""
    (bits, signed), z = TYPES[dtype], any_of(data, dtype)
    halves = data.draw(st.lists(st.integers(-(2**17), 2**17), min_size=1, max_size=9))
    scale = np.float32(2.0**exponent)
    x = np.array(halves, np.float32) / 2 * scale
    ours = quantize(x, scale, z, bits, signed=signed)
    theirs = onnx_run("QuantizeLinear", x, scale, np.array(z, dtype))
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@given(st.data(), types, st.floats(2.0**-20, 2.0**20, width=32))
def test_quantizing_any_number_equals_quantize_linear(data, dtype: str, scale: float) -> None:
    """ONNX divides in the type of the scale unless told otherwise; we always divide in float64."""
    (bits, signed), z = TYPES[dtype], any_of(data, dtype)
    steps = data.draw(st.lists(st.floats(-(2.0**17), 2.0**17, width=32), min_size=1, max_size=9))
    x = np.array(steps, np.float32) * np.float32(scale)
    inputs = (x, np.float32(scale), np.array(z, dtype))
    ours = quantize(x, np.float32(scale), z, bits, signed=signed)
    theirs = onnx_run("QuantizeLinear", *inputs, precision=onnx.TensorProto.DOUBLE)
    np.testing.assert_array_equal(ours, theirs)
    single = onnx_run("QuantizeLinear", *inputs).astype(np.int64)
    assert np.abs(ours - single).max() <= 1  # a quotient that float32 rounds onto a tie


@given(st.data(), types)
def test_quantizing_channels_equals_quantize_linear(data, dtype: str) -> None:
    bits, signed = TYPES[dtype]
    n = data.draw(st.integers(1, 3))
    scale = np.array([2.0 ** data.draw(st.integers(-9, 9)) for _ in range(n)], np.float32)
    z = np.array([any_of(data, dtype) for _ in range(n)], dtype)
    halves = data.draw(st.lists(st.integers(-600, 600), min_size=2 * n, max_size=2 * n))
    x = np.array(halves, np.float32).reshape(n, 2) / 2 * scale[:, None]
    ours = quantize(x, scale[:, None], z[:, None], bits, signed=signed)
    np.testing.assert_array_equal(ours, onnx_run("QuantizeLinear", x, scale, z, axis=0))


@given(st.data(), types, st.floats(2.0**-20, 2.0**20, width=32))
def test_dequantizing_equals_dequantize_linear(data, dtype: str, scale: float) -> None:
    """Our float64 product is exact, so one rounding to float32 gives ONNX's float32 product."""
    q = np.array([any_of(data, dtype) for _ in range(5)], dtype)
    z = any_of(data, dtype)
    ours = dequantize(q, np.float32(scale), z)
    theirs = onnx_run("DequantizeLinear", q, np.float32(scale), np.array(z, dtype))
    assert theirs.dtype == np.float32
    np.testing.assert_array_equal(ours.astype(np.float32), theirs)


# -- matrices --------------------------------------------------------------------------------------


def specified(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero) -> list[list[int]]:
    """State QLinearMatMul: (A - z_a)(B - z_b) s_a s_b / s_y, ties to even, plus z_y, clipped."""
    d = Fraction(a_scale) * Fraction(b_scale) / Fraction(y_scale)
    columns = [*zip(*b.tolist(), strict=True)]
    return [
        [
            min(
                max(
                    round(d * sum((p - a_zero) * (q - b_zero) for p, q in zip(r, c, strict=True)))
                    + y_zero,
                    -128,
                ),
                127,
            )
            for c in columns
        ]
        for r in a.tolist()
    ]


int8s = st.one_of(st.integers(-128, 127), st.sampled_from([-128, 127]), st.integers(-3, 3))


@st.composite
def matrices(draw) -> tuple[np.ndarray, int, np.ndarray, int]:
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    a = draw(st.lists(int8s, min_size=m * k, max_size=m * k))
    b = draw(st.lists(int8s, min_size=k * n, max_size=k * n))
    return (
        np.array(a, np.int8).reshape(m, k),
        draw(int8s),
        np.array(b, np.int8).reshape(k, n),
        draw(int8s),
    )


@given(matrices())
def test_the_accumulator_equals_matmul_integer(inputs) -> None:
    a, a_zero, b, b_zero = inputs
    theirs = onnx_run("MatMulInteger", a, b, np.int8(a_zero), np.int8(b_zero))
    assert theirs.dtype == np.int32
    np.testing.assert_array_equal(our_accumulator(*inputs), theirs)


@given(matrices(), st.integers(-10, 6), st.integers(-4, 4), st.integers(-4, 4), int8s)
@example((np.array([[5]], np.int8), 0, np.array([[1]], np.int8), 0), -1, 0, 0, 3)
def test_requantizing_half_even_equals_the_specification_of_qlinear_matmul(
    inputs, exponent: int, i: int, j: int, y_zero: int
) -> None:
    """Scales are powers of two: the multiplier is exact, and many products are ties."""
    a, a_zero, b, b_zero = inputs
    a_scale, b_scale = 2.0**i, 2.0**j
    y_scale = a_scale * b_scale / 2.0**exponent
    arguments = (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)
    assert our_qlinear_matmul(*arguments).tolist() == specified(*arguments)


@given(matrices(), st.floats(2.0**-12, 1.0), int8s)
def test_a_rounded_multiplier_is_off_by_at_most_one(inputs, d: float, y_zero: int) -> None:
    """The 31 bits of m move a product by less than 2^-12 of a step: only near a tie is it seen."""
    a, a_zero, b, b_zero = inputs
    arguments = (a, d, a_zero, b, 1.0, b_zero, 1.0, y_zero)
    difference = our_qlinear_matmul(*arguments).astype(int) - np.array(specified(*arguments))
    exact = our_accumulator(*inputs) * d
    from_tie = np.abs(exact - np.floor(exact) - 0.5)
    assert not difference[from_tie > 2.0**-12].any()
    assert np.abs(difference).max() <= 1


# -- the known error of ONNX's own reference -------------------------------------------------------


def test_the_reference_of_qlinear_matmul_adds_the_zero_point_before_it_rounds() -> None:
    """5/2 with zero point 3: the specification rounds to 2 and adds 3; onnx.reference says 6.

    If this fails, ONNX has been mended: compare `our_qlinear_matmul` with it directly.
    """
    a, b = np.array([[5]], np.int8), np.array([[1]], np.int8)
    one, two, zero, three = np.float32(1), np.float32(2), np.int8(0), np.int8(3)
    theirs = onnx_run("QLinearMatMul", a, one, zero, b, one, zero, two, three)
    ours = our_qlinear_matmul(a, 1.0, 0, b, 1.0, 0, 2.0, 3)
    assert specified(a, 1.0, 0, b, 1.0, 0, 2.0, 3) == [[5]]
    assert ours.tolist() == [[5]]
    assert theirs.tolist() == [[6]]
    # QuantizeLinear, whose words are the same, rounds first
    assert onnx_run("QuantizeLinear", np.array([2.5], np.float32), one, three).tolist() == [5]


@pytest.mark.parametrize("y_zero", [-4, -3, 0, 2, 3])
def test_the_reference_is_wrong_for_ties_and_odd_zero_points_only(y_zero: int) -> None:
    products = np.arange(-9, 10, dtype=np.int8)[:, None]
    one, two, zero = np.float32(1), np.float32(2), np.int8(0)
    b = np.array([[1]], np.int8)
    theirs = onnx_run("QLinearMatMul", products, one, zero, b, one, zero, two, np.int8(y_zero))
    ours = our_qlinear_matmul(products, 1.0, 0, b, 1.0, 0, 2.0, y_zero)
    differ = (ours != theirs)[:, 0]
    ties = products[:, 0] % 2 == 1
    assert differ.tolist() == (ties & (y_zero % 2 == 1)).tolist()
    assert math.isclose(np.abs(ours - theirs)[differ].sum(), differ.sum())  # off by one
