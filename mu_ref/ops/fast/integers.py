"""The fast integer executor: the integers of `mu_ref/ops/integer.py`, computed by kernels."""

from collections.abc import Callable
from math import e as euler
from math import log2, sqrt
from typing import Any

import numpy as np

from mu_ref.errors import QuantizationError
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.fixed_point import (
    Multiplier,
    check_accumulator,
    dequantize,
    integer_range,
    quantize_multiplier,
    quantize_multipliers,
    round_half_away,
)
from mu_ref.integers.nonlinear import ARGUMENT_BITS, turn, unit_phase
from mu_ref.integers.store import IntegerModel
from mu_ref.integers.tables import table, turn_steps
from mu_ref.kernels import integer_program as machine
from mu_ref.kernels.linear import BYTES
from mu_ref.kernels.rounding import DOUBLE, EVEN, SINGLE
from mu_ref.memory import LINE, aligned
from mu_ref.ops.fast.deferred import Recorded
from mu_ref.ops.fast.memory import Tensor, as_integers, as_marks, check_tokens
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.rotation import Rotation

__all__ = ["FastIntegerOps"]

MODES = {"tflite_single": SINGLE, "tflite_double": DOUBLE, "half_even": EVEN}
Constants = tuple[np.ndarray, int]  # int64 and their address


class FastIntegerOps(Recorded):
    """Computes the integers of `IntegerOps`, faster; a value is a `Tensor`.

    Args:
        model: integer weights, their scales and the encoding of every site.
    """

    COPY, TAKE = machine.COPY, machine.TAKE

    def __init__(self, model: IntegerModel) -> None:
        super().__init__(np.int16, machine.run, sum(t.nbytes for t in model.tensors.values()))
        self.model = model
        self._mode = MODES[model.rounding]
        self._numpy = IntegerOps(model)
        self._known: dict[tuple[Any, ...], Any] = {}
        self._scratch = aligned((0,), np.uint8)

    # -- constants of a site -----------------------------------------------------------------------

    def _constants(
        self,
        key: tuple[Any, ...],
        site: str,
        make: Callable[[Encoding], list[Any]],
        *,
        wide: bool = False,
    ) -> tuple[Encoding, int]:
        """The site's encoding, and the address of low, high, mode and what `make` returns.

        A wide accumulator is always rounded once (5.4), whatever the model's rounding.
        """
        if key not in self._known:
            encoding = self.model.encoding(site)
            low, high = (q - encoding.zero_point for q in integer_range(encoding.bits))
            if not -(2**15) <= low <= high < 2**15:
                raise QuantizationError(
                    f"{site}: the fast executor needs a zero point of 0 at 16 bits, "
                    f"got {encoding.zero_point}"
                )
            mode = SINGLE if wide else self._mode
            parts = (low, high, mode, *make(encoding))
            values = np.concatenate([np.ravel(x).astype(np.int64) for x in parts])
            self._known[key] = encoding, values.ctypes.data, values
        encoding, address, _ = self._known[key]
        return encoding, address

    def _table(self, name: str) -> tuple[int, int]:
        points = table(name)
        return points.ctypes.data, len(points)

    def _weight(self, source: str) -> tuple[np.ndarray, int]:
        """Int8 rows in whole vectors, four or a multiple, and their address."""
        if ("weight", source) not in self._known:
            weight = self.model.weight(source)
            d_out, d_in = weight.shape
            rows, whole = weight, (-(-d_out // 4) * 4, -(-d_in // BYTES) * BYTES)
            if weight.shape != whole or weight.ctypes.data % LINE or not weight.flags.c_contiguous:
                rows = aligned(whole, np.int8)
                rows[:d_out, :d_in] = weight
            self._known["weight", source] = rows, rows.ctypes.data
        return self._known["weight", source]

    # -- operations that read a weight -------------------------------------------------------------

    def embed(self, tokens: np.ndarray, site: str) -> Tensor:
        """Look up int8 rows and bring each from its own scale to the site's."""
        rows, address = self._weight(site)
        scales = self.model.weight_scale(site)
        n_rows = len(scales)
        at = self._input(tokens, "tokens", lambda t: as_integers(check_tokens(t, n_rows, site)))
        encoding, constants = self._constants(
            ("embed", site),
            site,
            lambda out: self._narrow(quantize_multipliers(scales / out.scale)),
        )
        d = self.model.weight(site).shape[1]
        x = self._new((*tokens.shape, d), encoding)
        self._record(
            machine.EMBED, x.block.address, address, at,
            1, len(scales), tokens.size, d, constants, rows.shape[1],
        )  # fmt: skip
        return x

    def linear(self, x: Tensor, site: str, weight_site: str | None = None) -> Tensor:
        """Sum (q - z) w over features, add the int32 bias, bring to the site's scale."""
        source, coming = weight_site or site, x.meaning
        rows, address = self._weight(source)
        d_out, d_in = self.model.weight(source).shape
        wide = coming.bits == 16
        encoding, constants = self._constants(
            ("linear", site, source, coming),
            site,
            lambda out: self._sums(site, source, coming, out),
            wide=wide,
        )
        n_rows = 1
        for size in x.shape[:-1]:
            n_rows *= size
        y = self._new((*x.shape[:-1], d_out), encoding)
        self._record(
            machine.LINEAR, y.block.address, x.block.address, address, constants,
            n_rows, d_in, rows.shape[1], d_out, int(wide), self._scratch_for(rows.shape[1]),
            self._known["small", ("m", site, source, coming)][1],
        )  # fmt: skip
        return y

    def _sums(self, site: str, source: str, coming: Encoding, out: Encoding) -> list[Any]:
        weight = self.model.weight(source)
        wide, bias = coming.bits == 16, self.model.bias(site)
        start = np.zeros(len(weight), np.int64) if bias is None else bias.astype(np.int64)
        x_max = 2**15 if wide else 255
        check_accumulator(
            site, weight.shape[1], x_max, 128, wide=wide, start=int(np.abs(start).max())
        )
        by = quantize_multipliers(self.model.weight_scale(source) * coming.scale / out.scale)
        offset = coming.zero_point + 128  # what is added to a step to make it a byte
        too_much = 128 << 8 if wide else offset
        start = start - too_much * weight.sum(axis=1, dtype=np.int64)
        m, t = self._wide(by, site) if wide else self._narrow(by)
        self._small(("m", site, source, coming), m, np.int32)
        return [offset, t, start]

    def _scratch_for(self, d: int) -> int:
        """Address of what each thread needs to pack rows of d bytes and to hold sums."""
        n = self.n_threads * machine.scratch_bytes(d)
        if n > self._scratch.size:
            self._known["scratch", len(self._scratch)] = self._scratch  # a replay may still use it
            self._scratch = aligned((n,), np.uint8)
        return self._scratch.ctypes.data

    def norm(self, x: Tensor, site: str, kind: str, eps: float) -> Tensor:
        """Divide by the root of the sum of squares, multiply by int16 gains."""
        d, coming, layer = x.shape[-1], x.meaning, kind == "layer"
        rsqrt, n_points = self._table("rsqrt")

        def make(out: Encoding) -> list[Any]:
            eps_steps = eps * d / coming.scale**2 * (d * d if layer else 1)
            if not eps_steps < 2**61:
                raise QuantizationError(
                    f"{site}: eps {eps} must stay below 2^61 squared steps of {coming.scale:.3g}; "
                    "calibrate with data that reaches this site"
                )
            gain_scale = float(self.model.weight_scale(site)[0])
            by = quantize_multiplier(gain_scale * sqrt(d) / out.scale)
            return [*self._narrow(by), int(layer), round(eps_steps), n_points]

        encoding, constants = self._constants(("norm", site, coming), site, make)
        gain = self._small(f"{site}.weight", self.model.weight(site), np.int16)
        bias = 0
        if layer:
            given = self.model.bias(site)
            bias = self._small(f"{site}.bias", np.zeros(d) if given is None else given, np.int32)
        n_rows = 1
        for size in x.shape[:-1]:
            n_rows *= size
        y = self._new(x.shape, encoding)
        self._record(
            machine.NORM, y.block.address, x.block.address, constants,
            n_rows, d, gain, bias, rsqrt,
        )  # fmt: skip
        return y

    def _small(self, name: Any, values: np.ndarray, dtype: type) -> int:
        if ("small", name) not in self._known:
            values = np.ascontiguousarray(values, dtype)
            self._known["small", name] = values, values.ctypes.data
        return self._known["small", name][1]

    # -- operations on activations -----------------------------------------------------------------

    def rope(self, x: Tensor, rotation: Rotation, site: str) -> Tensor:
        """Rotate by cosines and sines in units of 2^-15, found from integer phases."""
        batch, heads, n_tok, d_head = x.shape
        coming = x.meaning
        encoding, constants = self._constants(
            ("rope", site, coming),
            site,
            lambda out: self._narrow(quantize_multiplier(coming.scale * 2**-15 / out.scale)),
        )
        y = self._new(x.shape, encoding, n_tok)

        def turns(rotation: Rotation) -> np.ndarray:
            speeds = np.stack([turn_steps(float(t), d_head) for t in rotation.theta])
            both = turn(unit_phase(rotation.positions, speeds))
            shape = (batch, n_tok, d_head // 2)
            return np.stack([np.broadcast_to(x, shape) for x in both]).copy(order="C")

        cos = self._input(rotation, f"turns of {d_head}", turns)
        sin = cos + batch * n_tok * (d_head // 2) * 8
        self._record(
            machine.ROPE, y.block.address, x.block.address, constants,
            batch * n_tok, heads, d_head, cos, sin,
        )  # fmt: skip
        return y

    def matmul(self, a: Tensor, b: Tensor, site: str, *, transpose_b: bool = False) -> Tensor:
        """Compute q · k with transpose_b, p · v without; other products are left to NumPy."""
        if b.shared is None:
            return self._left(
                lambda: self._numpy.matmul(
                    self._quantized(a), self._quantized(b), site, transpose_b=transpose_b
                )
            )
        batch, n_heads, n_key, d_head = b.shape
        n_query = a.shape[2]
        head_of, n_kv = b.shared
        one, two = a.meaning, b.meaning
        wide = 16 in (one.bits, two.bits)

        def make(out: Encoding) -> list[Any]:
            by = quantize_multiplier(one.scale * two.scale / out.scale)
            return [*(self._wide(by, site) if wide else self._narrow(by)), int(not wide)]

        largest = {8: 255, 16: 2**15}
        n_terms = d_head if transpose_b else n_key
        check_accumulator(site, n_terms, largest[one.bits], largest[two.bits], wide=wide)
        encoding, constants = self._constants(("matmul", site, one, two), site, make, wide=wide)
        if transpose_b:
            op, y = machine.SCORES, self._new((batch, n_heads, n_query, n_key), encoding)
        else:
            op, y = machine.MIX, self._new((batch, n_heads, n_query, d_head), encoding, n_query)
        self._record(
            op, y.block.address, a.block.address, b.block.address, constants, head_of,
            batch, n_heads, n_kv, n_query, n_key, b.room, d_head,
        )  # fmt: skip
        return y

    def softmax(self, x: Tensor, mask: np.ndarray, site: str) -> Tensor:
        """Weigh by powers of two, divide by the sum; masked keys weigh exactly 0."""
        if len(x.shape) != 4 or mask.shape[1] != 1:
            return self._left(lambda: self._numpy.softmax(self._quantized(x), mask, site))
        batch, n_heads, n_query, n_key = x.shape
        coming = x.meaning
        exp2, n_points = self._table("exp2")

        def make(out: Encoding) -> list[Any]:
            by = quantize_multiplier(coming.scale * log2(euler) * 2**ARGUMENT_BITS)
            return [*self._narrow(by), 8 if out.bits == 8 else 15, n_points]

        encoding, constants = self._constants(("softmax", site, coming), site, make)
        seen = self._input(mask, f"seen by {n_query}", lambda m: as_marks(m, n_query))
        y = self._new(x.shape, encoding)
        self._record(
            machine.SOFTMAX, y.block.address, x.block.address, seen, constants, exp2,
            batch, n_heads, 0, n_query, n_key,
        )  # fmt: skip
        return y

    def activation(self, x: Tensor, kind: str, site: str) -> Tensor:
        """Multiply by a gate from a table; relu by a comparison."""
        coming = x.meaning
        if coming.bits == 8:
            return self._looked_up(x, lambda q: self._numpy.activation(q, kind, site), site)
        if kind == "relu":
            name, factor, code = "tanh", coming.scale, 2
        else:
            name, factor, code = f"gate_{kind}", coming.scale * 2**-15, 0
        return self._gated(x, name, coming.scale, factor, code, site)

    def softcap(self, x: Tensor, cap: float, site: str) -> Tensor:
        """Read tanh from its table."""
        if x.meaning.bits == 8:
            return self._looked_up(x, lambda q: self._numpy.softcap(q, cap, site), site)
        return self._gated(x, "tanh", x.meaning.scale / cap, cap * 2**-15, 1, site)

    def _gated(
        self, x: Tensor, name: str, argument: float, factor: float, code: int, site: str
    ) -> Tensor:
        points, n_points = self._table(name)

        def make(out: Encoding) -> list[Any]:
            by = quantize_multiplier(argument * 2**ARGUMENT_BITS)
            scaled = self._narrow(quantize_multiplier(factor / out.scale))
            return [*scaled, code, *self._narrow(by), n_points]

        key = (site, x.meaning, name, factor)
        encoding, constants = self._constants(key, site, make)
        return self._elementwise(machine.ACTIVATION, x, points, constants, encoding)

    def _looked_up(self, x: Tensor, compute: Callable[[Quantized], Quantized], site: str) -> Tensor:
        """Read what the reference computes of each of the 256 values of 8 bits."""
        coming = x.meaning
        if ("lookup", site, coming) not in self._known:
            q = np.arange(-128, 128, dtype=np.int8)
            values = np.zeros(511, np.int16)
            values[255 + q.astype(np.int64) - coming.zero_point] = compute(
                Quantized(q, coming)
            ).steps
            self._known["lookup", site, coming] = values
        values = self._known["lookup", site, coming]
        encoding, constants = self._constants(("looked up", site), site, lambda out: [0, 0])
        return self._elementwise(machine.LOOKUP, x, values.ctypes.data, constants, encoding)

    def add(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Bring both to the site's scale with one rounding."""
        one, two = x.meaning, y.meaning

        def make(out: Encoding) -> list[Any]:
            factors = one.scale / out.scale, two.scale / out.scale
            for factor in factors:
                quantize_multiplier(factor)
            t = 31 - quantize_multiplier(max(factors)).shift
            m_x, m_y = (round_half_away(factor * 2**t) for factor in factors)
            return [m_x, t, m_y]

        encoding, constants = self._constants(("add", site, one, two), site, make)
        return self._elementwise(machine.ADD, x, y.block.address, constants, encoding)

    def mul(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Multiply steps."""
        one, two = x.meaning, y.meaning
        encoding, constants = self._constants(
            ("mul", site, one, two),
            site,
            lambda out: self._narrow(quantize_multiplier(one.scale * two.scale / out.scale)),
        )
        return self._elementwise(machine.MUL, x, y.block.address, constants, encoding)

    def concat(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Bring both to the site's scale, as `add` does with one summand, and join them."""
        x, y = (self._brought(v, site) for v in (x, y))
        return self._join(x, y, x.meaning)

    def _brought(self, x: Tensor, site: str) -> Tensor:
        coming = x.meaning

        def make(out: Encoding) -> list[Any]:
            m, t = self._narrow(quantize_multiplier(coming.scale / out.scale))
            return [m, t, 0]

        encoding, constants = self._constants(("concat", site, coming), site, make)
        return self._elementwise(machine.ADD, x, x.block.address, constants, encoding)

    def _elementwise(
        self, op: int, x: Tensor, other: int, constants: int, encoding: Encoding
    ) -> Tensor:
        out = self._new(x.shape, encoding, x.room)
        n = 1
        for size in x.shape:
            n *= size
        self._record(op, out.block.address, x.block.address, other, constants, n)
        return out

    def scale(self, x: Tensor, factor: float, site: str) -> Tensor:
        """Let the same integers stand for other numbers; nothing is computed."""
        if not factor > 0:
            raise QuantizationError(f"{site}: a scale factor must be positive, got {factor}")
        meaning = x.meaning
        scaled = Encoding(meaning.bits, meaning.scale * factor, meaning.zero_point)
        return Tensor(x.block, x.shape, scaled, x.room, x.shared)

    # -- the way out -------------------------------------------------------------------------------

    def read(self, x: Tensor) -> np.ndarray:
        """Return the real numbers, float64."""
        return dequantize(self._numbers(x), x.meaning.scale)

    def _quantized(self, x: Tensor) -> Quantized:
        """The value as the reference integer executor holds it."""
        q = self._numbers(x).astype(np.int64) + x.meaning.zero_point
        return Quantized(q.astype(f"i{x.meaning.bits // 8}"), x.meaning)

    def _left(self, compute: Callable[[], Quantized]) -> Tensor:
        value = compute()
        return self._stored(value.steps.astype(np.int16), value.encoding)

    def _narrow(self, by: Multiplier) -> list[Any]:
        """Return m and t of `requantize`."""
        return [by.m, 31 - by.shift]

    def _wide(self, by: Multiplier, site: str) -> list[Any]:
        """Return m and t of `requantize_wide`."""
        if np.any(np.asarray(by.shift) > 14):
            raise QuantizationError(
                f"{site}: a multiplier of a 64-bit accumulator must be below 2^14; "
                "the two scales do not belong together"
            )
        return [np.minimum((np.asarray(by.m) + 2**15) >> 16, 0x7FFF), 15 - by.shift]
