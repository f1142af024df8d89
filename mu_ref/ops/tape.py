"""The training executor: the same operations, each remembering how to pass a gradient back.

A value is a `Node`: an array, and a rule from the gradient of the result to the gradients of what
it was made from. `backward` runs the rules in reverse order. Unlike the reference it may use BLAS,
so a row's last bits may depend on its neighbours. Formulas that are more than a line, with their
ways back, are in `arithmetic.py`. Chapter: `docs/09_training.md`.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np

from mu_ref.errors import ConfigError
from mu_ref.ops import Ops
from mu_ref.ops.arithmetic import Arithmetic, Array, Gradients
from mu_ref.ops.rotation import Rotation

__all__ = ["Gradients", "Node", "TapeOps"]


class Node:
    """An array in the computation, and the gradient that reaches it."""

    __slots__ = ("back", "fixed", "grad", "owned", "parents", "value")

    def __init__(
        self,
        value: Array,
        parents: tuple["Node", ...] = (),
        back: Callable[[Array], Gradients] | None = None,
        fixed: bool = False,
    ) -> None:
        self.value = value
        self.parents = parents
        self.back = back  # gradient of value -> gradients of parents
        self.grad: Array | None = None
        self.fixed = fixed  # nobody wants its gradient
        self.owned = False  # grad is an array of this node's own

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return self.value.shape

    def receive(self, grad: Array) -> None:
        """Add a gradient; the first may be another node's too, so it is not written over."""
        if self.grad is None:
            self.grad, self.owned = grad, False
        elif self.owned:
            self.grad += grad
        else:
            self.grad, self.owned = self.grad + grad, True


@final
class TapeOps(Ops):
    """Computes forward and remembers the way back; a value is a `Node`.

    Args:
        weights: {"site.weight" or "site.bias": array}, all of one float dtype; not copied.
        dropout: share of elements that `dropout` drops; the model's in training, else 0.
        rng: draws them; needed unless dropout is 0.
        frozen: more weights, which get no gradient: those under a LoRA.
        arithmetic: computes what is no product of matrices; NumPy by default.

    Raises:
        ConfigError: dropout without a generator.
    """

    def __init__(
        self,
        weights: Mapping[str, Array],
        dropout: float = 0.0,
        rng: np.random.Generator | None = None,
        frozen: Mapping[str, Array] | None = None,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        if dropout and rng is None:
            raise ConfigError(f"a tape with dropout {dropout} must be given a generator, got none")
        self.weights = {name: Node(array) for name, array in weights.items()}
        self.weights |= {name: Node(array, fixed=True) for name, array in (frozen or {}).items()}
        self.dtype = next(iter(self.weights.values())).value.dtype.type
        self.dropout_rate, self.rng = dropout, rng
        self.arithmetic = arithmetic or Arithmetic()
        self.nodes: list[Node] = []

    def record(
        self, value: Array, parents: tuple[Node, ...], back: Callable[[Array], Gradients]
    ) -> Node:
        """Append a step to the tape.

        Args:
            value: result of the step.
            parents: nodes it was made from.
            back: gradient of `value` -> one gradient per parent, None where it has none.

        Returns:
            The new node.
        """
        node = Node(value, parents, back)
        self.nodes.append(node)
        return node

    def backward(self, loss: Node) -> dict[str, Array]:
        """Run the tape backwards from a scalar and forget it.

        Args:
            loss: a node with one element.

        Returns:
            {weight name: gradient of the loss}, for every weight that the loss depends on.
        """
        if loss.value.size != 1:
            raise ConfigError(f"backward must start at a scalar, got shape {loss.shape}")
        loss.grad = np.ones_like(loss.value)
        for node in reversed(self.nodes):
            if node.grad is not None and node.back is not None:
                for parent, grad in zip(node.parents, node.back(node.grad), strict=True):
                    if grad is not None and not parent.fixed:
                        parent.receive(grad)
            node.grad = None  # free memory as we go
        self.nodes.clear()
        grads = {name: node.grad for name, node in self.weights.items() if node.grad is not None}
        for node in self.weights.values():
            node.grad = None
        return grads

    # -- operations that read a weight -----------------------------------------------------------

    def embed(self, tokens: Array, site: str) -> Node:
        """Rows of the table; the gradient adds up over repeated tokens."""
        table = self.weights[f"{site}.weight"]
        rows, back = self.arithmetic.embed(table.value, tokens)
        return self.record(rows, (table,), lambda grad: (None,) if table.fixed else back(grad))

    def linear(self, x: Node, site: str, weight_site: str | None = None) -> Node:
        """Compute y = x Wᵀ + b; dx = dy W, dW = dyᵀ x, db = Σ dy."""
        w = self.weights[f"{weight_site or site}.weight"]
        bias = self.weights.get(f"{site}.bias")
        rows = x.value.reshape(-1, x.shape[-1])  # [rows, d_in]
        y = rows @ w.value.T
        if bias is not None:
            y += bias.value

        def back(grad: Array) -> Gradients:
            grad = grad.reshape(-1, grad.shape[-1])  # [rows, d_out]
            dx = (grad @ w.value).reshape(x.shape)
            dw = None if w.fixed else grad.T @ rows
            return (dx, dw) if bias is None else (dx, dw, np.ones(len(grad), grad.dtype) @ grad)

        parents = (x, w) if bias is None else (x, w, bias)
        return self.record(y.reshape(*x.shape[:-1], w.shape[0]), parents, back)

    def norm(self, x: Node, site: str, kind: str, eps: float) -> Node:
        """Normalise each row."""
        gain = self.weights[f"{site}.weight"]
        bias = self.weights.get(f"{site}.bias") if kind == "layer" else None
        shift = None if bias is None else bias.value
        y, back = self.arithmetic.norm(x.value, gain.value, shift, kind, eps)
        return self.record(y, (x, gain) if bias is None else (x, gain, bias), back)

    # -- operations on activations ---------------------------------------------------------------

    def rope(self, x: Node, rotation: Rotation, site: str) -> Node:
        """Rotate; the gradient is rotated back."""
        cos, sin = (t[:, None].astype(self.dtype) for t in (rotation.cos, rotation.sin))
        y, back = self.arithmetic.rope(x.value, cos, sin)
        return self.record(y, (x,), back)

    def matmul(self, a: Node, b: Node, site: str, *, transpose_b: bool = False) -> Node:
        """Compute y = a b; da = dy bᵀ, db = aᵀ dy."""
        right = b.value.swapaxes(-1, -2) if transpose_b else b.value  # [..., k, n]

        def back(grad: Array) -> Gradients:
            da = grad @ right.swapaxes(-1, -2)
            db = a.value.swapaxes(-1, -2) @ grad
            return da, (db.swapaxes(-1, -2) if transpose_b else db)

        return self.record(a.value @ right, (a, b), back)

    def softmax(self, x: Node, mask: Array, site: str) -> Node:
        """Weigh what the mask lets through."""
        p, back = self.arithmetic.softmax(x.value, mask)
        return self.record(p, (x,), back)

    def activation(self, x: Node, kind: str, site: str) -> Node:
        """Element by element."""
        y, back = self.arithmetic.activation(x.value, kind)
        return self.record(y, (x,), back)

    def add(self, x: Node, y: Node, site: str) -> Node:
        """Compute x + y; the gradient goes to both."""
        return self.record(x.value + y.value, (x, y), lambda grad: (grad, grad))

    def mul(self, x: Node, y: Node, site: str) -> Node:
        """Compute z = x y; dx = dz y, dy = dz x."""
        return self.record(x.value * y.value, (x, y), lambda grad: (grad * y.value, grad * x.value))

    def scale(self, x: Node, factor: float, site: str) -> Node:
        """Multiply x by a constant; the gradient too."""
        c = self.dtype(factor)
        return self.record(x.value * c, (x,), lambda grad: (grad * c,))

    def softcap(self, x: Node, cap: float, site: str) -> Node:
        """Compute cap tanh(x / cap); the derivative is 1 - tanh²."""
        t = np.tanh(x.value / self.dtype(cap))
        return self.record(t * self.dtype(cap), (x,), lambda grad: (grad * (1 - t * t),))

    def concat(self, x: Node, y: Node, site: str) -> Node:
        """Join along the last axis; the gradient is cut at the seam."""
        d = x.shape[-1]
        joined = np.concatenate([x.value, y.value], axis=-1)
        return self.record(joined, (x, y), lambda grad: (grad[..., :d], grad[..., d:]))

    def dropout(self, x: Node, site: str) -> Node:
        """Drop elements at random and scale the rest up, so that the mean stays."""
        if self.rng is None or self.dropout_rate == 0:
            return x
        keep = self.rng.random(x.shape, dtype=np.float32) >= self.dropout_rate
        factor = keep.astype(self.dtype) * self.dtype(1 / (1 - self.dropout_rate))
        return self.record(x.value * factor, (x,), lambda grad: (grad * factor,))

    # -- layout ----------------------------------------------------------------------------------

    def split_heads(self, x: Node, n_heads: int, site: str) -> Node:
        """[batch, n_tok, n_heads * d_head] -> [batch, n_heads, n_tok, d_head]."""
        batch, n_tok, width = x.shape
        y = x.value.reshape(batch, n_tok, n_heads, width // n_heads).transpose(0, 2, 1, 3)
        return self.record(
            y, (x,), lambda grad: (grad.transpose(0, 2, 1, 3).reshape(batch, n_tok, width),)
        )

    def merge_heads(self, x: Node, site: str) -> Node:
        """[batch, n_heads, n_tok, d_head] -> [batch, n_tok, n_heads * d_head]."""
        batch, n_heads, n_tok, d_head = x.shape
        y = x.value.transpose(0, 2, 1, 3).reshape(batch, n_tok, n_heads * d_head)

        def back(grad: Array) -> Gradients:
            return (grad.reshape(batch, n_tok, n_heads, d_head).transpose(0, 2, 1, 3),)

        return self.record(y, (x,), back)

    def share_heads(self, x: Node, head_of: tuple[int, ...], site: str) -> Node:
        """Copy kv heads to query heads; the gradient sums over the copies."""
        if head_of == tuple(range(x.shape[1])):  # each query head has its own
            return x

        def back(grad: Array) -> Gradients:
            dx = np.zeros_like(x.value)
            for head, kv_head in enumerate(head_of):
                dx[:, kv_head] += grad[:, head]
            return (dx,)

        return self.record(x.value[:, list(head_of)], (x,), back)

    def append(self, past: Node | None, new: Node, site: str) -> Node:
        """Join along the token axis; the gradient is cut at the seam."""
        if past is None:
            return new
        n_past = past.shape[2]
        joined = np.concatenate([past.value, new.value], axis=2)
        return self.record(
            joined, (past, new), lambda grad: (grad[:, :, :n_past], grad[:, :, n_past:])
        )

    def take_tokens(self, x: Node, index: Array, site: str) -> Node:
        """Pick tokens; the gradient adds up over repeated picks."""
        at = (np.arange(len(index))[:, None], index)
        return self.record(x.value[at], (x,), lambda grad: (_added_up(x, at, grad),))

    def keep_slots(self, x: Node, n_kept: int, index: Array, site: str) -> Node:
        """Pick slots; the gradient adds up over repeated picks."""
        first = np.broadcast_to(np.arange(n_kept), (len(index), n_kept))
        at = (np.arange(len(index))[:, None], slice(None), np.concatenate([first, index], axis=1))
        picked = x.value[at].swapaxes(1, 2)  # a slice between indices comes behind them
        return self.record(picked, (x,), lambda grad: (_added_up(x, at, grad.swapaxes(1, 2)),))

    # -- decisions -------------------------------------------------------------------------------

    def argmax(self, x: Node, site: str) -> Array:
        """Lowest index of the largest element; no gradient."""
        return np.argmax(x.value, axis=-1)

    def top_k(self, x: Node, k: int, site: str) -> Array:
        """Indices of the k largest, lowest first on ties; no gradient."""
        return np.argsort(-x.value, axis=-1, kind="stable")[..., :k]

    def read(self, x: Node) -> Array:
        """The node's array."""
        return x.value


def _added_up(x: Node, at: Any, grad: Array) -> Array | None:
    """Gradient of x given that of x[at]; a place that was picked twice gets both."""
    if x.fixed:
        return None
    dx = np.zeros_like(x.value)
    np.add.at(dx, at, grad)
    return dx
