"""Each integer operation against plain Python integers and exact fractions, on small shapes."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.errors import QuantizationError, WeightsError
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.store import IntegerModel
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.rotation import Rotation
from mu_ref.presets import tiny

SITE = "site"
scales = st.floats(1e-3, 0.1)


def executor(output: Encoding, rounding: Any = "tflite_single", **tensors: Any) -> IntegerOps:
    named = {f"{SITE}.{name}": array for name, array in tensors.items()}
    return IntegerOps(IntegerModel(tiny(), "w8a8", rounding, named, {SITE: output}))


def value(rows: Any, encoding: Encoding) -> Quantized:
    return Quantized(np.array(rows, f"i{encoding.bits // 8}"), encoding)


@st.composite
def encodings(draw: Any, bits: int | None = None) -> Encoding:
    bits = draw(st.sampled_from([8, 16])) if bits is None else bits
    return Encoding(bits, draw(scales), draw(st.integers(-128, 127)) if bits == 8 else 0)


@st.composite
def values(draw: Any, shape: tuple[int, ...], bits: int | None = None) -> Quantized:
    encoding = draw(encodings(bits))
    half = 2 ** (encoding.bits - 1)
    n = math.prod(shape)
    flat = draw(st.lists(st.integers(-half, half - 1), min_size=n, max_size=n))
    return value(np.array(flat).reshape(shape), encoding)


def multiplier(d: float) -> tuple[int, int]:
    """Restate the definition: a 31-bit m, ties away from zero, and a shift."""
    q, shift = math.frexp(d)
    m = math.floor(Fraction(q) * 2**31 + Fraction(1, 2))
    return (m // 2, shift + 1) if m == 2**31 else (m, shift)


def brought(acc: int, d: float, out: Encoding, *, wide: bool) -> int:
    """Requantize, add the zero point, saturate: in Python integers of any size."""
    m, shift = multiplier(d)
    if wide:
        m, t = min((m + 2**15) >> 16, 0x7FFF), 15 - shift
    else:
        t = 31 - shift
    steps = (acc * m + (1 << (t - 1))) >> t
    low, high = -(2 ** (out.bits - 1)), 2 ** (out.bits - 1) - 1
    return max(low, min(high, steps + out.zero_point))


@given(values((2, 3)), encodings(), st.data())
def test_linear(x: Quantized, out: Encoding, data: st.DataObject) -> None:
    eight_bits = st.integers(-127, 127)
    w = np.array(data.draw(st.lists(eight_bits, min_size=12, max_size=12)), np.int8).reshape(4, 3)
    w_scale = np.array(data.draw(st.lists(scales, min_size=4, max_size=4)), np.float32)
    bias = np.array(
        data.draw(st.lists(st.integers(-99999, 99999), min_size=4, max_size=4)), np.int32
    )
    y = executor(out, weight=w, weight_scale=w_scale, bias=bias).linear(x, SITE)
    for i in range(2):
        for n in range(4):
            acc = int(bias[n]) + sum(
                (int(x.q[i, k]) - x.encoding.zero_point) * int(w[n, k]) for k in range(3)
            )
            d = float(w_scale[n]) * x.scale / out.scale
            assert y.q[i, n] == brought(acc, d, out, wide=x.bits == 16)


@given(values((2, 3)), values((4, 3)), encodings(), st.booleans())
def test_matmul(a: Quantized, b: Quantized, out: Encoding, transposed: bool) -> None:
    right = b if transposed else Quantized(b.q.T, b.encoding)
    y = executor(out).matmul(a, right, SITE, transpose_b=transposed)
    for i in range(2):
        for j in range(4):
            acc = sum(
                (int(a.q[i, k]) - a.encoding.zero_point) * (int(b.q[j, k]) - b.encoding.zero_point)
                for k in range(3)
            )
            d = a.scale * b.scale / out.scale
            assert y.q[i, j] == brought(acc, d, out, wide=16 in (a.bits, b.bits))


@given(values((5,)), values((5,)), encodings())
def test_mul(x: Quantized, y: Quantized, out: Encoding) -> None:
    result = executor(out).mul(x, y, SITE)
    for i in range(5):
        acc = (int(x.q[i]) - x.encoding.zero_point) * (int(y.q[i]) - y.encoding.zero_point)
        assert result.q[i] == brought(acc, x.scale * y.scale / out.scale, out, wide=False)


@given(values((5,)), values((5,)), encodings())
def test_add_is_within_half_a_step_of_the_exact_sum(
    x: Quantized, y: Quantized, out: Encoding
) -> None:
    result = executor(out).add(x, y, SITE)
    low, high = -(2 ** (out.bits - 1)), 2 ** (out.bits - 1) - 1
    for i in range(5):
        exact = sum(
            Fraction(v.scale) * (int(v.q[i]) - v.encoding.zero_point) for v in (x, y)
        ) / Fraction(out.scale)
        if low < exact + out.zero_point < high:
            off = abs(int(result.q[i]) - out.zero_point - exact)
            assert off <= Fraction(1, 2) + Fraction(1, 2**12)
        else:
            assert abs(int(result.q[i]) - min(max(exact + out.zero_point, low), high)) <= 1


@given(values((1, 1, 2, 4), bits=16), encodings(bits=16), st.integers(-50, 50))
def test_rope_in_python_integers(x: Quantized, out: Encoding, position: int) -> None:
    turn = Rotation(np.array([[position, position + 1]]), np.array([100.0]), 4)
    y = executor(out).rope(x, turn, SITE)
    for t, p in enumerate((position, position + 1)):
        for i, speed in enumerate((1.0, 0.1)):
            c = round(math.cos(p * speed) * 2**15)
            s = round(math.sin(p * speed) * 2**15)
            a, b = int(x.q[0, 0, t, i]), int(x.q[0, 0, t, i + 2])
            d = x.scale / 2**15 / out.scale
            for got, acc in (
                (y.q[0, 0, t, i], a * c - b * s),
                (y.q[0, 0, t, i + 2], b * c + a * s),
            ):
                # the table's last unit may differ from the library's cosine
                slack = math.ceil((abs(a) + abs(b)) * d) + 1
                assert abs(int(got) - brought(acc, d, out, wide=False)) <= slack


@given(st.data())
def test_embedding_rows_have_their_own_scale(data: st.DataObject) -> None:
    out = data.draw(encodings(bits=16))
    w = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    w_scale = np.array(data.draw(st.lists(scales, min_size=4, max_size=4)), np.float32)
    y = executor(out, weight=w, weight_scale=w_scale).embed(np.array([[3, 0]]), SITE)
    for place, token in enumerate((3, 0)):
        for k in range(3):
            d = float(w_scale[token]) / out.scale
            assert y.q[0, place, k] == brought(int(w[token, k]), d, out, wide=False)


def test_rms_norm_by_hand() -> None:
    """x = (3, 4): rms = 5 / sqrt 2; gain 1: (0.8485, 1.1314) in steps of 1/1000."""
    out = Encoding(16, 1e-3)
    gain = {"weight": np.array([16384, 16384], np.int16), "weight_scale": np.array([2**-14], "f4")}
    y = executor(out, **gain).norm(value([[3, 4]], Encoding(16, 1.0)), SITE, "rms", 0.0)
    assert y.q.tolist() == [[849, 1131]]


def test_layer_norm_by_hand() -> None:
    """x = (1, 2, 3, 6): mean 3, var 3.5; (x - 3) / sqrt 3.5 + 1 = (-0.0690, 0.4655, 1, 2.6036)."""
    out = Encoding(16, 1e-3)
    gain = {"weight": np.full(4, 16384, np.int16), "weight_scale": np.array([2**-14], "f4")}
    bias = np.full(4, 256_000, np.int32)  # 1.0 in 2^-8 steps of 1e-3
    x = value([[1, 2, 3, 6]], Encoding(8, 1.0))
    y = executor(out, **gain, bias=bias).norm(x, SITE, "layer", 0.0)
    assert y.q.tolist() == [[-69, 465, 1000, 2604]]


def test_relu_and_scale_by_hand() -> None:
    x = value([-5, 0, 7], Encoding(8, 0.5))
    assert executor(Encoding(8, 0.25)).activation(x, "relu", SITE).q.tolist() == [0, 0, 14]
    twice = executor(Encoding(8, 1.0)).scale(x, 2.0, SITE)
    assert (twice.q is x.q, twice.scale) == (True, 1.0)


@given(values((2, 7)))
def test_ties_go_to_the_lowest_index(x: Quantized) -> None:
    ops = executor(Encoding(8, 1.0))
    for row, best in zip(x.q.tolist(), ops.argmax(x, SITE).tolist(), strict=True):
        assert best == row.index(max(row))
    for row, order in zip(x.q.tolist(), ops.top_k(x, 7, SITE).tolist(), strict=True):
        assert order == sorted(range(7), key=lambda i: (-row[i], i))


@pytest.mark.parametrize("rounding", ["tflite_single", "tflite_double", "half_even"])
def test_the_rounding_that_the_file_names_is_used(rounding: str) -> None:
    """6 and -6 quarters: ties go up, away from zero, or to the even integer."""
    x = value([6, -6, 2, -2], Encoding(8, 0.25))
    y = executor(Encoding(8, 1.0), rounding).mul(x, value([1] * 4, Encoding(8, 1.0)), SITE)
    expected = {
        "tflite_single": [2, -1, 1, 0],
        "tflite_double": [2, -2, 1, -1],
        "half_even": [2, -2, 0, 0],
    }
    assert y.q.tolist() == expected[rounding]


def test_errors_say_what_is_wrong() -> None:
    x = value([[1, 2]], Encoding(16, 1.0))
    with pytest.raises(QuantizationError, match="must be positive, got -1"):
        executor(Encoding(8, 1.0)).scale(x, -1.0, SITE)
    with pytest.raises(QuantizationError, match="must have an encoding for 'elsewhere'"):
        executor(Encoding(8, 1.0)).add(x, x, "elsewhere")
    with pytest.raises(WeightsError, match=r"must contain 'site\.weight'"):
        executor(Encoding(8, 1.0)).linear(x, SITE)
    with pytest.raises(QuantizationError, match="below 2\\^14"):
        executor(Encoding(16, 1e-9)).matmul(x, x, SITE, transpose_b=True)
    gain = {"weight": np.array([1, 1], np.int16), "weight_scale": np.array([1.0], "f4")}
    tiny_steps = value([[1, 2]], Encoding(16, 1e-20))
    with pytest.raises(QuantizationError, match="eps"):
        executor(Encoding(16, 1.0), **gain).norm(tiny_steps, SITE, "rms", 1e-6)


@pytest.mark.parametrize("fast", [False, True])
def test_what_an_accumulator_may_not_hold_is_refused(fast: bool) -> None:
    """255 * 255 * 33,026 and 255 * 128 + a bias leave int32; eps is of 2^62 squared steps."""
    from mu_ref.ops.fast.sites import Sites

    byte, out = Encoding(8, 1.0), Encoding(8, 1.0)

    def products(n: int) -> Any:
        ops = executor(out)
        a = value(np.zeros((1, n)), byte)
        if fast:
            return Sites(ops.model).matmul(SITE, byte, byte, n)
        return ops.matmul(a, a, SITE, transpose_b=True)

    def biased(bias: int) -> Any:
        layer = {"weight": np.ones((1, 1), np.int8), "weight_scale": np.ones(1, np.float32)}
        ops = executor(out, **layer, bias=np.array([bias], np.int32))
        if fast:
            return Sites(ops.model).linear(SITE, SITE, byte)
        return ops.linear(value([[0]], byte), SITE)

    def normed(eps: float) -> Any:
        gain = {"weight": np.ones(1, np.int16), "weight_scale": np.ones(1, np.float32)}
        ops, steps = executor(Encoding(16, 1.0), **gain), Encoding(16, 2.0**-31)
        if fast:
            return Sites(ops.model).norm(SITE, steps, 1, "rms", eps)
        return ops.norm(value([[0]], steps), SITE, "rms", eps)

    products(33025)
    with pytest.raises(QuantizationError, match="must stay below 2147483648"):
        products(33026)
    biased(2**31 - 1 - 255 * 128)
    with pytest.raises(QuantizationError, match="must stay below 2147483648"):
        biased(2**31 - 255 * 128)
    normed(0.4)
    with pytest.raises(QuantizationError, match=r"eps 1\.0 must stay below 2"):
        normed(1.0)


LAYER = {"weight": np.ones((1, 1), np.int8), "weight_scale": np.full(1, 0.5, np.float32)}
GAIN = {"weight": np.ones(1, np.int16), "weight_scale": np.full(1, 0.5, np.float32)}
NARROW, WIDE = Encoding(8, 0.25), Encoding(16, 0.25)


@pytest.mark.parametrize(
    ("operation", "tensors", "encoding", "limit", "scales", "fast"),
    [
        ("linear", LAYER, NARROW, 2**30, "0.125", lambda s: s.linear(SITE, SITE, NARROW)),
        ("linear", LAYER, WIDE, 2**14, "0.125", lambda s: s.linear(SITE, SITE, WIDE)),
        ("embed", LAYER, NARROW, 2**30, "0.5", lambda s: s.embed(SITE)),
        ("norm", GAIN, WIDE, 2**30, "0.5", lambda s: s.norm(SITE, WIDE, 1, "rms", 1e-6)),
        ("matmul", {}, NARROW, 2**30, "0.0625", lambda s: s.matmul(SITE, NARROW, NARROW, 1)),
        ("matmul", {}, WIDE, 2**14, "0.0625", lambda s: s.matmul(SITE, WIDE, WIDE, 1)),
        ("mul", {}, WIDE, 2**30, "0.0625", lambda s: s.scaled(SITE, 0.0625)),
        ("add", {}, WIDE, 2**30, "0.25 and 0.25", lambda s: s.add(SITE, WIDE, WIDE)),
        ("concat", {}, WIDE, 2**30, "0.25", None),
        ("relu", {}, NARROW, 2**30, "0.25", lambda s: s.scaled(SITE, 0.25)),
        ("silu", {}, NARROW, 2**30, "7.63e-06",
         lambda s: s.gate(SITE, "gate_silu", 0.25, 0.25 * 2**-15, 0)),
        ("softcap", {}, WIDE, 2**30, "6.1e-05", lambda s: s.gate(SITE, "tanh", 0.1, 2**-14, 0)),
    ],
)  # fmt: skip
def test_scales_too_far_apart_are_named_with_their_site(
    operation: str, tensors: Any, encoding: Encoding, limit: int, scales: str, fast: Any
) -> None:
    """A step below `limit` of the accumulator's is the last that works; at it, an error."""
    from mu_ref.ops.fast.sites import Sites

    x = value([[1]], encoding)
    calls = {
        "linear": lambda ops: ops.linear(x, SITE),
        "embed": lambda ops: ops.embed(np.array([0]), SITE),
        "norm": lambda ops: ops.norm(x, SITE, "rms", 1e-6),
        "matmul": lambda ops: ops.matmul(x, x, SITE, transpose_b=True),
        "mul": lambda ops: ops.mul(x, x, SITE),
        "add": lambda ops: ops.add(x, x, SITE),
        "concat": lambda ops: ops.concat(x, x, SITE),
        "relu": lambda ops: ops.activation(x, "relu", SITE),
        "silu": lambda ops: ops.activation(x, "silu", SITE),
        "softcap": lambda ops: ops.softcap(x, 2.0, SITE),
    }
    exact = {"7.63e-06": 0.25 * 2**-15, "6.1e-05": 2**-14}
    scale = exact.get(scales) or float(scales.split(maxsplit=1)[0])
    too_small = Encoding(encoding.bits, scale / limit)
    named = rf"^site(\.x)?: from scale {scales} to {too_small.scale:.3g}: .* must be below 2\^"
    for call in (calls[operation], None if fast is None else lambda ops: fast(Sites(ops.model))):
        if call is None:
            continue
        call(executor(Encoding(encoding.bits, 1.01 * too_small.scale), **tensors))
        with pytest.raises(QuantizationError, match=named):
            call(executor(too_small, **tensors))


@pytest.mark.parametrize("fast", [False, True])
def test_an_argument_of_a_table_too_large_is_named_with_its_site(fast: bool) -> None:
    from mu_ref.ops.fast.sites import Sites

    ops, scores = executor(Encoding(16, 2.0**-15)), Encoding(16, 2.0**14)
    x, mask, sites = value([[1]], scores), np.ones((1, 1), bool), Sites(ops.model)
    call = (lambda: sites.softmax(SITE, scores)) if fast else (lambda: ops.softmax(x, mask, SITE))
    with pytest.raises(QuantizationError, match=r"^site: from scale 1\.55e\+09 to 1: "):
        call()  # 2^14 log2(e) 2^16
