"""The executor that computes nothing: each operation becomes a node of an ONNX graph.

The model's functions run once, on tensors that have a name and no numbers. A node has the name of
its site, and so has the tensor that holds the site's value; nodes that help are `SITE/what`. Token
ids, masks, cosines and sines are inputs of the graph, as they are arguments of the operations.

In floats a tensor holds float32. In integers it holds int8 or int16, as in `integer.py`:
DequantizeLinear before every operation that computes and QuantizeLinear after it, with the site's
scale and zero point, say so (QDQ). An engine is free to compute in between in floats, as the
operators are defined, or in integers of its own: it is close to `integer.py`, never the same to the
bit. Layout moves the integers as they are. Page: `docs/onnx.md`.
"""

from dataclasses import replace
from typing import Any, final

import numpy as np

from mu_ref.ops import Ops
from mu_ref.ops.onnx.graph import Graph, Tensor
from mu_ref.ops.onnx.numbers import Parts

__all__ = ["OnnxOps", "Turn"]

LOWEST = np.finfo(np.float32).min  # the score of a masked key; its weight is set to 0 after all


class Turn:
    """Stands for a `Rotation`: cosines and sines that the graph is given.

    Args:
        graph: where they are inputs.
        shape: [batch, n_tok, d_head / 2].
    """

    def __init__(self, graph: Graph, shape: tuple[int | str, ...]) -> None:
        self.cos, self.sin = graph.take("cos", shape), graph.take("sin", shape)


@final
class OnnxOps(Ops):
    """Writes each operation down as nodes; a value is a `Tensor`.

    Token ids, masks and indices may be tensors of integers or bools, or arrays, which become
    constants; a rotation is a `Turn`, or a `Rotation`.

    Args:
        parts: of floats or of integers; holds the graph.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts, self.graph = parts, parts.graph

    # -- operations that read a weight -----------------------------------------------------------

    def embed(self, tokens: Any, site: str) -> Tensor:
        """Gather rows of the table."""
        table = self.parts.table(site)
        reads = [table.name, self._given(tokens, f"{site}.tokens")]
        return self._node("Gather", reads, site, (*tokens.shape, table.shape[1]), axis=0)

    def linear(self, x: Tensor, site: str, weight_site: str | None = None) -> Tensor:
        """MatMul, and Add of the bias."""
        source = weight_site or site
        weight = self.parts.matrix(site, source)
        reads, shape = [self.parts.read(x), weight.name], (*x.shape[:-1], weight.shape[1])
        bias = self.parts.bias(site, x, source)
        if bias is None:
            return self._node("MatMul", reads, site, shape)
        return self._node("Add", [self._inner("MatMul", reads, site, "product"), bias], site, shape)

    def norm(self, x: Tensor, site: str, kind: str, eps: float) -> Tensor:
        """RMSNormalization or LayerNormalization."""
        reads = [self.parts.read(x), self.parts.gain(site, plus_one=kind == "rms_plus_one")]
        if kind != "layer":
            return self._node("RMSNormalization", reads, site, x.shape, epsilon=eps)
        bias = self.parts.norm_bias(site)
        reads += [] if bias is None else [bias]
        return self._node("LayerNormalization", reads, site, x.shape, epsilon=eps)

    # -- operations on activations ---------------------------------------------------------------

    def rope(self, x: Tensor, rotation: Any, site: str) -> Tensor:
        """RotaryEmbedding of halves."""
        angles = [self._given(getattr(rotation, n), f"{site}.{n}") for n in ("cos", "sin")]
        return self._node("RotaryEmbedding", [self.parts.read(x), *angles], site, x.shape)

    def matmul(self, a: Tensor, b: Tensor, site: str, *, transpose_b: bool = False) -> Tensor:
        """MatMul, of b with its last axes swapped if asked for."""
        if transpose_b:
            swapped = (*b.shape[:-2], b.shape[-1], b.shape[-2])
            perm = [*range(len(swapped) - 2), len(swapped) - 1, len(swapped) - 2]
            b = self._moved("Transpose", [b.name], f"{site}/transpose", b, swapped, perm=perm)
        reads = [self.parts.read(a), self.parts.read(b)]
        return self._node("MatMul", reads, site, (*a.shape[:-1], b.shape[-1]))

    def softmax(self, x: Tensor, mask: Any, site: str) -> Tensor:
        """Softmax between two Where: masked keys weigh exactly 0, in rows of only such too."""
        seen = self._given(mask, f"{site}.mask")
        lowest = self.graph.constant("lowest", np.array(LOWEST, np.float32))
        zero = self.graph.constant("zero", np.array(0, np.float32))
        scores = self._inner("Where", [seen, self.parts.read(x), lowest], site, "masked")
        weights = self._inner("Softmax", [scores], site, "softmax", axis=-1)
        return self._node("Where", [seen, weights, zero], site, x.shape)

    def activation(self, x: Tensor, kind: str, site: str) -> Tensor:
        """Gelu, Relu, or x times Sigmoid."""
        read = self.parts.read(x)
        if kind == "relu":
            return self._node("Relu", [read], site, x.shape)
        if kind == "silu":
            return self._node("Mul", [read, self._inner("Sigmoid", [read], site, "sigmoid")], site,
                              x.shape)  # fmt: skip
        approximate = "tanh" if kind == "gelu_tanh" else "none"
        return self._node("Gelu", [read], site, x.shape, approximate=approximate)

    def add(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Add."""
        return self._node("Add", [self.parts.read(x), self.parts.read(y)], site, x.shape)

    def mul(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Mul."""
        return self._node("Mul", [self.parts.read(x), self.parts.read(y)], site, x.shape)

    def scale(self, x: Tensor, factor: float, site: str) -> Tensor:
        """Mul by a constant; of integers only what they stand for changes."""
        if x.encoding is not None:
            return replace(
                x, encoding=replace(x.encoding, scale=x.encoding.scale * factor), home=site
            )
        by = self.graph.constant(f"{site}.factor", np.array(factor, np.float32))
        return self._node("Mul", [x.name, by], site, x.shape)

    def softcap(self, x: Tensor, cap: float, site: str) -> Tensor:
        """Div, Tanh, Mul."""
        by = self.graph.constant(f"{site}.cap", np.array(cap, np.float32))
        share = self._inner("Div", [self.parts.read(x), by], site, "share")
        return self._node("Mul", [self._inner("Tanh", [share], site, "tanh"), by], site, x.shape)

    def concat(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Concat of the last axis."""
        shape = (*x.shape[:-1], x.shape[-1] + y.shape[-1])  # type: ignore[operator]  # two widths
        return self._node("Concat", [self.parts.read(x), self.parts.read(y)], site, shape, axis=-1)

    # -- layout ----------------------------------------------------------------------------------

    def split_heads(self, x: Tensor, n_heads: int, site: str) -> Tensor:
        """Reshape and Transpose."""
        batch, n_tok, width = x.shape
        d_head = int(width) // n_heads
        split = self._reshaped(x.name, [0, 0, n_heads, d_head], site)
        return self._moved("Transpose", [split], site, x, (batch, n_heads, n_tok, d_head),
                           perm=[0, 2, 1, 3])  # fmt: skip

    def merge_heads(self, x: Tensor, site: str) -> Tensor:
        """Transpose and Reshape."""
        batch, n_heads, n_tok, d_head = x.shape
        width = int(n_heads) * int(d_head)
        turned = self._inner("Transpose", [x.name], site, "transpose", perm=[0, 2, 1, 3])
        to = self.graph.constant(f"{site}.shape", np.array([0, 0, width]))
        return self._moved("Reshape", [turned, to], site, x, (batch, n_tok, width))

    def share_heads(self, x: Tensor, head_of: tuple[int, ...], site: str) -> Tensor:
        """Gather heads; nothing if each query head has its own."""
        if head_of == tuple(range(int(x.shape[1]))):
            return x
        of = self.graph.constant(f"{site}.head_of", np.array(head_of))
        shape = (x.shape[0], len(head_of), *x.shape[2:])
        return self._moved("Gather", [x.name, of], site, x, shape, axis=1)

    def append(self, past: Tensor | None, new: Tensor, site: str) -> Tensor:
        """Concat of the token axis."""
        if past is None:
            return new
        shape = (*new.shape[:2], "n_slots", new.shape[3])
        return self._moved("Concat", [past.name, new.name], site, new, shape, axis=2)

    def take_tokens(self, x: Tensor, index: Any, site: str) -> Tensor:
        """GatherND in each row of the batch."""
        shape = (*index.shape, x.shape[-1])
        return self._moved("GatherND", [x.name, self._column(index, site)], site, x, shape,
                           batch_dims=1)  # fmt: skip

    def keep_slots(self, x: Tensor, n_kept: int, index: Any, site: str) -> Tensor:
        """Slice, and GatherND of slots, which stand before the heads meanwhile."""
        swap = {"perm": [0, 2, 1, 3]}
        ends = [
            self.graph.constant(f"{site}.{name}", np.array([value]))
            for name, value in (("start", 0), ("end", n_kept), ("axis", 2))
        ]
        first = self._inner("Slice", [x.name, *ends], site, "slice")
        slots = self._inner("Transpose", [x.name], site, "transpose", **swap)
        column = self._column(index, site)
        picked = self._inner("GatherND", [slots, column], site, "gather", batch_dims=1)
        back = self._inner("Transpose", [picked], site, "back", **swap)
        shape = (*x.shape[:2], "n_slots", x.shape[3])
        return self._moved("Concat", [first, back], site, x, shape, axis=2)

    # -- decisions, and the way out --------------------------------------------------------------

    def argmax(self, x: Tensor, site: str) -> Any:
        """ArgMax, which takes the lowest index; a tensor of integers, not an array."""
        self.graph.add("ArgMax", [x.name], site, axis=-1, keepdims=0)
        return Tensor(site, x.shape[:-1], np.int64)

    def top_k(self, x: Tensor, k: int, site: str) -> Any:
        """TopK, which puts the lowest index first; a tensor of integers, not an array."""
        n = self.graph.constant(f"{site}.k", np.array([k]))
        read = self.parts.read(x)
        self.graph.add("TopK", [read, n], site, (f"{site}/values", site), axis=-1)
        return Tensor(site, (*x.shape[:-1], k), np.int64)

    def give(self, x: Tensor, name: str, *, real: bool = False) -> None:
        """Make a value an output of the graph.

        Args:
            x: the value.
            name: of the output.
            real: as the numbers that it stands for, not as integers.
        """
        source = self.parts.read(x) if real else x.name
        if source != name:
            self.graph.add("Identity", [source], name)
        self.graph.outputs[name] = Tensor(name, x.shape) if real else replace(x, name=name)

    # -- nodes -----------------------------------------------------------------------------------

    def _node(
        self, kind: str, reads: list[str], site: str, shape: Any, **attributes: Any
    ) -> Tensor:
        """Add the node that computes a site."""
        self.graph.add(kind, reads, site, self.parts.float_name(site), **attributes)
        return self.parts.stored(site, shape)

    def _inner(self, kind: str, reads: list[str], site: str, what: str, **attributes: Any) -> str:
        """Add a node that helps to compute a site."""
        return self.graph.add(kind, reads, f"{site}/{what}", **attributes)

    def _moved(
        self, kind: str, reads: list[str], site: str, x: Tensor, shape: Any, **attributes: Any
    ) -> Tensor:
        """Add a node that moves x and computes nothing."""
        return replace(x, name=self.graph.add(kind, reads, site, **attributes), shape=shape)

    def _given(self, x: Any, name: str) -> str:
        """Name of what is no value: a tensor's own, or that of a new constant."""
        if isinstance(x, Tensor):
            return x.name
        x = np.asarray(x)
        return self.graph.constant(name, x.astype(np.float32) if x.dtype.kind == "f" else x)

    def _column(self, index: Any, site: str) -> str:
        """Indices as GatherND wants them: [batch, n] -> [batch, n, 1]."""
        last = self.graph.constant("last_axis", np.array([-1]))
        return self._inner("Unsqueeze", [self._given(index, f"{site}.index"), last], site, "column")

    def _reshaped(self, x: str, sizes: list[int], site: str) -> str:
        to = self.graph.constant(f"{site}.shape", np.array(sizes))
        return self._inner("Reshape", [x, to], site, "reshape")
