"""The recurrent drafter as operations of a program: what one step of drafting computes and reads.

From sizes alone; `mu_ref` has the drafter that computes. Every draft step reads the drafter's
weights again: recurrent cell, residual blocks, and a head as large as the model's or larger.

Source:
    ReDrafter, arXiv:2403.09919: s = SiLU(W e + U s + b); blocks on [h, s]; own head; beam search.
"""

from dataclasses import dataclass
from math import prod

from npu_sim.errors import check_at_least
from npu_sim.program import Gemm, Op, Precision, Tensor

__all__ = ["DrafterShape", "compaction_op", "drafter_ops"]

BIAS_BITS = TOKEN_BITS = 32
PHASE = "draft"


@dataclass(frozen=True, kw_only=True, slots=True)
class DrafterShape:
    """Sizes of a drafter.

    Raises:
        WorkloadError: a size below 1.
    """

    d_model: int  # of the model that it drafts for
    exit_dim: int  # of the residual blocks; 2 d_model needs no input projection
    n_blocks: int
    vocab_size: int
    rnn: bool = True  # False: the state is a running sum of embeddings

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("d_model", "exit_dim", "n_blocks", "vocab_size"):
            check_at_least(name, getattr(self, name), 1)

    @property
    def n_parameters(self) -> int:
        """Weights and biases: R (E^2 + E) + E V, projection and cell."""
        d, e = self.d_model, self.exit_dim
        projection = 0 if e == 2 * d else 2 * d * e + e
        cell = 2 * d * d + d if self.rnn else 0
        return self.n_blocks * (e * e + e) + e * self.vocab_size + projection + cell


def drafter_ops(
    shape: DrafterShape, beam_width: int, draft_len: int, precision: Precision
) -> tuple[Op, ...]:
    """Return the operations that draft one tree.

    Args:
        shape: of the drafter.
        beam_width: W; the first step has one beam alive, the others W.
        draft_len: drafted tokens per beam.
        precision: weight, activation and head widths.

    Returns:
        Operations of phase "draft", for each drafted token in turn.
    """
    draft = _Draft(shape, precision)
    for step in range(draft_len):
        draft.step(f"drafter.{step}", 1 if step == 0 else beam_width, beam_width)
    return tuple(draft.ops)


def compaction_op(n_bytes: int) -> Op:
    """Move cached keys and values of an accepted path to where the context ends.

    Args:
        n_bytes: of the path, all layers.

    Returns:
        An operation that reads and writes so many bytes of cache.
    """
    moved = Tensor(name="cache.path", shape=(n_bytes,), bits=8, role="kv")
    kept = Tensor(name="cache.kept", shape=(n_bytes,), bits=8, role="kv")
    return Op(
        site="cache.compact", kind="append", phase="compact", inputs=(moved,), output=kept,
        vector_elements=n_bytes, vector_work="copy",
    )  # fmt: skip


class _Draft:
    """Writes the operations of a drafter."""

    def __init__(self, shape: DrafterShape, precision: Precision) -> None:
        self.shape, self.precision = shape, precision
        self.ops: list[Op] = []
        self.state: Tensor | None = None

    def step(self, site: str, n_rows: int, beam_width: int) -> None:
        """One token of every beam."""
        d, e = self.shape.d_model, self.shape.exit_dim
        word = self._vector("embed", "copy", site + ".embed", (n_rows, d), (
            self._weight("embedding.weight", (n_rows, d), self.precision.head_weight_bits),
        ))  # fmt: skip
        if self.shape.rnn:
            new = self._linear(word, site + ".rnn_w", "drafter.rnn_w", d, d, bias=False)
            if self.state is not None:
                old = self._linear(self.state, site + ".rnn_u", "drafter.rnn_u", d, d, bias=True)
                new = self._vector("add", "add", site + ".sum", (n_rows, d), (new, old))
            state = self._vector("activation", "silu", site + ".cell", (n_rows, d), (new,))
        else:
            terms = (word,) if self.state is None else (word, self.state)
            state = self._vector("add", "add", site + ".sum", (n_rows, d), terms)
        y = self._vector("take_tokens", "copy", site + ".join", (n_rows, 2 * d), (state,))
        if e != 2 * d:
            y = self._linear(y, site + ".input", "drafter.input_proj", 2 * d, e, bias=True)
        for i in range(self.shape.n_blocks):
            name = f"{site}.block.{i}"
            inner = self._linear(y, name, f"drafter.block.{i}", e, e, bias=True)
            inner = self._vector("activation", "silu", name + ".silu", (n_rows, e), (inner,))
            y = self._vector("add", "add", name + ".residual", (n_rows, e), (y, inner))
        vocab = self.shape.vocab_size
        scores = self._linear(y, site + ".head", "drafter.head", e, vocab, bias=False, head=True)
        scores = self._vector("softmax", "softmax", site + ".log_probs", (n_rows, vocab), (scores,))
        best = self._vector("top_k", "compare", site + ".top_k", (n_rows, vocab), (scores,))
        self.state = self._vector(
            "take_tokens", "copy", site + ".regather", (beam_width, d), (state, best)
        )

    def _weight(self, name: str, shape: tuple[int, ...], bits: int) -> Tensor:
        return Tensor(name=name, shape=shape, bits=bits, role="weight")

    def _activation(self, site: str, shape: tuple[int, ...]) -> Tensor:
        return Tensor(
            name=site, shape=(1, *shape), bits=self.precision.activation_bits, role="activation"
        )

    def _linear(
        self, x: Tensor, site: str, weight: str, d_in: int, d_out: int, *, bias: bool,
        head: bool = False,
    ) -> Tensor:  # fmt: skip
        bits = self.precision.head_weight_bits if head else self.precision.weight_bits
        inputs = [x, self._weight(f"{weight}.weight", (d_out, d_in), bits)]
        if bias:
            inputs.append(self._weight(f"{weight}.bias", (d_out,), BIAS_BITS))
        n_rows = prod(x.shape[:-1])
        out = self._activation(site, (n_rows, d_out))
        gemm = Gemm(count=1, m=n_rows, n=d_out, k=d_in)
        self.ops.append(
            Op(site=site, kind="linear", phase=PHASE, inputs=tuple(inputs), output=out, gemm=gemm)
        )
        return out

    def _vector(
        self, kind: str, work: str, site: str, shape: tuple[int, ...], inputs: tuple[Tensor, ...]
    ) -> Tensor:
        out = self._activation(site, shape)
        self.ops.append(
            Op(
                site=site, kind=kind, phase=PHASE, inputs=inputs, output=out,
                vector_elements=prod(shape), vector_work=work,
            )
        )  # fmt: skip
        return out
