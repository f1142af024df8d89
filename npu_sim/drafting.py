"""What a step of speculative decoding runs: a recurrent drafter, then the model on all drafts.

The drafter is ReDrafter's: a recurrent cell, residual blocks of twice the model's width, a head of
its own; beams are drafted together and verified as a tree in one pass. Chapter: `docs/whatif.md`.

Source:
    apple/ml-recurrent-drafter at bd8586b, `Drafter` and its beam search; arXiv:2403.09919.

Differs from the source:
    Packing beams and choosing the accepted one are not priced: they move a few integers.
"""

from math import ceil

from npu_sim.described import Description
from npu_sim.errors import WorkloadError
from npu_sim.models import call_program
from npu_sim.program import Call, Gemm, Op, Precision, Tensor
from npu_sim.scenario import Drafter

__all__ = ["draft_ops", "drafter_bytes", "n_nodes", "step_call"]


def n_nodes(drafter: Drafter) -> int:
    """Tokens verified in a step: the known one, and the drafted ones that are left when packed."""
    return 1 + ceil(drafter.beam_width * drafter.draft_len * drafter.packed_share)


class _Writer:
    """Writes the operations of a drafter."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self.ops: list[Op] = []

    def activation(self, site: str, shape: tuple[int, ...]) -> Tensor:
        return Tensor(name=site, shape=shape, bits=self.precision.activation_bits,
                      role="activation")  # fmt: skip

    def linear(self, x: Tensor, site: str, weight: str, d_out: int, bits: int) -> Tensor:
        rows, d_in = x.shape
        matrix = Tensor(name=f"{weight}.weight", shape=(d_out, d_in), bits=bits, role="weight")
        y = self.activation(site, (rows, d_out))
        gemm = Gemm(count=1, m=rows, n=d_out, k=d_in)
        self.ops.append(
            Op(site=site, kind="linear", phase="verify", inputs=(x, matrix), output=y, gemm=gemm)
        )
        return y

    def vector(self, kind: str, work: str, inputs: tuple[Tensor, ...], site: str) -> Tensor:
        y = self.activation(site, inputs[0].shape)
        n = y.shape[0] * y.shape[1]
        self.ops.append(
            Op(site=site, kind=kind, phase="verify", inputs=inputs, output=y, vector_elements=n,
               vector_work=work)
        )  # fmt: skip
        return y


def draft_ops(
    model: Description, drafter: Drafter, precision: Precision, batch: int
) -> tuple[Op, ...]:
    """Return the operations that draft all beams of a step.

    Args:
        model: whose width and vocabulary the drafter shares.
        drafter: beams, length and blocks.
        precision: stored widths.
        batch: requests computed together.

    Returns:
        The operations, in order.

    Raises:
        WorkloadError: the model writes no tokens.
    """
    if model.config.decoder is None:
        raise WorkloadError(f"a drafter must have a decoder to draft for, {model.name} has none")
    d, vocab = model.config.decoder.d_model, model.config.vocab_size
    writer, bits = _Writer(precision), precision.weight_bits
    for step in range(drafter.draft_len):
        at = f"drafter.{step}"
        rows = batch * (1 if step == 0 else drafter.beam_width)
        table = Tensor(name="embedding.weight", shape=(rows, d), bits=precision.head_weight_bits,
                       role="weight")  # fmt: skip
        x = writer.vector("embed", "copy", (table,), f"{at}.embed")
        state = writer.activation(f"{at}.state_before", (rows, d))
        cell = writer.vector(
            "add", "add",
            (writer.linear(x, f"{at}.rnn_w", "drafter.rnn_w", d, bits),
             writer.linear(state, f"{at}.rnn_u", "drafter.rnn_u", d, bits)), f"{at}.cell",
        )  # fmt: skip
        writer.vector("activation", "silu", (cell,), f"{at}.state")
        y = writer.activation(f"{at}.hidden_and_state", (rows, 2 * d))
        for block in range(drafter.n_layers):
            site = f"drafter.block.{block}"
            inner = writer.linear(y, f"{at}.block.{block}", site, 2 * d, bits)
            inner = writer.vector("activation", "silu", (inner,), f"{at}.block.{block}.silu")
            y = writer.vector("add", "add", (y, inner), f"{at}.block.{block}.residual")
        head_bits = precision.head_weight_bits
        scores = writer.linear(y, f"{at}.head", "drafter.head", vocab, head_bits)
        scores = writer.vector("softmax", "softmax", (scores,), f"{at}.log_softmax")
        writer.vector("top_k", "compare", (scores,), f"{at}.top_k")
    return tuple(writer.ops)


def drafter_bytes(model: Description, drafter: Drafter, precision: Precision) -> int:
    """Bytes of the drafter's weights, each once."""
    if not drafter.beam_width:
        return 0
    ops = draft_ops(model, drafter, precision, 1)
    weights = {t.name: t.n_bytes for op in ops for t in op.inputs if op.kind == "linear"
               and t.role == "weight"}  # fmt: skip
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
