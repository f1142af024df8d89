"""The fast integer executor: the integers of `mu_ref/ops/integer.py`, computed by kernels.

Every operation asks `sites.py` for what its site needs, takes memory for the result and defers a
row; how it goes on: `deferred.py`.
"""

from collections.abc import Callable
from math import prod
from typing import final

import numpy as np

from mu_ref.errors import QuantizationError
from mu_ref.integers.fixed_point import dequantize
from mu_ref.integers.nonlinear import turn, unit_phase
from mu_ref.integers.store import IntegerModel
from mu_ref.integers.tables import turn_steps
from mu_ref.kernels import integer_program as machine
from mu_ref.kernels.drafts.integer_passes import run_drafted
from mu_ref.ops.fast.memory import Tensor, as_integers, as_marks, check_tokens
from mu_ref.ops.fast.sites import Site, Sites
from mu_ref.ops.fast.stretches.drafting import DraftingOps
from mu_ref.ops.fast.turns import turns_of
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.rotation import Rotation

__all__ = ["FastIntegerOps"]


@final
class FastIntegerOps(DraftingOps):
    """Computes the integers of `IntegerOps`, faster; a value is a `Tensor`.

    Its memory holds steps q - z as int16, for 8 bits too; `meaning` is the encoding.

    Args:
        model: integer weights, their scales and the encoding of every site.
        alone: True if nobody else reads the model from now on. Its matrices are then taken out of
            it one by one, and laid out where they lie; otherwise they are held twice.
    """

    def __init__(self, model: IntegerModel, *, alone: bool = False) -> None:
        n_bytes = sum(t.nbytes for t in model.tensors.values())
        super().__init__(
            run_drafted, np.int16, machine.run, machine.run_greedy,
            machine.scratch_bytes, n_bytes,
        )  # fmt: skip
        self.model = model
        self._sites = Sites(model, alone=alone)
        self._numpy = IntegerOps(model)

    # -- operations that read a weight -------------------------------------------------------------

    def embed(self, tokens: np.ndarray, site: str) -> Tensor:
        """Look up int8 rows and bring each from its own scale to the site's."""
        table = self._sites.weight(site)
        n_rows = table.d_out
        at = self._input(tokens, "tokens", lambda t: as_integers(check_tokens(t, n_rows, site)))
        encoding, constants = self._sites.embed(site)
        x = self._new((*tokens.shape, table.d_in), encoding)
        self._defer(
            machine.EMBED, x.block.address, table.address, at, constants,
            tokens.size, table.d_in, table.width, n_rows,
        )  # fmt: skip
        return x

    def linear(self, x: Tensor, site: str, weight_site: str | None = None) -> Tensor:
        """Sum (q - z) w over features, add the int32 bias, bring to the site's scale."""
        source = weight_site or site
        weight = self._sites.weight(source)
        encoding, constants, multipliers = self._sites.linear(site, source, x.meaning)
        y = self._new((*x.shape[:-1], weight.d_out), encoding)
        self._defer(
            machine.LINEAR, y.block.address, x.block.address, weight.address, constants,
            prod(x.shape[:-1]), weight.d_in, weight.width, weight.d_out,
            int(x.meaning.bits == 16), self._scratch_for(weight.width), multipliers,
        )  # fmt: skip
        return y

    def norm(self, x: Tensor, site: str, kind: str, eps: float) -> Tensor:
        """Divide by the root of the sum of squares, multiply by int16 gains."""
        d, model = x.shape[-1], self.model
        encoding, constants = self._sites.norm(site, x.meaning, d, kind, eps)
        gain = self._sites.vector(f"{site}.weight", model.weight(site), np.int16)
        bias = 0
        if kind == "layer":
            given = model.bias(site)
            given = np.zeros(d) if given is None else given
            bias = self._sites.vector(f"{site}.bias", given, np.int32)
        y = self._new(x.shape, encoding)
        self._defer(
            machine.NORM, y.block.address, x.block.address, constants,
            prod(x.shape[:-1]), d, gain, bias, self._sites.table("rsqrt")[0],
        )  # fmt: skip
        return y

    # -- operations on activations -----------------------------------------------------------------

    def rope(self, x: Tensor, rotation: Rotation, site: str) -> Tensor:
        """Rotate by cosines and sines in units of 2^-15, found from integer phases."""
        batch, heads, n_tok, d_head = x.shape
        encoding, constants = self._sites.scaled(site, x.meaning.scale * 2**-15)
        y = self._new(x.shape, encoding, n_tok)

        shape = batch, n_tok, d_head // 2
        cos = self._input(rotation, f"turns of {d_head}", lambda r: turns_of(r, shape, _turns))
        sin = cos + batch * n_tok * (d_head // 2) * 8  # bytes; one array, so that one replay fills
        self._defer(
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
        n_terms = d_head if transpose_b else n_key
        encoding, constants = self._sites.matmul(site, a.meaning, b.meaning, n_terms)
        if transpose_b:
            op, y = machine.SCORES, self._new((batch, n_heads, n_query, n_key), encoding)
        else:
            op, y = machine.MIX, self._new((batch, n_heads, n_query, d_head), encoding, n_query)
        self._defer(
            op, y.block.address, a.block.address, b.block.address, constants, head_of,
            batch, n_heads, n_kv, n_query, n_key, b.room, d_head,
        )  # fmt: skip
        return y

    def softmax(self, x: Tensor, mask: np.ndarray, site: str) -> Tensor:
        """Weigh by powers of two, divide by the sum; masked keys weigh exactly 0."""
        if len(x.shape) != 4 or mask.shape[1] != 1:
            return self._left(lambda: self._numpy.softmax(self._quantized(x), mask, site))
        batch, n_heads, n_query, n_key = x.shape
        encoding, constants = self._sites.softmax(site, x.meaning)
        seen = self._input(mask, f"seen by {n_query}", lambda m: as_marks(m, n_query))
        y = self._new(x.shape, encoding)
        self._defer(
            machine.SOFTMAX, y.block.address, x.block.address, seen, constants,
            self._sites.table("exp2")[0], batch, n_heads, 0, n_query, n_key,
        )  # fmt: skip
        return y

    def activation(self, x: Tensor, kind: str, site: str) -> Tensor:
        """Multiply by a gate from a table; relu by a comparison."""
        scale = x.meaning.scale
        if x.meaning.bits == 8:
            return self._looked_up(x, lambda q: self._numpy.activation(q, kind, site), site)
        if kind == "relu":  # reads no table; the kernel is given one all the same
            return self._gated(x, "tanh", scale, scale, 2, site)
        return self._gated(x, f"gate_{kind}", scale, scale * 2**-15, 0, site)

    def softcap(self, x: Tensor, cap: float, site: str) -> Tensor:
        """Read tanh from its table."""
        if x.meaning.bits == 8:
            return self._looked_up(x, lambda q: self._numpy.softcap(q, cap, site), site)
        return self._gated(x, "tanh", x.meaning.scale / cap, cap * 2**-15, 1, site)

    def _gated(
        self, x: Tensor, name: str, argument: float, factor: float, code: int, site: str
    ) -> Tensor:
        found = self._sites.gate(site, name, argument, factor, code)
        return self._elementwise(machine.ACTIVATION, x, self._sites.table(name)[0], found)

    def _looked_up(self, x: Tensor, compute: Callable[[Quantized], Quantized], site: str) -> Tensor:
        """Read what the reference computes of each of the 256 values of 8 bits."""
        coming = x.meaning

        def make() -> np.ndarray:
            q = np.arange(-128, 128, dtype=np.int8)
            values = np.empty(256, np.int16)
            # by the lower byte of a step q - z, which no two values of 8 bits share
            values[(q.astype(np.int64) - coming.zero_point) & 255] = compute(
                Quantized(q, coming)
            ).steps
            return values

        values = self._sites.keep(("looked up", site, coming), make)
        return self._elementwise(machine.LOOKUP, x, values, self._sites.scaled(site, 0.0))

    def add(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Bring both to the site's scale with one rounding."""
        found = self._sites.add(site, x.meaning, y.meaning)
        return self._elementwise(machine.ADD, x, y.block.address, found)

    def mul(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Multiply steps."""
        found = self._sites.scaled(site, x.meaning.scale * y.meaning.scale)
        return self._elementwise(machine.MUL, x, y.block.address, found)

    def concat(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Bring both to the site's scale, as `add` does with one summand, and join them."""
        x, y = (self._brought(v, site) for v in (x, y))
        return self._join(x, y, x.meaning)

    def _brought(self, x: Tensor, site: str) -> Tensor:
        """Add x and 0 times x: a summand that counts nothing, but is there to be read."""
        found = self._sites.scaled(site, x.meaning.scale, 0)
        return self._elementwise(machine.ADD, x, x.block.address, found)

    def _elementwise(self, op: int, x: Tensor, other: int, found: Site) -> Tensor:
        encoding, constants = found
        out = self._new(x.shape, encoding, x.room)
        self._defer(op, out.block.address, x.block.address, other, constants, prod(x.shape))
        return out

    def scale(self, x: Tensor, factor: float, site: str) -> Tensor:
        """Let the same integers stand for other numbers; nothing is computed."""
        if not factor > 0:
            raise QuantizationError(
                f"{site}: a scale factor must be positive, got {factor}; with 0 a token that sees "
                "none weighs all alike, which only floats can"
            )
        scaled = self._sites.of_factor(x.meaning, factor)
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


def _turns(rotation: Rotation) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines, in units of 2^-15."""
    given = rotation.d_head, rotation.factor
    speeds = np.stack([turn_steps(float(t), *given) for t in rotation.theta])
    return turn(unit_phase(rotation.positions, speeds))
