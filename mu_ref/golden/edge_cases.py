"""The edge cases of each operation, with the fault that each group is there to find.

Everything is drawn from fixed seeds, so the cases are the same at every call.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mu_ref.golden.operations import INPUTS, Case
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.fixed_point import ROUNDINGS, integer_range

__all__ = ["edge_cases"]


def edge_cases() -> Iterator[Case]:
    """Yield every case."""
    yield from _linears()
    yield from _matmuls()
    yield from _sums()
    yield from _gates()
    yield from _softmaxes()
    yield from _norms()
    yield from _ropes()
    yield from _decisions()


def _integers(bits: int, values: Any) -> np.ndarray:
    return np.asarray(values, f"i{bits // 8}")


def _every(bits: int) -> np.ndarray:
    """All integers of 8 bits; of 16 the ends, the middle and 200 between them: [1, n]."""
    low, high = integer_range(bits)
    if bits == 8:
        return _integers(8, np.arange(low, high + 1))[None]
    rng = np.random.default_rng(16)
    inner = rng.integers(low, high, 200)
    ends = [low, low + 1, -1025, -257, -2, -1, 0, 1, 2, 255, 1024, high - 1, high]
    return _integers(16, np.concatenate([ends, inner]))[None]


def _weights(rng: np.random.Generator, rows: int, columns: int) -> dict[str, np.ndarray]:
    weight = rng.integers(-127, 128, (rows, columns)).astype(np.int8)
    weight[0], weight[1] = 127, -127  # sums as large as they get, which saturate
    scale = (2.0 ** rng.uniform(-12, -6, rows)).astype(np.float32)
    return {"weight": weight, "weight_scale": scale}


def _linears() -> Iterator[Case]:
    rng = np.random.default_rng(1)
    one = {"weight": _integers(8, [[1]]), "weight_scale": np.array([1.0], np.float32)}
    odd = _integers(8, np.arange(-127, 128, 2)[:, None])
    for rounding in ROUNDINGS:  # every accumulator lies half-way between two integers
        half = {"x": Encoding(8, 0.5), "out": Encoding(8, 1.0)}
        yield Case(f"linear/ties/{rounding}", "linear", {"x": odd, **one}, half, rounding=rounding)
        by8 = {"x": Encoding(8, 0.125), "out": Encoding(8, 1.0)}
        yield Case(f"linear/eighths/{rounding}", "linear", {"x": odd, **one}, by8, {}, rounding)
    # a multiplier of 2^31 (1 - 2^-20) has 15 bits only if it is cut off at 0x7FFF
    most = _integers(16, [[32767, 32766, -32768, 32765, 31000, -30001]]).T
    nearly = {"x": Encoding(16, 1 - 2.0**-20), "out": Encoding(16, 1.0)}
    yield Case("linear/fifteen_bits", "linear", {"x": most, **one}, nearly)
    # 2^31 d lies half-way between two integers, and so close below 2^31 that it rounds to it
    for name, scale in (("half", (2**30 + 0.5) / 2**31), ("full", 1 - 2.0**-40)):
        encodings = {"x": Encoding(8, scale), "out": Encoding(8, 1.0)}
        yield Case(f"linear/multiplier_{name}", "linear", {"x": odd, **one}, encodings)
    # scales whose multiplier is another one if they are multiplied in another order
    scales = {**one, "weight_scale": np.array([0.07310395687818527], np.float32)}
    encodings = {"x": Encoding(8, 0.07032999979609511), "out": Encoding(8, 0.7899074159465428)}
    yield Case("linear/order", "linear", {"x": odd, **scales}, encodings)
    # and one whose 16 dropped bits are just above and just below a half
    for name, dropped in (("above", 2**15 + 1), ("below", 2**15 - 1)):
        scale = (2**30 + 2**16 * 5 + dropped) / 2**31
        encodings = {"x": Encoding(16, scale), "out": Encoding(16, 1.0)}
        yield Case(f"linear/dropped_{name}_half", "linear", {"x": most, **one}, encodings)
    for bits in (8, 16):
        x = rng.integers(*integer_range(bits), (5, 96), endpoint=True)
        for zero_point in (0, 37) if bits == 8 else (0,):
            arrays = {"x": _integers(bits, x), **_weights(rng, 24, 96)}
            arrays["bias"] = rng.integers(-(2**28), 2**28, 24).astype(np.int32)
            encodings = {
                "x": Encoding(bits, 0.0371, zero_point), "out": Encoding(bits, 0.713, -zero_point),
            }  # fmt: skip
            yield Case(f"linear/{bits}_bits/zero_{zero_point}", "linear", arrays, encodings)
    tokens = np.array([[0, 1, 23, 5]], np.int32)
    arrays = {"tokens": tokens, **_weights(rng, 24, 32)}
    yield Case("embed/rows", "embed", arrays, {"out": Encoding(16, 0.0009)})
    yield Case("embed/saturates", "embed", arrays, {"out": Encoding(16, 3e-7)})


def _matmuls() -> Iterator[Case]:
    rng = np.random.default_rng(2)
    for bits_x, bits_y in ((8, 8), (16, 16), (8, 16)):
        for transpose in (False, True):
            x = _integers(bits_x, rng.integers(*integer_range(bits_x), (1, 2, 5, 12)))
            shape = (1, 2, 7, 12) if transpose else (1, 2, 12, 7)
            y = _integers(bits_y, rng.integers(*integer_range(bits_y), shape))
            zero = 21 if bits_x == 8 else 0
            encodings = {
                "x": Encoding(bits_x, 0.011, zero), "y": Encoding(bits_y, 0.023),
                "out": Encoding(16, 0.09 if bits_x == 8 else 2.1),
            }  # fmt: skip
            kind = "transposed" if transpose else "plain"
            name = f"matmul/{bits_x}_{bits_y}/{kind}"
            yield Case(name, "matmul", {"x": x, "y": y}, encodings, {"transpose_b": transpose})

    encodings = {
        "x": Encoding(8, 0.03981179267775607), "y": Encoding(8, 0.020938136458712345),
        "out": Encoding(16, 0.9316693845255036),
    }  # fmt: skip
    x = y = _integers(8, [[3, 4], [5, -6]])
    yield Case("matmul/order", "matmul", {"x": x, "y": y}, encodings)


def _sums() -> Iterator[Case]:
    rng = np.random.default_rng(3)
    pairs = {
        "equal": (0.01, 0.01, 0.02), "unlike": (0.3, 0.0007, 0.31), "tiny": (1.0, 2.0**-40, 1.0),
        "ties": (0.5, 1.0, 1.0), "saturates": (1.0, 1.0, 0.6),
        "order": (0.1, 0.7, 0.3),  # no scale is exact: s_x / s_out, nothing else, gives m_x
    }  # fmt: skip
    for bits in (8, 16):
        x, y = (_integers(bits, rng.integers(*integer_range(bits), (3, 40))) for _ in INPUTS)
        arrays = {"x": x, "y": y}
        for name, (s_x, s_y, s_out) in pairs.items():
            encodings = {
                "x": Encoding(bits, s_x, 5 if bits == 8 else 0), "y": Encoding(bits, s_y),
                "out": Encoding(bits, s_out, -7 if bits == 8 else 0),
            }  # fmt: skip
            yield Case(f"add/{bits}_bits/{name}", "add", arrays, encodings)
        encodings = {
            "x": Encoding(bits, 0.1, 3 if bits == 8 else 0), "y": Encoding(bits, 0.7),
            "out": Encoding(bits, 0.3 * 2 ** (bits - 2)),
        }  # fmt: skip
        yield Case(f"mul/{bits}_bits", "mul", arrays, encodings)
        yield Case(f"concat/{bits}_bits", "concat", arrays, encodings)


def _gates() -> Iterator[Case]:
    for bits in (8, 16):
        x = _every(bits)
        steps = 2 ** (bits - 8)
        for kind in ("gelu_tanh", "gelu", "silu", "relu"):
            for name, scale in (("usual", 0.05), ("far", 0.4), ("near", 0.001)):
                # "far" passes the end of the table at 16
                zero = -100 if bits == 8 else 0
                encodings = {
                    "x": Encoding(bits, scale / steps, 11 if bits == 8 else 0),
                    "out": Encoding(bits, scale / 2 / steps, zero),
                }  # fmt: skip
                case = f"activation/{kind}/{bits}_bits/{name}"
                yield Case(case, "activation", {"x": x}, encodings, {"kind": kind})
        for cap in (1.7, 50.0):
            encodings = {"x": Encoding(bits, 1.3 / steps), "out": Encoding(bits, cap / 2**bits * 2)}
            yield Case(f"softcap/{cap:g}/{bits}_bits", "softcap", {"x": x}, encodings, {"cap": cap})


def _softmaxes() -> Iterator[Case]:
    rng = np.random.default_rng(5)
    for bits in (8, 16):
        x = _integers(bits, rng.integers(*integer_range(bits), (1, 2, 6, 20)))
        x[..., 1, :] = 3  # all equal
        x[..., 2, 0], x[..., 2, 1:] = integer_range(bits)[1], integer_range(bits)[0]
        mask = np.ones((1, 1, 6, 20), np.uint8)
        mask[..., 3, 10:] = 0
        mask[..., 4, :] = 0  # a row that sees nothing
        mask[..., 5, 1:] = 0  # and one that sees one key, whose probability of 1 saturates
        out = Encoding(8, 2.0**-8, -128) if bits == 8 else Encoding(16, 2.0**-15)
        for scale in (0.02, 1.9):
            encodings = {"x": Encoding(bits, scale / 2 ** (bits - 8)), "out": out}
            arrays = {"x": x, "mask": mask}
            yield Case(f"softmax/{bits}_bits/scale_{scale:g}", "softmax", arrays, encodings)
    # 70,000 keys 30.5 powers of two below the largest: each weighs 0. Where u is cut off at 30
    # instead of 31, each weighs 1, and together they take four steps from the largest.
    x = np.full((1, 1, 1, 70_001), -32768, np.int16)
    x[..., 0] = 32767
    scale = 30.5 / 65535 / 1.4426950408889634
    encodings = {"x": Encoding(16, scale), "out": Encoding(16, 2.0**-15)}
    arrays = {"x": x, "mask": np.ones((1, 1, 1, 1), np.uint8)}
    yield Case("softmax/far_keys", "softmax", arrays, encodings)


def _norms() -> Iterator[Case]:
    rng = np.random.default_rng(6)
    for bits in (8, 16):
        low, high = integer_range(bits)
        x = rng.integers(low, high, (8, 48), endpoint=True)
        x[0] = 0
        x[1], x[1, 7] = 0, high  # a single feature, the most that a norm can give
        x[2] = low
        x[3] = rng.integers(-2, 3, 48)
        x[4] = 1  # layer: no difference from the mean
        gain = rng.integers(-32767, 32768, 48).astype(np.int16)
        for kind in ("rms", "rms_plus_one", "layer"):
            for eps in (1e-6, 0.37):
                arrays = {
                    "x": _integers(bits, x), "weight": gain,
                    "weight_scale": np.array([6.1e-5], np.float32),
                }  # fmt: skip
                if kind == "layer":
                    arrays["bias"] = rng.integers(-30000, 30000, 48).astype(np.int32)
                encodings = {
                    "x": Encoding(bits, 0.0173, 9 if bits == 8 else 0),
                    "out": Encoding(bits, 8 / 2**bits, -3 if bits == 8 else 0),
                }  # fmt: skip
                parameters = {"kind": kind, "eps": eps}
                name = f"norm/{kind}/{bits}_bits/eps_{eps:g}"
                yield Case(name, "norm", arrays, encodings, parameters)
    # gain and output scale as in linear/order
    arrays = {"x": _integers(16, x), "weight": gain,
              "weight_scale": np.array([5.964612137177028e-05], np.float32)}  # fmt: skip
    encodings = {"x": Encoding(16, 0.0173), "out": Encoding(16, 0.00019089153759668868)}
    yield Case("norm/order", "norm", arrays, encodings, {"kind": "rms", "eps": 1e-6})
    # the product of root and multiplier is cut to 31 bits, not rounded: seen at -28457
    row = [[-1769, -27668, -24218, -17199, 8844, 11335, -24266, -26217]]
    arrays = {"x": _integers(16, row), "weight": np.full(8, 32767, np.int16),
              "weight_scale": np.array([6.1e-5], np.float32)}  # fmt: skip
    encodings = {"x": Encoding(16, 0.0173), "out": Encoding(16, 2.0**-14)}
    yield Case("norm/root", "norm", arrays, encodings, {"kind": "rms", "eps": 0.0})
    # layer: eps n^2 E is rounded once; rounding eps n first, then times n^2, is another integer
    x = _integers(16, rng.integers(-9, 10, (4, 48)))
    arrays = {
        "x": x, "weight": gain, "weight_scale": np.array([6.1e-5], np.float32),
        "bias": np.zeros(48, np.int32),
    }  # fmt: skip
    encodings = {"x": Encoding(16, 0.171), "out": Encoding(16, 2e-4)}
    yield Case("norm/layer/small_eps", "norm", arrays, encodings, {"kind": "layer", "eps": 2.3e-4})


def _ropes() -> Iterator[Case]:
    rng = np.random.default_rng(7)
    positions = np.array([[-513, -7, 0, 1, 2, 511, 4096, 2**20 - 1, 2**31 - 1]], np.int32)
    for bits in (8, 16):
        for theta in (10_000.0, 1_000_000.0, 500_000.7):
            x = rng.integers(*integer_range(bits), (1, 2, positions.shape[1], 16), endpoint=True)
            encodings = {"x": Encoding(bits, 0.031, 4 if bits == 8 else 0),
                         "out": Encoding(bits, 0.031)}  # fmt: skip
            arrays = {"x": _integers(bits, x), "positions": positions}
            name = f"rope/{bits}_bits/theta_{theta:g}"
            yield Case(name, "rope", arrays, encodings, {"theta": theta})


def _decisions() -> Iterator[Case]:
    x = _integers(16, [[3, 7, 7, -1], [5, 5, 5, 5], [-32768, -32768, 32767, 32767]])
    one = {"x": Encoding(16, 1.0)}
    yield Case("argmax/ties", "argmax", {"x": x}, one)
    yield Case("top_k/ties", "top_k", {"x": x}, one, {"k": 3})
