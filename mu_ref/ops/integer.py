"""The integer executor: Mu in 8- and 16-bit integers, no float between tokens and argmax.

A value is integers with an encoding. Scales are known before the first token, so they turn into
multipliers when a site is first met; what happens to activations is integer arithmetic that
`docs/integer.md` specifies to the bit. Sums are exact, so their order does not matter: one row or
many, with a cache or without, the integers are the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import e as euler
from math import log2, sqrt
from typing import Any, final

import numpy as np

from mu_ref.errors import QuantizationError
from mu_ref.integers.constants import Constants
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.fixed_point import (
    Multiplier,
    check_accumulator,
    dequantize,
    requantize,
    requantize_wide,
    rounding_shift,
    saturate,
    weighted_sum,
)
from mu_ref.integers.nonlinear import (
    ARGUMENT_BITS,
    BIAS_BITS,
    center,
    exp2_weights,
    gate,
    norm_multiplier,
    probabilities,
    turn,
    unit_phase,
)
from mu_ref.integers.store import IntegerModel
from mu_ref.integers.tables import turn_steps
from mu_ref.ops import Ops
from mu_ref.ops.rotation import Rotation

__all__ = ["IntegerOps", "Quantized"]

Product = Callable[[np.ndarray, np.ndarray, str], np.ndarray]


def whole_product(left: np.ndarray, right: np.ndarray, site: str) -> np.ndarray:
    """[..., m, k] @ [..., k, n] in int64; exact, so the order of the sums does not matter."""
    return left @ right


@dataclass(frozen=True, slots=True)
class Quantized:
    """Integers of one site and what they stand for."""

    q: np.ndarray  # int8 or int16
    encoding: Encoding

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the integers."""
        return self.q.shape

    @property
    def steps(self) -> np.ndarray:
        """Integers with the zero point subtracted, int64."""
        return self.q.astype(np.int64) - self.encoding.zero_point

    @property
    def bits(self) -> int:
        """Width of the integers."""
        return self.encoding.bits

    @property
    def scale(self) -> float:
        """Real number that one step stands for."""
        return self.encoding.scale


@final
class IntegerOps(Ops):
    """Computes each operation in integers; a value is `Quantized`.

    Args:
        model: integer weights, their scales and the encoding of every site.
        product: multiplies int64 matrices, given the site; the simulated NPU does it in pieces.
    """

    def __init__(self, model: IntegerModel, product: Product = whole_product) -> None:
        self.model, self.product = model, product
        self.constants = Constants()

    # -- operations that read a weight -----------------------------------------------------------

    def embed(self, tokens: np.ndarray, site: str) -> Quantized:
        """Look up int8 rows and bring each from its own scale to the site's."""
        encoding = self._encoding(site)
        scales = self.model.weight_scale(site)
        by = self.constants.channels(site, scales, 1.0, encoding.scale)
        rows = Multiplier(by.m[tokens][..., None], by.shift[tokens][..., None])
        return self._narrow(self.model.weight(site)[tokens], rows, site)

    def linear(self, x: Quantized, site: str, weight_site: str | None = None) -> Quantized:
        """Sum (q - z) w over features, add the int32 bias, bring to the site's scale."""
        encoding = self._encoding(site)
        source = weight_site or site
        weight, scales = self.model.weight(source), self.model.weight_scale(source)
        x_max = 255 if x.bits == 8 else 2**15
        wide = x.bits == 16
        bias = self.model.bias(site)
        start = 0 if bias is None else int(np.abs(bias.astype(np.int64)).max())
        check_accumulator(site, weight.shape[1], x_max, 128, wide=wide, start=start)
        acc = self.product(x.steps, weight.astype(np.int64).T, site)
        if bias is not None:
            acc = acc + bias.astype(np.int64)
        by = self.constants.channels(site, scales, x.scale, encoding.scale, wide=wide)
        return self._wide(acc, by, site) if wide else self._narrow(acc, by, site)

    def norm(self, x: Quantized, site: str, kind: str, eps: float) -> Quantized:
        """Divide by the root of the sum of squares, multiply by int16 gains."""
        n = x.shape[-1]
        gain, gain_scale = self.model.weight(site).astype(np.int64), self.model.weight_scale(site)
        steps, shift = x.steps, np.zeros(1, np.int64)
        eps_steps = eps * n / x.scale**2  # eps in the units of the sum of squares
        if kind == "layer":
            steps, shift = center(steps)
            eps_steps *= n * n
        square_sum = (steps * steps).sum(axis=-1, keepdims=True)
        eps_whole = np.int64(self.constants.eps(site, eps, eps_steps))
        square_sum = square_sum + (eps_whole >> (2 * shift))
        static = self._output(site, float(gain_scale[0]) * sqrt(n))
        by = norm_multiplier(square_sum, static)
        if kind != "layer":
            return self._stored(requantize(steps * gain, by), site)
        fine = Multiplier(by.m, np.minimum(by.shift + BIAS_BITS, 30))
        bias = self.model.bias(site)
        y = requantize(steps * gain, fine) + (0 if bias is None else bias.astype(np.int64))
        return self._stored(rounding_shift(y, BIAS_BITS), site)

    # -- operations on activations ---------------------------------------------------------------

    def rope(self, x: Quantized, rotation: Rotation, site: str) -> Quantized:
        """Rotate by cosines and sines in units of 2^-15, found from integer phases."""
        speeds = np.stack(
            [turn_steps(float(t), x.shape[-1], rotation.factor) for t in rotation.theta]
        )
        cos, sin = turn(unit_phase(rotation.positions, speeds))
        cos, sin = cos[:, None], sin[:, None]  # [batch, 1, n_tok, d_head / 2]
        half = x.shape[-1] // 2
        x1, x2 = x.steps[..., :half], x.steps[..., half:]
        acc = np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)
        by = self._output(site, x.scale * 2**-15)
        return self._narrow(acc, by, site)  # |acc| <= 2^15 * 2^15 * sqrt(2) < 2^31

    def matmul(
        self, a: Quantized, b: Quantized, site: str, *, transpose_b: bool = False
    ) -> Quantized:
        """Sum products of (q - z); wide if either operand has 16 bits."""
        right = b.steps.swapaxes(-1, -2) if transpose_b else b.steps
        largest = {8: 255, 16: 2**15}
        wide = 16 in (a.bits, b.bits)
        check_accumulator(site, a.shape[-1], largest[a.bits], largest[b.bits], wide=wide)
        by = self._output(site, a.scale * b.scale, wide=wide)
        acc = self.product(a.steps, right, site)
        return self._wide(acc, by, site) if wide else self._narrow(acc, by, site)

    def softmax(self, x: Quantized, mask: np.ndarray, site: str) -> Quantized:
        """Weigh by powers of two, divide by the sum; masked keys weigh exactly 0."""
        encoding = self._encoding(site)
        by = self._argument(site, x.scale * log2(euler) * 2**ARGUMENT_BITS)
        weights = exp2_weights(x.steps, mask, by)
        fraction_bits = 8 if encoding.bits == 8 else 15
        return self._stored(probabilities(weights, fraction_bits), site)

    def activation(self, x: Quantized, kind: str, site: str) -> Quantized:
        """Multiply by a gate from a table; relu by a comparison."""
        if kind == "relu":
            by = self._output(site, x.scale)
            return self._narrow(np.maximum(x.steps, 0), by, site)
        argument = requantize(x.steps, self._argument(site, x.scale * 2**ARGUMENT_BITS))
        by = self._output(site, x.scale * 2**-15)
        return self._narrow(x.steps * gate(kind, argument), by, site)  # 17 + 15 bits

    def add(self, x: Quantized, y: Quantized, site: str) -> Quantized:
        """Bring both to the site's scale with one rounding."""
        by = self.constants.summands(site, x.scale, y.scale, self._encoding(site).scale)
        return self._stored(weighted_sum(x.steps, y.steps, by.m_x, by.m_y, by.t), site)

    def mul(self, x: Quantized, y: Quantized, site: str) -> Quantized:
        """Multiply steps; at most 2^31 for 16 bits."""
        by = self._output(site, x.scale * y.scale)
        return self._narrow(x.steps * y.steps, by, site)

    def scale(self, x: Quantized, factor: float, site: str) -> Quantized:
        """Let the same integers stand for other numbers; nothing is computed."""
        if not factor > 0:
            raise QuantizationError(
                f"{site}: a scale factor must be positive, got {factor}; with 0 a token that sees "
                "none weighs all alike, which only floats can"
            )
        return Quantized(x.q, Encoding(x.bits, x.scale * factor, x.encoding.zero_point))

    def softcap(self, x: Quantized, cap: float, site: str) -> Quantized:
        """Read tanh from its table."""
        by = self._argument(site, x.scale / cap * 2**ARGUMENT_BITS)
        bounded = gate("tanh", requantize(x.steps, by))
        output = self._output(site, cap * 2**-15)
        return self._narrow(bounded, output, site)

    def concat(self, x: Quantized, y: Quantized, site: str) -> Quantized:
        """Bring both to the site's scale, as `add` does with one summand, and join them."""
        scale, parts = self._encoding(site).scale, []
        for name, value in (("x", x), ("y", y)):
            by = self.constants.summands(f"{site}.{name}", value.scale, 0.0, scale)
            parts.append(weighted_sum(value.steps, 0 * value.steps, by.m_x, by.m_y, by.t))
        return self._stored(np.concatenate(parts, axis=-1), site)

    # -- layout ----------------------------------------------------------------------------------

    def split_heads(self, x: Quantized, n_heads: int, site: str) -> Quantized:
        """[batch, n_tok, n_heads * d_head] -> [batch, n_heads, n_tok, d_head]."""
        batch, n_tok, width = x.shape
        q = x.q.reshape(batch, n_tok, n_heads, width // n_heads).transpose(0, 2, 1, 3)
        return Quantized(q, x.encoding)

    def merge_heads(self, x: Quantized, site: str) -> Quantized:
        """[batch, n_heads, n_tok, d_head] -> [batch, n_tok, n_heads * d_head]."""
        batch, n_heads, n_tok, d_head = x.shape
        q = x.q.transpose(0, 2, 1, 3).reshape(batch, n_tok, n_heads * d_head)
        return Quantized(q, x.encoding)

    def share_heads(self, x: Quantized, head_of: tuple[int, ...], site: str) -> Quantized:
        """[batch, n_kv_heads, n, d_head] -> [batch, n_heads, n, d_head]."""
        return Quantized(x.q[:, list(head_of)], x.encoding)

    def append(self, past: Quantized | None, new: Quantized, site: str) -> Quantized:
        """Join along the token axis; both come from one site and share its encoding."""
        if past is None:
            return new
        return Quantized(np.concatenate([past.q, new.q], axis=2), new.encoding)

    def take_tokens(self, x: Quantized, index: np.ndarray, site: str) -> Quantized:
        """[batch, n_tok, d], [batch, n] -> [batch, n, d]."""
        return Quantized(np.take_along_axis(x.q, index[:, :, None], axis=1), x.encoding)

    def keep_slots(self, x: Quantized, n_kept: int, index: np.ndarray, site: str) -> Quantized:
        """[batch, heads, n, d], [batch, m] -> [batch, heads, n_kept + m, d]."""
        chosen = np.take_along_axis(x.q, index[:, None, :, None], axis=2)
        return Quantized(np.concatenate([x.q[:, :, :n_kept], chosen], axis=2), x.encoding)

    # -- decisions, and the way out ----------------------------------------------------------------

    def argmax(self, x: Quantized, site: str) -> np.ndarray:
        """Lowest index of the largest element; scales are positive, so integers decide."""
        return np.argmax(x.q, axis=-1)

    def top_k(self, x: Quantized, k: int, site: str) -> np.ndarray:
        """Indices of the k largest, lowest index first on ties."""
        return np.argsort(-x.q.astype(np.int64), axis=-1, kind="stable")[..., :k]

    def read(self, x: Any) -> np.ndarray:
        """Return the real numbers, float64."""
        return dequantize(x.q, x.scale, x.encoding.zero_point)

    # -- bringing accumulators to a site ----------------------------------------------------------

    def _encoding(self, site: str) -> Encoding:
        return self.model.encoding(site)

    def _output(self, site: str, scale: float, *, wide: bool = False) -> Multiplier:
        out_scale = self._encoding(site).scale
        return self.constants.multiplier(site, "output", scale, out_scale, wide=wide)

    def _argument(self, site: str, scale: float) -> Multiplier:
        return self.constants.multiplier(site, "argument", scale, 1.0)

    def _narrow(self, acc: np.ndarray, by: Multiplier, site: str) -> Quantized:
        return self._stored(requantize(acc, by, self.model.rounding), site)

    def _wide(self, acc: np.ndarray, by: Multiplier, site: str) -> Quantized:
        return self._stored(requantize_wide(acc, by), site)

    def _stored(self, steps: np.ndarray, site: str) -> Quantized:
        encoding = self._encoding(site)
        return Quantized(saturate(steps + encoding.zero_point, encoding.bits), encoding)
