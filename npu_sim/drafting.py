"""A step of speculative decoding as one graph call: draft all beams, then verify the tree.

For sweeps and headline figures, where acceptance is a number of tokens per step; `speculate.py`
prices a step from recorded acceptance. Chapters: `docs/07_npu_tiles.md`, `docs/whatif.md`.

Assumes:
    Packing beams and choosing the accepted one move a few integers, which costs nothing.
"""

from math import ceil

from npu_sim.described import Description
from npu_sim.drafter import DrafterShape, drafter_ops
from npu_sim.errors import WorkloadError
from npu_sim.models import call_program
from npu_sim.program import Call, Op, Precision
from npu_sim.scenario import Drafter

__all__ = ["draft_ops", "drafter_bytes", "n_nodes", "step_call"]


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
