"""Every kernel with random arguments and what its reference makes of them.

A case takes a generator and a size, and returns a `Twin`: the arguments, which of them the kernel
writes (or none, if it returns its result), the expected values and how far off they may be.
Integers are expected exactly. References: NumPy in float64 or int64, `mu_ref/integers/` and
`mu_ref/redrafter/`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from training_twins import TRAINING_TWINS, TRAINING_WITHOUT_PYTHON_BODY

from mu_ref.border.memory import Arena
from mu_ref.integers import fixed_point, nonlinear, tables
from mu_ref.integers.fixed_point import quantize_multiplier
from mu_ref.integers.int4 import dequantize_groups, pack_int4
from mu_ref.kernels import floats, integer_attention, integers, rounding
from mu_ref.kernels.drafts import trees
from mu_ref.kernels.products import heads, linear, packing
from mu_ref.ops.fast import matrices
from mu_ref.redrafter import beams, tree

__all__ = ["TWINS", "WITHOUT_PYTHON_BODY", "Twin"]

F32, U = np.float32, 2.0**-24
ROUNDINGS = ("tflite_single", "tflite_double", "half_even")


@dataclass(frozen=True, kw_only=True)
class Twin:
    """One call of a kernel, and its expected outcome."""

    args: tuple[Any, ...]
    writes: int | None  # place of the array that is written
    expected: np.ndarray
    tolerance: np.ndarray | float = 0.0
    part: int | None = None  # which array of the result, if it returns several


def reals(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * rng.standard_normal(shape)).astype(F32)


def steps(rng: np.random.Generator, *shape: int, bits: int = 16) -> np.ndarray:
    return rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape).astype(np.int16)


def multiplier(rng: np.random.Generator, least: float = -9, most: float = -1) -> tuple[int, int]:
    by = quantize_multiplier(2 ** rng.uniform(least, most))
    return by.m, 31 - by.shift


def by(m: Any, t: Any) -> fixed_point.Multiplier:
    return fixed_point.Multiplier(m, 31 - np.asarray(t))


def clipped(x: np.ndarray, low: int = -(2**15), high: int = 2**15 - 1) -> np.ndarray:
    return x.clip(low, high).astype(np.int16)


def blocks_of(w: np.ndarray) -> np.ndarray:
    return matrices.blocks_of(w, Arena(0))


LOW_HIGH = (-(2**15), 2**15 - 1)


def rescaling(m: int, t: int, mode: int = 0) -> tuple[int, ...]:
    """What `rounding.rescale_row` takes as `by`."""
    return (*LOW_HIGH, mode, m, t)


# -- floats ----------------------------------------------------------------------------------------


def norm_of_floats(rng: np.random.Generator, d: int) -> Twin:
    kind, x = int(rng.integers(3)), reals(rng, 3, d, scale=4)
    gain, bias, eps = reals(rng, d), reals(rng, d), F32(1e-6)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True) if kind == 2 else wide
    y = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps)
    y = y * (gain + 1.0 if kind == 1 else gain) + (bias if kind == 2 else 0)
    out = np.zeros(x.size, F32)
    expected = y.copy()
    expected[0] = 0  # the first row is not asked for
    tolerance = 40 * U * (np.abs(y) + np.abs(x).max() * (np.abs(gain) + 1) + np.abs(bias))
    if kind == 2:  # a mean close to the numbers cancels
        tolerance = tolerance * (1 + 1 / (centred.std(axis=1, keepdims=True) + 1e-3))
    args = (x.ravel(), gain, bias, out, d, kind, eps, 1, 3)
    return Twin(args=args, writes=3, expected=expected.ravel(), tolerance=tolerance.ravel())


def rope_of_floats(rng: np.random.Generator, d: int) -> Twin:
    n_heads, half = 2, d
    x, angle = reals(rng, 3, n_heads, 2 * half), rng.uniform(0, 7, (3, 1, half))
    cos, sin = np.cos(angle).astype(F32), np.sin(angle).astype(F32)
    a, b = x[..., :half].astype(np.float64), x[..., half:]
    expected = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    args = (x.ravel(), cos.ravel(), sin.ravel(), np.zeros(x.size, F32), n_heads, 2 * half, 0, 3)
    largest = 4 * U * np.abs(x).max()
    return Twin(args=args, writes=3, expected=expected.ravel(), tolerance=largest)


def exp_of_floats(rng: np.random.Generator, d: int) -> Twin:
    x = rng.uniform(-95, 88, d).astype(F32)
    expected = np.where(x >= -87, np.exp(x.astype(np.float64)), 0.0)
    tolerance = 2 * np.spacing(expected.astype(F32)).astype(np.float64)
    return Twin(args=(x, np.zeros(d, np.int32)), writes=0, expected=expected, tolerance=tolerance)


def sizes_of_heads(rng: np.random.Generator, d: int, *, many: bool = False) -> tuple[Any, ...]:
    """Sizes, the head map, a mask, and room behind keys for vectors that go on."""
    n_heads, n_kv, n_query, n_key = 4, 2, int(rng.integers(1, 4)), int(rng.integers(1, 10))
    if many:
        n_query, n_key = int(rng.integers(1, 80)), int(rng.choice([n_key, 30, 200, 300]))
    head_of = rng.integers(0, n_kv, n_heads)
    room = n_key + int(rng.integers(3))
    return n_heads, n_kv, n_query, n_key, room, head_of, np.zeros(2 * room * n_kv * d + 64)


def by_head(flat: np.ndarray, n_tok: int, n_kv: int, d: int, head_of: Any, room: int) -> Any:
    """Keys or values as [batch, heads, n_tok, d]."""
    whole = flat[: 2 * room * n_kv * d].reshape(2, room, n_kv, d)[:, :n_tok]
    return whole.transpose(0, 2, 1, 3)[:, head_of]


def scores_of_floats(rng: np.random.Generator, d: int) -> Twin:
    n_heads, n_kv, n_query, n_key, room, head_of, empty = sizes_of_heads(rng, d)
    k, q = reals(rng, len(empty)), reals(rng, 2, n_query, n_heads, d)
    keys = by_head(k, n_key, n_kv, d, head_of, room).astype(np.float64)
    queries = q.transpose(0, 2, 1, 3)
    expected = queries @ keys.swapaxes(-1, -2)
    tolerance = 2 * (d + 2) * U * (np.abs(queries) @ np.abs(keys.swapaxes(-1, -2)))
    out = np.zeros(expected.size, F32)
    args = (q.ravel(), k, head_of, out, n_heads, n_kv, n_query, n_key, room, d)
    rows = (0, expected.size // n_key)
    return Twin(
        args=(*args, *rows), writes=3, expected=expected.ravel(), tolerance=tolerance.ravel()
    )


def softmax_of_floats(rng: np.random.Generator, d: int) -> Twin:
    n_heads, n_query, n_key = 2, 3, d
    x, mask = (
        reals(rng, 2, n_heads, n_query, n_key, scale=4.5),
        rng.random((2, n_query, n_key)) < 0.7,
    )
    mask[0, 0] = False  # a row of padding
    seen = np.broadcast_to(mask[:, None], x.shape)
    z = np.where(seen, x.astype(np.float64), -1e4)
    e = np.where(seen, np.exp(z - z.max(axis=-1, keepdims=True)), 0)
    expected = e / np.maximum(e.sum(axis=-1, keepdims=True), 1e-30)
    out = np.zeros(x.size, F32)
    args = (x.ravel(), mask.ravel().view(np.uint8), out, n_heads, n_query, n_key)
    tolerance = (20 + 2 * n_key) * U * expected.ravel() + 1e-37
    return Twin(args=(*args, 0, 12), writes=2, expected=expected.ravel(), tolerance=tolerance)


def mix_of_floats(rng: np.random.Generator, d: int) -> Twin:
    n_heads, n_kv, n_query, n_key, room, head_of, empty = sizes_of_heads(rng, d)
    v, p = reals(rng, len(empty)), rng.random((2, n_heads, n_query, n_key)).astype(F32)
    values = by_head(v, n_key, n_kv, d, head_of, room).astype(np.float64)
    expected, size = ((f(p) @ f(values)).transpose(0, 2, 1, 3) for f in (np.asarray, np.abs))
    out = np.zeros(expected.size, F32)
    args = (p.ravel(), v, head_of, out, n_heads, n_kv, n_query, n_key, room, d)
    rows = (0, 2 * n_heads * n_query)
    tolerance = 2 * (n_key + 1) * U * size.ravel()
    return Twin(args=(*args, *rows), writes=3, expected=expected.ravel(), tolerance=tolerance)


def activation_of_floats(rng: np.random.Generator, d: int) -> Twin:
    kind, x, cap = int(rng.integers(5)), reals(rng, d, scale=6), F32(3.5)
    wide = x.astype(np.float64)
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    erf = np.array([math.erf(v / math.sqrt(2)) for v in wide])
    expected = {
        0: wide * 0.5 * (1 + np.tanh(inner)),
        1: wide * 0.5 * (1 + erf),
        2: wide * 0.5 * (1 + np.tanh(wide / 2)),
        3: np.maximum(wide, 0),
        4: cap * np.tanh(wide / cap),
    }[kind]
    tolerance = 16 * U * np.abs(wide)
    return Twin(
        args=(x, np.zeros(d, F32), kind, cap, 0, d),
        writes=1,
        expected=expected,
        tolerance=tolerance,
    )


# -- rounding --------------------------------------------------------------------------------------


def rescale(rng: np.random.Generator, d: int) -> Twin:
    m, t = multiplier(rng, -30, 2)
    acc, mode = int(rng.integers(-(2**31), 2**31)), int(rng.integers(3))
    expected = fixed_point.requantize(np.int64(acc), by(m, t), ROUNDINGS[mode])
    args = (np.int64(acc), np.int64(m), np.int64(t), np.int64(mode))
    return Twin(args=args, writes=None, expected=np.asarray(expected))


def rescale_row(rng: np.random.Generator, d: int) -> Twin:
    (m, t), mode = multiplier(rng), int(rng.integers(3))
    sums = rng.integers(-(2**31), 2**31, d)
    expected = clipped(fixed_point.requantize(sums, by(m, t), ROUNDINGS[mode]))
    return Twin(
        args=(sums, rescaling(m, t, mode), np.zeros(d, np.int16)), writes=2, expected=expected
    )


def rescale_channels(rng: np.random.Generator, d: int) -> Twin:
    pairs, mode = [multiplier(rng, -20) for _ in range(d)], int(rng.integers(3))
    m, t = (np.array(x) for x in zip(*pairs, strict=True))
    sums = rng.integers(-(2**31), 2**31, d).astype(rng.choice([np.int32, np.int64]))
    expected = clipped(fixed_point.requantize(sums, by(m, t), ROUNDINGS[mode]))
    args = (sums, *(v.astype(np.int32) for v in (m, t)), mode, *LOW_HIGH, np.zeros(d, np.int16))
    return Twin(args=args, writes=6, expected=expected)


def rescale_int32(rng: np.random.Generator, d: int) -> Twin:
    m, t = multiplier(rng, -30, 2)
    sums = rng.integers(-(2**31), 2**31, d).astype(np.int32)
    expected = clipped(fixed_point.requantize(sums.astype(np.int64), by(m, t)))
    args = (sums, m, t, *LOW_HIGH, np.zeros(d, np.int16))
    return Twin(args=args, writes=5, expected=expected)


def rescale_block(rng: np.random.Generator, d: int) -> Twin:
    # all of them below a quarter, where vectors are enough, or some above
    pairs = [multiplier(rng, -20, -3 if d % 2 else 2) for _ in range(d)]
    m, t = (np.array(x) for x in zip(*pairs, strict=True))
    mode = int(rng.choice([0, 0, 1, 2]))
    n_rows = int(rng.choice([1, rounding.FEW_ROWS, 2 * rounding.FEW_ROWS + 3]))
    begin = rng.integers(-(2**30), 2**30, d).astype(np.int32)
    sums = rng.integers(-(2**30), 2**30, (n_rows, d + 5)).astype(np.int32)
    found = clipped(
        fixed_point.requantize(sums[:, :d] + begin.astype(np.int64), by(m, t), ROUNDINGS[mode])
    )
    expected = np.full((n_rows, d + 3), 7)
    expected[:, :d] = found
    out = np.full(expected.size, 7, np.int16)
    scaled = (begin, m.astype(np.int32), t.astype(np.int32), mode, *LOW_HIGH)
    args = (sums.ravel(), d + 5, n_rows, *scaled, out, d + 3)
    return Twin(args=args, writes=9, expected=expected.ravel())


def clip(rng: np.random.Generator, d: int) -> Twin:
    x = int(rng.integers(-200, 200))
    return Twin(args=(x, -128, 127), writes=None, expected=np.array(max(-128, min(x, 127))))


def shifted(rng: np.random.Generator, d: int) -> Twin:
    x, t = int(rng.integers(-(2**61), 2**61)), int(rng.integers(1, 63))
    expected = (x + 2 ** (t - 1)) // 2**t
    return Twin(args=(np.int64(x), np.int64(t)), writes=None, expected=np.array(expected))


def interpolate(rng: np.random.Generator, d: int) -> Twin:
    x = np.int64(rng.integers(0, 16 << 16, endpoint=True))
    expected = tables.interpolate("gate_silu", x, 9, 1)
    args = (tables.table("gate_silu"), x, np.int64(9), np.int64(1))
    return Twin(args=args, writes=None, expected=expected)


def interpolate_row(rng: np.random.Generator, d: int) -> Twin:
    x = rng.integers(0, 16 << 16, d, endpoint=True)
    expected = tables.interpolate("gate_silu", x, 9, 1)
    ends = np.zeros(2 * d, np.int64)
    args = (tables.table("gate_silu"), x, ends, np.int64(9), np.int64(1))
    return Twin(args=args, writes=1, expected=expected)


def total(rng: np.random.Generator, d: int) -> Twin:
    x = reals(rng, d)
    expected = np.asarray(math.fsum(x.tolist()))
    tolerance = d * 2.0**-52 * float(np.abs(x).sum())
    return Twin(args=(x, np.zeros(16)), writes=None, expected=expected, tolerance=tolerance)


def bit_length(rng: np.random.Generator, d: int) -> Twin:
    x = int(rng.integers(1, 2 ** int(rng.integers(1, 63))))
    return Twin(args=(np.int64(x),), writes=None, expected=np.array(x.bit_length()))


# -- integers --------------------------------------------------------------------------------------


def norm_of_integers(rng: np.random.Generator, d: int) -> Twin:
    layer, x = bool(rng.integers(2)), steps(rng, 2, d, bits=int(rng.integers(2, 17)))
    gain, eps = steps(rng, d), np.int64(2 ** rng.uniform(0, 45))  # up to what squares add up to
    bias = rng.integers(-(2**20), 2**20, d if layer else 0).astype(np.int32)
    m, t = multiplier(rng, -6, 2)
    wide, shift = x.astype(np.int64), np.zeros((2, 1), np.int64)
    if layer:
        wide, shift = nonlinear.center(wide)
    squares = (wide**2).sum(axis=1, keepdims=True) + (eps >> (2 * shift))
    row = nonlinear.norm_multiplier(squares, by(m, t))
    if layer:
        fine = fixed_point.Multiplier(row.m, np.minimum(row.shift + nonlinear.BIAS_BITS, 30))
        y = fixed_point.requantize(wide * gain.astype(np.int64), fine) + bias
        y = fixed_point.rounding_shift(y, nonlinear.BIAS_BITS)
    else:
        y = fixed_point.requantize(wide * gain.astype(np.int64), row)
    out, rsqrt = np.zeros(x.size, np.int16), tables.table("rsqrt")
    args = (x.ravel(), gain, bias, out, rsqrt, d, layer, eps, rescaling(m, t), 0, 2)
    return Twin(args=args, writes=3, expected=clipped(y).ravel())


def center(rng: np.random.Generator, d: int) -> Twin:
    x = steps(rng, d).astype(np.int64)
    return Twin(args=(x.copy(), d), writes=0, expected=nonlinear.center(x)[0])


def rope_of_integers(rng: np.random.Generator, d: int) -> Twin:
    n_heads, x, (m, t) = 2, steps(rng, 3, 2, 2 * d), multiplier(rng, -18, -14)
    cos, sin = nonlinear.turn(rng.integers(0, 2**64, (3, d), np.uint64))
    a, b = x[..., :d].astype(np.int64), x[..., d:].astype(np.int64)
    c, s = cos[:, None], sin[:, None]
    turned = np.concatenate([a * c - b * s, b * c + a * s], axis=-1)
    expected = clipped(fixed_point.requantize(turned, by(m, t)))
    out = np.zeros(x.size, np.int16)
    args = (x.ravel(), cos.ravel(), sin.ravel(), out, n_heads, 2 * d, rescaling(m, t), 0, 3)
    return Twin(args=args, writes=3, expected=expected.ravel())


def activation_of_integers(rng: np.random.Generator, d: int) -> Twin:
    kind, x = int(rng.integers(3)), steps(rng, d)
    m, t = multiplier(rng, -16, -14)
    argument_m, argument_t = multiplier(rng, 2, 6)
    g = tables.table("tanh" if kind == 1 else "gate_gelu_tanh")
    wide = x.astype(np.int64)
    argument = fixed_point.requantize(wide, by(argument_m, argument_t))
    if kind == 2:
        y = np.maximum(wide, 0)
    elif kind == 1:
        y = nonlinear.gate("tanh", argument)
    else:
        y = wide * nonlinear.gate("gelu_tanh", argument)
    expected = clipped(fixed_point.requantize(y, by(m, t)))
    out = np.zeros(d, np.int16)
    args = (x, out, g, kind, argument_m, argument_t, rescaling(m, t), 0, d)
    return Twin(args=args, writes=1, expected=expected)


def lookup(rng: np.random.Generator, d: int) -> Twin:
    n, first = 9 * d, int(rng.integers(d))  # more and less than vectors hold
    least, low = rng.integers(-255, 1, 2)
    x = rng.integers(least, least + 256, n).astype(np.int16)
    values = rng.integers(low, low + 256, 256).astype(np.int16)
    expected = np.where(np.arange(n) < first, 7, values[x % 256])
    args = (x, values, np.full(n, 7, np.int16), low, first, n)
    return Twin(args=args, writes=2, expected=expected)


def add(rng: np.random.Generator, d: int) -> Twin:
    x, y, factors = steps(rng, d), steps(rng, d), 2 ** rng.uniform(-3, 1, 2)
    t = 31 - quantize_multiplier(max(factors)).shift
    m_x, m_y = (fixed_point.round_half_away(f * 2**t) for f in factors)
    expected = clipped(fixed_point.requantize_sum(x, factors[0], y, factors[1]))
    args = (x, y, np.zeros(d, np.int16), m_y, rescaling(m_x, t), 0, d)
    return Twin(args=args, writes=2, expected=expected)


def mul(rng: np.random.Generator, d: int) -> Twin:
    x, y, (m, t), mode = steps(rng, d), steps(rng, d), multiplier(rng, -18), int(rng.integers(3))
    product = x.astype(np.int64) * y
    expected = clipped(fixed_point.requantize(product, by(m, t), ROUNDINGS[mode]))
    args = (x, y, np.zeros(d, np.int16), rescaling(m, t, mode), 0, d)
    return Twin(args=args, writes=2, expected=expected)


def attention(rng: np.random.Generator, d: int, *, mix: bool, many: bool = False) -> Twin:
    n_heads, n_kv, n_query, n_key, room, head_of, empty = sizes_of_heads(rng, d, many=many)
    narrow = bool(rng.integers(2))
    memory = steps(rng, len(empty), bits=8 if narrow else 16)
    inner = (n_key,) if mix else (d,)
    a = rng.integers(0, 256 if narrow else 2**15, (2, n_heads, n_query, *inner)).astype(np.int16)
    if not mix:
        a = steps(rng, *a.shape, bits=8 if narrow else 16)
    b = by_head(memory, n_key, n_kv, d, head_of, room).astype(np.int64)
    acc = a.astype(np.int64) @ (b if mix else b.swapaxes(-1, -2))
    least = -16 if narrow else -30
    m, t = multiplier(rng, least, least + 6)
    if not narrow:  # 15 bits of the multiplier, as for every accumulator of more than 32 bits
        m, t = min((m + 2**15) >> 16, 0x7FFF), t - 16
        expected = fixed_point.rounding_shift(acc * m, t)
    else:
        expected = fixed_point.requantize(acc, by(m, t))
    expected = clipped(expected)
    given = a.ravel() if mix else a.transpose(0, 2, 1, 3).ravel()
    wanted = expected.transpose(0, 2, 1, 3).ravel() if mix else expected.ravel()
    out = np.zeros(expected.size, np.int16)
    sizes = (n_heads, n_kv, n_query, n_key, room, d, narrow, rescaling(m, t))
    rows = (0, 2 * n_heads * n_query)
    which = (mix,) if many else ()
    return Twin(
        args=(given, memory, head_of, out, *which, *sizes, *rows), writes=3, expected=wanted
    )


def lay_out(rng: np.random.Generator, d: int) -> Twin:
    n_out, part, transposed = (
        int(rng.integers(1, 40)),
        int(rng.choice([2, 4, 256])),
        rng.integers(2),
    )
    memory = steps(rng, d, n_out) if transposed else steps(rng, n_out, d)
    rows = memory.T if transposed else memory
    parts = [blocks_of(np.array(rows[:, k : k + part])).ravel() for k in range(0, d, part)]
    expected = np.concatenate(parts)
    strides = (1, n_out) if transposed else (d, 1)
    out = np.full(expected.size, 7, np.int16)
    args = (memory.ravel(), *strides, n_out, d, part, out)
    return Twin(args=args, writes=6, expected=expected)


def probabilities(rng: np.random.Generator, d: int) -> Twin:
    n_heads, n_query, bits = 2, 3, int(rng.choice([8, 15]))
    narrow = bool(rng.integers(2))  # steps of 8 bits lie within 255 of each other
    x = steps(rng, 2, n_heads, n_query, d, bits=8 if narrow else 16)
    mask = rng.random((2, n_query, d)) < 0.7
    mask[0, 0] = False
    m, t = multiplier(rng, 3, 9)
    weights = nonlinear.exp2_weights(x.astype(np.int64), mask[:, None], by(m, t))
    expected = clipped(nonlinear.probabilities(weights, bits)).ravel()
    out, exp2 = np.zeros(x.size, np.int16), tables.table("exp2")
    args = (x.ravel(), mask.ravel().view(np.uint8), out, exp2, bits, narrow, rescaling(m, t))
    return Twin(args=(*args, n_heads, n_query, d, 0, 12), writes=2, expected=expected)


def exp2_weights(rng: np.random.Generator, d: int) -> Twin:
    below, (m, t) = rng.integers(0, 2**16, d), multiplier(rng, 3, 9)
    scores = np.append(0, -below)[None]  # the largest score is 0
    expected = nonlinear.exp2_weights(scores, np.ones((1, d + 1), bool), by(m, t))[0, 1:]
    room = np.empty(d, np.int64), np.empty(2 * d, np.int64)
    return Twin(args=(below, tables.table("exp2"), m, t, *room), writes=0, expected=expected)


def split_bytes(rng: np.random.Generator, d: int) -> Twin:
    x = steps(rng, d)
    high = np.floor(x / 256)
    low = np.zeros(d, np.int16)
    return Twin(args=(x, np.zeros(d, np.int16), low), writes=2, expected=x - 256 * high)


# -- products and what they read -------------------------------------------------------------------


def whole(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def placed(
    made: np.ndarray, tolerance: np.ndarray, width: int, first: int
) -> dict[str, np.ndarray]:
    """Products of outputs from `first` on in rows of out; whatever is beyond may be anything."""
    n_rows, n = made.shape[0], made.shape[1] - first
    shape = n_rows if n_rows <= 2 else whole(n_rows, 8), width
    expected, allowed = np.zeros(shape), np.full(shape, np.inf)
    expected[:n_rows, :n], allowed[:n_rows, :n] = made[:, first:], tolerance[:, first:]
    return {"expected": expected.ravel(), "tolerance": allowed.ravel()}


def products(rng: np.random.Generator, d: int) -> Twin:
    kind = str(rng.choice(["bytes", "shorts", "numbers", "grid"]))
    n_rows = int(rng.integers(1, 65 if rng.random() < 0.2 else 20))
    d_out, wide, width = int(rng.integers(1, 90)), whole(d, 4), 96
    x, w = np.zeros((whole(n_rows, 8), wide)), np.zeros((d_out, wide))
    types = {"bytes": (np.uint8, np.int8, np.int32), "shorts": (np.int16, np.int16, np.int32)}
    of_x, of_w, of_out = types.get(kind, (F32, F32, F32))
    for array, low, high in ((x, 0, 256), (w, -128, 128)):
        array[:, :d] = rng.integers(low, high, (len(array), d))
        if kind == "numbers":  # else any order of sums gives the same bits
            array[:, :d] = reals(rng, len(array), d)
    x, w = x.astype(of_x), w.astype(of_w)
    steps = min(d, 128) + d // 128 + 2 if kind == "numbers" else 0  # parts of 128, and their sum
    given, weights = x[:n_rows].astype(np.float64), w.astype(np.float64).T
    allowed = 2 * steps * U * (np.abs(given) @ np.abs(weights))
    first = int(rng.integers(0, d_out)) // 16 * 16
    found = placed(given @ weights, allowed, width, first)
    blocks, out = blocks_of(w).ravel(), np.zeros(found["expected"].size, of_out)
    args = (x.ravel(), wide, blocks, out, n_rows, wide, first, d_out, width)
    return Twin(args=args, writes=3, **found)


def place_of(rng: np.random.Generator, d: int) -> Twin:
    group, d_out = int(rng.choice([1, 4])), int(rng.integers(1, 90))
    n, k, wide = int(rng.integers(d_out)), int(rng.integers(d)), whole(d, 4)
    mark = np.zeros((d_out, wide), F32 if group == 1 else np.int8)
    mark[n, k] = 1
    where = np.flatnonzero(blocks_of(mark).ravel())
    return Twin(args=(n, k, wide, group), writes=None, expected=where[0])


def together(rng: np.random.Generator, d: int) -> Twin:
    return Twin(args=(d,), writes=None, expected=np.int64(16 if d <= 2 else 48))


def products_i4(rng: np.random.Generator, d: int) -> Twin:
    n_rows, d_out, n_groups = int(rng.integers(1, 9)), int(rng.integers(1, 70)), -(-d // 128)
    q = rng.integers(-8, 8, (d_out, 128 * n_groups)).astype(np.int8)
    scale = (2.0 ** rng.integers(-3, 3, (d_out, n_groups))).astype(np.float16)
    x = np.zeros((8, 128 * n_groups), np.int16)
    x[:n_rows, :d] = rng.integers(-(2**14) + 1, 2**14, (n_rows, d))
    halves, starts = np.zeros(8 * 256 * n_groups, np.int8), np.zeros(8 * 2 * n_groups, np.int32)
    for row in range(n_rows):
        packing.halves_of.py_func(x[row], halves, starts, row, n_rows if n_rows <= 2 else 8)
    if n_rows == 2:
        x[2:4] = x[:2]  # computed twice
    weights = np.zeros((whole(d_out, 32), 128 * n_groups))
    weights[:d_out] = dequantize_groups(q, scale)
    first = 32 * int(rng.integers(len(weights) // 32))
    expected = x.astype(np.float64) @ weights[first:].T
    size = np.abs(x.astype(np.float64)) @ np.abs(weights[first:].T)
    w, scales = matrices.nibble_blocks_of(pack_int4(q), scale, Arena(0))
    out = np.zeros(expected.size, F32)
    arrays = (halves, starts, w.ravel(), scales.ravel(), out)
    args = (*arrays, n_rows, n_groups, first, len(weights))
    tolerance = 2 * (n_groups + 1) * U * size.ravel()
    return Twin(args=args, writes=4, expected=expected.ravel(), tolerance=tolerance)


def bytes_of(rng: np.random.Generator, d: int) -> Twin:
    wide, padded = bool(rng.integers(2)), d + 3
    x = steps(rng, 2, d, bits=16 if wide else 8)
    expected = np.zeros((4 if wide else 2, padded), np.uint8)
    if wide:
        expected[0::2, :d], expected[1::2, :d] = x % 256, np.floor(x / 256) + 128
    else:
        expected[:, :d] = x + 128
    out = np.zeros(expected.size, np.uint8)
    args = (x.ravel(), out, 2, d, padded, wide, 128)
    return Twin(args=args, writes=1, expected=expected.ravel())


def steps_of(rng: np.random.Generator, d: int) -> Twin:
    x, high = reals(rng, d), int(rng.choice([2**14 - 1, 2**15 - 1]))
    scale = np.abs(x).max() / F32(high)
    expected = np.rint(x / scale)
    return Twin(args=(x, np.zeros(d, np.int16), high), writes=1, expected=expected)


def halves_of(rng: np.random.Generator, d: int) -> Twin:
    n_groups, starts = -(-d // 128), bool(rng.integers(2))  # it writes two arrays
    n_rows = int(rng.choice([2, 8]))
    row = int(rng.integers(n_rows))
    x = rng.integers(-(2**14), 2**14, 128 * n_groups).astype(np.int16)
    halves = np.zeros((16 * n_groups, n_rows, 2, 8))
    halves[:, row, 0], halves[:, row, 1] = np.floor(x / 128).reshape(-1, 8), x.reshape(-1, 8) % 128
    begin = np.zeros((n_rows, 2, n_groups))
    begin[row, 1] = -8 * x.reshape(-1, 128).sum(axis=1, dtype=int)
    args = (x, np.zeros(halves.size, np.int8), np.zeros(begin.size, np.int32), row, n_rows)
    expected = begin.ravel() if starts else halves.ravel()
    return Twin(args=args, writes=2 if starts else 1, expected=expected)


# -- drafts ----------------------------------------------------------------------------------------


def pack(rng: np.random.Generator, d: int) -> Twin:
    drafted, part = rng.integers(0, 2, (3, 3, min(d, 24))), int(rng.integers(4))
    plain = tree.pack(drafted)
    parts = (plain.nodes, plain.unpacker, plain.n_nodes, plain.sees)
    return Twin(args=(drafted,), writes=None, expected=parts[part], part=part)


def select(rng: np.random.Generator, d: int) -> Twin:
    n, part, dtype = 3, int(rng.integers(3)), rng.choice([np.float32, np.float64])
    width, gap = min(4, n * d), 0.0
    while gap < 1e-4:  # what rounding may turn around is not promised
        log_p = rng.uniform(-9, 0, (2, n)).astype(dtype)
        logits = (3 * rng.standard_normal((2, n, d))).astype(dtype)
        wide = log_p.astype(np.float64), logits.astype(np.float64)
        gap = -np.diff(beams.select(*wide, n * d)[2][:, : width + 1]).max(initial=-1)
    expected = beams.select(*wide, width)[part]
    tolerance = 1e-5 if part == 2 else 0.0
    args = (log_p, logits, width)
    return Twin(args=args, writes=None, expected=expected, part=part, tolerance=tolerance)


def likeliest(rng: np.random.Generator, d: int, *, real: bool) -> Twin:
    x = rng.integers(-3, 3, d).astype(np.int16)  # so that there are ties
    if real:
        odd = np.array([-0.0, 0.0, -np.inf, np.inf, np.nan, -np.nan, 1e-45, -1e-45], F32)
        x = np.where(rng.random(d) < rng.choice([0, 0.1]), rng.choice(odd, d), x / 4).astype(F32)
    return Twin(args=(x,), writes=None, expected=np.argmax(x))


Case = Callable[[np.random.Generator, int], Twin]
TWINS: dict[tuple[Any, str], Case] = {
    (floats, "activation"): activation_of_floats,
    (floats, "exp"): exp_of_floats,
    (floats, "likeliest"): lambda rng, d: likeliest(rng, d, real=True),
    (floats, "mix"): mix_of_floats,
    (floats, "norm"): norm_of_floats,
    (floats, "rope"): rope_of_floats,
    (floats, "scores"): scores_of_floats,
    (floats, "softmax"): softmax_of_floats,
    (floats, "total"): total,
    (heads, "attend"): lambda rng, d: attention(rng, d, mix=bool(rng.integers(2)), many=True),
    (heads, "lay_out"): lay_out,
    (integers, "likeliest"): lambda rng, d: likeliest(rng, d, real=False),
    (integer_attention, "mix"): lambda rng, d: attention(rng, d, mix=True),
    (integer_attention, "exp2_weights"): exp2_weights,
    (integer_attention, "probabilities"): probabilities,
    (integer_attention, "scores"): lambda rng, d: attention(rng, d, mix=False),
    (integer_attention, "split_bytes"): split_bytes,
    (integers, "activation"): activation_of_integers,
    (integers, "add"): add,
    (integers, "center"): center,
    (integers, "lookup"): lookup,
    (integers, "mul"): mul,
    (integers, "norm"): norm_of_integers,
    (integers, "rope"): rope_of_integers,
    (linear, "place_of"): place_of,
    (linear, "products"): products,
    (linear, "products_i4"): products_i4,
    (linear, "together"): together,
    (packing, "bytes_of"): bytes_of,
    (packing, "halves_of"): halves_of,
    (packing, "steps_of"): steps_of,
    (rounding, "bit_length"): bit_length,
    (rounding, "clip"): clip,
    (rounding, "interpolate"): interpolate,
    (rounding, "interpolate_row"): interpolate_row,
    (rounding, "rescale"): rescale,
    (rounding, "rescale_block"): rescale_block,
    (rounding, "rescale_channels"): rescale_channels,
    (rounding, "rescale_int32"): rescale_int32,
    (rounding, "rescale_row"): rescale_row,
    (rounding, "shifted"): shifted,
    (trees, "pack"): pack,
    (trees, "select"): select,
    **TRAINING_TWINS,
}
# made of vector intrinsics, which have no body that Python could run
WITHOUT_PYTHON_BODY = {
    (floats, "mix"), (floats, "scores"), (heads, "attend"), (heads, "lay_out"),
    (integer_attention, "mix"), (integer_attention, "scores"), (linear, "products"),
    (linear, "products_i4"), (rounding, "rescale_block"), (rounding, "rescale_int32"),
    *TRAINING_WITHOUT_PYTHON_BODY,
}  # fmt: skip
