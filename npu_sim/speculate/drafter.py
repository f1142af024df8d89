"""The drafter of `mu_ref.redrafter` on the NPU: its weights, and the call that drafts all beams.

`Drafter` holds what a user of a what-if chooses; `DrafterConfig` of `mu_ref.redrafter.config` says
what network that is. Verifying is a call of the model itself, `call_program(..., "verify", ...)`.
Chapters: `docs/15_drafting.md`, `docs/13_tiles.md`, `docs/whatif.md`.

Assumes:
    Packing beams and choosing the accepted one move a few integers, which costs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType

import numpy as np

from mu_ref.border.ranges import BEAMS, BLOCKS, DRAFTED, Range, check_fields
from mu_ref.config import ModelConfig
from mu_ref.model.encoder import embed
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes
from mu_ref.redrafter.drafter import advance, scores
from npu_sim.errors import WorkloadError, check_at_least, check_at_most
from npu_sim.program.call import any_tokens
from npu_sim.program.description import Description
from npu_sim.program.log import Shaped, stored
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program
from npu_sim.program.recorder import RecordOps
from npu_sim.program.request import MAX_INPUT_TOKENS

__all__ = ["Drafter", "draft_program", "drafting_ops", "record_draft"]


RANGES: Mapping[str, Range] = MappingProxyType({
    "beam_width": Range(low=0, high=BEAMS.high, why=BEAMS.why),
    "draft_len": DRAFTED,
    "packed_share": Range(low=0, above=True, high=1, whole=False, why="packing adds no nodes"),
    "n_layers": Range(low=1, high=BLOCKS.high, why=BLOCKS.why),
})  # fmt: skip


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
        check_fields(self, RANGES, WorkloadError, "drafter.")
        kept = Range(low=1, high=self.draft_len + 1, whole=False, why="no step writes more")
        kept.check("drafter.tokens_per_step", self.tokens_per_step, WorkloadError)

    @property
    def n_nodes(self) -> int:
        """Tokens verified in a step: the known one, and the drafted ones left when packed."""
        return 1 + ceil(self.beam_width * self.draft_len * self.packed_share)

    def network(self, model: ModelConfig) -> DrafterConfig:
        """Return the network that drafts for a model: blocks of twice its width, as Apple's.

        Args:
            model: must have a decoder.

        Returns:
            The drafter's sizes.
        """
        d_model = model.stacks["decoder"].d_model
        return DrafterConfig(
            d_model=d_model, vocab_size=model.vocab_size, d_exit=2 * d_model,
            n_blocks=self.n_layers, rnn=True,
        )  # fmt: skip


def drafting_ops(
    description: Description, drafter: DrafterConfig, precision: Precision
) -> RecordOps:
    """Return a recorder that knows the weights of a model and of its drafter.

    Args:
        description: the model.
        drafter: fits the model.
        precision: stored widths, of the drafter too.

    Returns:
        The recorder; its programs store both.

    Raises:
        ConfigError: the drafter was made for another model.
    """
    drafter.check_fits(description.model)
    ops = RecordOps(description, precision)
    ops.log.add_weights(drafter_shapes(drafter), head="drafter.head.weight")
    return ops


def draft_program(
    description: Description,
    drafter: DrafterConfig,
    beam_width: int,
    draft_len: int,
    precision: Precision,
    batch: int = 1,
) -> Program:
    """Record the graph call that drafts all beams of one step.

    Args:
        description: the model that it drafts for.
        drafter: fits the model.
        beam_width: beams.
        draft_len: drafted tokens of a beam.
        precision: stored widths, of the drafter too.
        batch: requests computed together; their beams are more rows.

    Returns:
        A program of one call of phase "draft", which stores the model and the drafter.

    Raises:
        WorkloadError: a number below 1.
        ConfigError: the drafter was made for another model.
    """
    BEAMS.check("beam_width", beam_width, WorkloadError)
    DRAFTED.check("draft_len", draft_len, WorkloadError)
    check_at_least("batch", batch, 1)
    check_at_most("batch x beam_width", batch * beam_width, MAX_INPUT_TOKENS)
    ops = drafting_ops(description, drafter, precision)
    hidden = ops.log.activation("decoder.last_token", (batch, 1, drafter.d_model))
    ops.log.begin("draft")
    record_draft(ops, drafter, stored(hidden), beam_width, draft_len)
    return ops.log.program(1, 1, batch)


def record_draft(
    ops: RecordOps, drafter: DrafterConfig, hidden: Shaped, beam_width: int, draft_len: int
) -> None:
    """Record one beam search; each row's softmax and choice of beam_width tokens are on the NPU.

    Args:
        ops: knows the drafter's weight shapes.
        drafter: the drafter.
        hidden: [batch, 1, d_model], of the model, at the last token that it wrote.
        beam_width: beams.
        draft_len: drafted tokens of a beam.
    """
    batch, state = hidden.shape[0], None
    for step in range(draft_len):
        n = 1 if step == 0 else beam_width  # all beams begin with the same token: one row
        word = embed(ops, ops.model, any_tokens(ops.model, batch, n), "decoder")
        state = advance(ops, drafter, word, state)  # [batch, n, d_model]
        each = ops.take_tokens(hidden, np.zeros((batch, n), np.int64), "drafter.hidden")
        z = scores(ops, drafter, each, state)  # [batch, n, vocab_size]
        ops.softmax(z, np.ones((1, 1, 1), bool), "drafter.softmax")
        ops.top_k(z, min(beam_width, drafter.vocab_size), "drafter.top_k")
        # the best beams may all grow from one, so each takes its state along
        source = np.zeros((batch, beam_width), np.int64)
        state = ops.take_tokens(state, source, "drafter.beams")
