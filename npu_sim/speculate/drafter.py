"""A step of speculative decoding as one graph call: draft all beams, then verify the tree.

For sweeps and headline figures, where acceptance is a number of tokens per step; `speculate.py`
prices a step from recorded acceptance. Chapters: `docs/07_npu_tiles.md`, `docs/whatif.md`.

Assumes:
    Packing beams and choosing the accepted one move a few integers, which costs nothing.
"""

from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory, Placement
from mu_ref.model.decoder import decode
from mu_ref.model.encoder import embed
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.drafter import advance, scores
from npu_sim.errors import WorkloadError, check_at_least
from npu_sim.program.call import call_program
from npu_sim.program.description import Description
from npu_sim.program.log import Shaped
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Gemm, Op, Tensor
from npu_sim.program.recorder import RecordOps

__all__ = [
    "Drafter",
    "DrafterShape",
    "draft_ops",
    "drafter_bytes",
    "drafter_ops",
    "n_nodes",
    "record_draft",
    "record_verify",
    "step_call",
]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Drafter:
    """A recurrent drafter in front of the model; a beam width of 0 means none.

    Raises:
        WorkloadError: a number is out of its range.
    """

    beam_width: int = 0  # beams drafted and verified
    draft_len: int = 4  # new tokens per beam
    tokens_per_step: float = 1.0  # measured: accepted tokens and the model's own
    packed_share: float = 1.0  # nodes that are left when beams share prefixes, of width x length
    n_layers: int = 2  # residual layers of the drafter's head

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_at_least("drafter.beam_width", self.beam_width, 0)
        check_at_least("drafter.draft_len", self.draft_len, 1)
        check_at_least("drafter.n_layers", self.n_layers, 1)
        if not 1 <= self.tokens_per_step <= self.draft_len + 1:
            raise WorkloadError(
                f"drafter.tokens_per_step must lie in [1, draft_len + 1 = {self.draft_len + 1}], "
                f"got {self.tokens_per_step}"
            )
        if not 0 < self.packed_share <= 1:
            raise WorkloadError(f"drafter.packed_share must lie in (0, 1], got {self.packed_share}")


def n_nodes(drafter: Drafter) -> int:
    """Tokens verified in a step: the known one, and the drafted ones that are left when packed."""
    return 1 + ceil(drafter.beam_width * drafter.draft_len * drafter.packed_share)


def draft_ops(
    model: Description, drafter: Drafter, precision: Precision, batch: int
) -> tuple[Op, ...]:
    """Return the operations that draft all beams of a step.

    Args:
        model: whose width and vocabulary the drafter shares; its blocks are twice as wide.
        drafter: beams, length and blocks.
        precision: stored widths.
        batch: requests computed together; their beams are more rows.

    Returns:
        The operations, in order.

    Raises:
        WorkloadError: the model writes no tokens.
    """
    decoder = model.config.decoder
    if decoder is None:
        raise WorkloadError(f"a drafter must have a decoder to draft for, {model.name} has none")
    shape = DrafterShape(
        d_model=decoder.d_model, exit_dim=2 * decoder.d_model, n_blocks=drafter.n_layers,
        vocab_size=model.config.vocab_size,
    )  # fmt: skip
    return drafter_ops(shape, batch * drafter.beam_width, drafter.draft_len, precision)


def drafter_bytes(model: Description, drafter: Drafter, precision: Precision) -> int:
    """Bytes of the drafter's weights, each once."""
    if not drafter.beam_width:
        return 0
    ops = draft_ops(model, drafter, precision, 1)
    weights = {
        t.name: t.n_bytes
        for op in ops
        for t in op.inputs
        if t.role == "weight" and op.kind == "linear"
    }
    return sum(weights.values())


def step_call(
    model: Description,
    drafter: Drafter,
    n_context: int,
    n_memory: int,
    precision: Precision,
    batch: int,
) -> Call:
    """Return one step: draft, then verify all nodes of the tree in one pass of the model.

    Args:
        model: the model.
        drafter: the drafter.
        n_context: tokens in the cache before the step.
        n_memory: slots of cross-attention.
        precision: stored widths.
        batch: requests computed together.

    Returns:
        One graph call: drafting, verifying and accepting happen inside the engine.
    """
    nodes = n_nodes(drafter)
    verify = call_program(model, "verify", nodes, n_context + nodes, n_memory, precision, batch)
    ops = draft_ops(model, drafter, precision, batch)
    return Call(phase="verify", ops=(*ops, *verify.calls[0].ops))


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


def record_draft(
    ops: RecordOps,
    config: ModelConfig,
    drafter: DrafterConfig,
    hidden: Shaped,
    beam_width: int,
    draft_len: int,
) -> None:
    """Record one beam search; each row's softmax and choice of beam_width tokens are on the NPU.

    Args:
        ops: knows the drafter's weight shapes.
        config: uses the decoder's embedding.
        drafter: the drafter.
        hidden: [batch, 1, d_model].
        beam_width: beams; the first token needs one row only.
        draft_len: drafted tokens.
    """
    batch, state = hidden.shape[0], None
    for step in range(draft_len):
        n = 1 if step == 0 else beam_width
        tokens = np.full((batch, n), config.bos_id)
        state = advance(ops, drafter, embed(ops, tokens, config, "decoder"), state)
        each = ops.take_tokens(hidden, np.zeros((batch, n), np.int64), "drafter.hidden")
        z = scores(ops, drafter, each, state)
        ops.softmax(z, np.ones((1, 1, 1), bool), "drafter.softmax")
        ops.top_k(z, min(beam_width, drafter.vocab_size), "drafter.top_k")
        source = np.zeros((batch, beam_width), np.int64)
        state = ops.take_tokens(state, source, "drafter.beams")


def record_verify(
    ops: RecordOps,
    config: ModelConfig,
    memory: Memory | None,
    cache: Cache,
    n_packed: int,
    n_kept: int,
) -> Shaped:
    """Record one pass over a tree, the choice of tokens, and what stays in the cache.

    Args:
        ops: the recorder.
        config: the model.
        memory: of the encoder, or None.
        cache: grows by n_kept.
        n_packed: nodes of the tree.
        n_kept: tokens that the step writes.

    Returns:
        [batch, 1, d_model], the state that the next draft starts from.
    """
    batch, n_past = cache.tokens.shape
    nodes = np.broadcast_to(np.arange(n_packed), (batch, n_packed))
    placement = Placement(
        n_past + nodes, np.full(batch, n_past + n_packed),
        np.ones((batch, n_packed, n_packed), bool),
    )  # fmt: skip
    tokens = np.full((batch, n_packed), config.bos_id)
    valid = np.ones(tokens.shape, bool)
    hidden = decode(ops, tokens, valid, config, memory, cache, placement)
    ops.argmax(mu.logits(ops, hidden, config), "head.argmax")
    path = nodes[:, :n_kept]
    cache.keep(ops, n_past, n_past + path, np.ones(path.shape, bool))
    return ops.take_tokens(hidden, path[:, -1:], "decoder.last_token")
