"""The recording executor: runs the forward pass on shapes and writes down what it would do.

`RecordOps` is an `Ops` like any other, so the model that is priced is the model that runs. Where an
architecture differs from ours, its `Description` says so (`description.py`). With an inner executor
the recorder also carries that executor's values along, unchanged. It knows no hardware; prices are
in `npu_sim/roofline/` and `npu_sim/tile/`. Chapter: `docs/11_machine.md`.
"""

from math import prod
from typing import Any, final

import numpy as np

from mu_ref.ops import Ops
from mu_ref.ops.rotation import Rotation
from npu_sim.errors import WorkloadError
from npu_sim.program.description import Description, describe
from npu_sim.program.experts import route, routed_linear
from npu_sim.program.log import Recording, Shaped, stored
from npu_sim.program.precision import Precision
from npu_sim.program.program import Gemm, Tensor

__all__ = ["RecordOps"]


@final
class RecordOps(Ops):
    """Records every operation; a value is a `Shaped`.

    Args:
        description: the model, whose weight shapes are used; no weights are needed.
        precision: stored widths.
        inner: an executor whose values are carried along, or None to work with shapes alone.

    Raises:
        WorkloadError: an inner executor for an architecture that `mu_ref` does not run.
    """

    def __init__(
        self, description: Description, precision: Precision, inner: Ops | None = None
    ) -> None:
        if inner is not None and description != describe(description.model):
            raise WorkloadError(
                f"a model that computes values must be one that mu_ref runs, {description.name} "
                "is only described"
            )
        self.description, self.model = description, description.model
        self.inner = inner
        self.log = Recording(description, precision)

    # -- operations that read a weight -----------------------------------------------------------

    def embed(self, tokens: np.ndarray, site: str) -> Shaped:
        """Read one row of the table per token, and whatever an architecture adds to it."""
        # two stacks may share a table and its site, so the phase says which of them reads
        stack = "encoder" if self.log.phase == "encode" else "decoder"
        n_features = self.description.input_features
        if n_features is not None and stack == "encoder":
            x = self.linear(self._features((*tokens.shape, n_features)), site)
        else:
            shape = (*tokens.shape, self.log.shapes[f"{site}.weight"][1])
            table = self.log.weight(f"{site}.weight", shape)
            value = self._carry("embed", tokens, site)
            x = self.log.vector("embed", "copy", shape, (table,), site, value)
        if not self.model.stacks[stack].embed_norm:
            x = self._beside(x, f"{stack}.embedding_projection")
        if self.description.positions == "table":
            name = f"{stack}.positions.weight"  # sines are computed, and no weights
            rows = [self.log.weight(name, x.shape)] if name in self.log.shapes else []
            inputs = (x.tensor, *rows * (1 + self.description.extra_embeddings))
            x = self.log.vector("add", "add", x.shape, inputs, f"{stack}.positions", None)
        return x

    def linear(self, x: Shaped, site: str, weight_site: str | None = None) -> Shaped:
        """Multiply all tokens of the call by one matrix."""
        if self.description.lacks(site):  # one attention reads both, with the same weights
            weight_site = site.replace("cross_attention", "self_attention")
            if site.endswith((".q", ".o")):
                shape = (*x.shape[:-1], self.log.shapes[f"{weight_site}.weight"][0])
                return self.log.view("view", x, shape, site, None)
        if site == "head":
            x = self._beside(x, "head_projection")
        weight = self.log.weight(f"{weight_site or site}.weight")
        if len(weight.shape) == 3:
            per_token = self.description.experts_per_token
            if site.endswith(".up"):  # the first matrix of the MLP
                route(self, self.log, x, per_token, site.removesuffix(".up"))
            return routed_linear(self.log, x, weight, per_token, site)
        d_out, d_in = weight.shape
        inputs = (x.tensor, weight, *self.log.weights(f"{site}.bias"))
        gemm = Gemm(count=1, m=prod(x.shape[:-1]), n=d_out, k=d_in)
        value = self._carry("linear", x, site, weight_site)
        return self.log.matrix("linear", (*x.shape[:-1], d_out), inputs, gemm, site, value)

    def norm(self, x: Shaped, site: str, kind: str, eps: float) -> Shaped:
        """Read every element and its gain, unless the architecture has no such norm."""
        if self.description.lacks(site):
            return x
        inputs = (x.tensor, *self.log.weights(f"{site}.weight", f"{site}.bias"))
        value = self._carry("norm", x, site, kind, eps)
        x = self.log.vector("norm", kind, x.shape, inputs, site, value)
        stack, _, name = site.partition(".")
        return self._beside(x, f"{stack}.embedding_projection") if name == "embed_norm" else x

    # -- operations on activations ---------------------------------------------------------------

    def rope(self, x: Shaped, rotation: Rotation, site: str) -> Shaped:
        """Two products and a sum per element; the table of cosines is not counted.

        Some architectures normalise queries and keys first, and some have no rotation.
        """
        if self.description.qk_norm:
            stack = self.model.stacks[site.split(".", maxsplit=1)[0]]
            x = self.norm(x, site, stack.norm_kind, stack.norm_eps)
        if self.description.positions != "rope":
            return x
        value = self._carry("rope", x, rotation, site)
        turned = self.log.activation(site, x.shape)
        elements = round(prod(x.shape) * self.description.rotary_share)
        self.log.record("rope", site, (x.tensor,), turned, elements=elements, work="rope")
        return Shaped(shape=x.shape, tensor=turned, value=value)

    def matmul(self, a: Shaped, b: Shaped, site: str, *, transpose_b: bool = False) -> Shaped:
        """One product per row of the batch and per query head."""
        *lead, m, k = a.shape
        n = b.shape[-2] if transpose_b else b.shape[-1]
        gemm = Gemm(count=prod(lead), m=m, n=n, k=k)
        value = self._carry("matmul", a, b, site, transpose_b=transpose_b)
        shape = (*lead, m, n)
        return self.log.matrix("matmul", shape, (a.tensor, b.tensor), gemm, site, value)

    def softmax(self, x: Shaped, mask: np.ndarray, site: str) -> Shaped:
        """Every slot is computed, also the masked ones, as in a static graph."""
        value = self._carry("softmax", x, mask, site)
        return self.log.vector("softmax", "softmax", x.shape, (x.tensor,), site, value)

    def activation(self, x: Shaped, kind: str, site: str) -> Shaped:
        """One function per element."""
        value = self._carry("activation", x, kind, site)
        return self.log.vector("activation", kind, x.shape, (x.tensor,), site, value)

    def add(self, x: Shaped, y: Shaped, site: str) -> Shaped:
        """One sum per element."""
        value = self._carry("add", x, y, site)
        return self.log.vector("add", "add", x.shape, (x.tensor, y.tensor), site, value)

    def mul(self, x: Shaped, y: Shaped, site: str) -> Shaped:
        """One product per element."""
        value = self._carry("mul", x, y, site)
        return self.log.vector("mul", "mul", x.shape, (x.tensor, y.tensor), site, value)

    def scale(self, x: Shaped, factor: float, site: str) -> Shaped:
        """One product per element; T5 adds a bias to the scores instead, in self-attention."""
        if self.description.positions == "bias" and site.endswith("attention.scale"):
            if "cross_attention" in site:
                return x
            own = f"{site.removesuffix('.scale')}.positions.weight"  # a table in each layer
            shared = f"{site.split('.', maxsplit=1)[0]}.positions.weight"
            table = self.log.weight(own if own in self.log.shapes else shared)
            return self.log.vector("add", "add", x.shape, (x.tensor, table), site, None)
        value = self._carry("scale", x, factor, site)
        return self.log.vector("scale", "scale", x.shape, (x.tensor,), site, value)

    def softcap(self, x: Shaped, cap: float, site: str) -> Shaped:
        """One tanh per element."""
        value = self._carry("softcap", x, cap, site)
        return self.log.vector("softcap", "softcap", x.shape, (x.tensor,), site, value)

    def concat(self, x: Shaped, y: Shaped, site: str) -> Shaped:
        """Copy both side by side."""
        value = self._carry("concat", x, y, site)
        shape = (*x.shape[:-1], x.shape[-1] + y.shape[-1])
        return self.log.vector("concat", "copy", shape, (x.tensor, y.tensor), site, value)

    # -- layout ----------------------------------------------------------------------------------

    def split_heads(self, x: Shaped, n_heads: int, site: str) -> Shaped:
        """[batch, n_tok, n_heads * d_head] -> [batch, n_heads, n_tok, d_head], a view."""
        batch, n_tok, width = x.shape
        value = self._carry("split_heads", x, n_heads, site)
        shape = (batch, n_heads, n_tok, width // n_heads)
        return self.log.view("split_heads", x, shape, site, value)

    def merge_heads(self, x: Shaped, site: str) -> Shaped:
        """[batch, n_heads, n_tok, d_head] -> [batch, n_tok, n_heads * d_head], a view."""
        batch, n_heads, n_tok, d_head = x.shape
        value = self._carry("merge_heads", x, site)
        return self.log.view("merge_heads", x, (batch, n_tok, n_heads * d_head), site, value)

    def share_heads(self, x: Shaped, head_of: tuple[int, ...], site: str) -> Shaped:
        """[batch, n_kv_heads, ...] -> [batch, n_heads, ...], a view: each kv head is read once."""
        value = self._carry("share_heads", x, head_of, site)
        shape = (x.shape[0], len(head_of), *x.shape[2:])
        return self.log.view("share_heads", x, shape, site, value)

    def append(self, past: Shaped | None, new: Shaped, site: str) -> Shaped:
        """Write the new keys (or values) behind the cached ones, which do not move.

        What follows reads the slots that one of the new tokens sees. With a window these are the
        last ones before the first new token and the new ones, and a window of slots stays.
        """
        n_past = 0 if past is None else past.shape[2]
        batch, heads, n_new, d_head = new.shape
        bits, window = self.log.precision.kv_bits, self._window(site)
        if window is not None:
            n_past = min(n_past, window - 1)
        written = Tensor(name=site, shape=new.shape, bits=bits, role="kv")
        read, kept = (
            Tensor(name=site, shape=(batch, heads, n_slots, d_head), bits=bits, role="kv")
            for n_slots in (n_past + n_new, min(n_past + n_new, window or n_past + n_new))
        )
        self.log.record(
            "append", site, (new.tensor,), written,
            elements=prod(new.shape), work="copy", kept_bytes=kept.n_bytes,
        )  # fmt: skip
        value = self._carry("append", past, new, site)
        return Shaped(shape=read.shape, tensor=read, value=value)

    def _window(self, site: str) -> int | None:
        """Return how many tokens a decoder layer sees; None if all.

        An inner executor keeps all slots, as `mu_ref` does, and masks those that are not seen.
        """
        match site.split("."):
            case ["decoder", layer, "self_attention", _] if self.inner is None:
                return self.model.stacks["decoder"].layer_window(int(layer))
        return None

    def take_tokens(self, x: Shaped, index: np.ndarray, site: str) -> Shaped:
        """Copy the chosen tokens; of a single token, a view."""
        shape = (*index.shape, x.shape[-1])
        value = self._carry("take_tokens", x, index, site)
        if x.shape[1] == 1 and shape == x.shape:
            return self.log.view("view", x, shape, site, value)
        chosen = Tensor(name=x.tensor.name, shape=shape, bits=x.tensor.bits, role="activation")
        return self.log.vector("take_tokens", "copy", shape, (chosen,), site, value)

    def keep_slots(self, x: Shaped, n_kept: int, index: np.ndarray, site: str) -> Shaped:
        """Move the chosen slots behind the first ones, which stay where they are."""
        batch, heads, _, d_head = x.shape
        moved = Tensor(
            name=site, shape=(batch, heads, index.shape[1], d_head), bits=x.tensor.bits, role="kv"
        )
        self.log.record(
            "keep_slots", site, (moved,), moved, elements=prod(moved.shape), work="copy"
        )
        value = self._carry("keep_slots", x, n_kept, index, site)
        shape = (batch, heads, n_kept + index.shape[1], d_head)
        whole = Tensor(name=site, shape=shape, bits=x.tensor.bits, role="kv")
        return Shaped(shape=shape, tensor=whole, value=value)

    # -- decisions -------------------------------------------------------------------------------

    def argmax(self, x: Shaped, site: str) -> np.ndarray:
        """Compare every element; without an inner executor any token but padding is returned."""
        self.log.decide("argmax", x, x.shape[:-1], prod(x.shape), site)
        if self.inner is not None:
            return self.inner.argmax(x.value, site)
        return np.full(x.shape[:-1], (self.model.pad_id + 1) % self.model.vocab_size)

    def top_k(self, x: Shaped, k: int, site: str) -> np.ndarray:
        """Compare every element k times; without an inner executor the first k are returned."""
        shape = (*x.shape[:-1], k)
        self.log.decide("top_k", x, shape, k * prod(x.shape), site)
        if self.inner is not None:
            return self.inner.top_k(x.value, k, site)
        return np.broadcast_to(np.arange(k), shape)

    def read(self, x: Shaped) -> np.ndarray:
        """Return the inner executor's numbers, or zeros."""
        return np.zeros(x.shape) if self.inner is None else self.inner.read(x.value)

    def _features(self, shape: tuple[int, ...]) -> Shaped:
        """Return the vectors that the encoder reads: of a file, or of a first convolution."""
        if "encoder.stem.weight" not in self.log.shapes:
            return stored(self.log.activation("features", shape))
        batch, n_slots, _ = shape  # the second convolution takes every other frame
        width = self.log.shapes["encoder.stem.weight"][1]
        frames = stored(self.log.activation("features", (batch, 2 * n_slots, width)))
        x = self.activation(self.linear(frames, "encoder.stem"), "gelu", "encoder.stem.activation")
        return self.log.view("view", x, shape, "encoder.stem.slots", None)

    def _beside(self, x: Shaped, site: str) -> Shaped:
        """Multiply by a matrix that only some architectures have."""
        return self.linear(x, site) if f"{site}.weight" in self.log.shapes else x

    def _carry(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """Let the inner executor compute; None without one."""
        if self.inner is None:
            return None
        real = [a.value if isinstance(a, Shaped) else a for a in arguments]
        return getattr(self.inner, operation)(*real, **options)
