"""Errors of the integer non-linearities against float64, in steps of the output.

The expected value is the real function of the real number that the input integers stand for,
computed with NumPy in float64 and not rounded, so half a step is the least possible maximum.
"""

import math
from typing import Any

import numpy as np

from mu_ref.integers.encodings import Encoding
from mu_ref.integers.store import IntegerModel
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.rotation import Rotation
from mu_ref.presets import tiny

SITE = "decoder.0.site"


def executor(output: Encoding, **tensors: np.ndarray) -> IntegerOps:
    """An executor with one site, and tensors named without the site."""
    named = {f"{SITE}.{name}": array for name, array in tensors.items()}
    return IntegerOps(IntegerModel(tiny(), "w8a8", "tflite_single", named, {SITE: output}))


def integers(bits: int) -> np.ndarray:
    """Every integer of a width."""
    return np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[float])(x)


ACTIVATIONS: dict[str, Any] = {
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "silu": lambda x: x * 0.5 * (1 + np.tanh(x / 2)),
    "relu": lambda x: np.maximum(x, 0),
}


def stored(q: np.ndarray, encoding: Encoding) -> Quantized:
    return Quantized(q.astype(f"i{encoding.bits // 8}"), encoding)


def encoding_for(x: np.ndarray, bits: int, *, one_sided: bool) -> Encoding:
    """Cover all of x, as calibration does."""
    if one_sided and bits == 8:
        low, high = min(x.min(), 0.0), x.max()
        scale = float(high - low) / 255
        return Encoding(8, scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))
    return Encoding(bits, float(np.abs(x).max()) / (2 ** (bits - 1) - 1))


def steps_off(result: Quantized, exact: np.ndarray) -> np.ndarray:
    """Error in output steps; what the output cannot hold counts from its nearest end."""
    e = result.encoding
    exact = np.clip(exact, e.low, e.high)
    return result.steps - exact / e.scale


def activation(kind: str, bits: int, largest: float, zero: int = 0) -> np.ndarray:
    """Errors over every input integer of a range that reaches ±largest."""
    given = Encoding(bits, largest / 2 ** (bits - 1), zero if bits == 8 else 0)
    x = stored(integers(bits), given)
    real = given.scale * x.steps
    exact = ACTIVATIONS[kind](real)
    out = encoding_for(exact, bits, one_sided=True)
    return steps_off(executor(out).activation(x, kind, SITE), exact)


def softcap(bits: int, largest: float, cap: float) -> np.ndarray:
    given = Encoding(bits, largest / 2 ** (bits - 1))
    x = stored(integers(bits), given)
    exact = cap * np.tanh(given.scale * x.steps / cap)
    out = encoding_for(exact, bits, one_sided=False)
    return steps_off(executor(out).softcap(x, cap, SITE), exact)


def softmax(in_bits: int, bits: int, largest: float, rng: np.random.Generator) -> np.ndarray:
    """Errors over rows that hold every input integer, in random company of 2 to 64 keys."""
    given = Encoding(in_bits, largest / 2 ** (in_bits - 1))
    out = Encoding(8, 2**-8, -128) if bits == 8 else Encoding(16, 2**-15)
    errors = []
    for n in (2, 8, 64):
        q = rng.permutation(integers(in_bits))
        q = q[: len(q) // n * n].reshape(-1, n)
        mask = rng.random(q.shape) < 0.9
        x = stored(q, given)
        real = np.where(mask, given.scale * x.steps, -np.inf)
        top = real.max(axis=-1, keepdims=True)
        e = np.exp(real - np.where(np.isfinite(top), top, 0))
        total = e.sum(axis=-1, keepdims=True)
        exact = e / np.where(total == 0, 1, total)
        errors.append(steps_off(executor(out).softmax(x, mask, SITE), exact).ravel())
    return np.concatenate(errors)


def norm(kind: str, in_bits: int, bits: int, rng: np.random.Generator) -> np.ndarray:
    """Errors of rows of 64 at every size, from one step to the whole range."""
    n, eps = 64, 1e-6
    sizes = np.exp(rng.uniform(0, np.log(2 ** (in_bits - 1)), (512, 1)))
    q = np.rint(np.clip(rng.standard_normal((512, n)) / 3, -1, 1) * (sizes - 1)).astype(np.int64)
    given = Encoding(in_bits, 4 / 2 ** (in_bits - 1))
    gain = rng.integers(8000, 32767, n).astype(np.int16)
    gain_scale = np.float32(2**-14)
    real = given.scale * q
    centred = real - real.mean(axis=-1, keepdims=True) if kind == "layer" else real
    unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    exact = unit * gain * float(gain_scale)
    tensors = {"weight": gain, "weight_scale": gain_scale[None]}
    bias = rng.standard_normal(n) if kind == "layer" else np.zeros(n)
    out = encoding_for(exact + bias, bits, one_sided=False)
    if kind == "layer":
        steps = np.rint(bias / (out.scale / 256))
        tensors["bias"] = steps.astype(np.int32)
        exact = exact + steps * out.scale / 256
    return steps_off(executor(out, **tensors).norm(stored(q, given), SITE, kind, eps), exact)


def rope(bits: int, rng: np.random.Generator) -> np.ndarray:
    """Errors at positions from -1000 to 1000, every input integer."""
    given = Encoding(bits, 2.0 ** -(bits - 2))
    d_head = 32
    q = np.resize(rng.permutation(integers(bits)), (1, 1, 2048, d_head))
    turn = Rotation(rng.integers(-1000, 1001, (1, 2048)), np.array([10000.0]), d_head)
    x = stored(q, given)
    a, b = np.split(given.scale * x.steps, 2, axis=-1)
    cos, sin = turn.cos[:, None], turn.sin[:, None]
    exact = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    out = encoding_for(exact, bits, one_sided=False)
    return steps_off(executor(out).rope(x, turn, SITE), exact)


def all_errors(rng: np.random.Generator) -> dict[str, dict[int, np.ndarray]]:
    """{non-linearity: {bits: errors in steps}} over ranges that calibration meets."""
    ranges = (1.0, 4.0, 30.0)
    errors: dict[str, dict[int, np.ndarray]] = {}
    for kind in ACTIVATIONS:
        errors[kind] = {
            b: np.concatenate([activation(kind, b, r) for r in ranges]) for b in (8, 16)
        }
    errors["softcap"] = {
        b: np.concatenate([softcap(b, r, 20.0) for r in (10.0, 50.0, 300.0)]) for b in (8, 16)
    }
    errors["softmax"] = {
        b: np.concatenate([softmax(b, b, r, rng) for r in (2.0, 10.0, 60.0)]) for b in (8, 16)
    }
    for kind in ("rms", "layer"):
        errors[f"norm {kind}"] = {b: norm(kind, 16, b, rng).ravel() for b in (8, 16)}
    errors["rope"] = {b: rope(b, rng).ravel() for b in (8, 16)}
    return errors
