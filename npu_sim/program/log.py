"""What the recorder writes with: stored tensors in, operations out, one graph call after another.

`recorder.py` decides what each operation of the vocabulary costs; here it is only written down, and
in the end made into a `Program`. Chapter: `docs/11_machine.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from npu_sim.errors import WorkloadError
from npu_sim.program.description import Description
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Gemm, Op, Program, Tensor

__all__ = ["Recording", "Shape", "Shaped", "stored"]

BIAS_BITS = 32  # a bias is added to the accumulator
TOKEN_BITS = 32
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shaped:
    """A value of the recorder: its shape, the stored tensor behind it, and perhaps the numbers."""

    shape: Shape  # as the model sees it
    tensor: Tensor  # as it is stored: a view of a cache has the shape of the cache
    value: Any = None  # the inner executor's, or None


def stored(tensor: Tensor) -> Shaped:
    """Return a value that is there before the recording begins: a cache, or another call's result.

    Args:
        tensor: as it is stored.

    Returns:
        The value, of the same shape.
    """
    return Shaped(shape=tensor.shape, tensor=tensor)


class Recording:
    """The operations so far, and the widths in which their tensors are stored.

    Args:
        description: the model, whose weight shapes are used; no weights are needed.
        precision: stored widths.
    """

    def __init__(self, description: Description, precision: Precision) -> None:
        self.name, self.precision = description.name, precision
        self.n_filled: int | None = None  # slots of the cache that hold tokens; None: all
        self.shapes = description.weight_shapes()
        self._heads = {f"{description.model.head_site}.weight"}
        self._calls: list[tuple[str, list[Op]]] = []

    def add_weights(self, shapes: Mapping[str, Shape], head: str) -> None:
        """Let the request use weights beside the model's, which must be stored too.

        Args:
            shapes: {name in the weight file: shape}.
            head: the one of them that projects onto the vocabulary, stored at the head's width.
        """
        self.shapes |= shapes
        self._heads.add(head)

    def begin(self, phase: str) -> None:
        """Start a new graph call; what follows belongs to it.

        Args:
            phase: such as "encode", "prefill" or "decode".
        """
        self._calls.append((phase, []))

    @property
    def phase(self) -> str:
        """Phase of the current graph call."""
        return self._calls[-1][0] if self._calls else ""

    def calls(self) -> tuple[Call, ...]:
        """Return what has been recorded.

        An operation that is as it was in the call before is that same object: most of a decode
        step is, and who counts or prices operations may do it once.
        """
        found: list[Call] = []
        before: tuple[Op, ...] = ()
        for phase, ops in self._calls:
            known = dict(enumerate(before))
            before = tuple(known[i] if known.get(i) == op else op for i, op in enumerate(ops))
            found.append(Call(phase=phase, ops=before))
        return tuple(found)

    def program(
        self, n_input: int, n_output: int, batch: int, calls: tuple[Call, ...] | None = None
    ) -> Program:
        """Return what has been recorded, with the weights that must be stored for it.

        Args:
            n_input: tokens read.
            n_output: tokens written.
            batch: rows computed together.
            calls: of the request; those that have been recorded by default.

        Returns:
            The program.
        """
        # each weight once, whether or not a call reads it
        stored_bytes = sum(tensor.n_bytes for tensor in self.weights(*self.shapes))
        return Program(
            model=self.name, precision=self.precision, n_input=n_input, n_output=n_output,
            batch=batch, stored_weight_bytes=stored_bytes,
            calls=self.calls() if calls is None else calls,
        )  # fmt: skip

    def weight(self, name: str, shape: Shape | None = None) -> Tensor:
        """Describe a weight as stored.

        Args:
            name: in the weight file.
            shape: the part of it that is read; everything by default.

        Returns:
            Its tensor. Matrices have the precision's width, gains that of activations.
        """
        if name.endswith(".bias"):
            bits = BIAS_BITS
        elif len(self.shapes[name]) == 1:
            bits = self.precision.activation_bits
        elif name in self._heads:
            bits = self.precision.head_bits
        else:
            bits = self.precision.weight_bits
        return Tensor(name=name, shape=shape or self.shapes[name], bits=bits, role="weight")

    def weights(self, *names: str) -> tuple[Tensor, ...]:
        """Describe those of the named weights that the model has."""
        return tuple(self.weight(name) for name in names if name in self.shapes)

    def record(
        self, kind: str, site: str, inputs: tuple[Tensor, ...], output: Tensor,
        *, gemm: Gemm | None = None, elements: int = 0, work: str = "none",
        kept_bytes: int | None = None,
    ) -> None:  # fmt: skip
        """Write down one operation of the current call."""
        if not self._calls:
            raise WorkloadError("a recording must begin with a phase, got none; call begin first")
        phase, ops = self._calls[-1]
        ops.append(
            Op(
                site=site, kind=kind, phase=phase, inputs=inputs, output=output, gemm=gemm,
                vector_elements=elements, vector_work=work, kept_bytes=kept_bytes,
                empty_kv_bytes=self._empty_bytes(kind, site, inputs),
            )
        )  # fmt: skip

    def _empty_bytes(self, kind: str, site: str, inputs: tuple[Tensor, ...]) -> int:
        """Bytes of slots without a token that self-attention reads."""
        if self.n_filled is None or kind != "matmul" or ".self_attention." not in site:
            return 0
        cached = [t for t in inputs if t.role == "kv"]  # [batch, n_kv_heads, n_slots, d_head]
        return sum(
            t.n_bytes - t.n_bytes * min(self.n_filled, t.shape[2]) // t.shape[2] for t in cached
        )

    def activation(self, site: str, shape: Shape) -> Tensor:
        """Describe what an operation leaves for the next."""
        bits = self.precision.activation_bits
        return Tensor(name=site, shape=shape, bits=bits, role="activation")

    def vector(
        self, kind: str, work: str, shape: Shape, inputs: tuple[Tensor, ...], site: str, value: Any
    ) -> Shaped:
        """Write down work of the vector engine on every element of the result."""
        output = self.activation(site, shape)
        self.record(kind, site, inputs, output, elements=prod(shape), work=work)
        return Shaped(shape=shape, tensor=output, value=value)

    def matrix(
        self, kind: str, shape: Shape, inputs: tuple[Tensor, ...], gemm: Gemm, site: str, value: Any
    ) -> Shaped:
        """Write down a product; the result comes out of the accumulators at activation width."""
        output = self.activation(site, shape)
        self.record(kind, site, inputs, output, gemm=gemm)
        return Shaped(shape=shape, tensor=output, value=value)

    def view(self, kind: str, x: Shaped, shape: Shape, site: str, value: Any) -> Shaped:
        """Write down another way to look at the same tensor."""
        self.record(kind, site, (x.tensor,), x.tensor)
        return Shaped(shape=shape, tensor=x.tensor, value=value)

    def decide(self, kind: str, x: Shaped, shape: Shape, elements: int, site: str) -> None:
        """Write down a choice among elements."""
        tokens = Tensor(name=site, shape=shape, bits=TOKEN_BITS, role="activation")
        self.record(kind, site, (x.tensor,), tokens, elements=elements, work="compare")
