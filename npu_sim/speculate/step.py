r"""Drafting and verifying on the NPU: what a step costs, and what it gains.

A step drafts `draft_len` tokens for each of W beams, verifies the N nodes of the packed tree in one
decoder pass of M = N rows, and keeps the cache entries of the accepted path. With $\tau$ tokens per
step and $t_1$ for a plain decode step at the same context,

$$\mathrm{speedup} = \tau \, t_1 / (t_\mathrm{draft} + t_\mathrm{verify} + t_\mathrm{compact} +
  t_\mathrm{calls})$$                                                                     (7.7)

In-engine, all of it is one graph call; host-side, the drafter and the verification are two, and the
host packs the tree and accepts in between. Acceptance is an input: measured, or a distribution.
Chapter: `docs/13_tiles.md`.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from mu_ref.border.ranges import BEAMS, DRAFTED, Range
from mu_ref.config import ModelConfig
from mu_ref.redrafter.config import DrafterConfig
from npu_sim.errors import WorkloadError, check_at_least
from npu_sim.hardware.chip import Npu
from npu_sim.program.call import call_program
from npu_sim.program.description import Description, describe
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Op, Program, Tensor
from npu_sim.program.rows import program_table
from npu_sim.speculate.acceptance import HOST_US, Acceptance
from npu_sim.speculate.drafter import draft_program
from npu_sim.tile.simulate import simulate_tiles
from npu_sim.units import cycles_from_us, ms_from_cycles

__all__ = ["StepCost", "check_trees", "compaction_op", "speculate"]

STEPS = Range(low=1, high=512, why="each is simulated")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """Simulated milliseconds of one step, and what they buy."""

    plain_ms: float  # a plain decode step, its call included
    draft_ms: float
    verify_ms: float
    compact_ms: float
    in_engine_ms: float  # a whole step as one graph call
    host_ms: float  # the same as two calls and a round trip
    tokens_per_step: float

    @property
    def speedup_in_engine(self) -> float:
        """Tokens per second against plain decoding, all in one call."""
        return self.tokens_per_step * self.plain_ms / self.in_engine_ms

    @property
    def speedup_host(self) -> float:
        """The same with the host between drafter and verification."""
        return self.tokens_per_step * self.plain_ms / self.host_ms

    @property
    def break_even_tokens_per_step(self) -> float:
        """Tokens per step from which drafting pays, in-engine."""
        return self.in_engine_ms / self.plain_ms

    def to_json(self) -> dict[str, float]:
        """Return plain numbers."""
        names = (
            "plain_ms", "draft_ms", "verify_ms", "compact_ms", "in_engine_ms", "host_ms",
            "tokens_per_step", "speedup_in_engine", "speedup_host", "break_even_tokens_per_step",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def speculate(
    model: ModelConfig | Description,
    drafter: DrafterConfig,
    beam_width: int,
    draft_len: int,
    acceptance: Acceptance,
    npu: Npu,
    precision: Precision,
    *,
    n_input: int = 64,
    n_context: int = 16,
    host_us: float = 500.0,
) -> StepCost:
    """Price a step of a model.

    Args:
        model: its configuration or description.
        drafter: fits the model.
        beam_width: W.
        draft_len: drafted tokens per beam.
        acceptance: what steps keep.
        npu: the NPU.
        precision: stored widths, also the drafter's.
        n_input: tokens that the encoder has read; unused without one.
        n_context: tokens in the cache, at least 1.
        host_us: a round trip to the host: packing, accepting, and what it waits for.

    Returns:
        The cost, averaged over the steps.

    Raises:
        WorkloadError: a number out of its range, or a tree larger than the beams allow.
        ConfigError: the drafter was made for another model.
    """
    for what, count in (("n_input", n_input), ("n_context", n_context)):
        check_at_least(what, count, 1)
    HOST_US.check("host_us", host_us, WorkloadError)
    check_trees(acceptance, beam_width, draft_len)
    description = model if isinstance(model, Description) else describe(model)
    config = description.model
    n_memory = 0 if config.encoder is None else n_input

    def passed(phase: str, n_rows: int) -> Program:
        slots = (n_context + n_rows, n_memory)
        return call_program(description, phase, n_rows, *slots, precision)

    draft = draft_program(description, drafter, beam_width, draft_len, precision)
    verify = {n_nodes: passed("verify", n_nodes) for n_nodes in set(acceptance.nodes)}
    stack = config.stacks["decoder"]
    token_bits = 2 * stack.n_layers * stack.n_kv_heads * stack.d_head * precision.kv_bits
    return _step_cost(
        passed("decode", 1), draft, verify, token_bits // 8, acceptance, npu, host_us
    )  # fmt: skip


def check_trees(acceptance: Acceptance, beam_width: int, draft_len: int) -> None:
    """Check that beams of some length have trees and accepted paths of such sizes.

    Args:
        acceptance: what steps keep.
        beam_width: W.
        draft_len: drafted tokens per beam.

    Raises:
        WorkloadError: a width or length is out of its range, a tree is larger than the beams
            allow, or there are too many different steps to price.
    """
    BEAMS.check("beam_width", beam_width, WorkloadError)
    DRAFTED.check("draft_len", draft_len, WorkloadError)
    STEPS.check("the number of different steps", len(acceptance.sizes), WorkloadError)
    most = 1 + beam_width * draft_len
    nodes, accepted = max(acceptance.nodes), max(acceptance.n_accepted)
    if nodes > most or accepted > draft_len:
        raise WorkloadError(
            f"a tree of {beam_width} beams of {draft_len} tokens must have at most {most} nodes "
            f"and {draft_len} accepted, got {nodes} and {accepted}"
        )


def _step_cost(
    plain: Program,
    draft: Program,
    verify: dict[int, Program],
    token_bytes: int,
    acceptance: Acceptance,
    npu: Npu,
    host_us: float,
) -> StepCost:
    """Price a step from its parts; `verify` is by nodes of the tree, `token_bytes` of the cache."""

    def ms(*ops: Op) -> float:
        # both models are stored, whichever of them computes
        return _call_ms(draft, ops, npu) if ops else 0.0

    @cache  # of thousands of recorded steps most are alike
    def parts_ms(n_accepted: int, n_nodes: int) -> np.ndarray:
        """[3]: verify, keep the path, and a whole step at once, which overlaps them."""
        # accepted keys are moved behind the context; the first node stays where it is
        kept = (compaction_op(n_accepted * token_bytes),) if n_accepted else ()
        tree = tuple(verify[n_nodes].ops)
        return np.array([ms(*tree), ms(*kept), ms(*draft.ops, *tree, *kept)])

    steps = zip(acceptance.n_accepted, acceptance.nodes, acceptance.weights, strict=True)
    sums = np.sum([weight * parts_ms(*step) for *step, weight in steps], axis=0)
    draft_ms, (verify_ms, compact_ms, whole_ms) = ms(*draft.ops), sums.tolist()
    call_ms = ms_from_cycles(npu.call_overhead_cycles(draft.runtime), npu.clock_hz)
    round_trip_ms = ms_from_cycles(cycles_from_us(host_us, npu.clock_hz), npu.clock_hz)
    return StepCost(
        plain_ms=_call_ms(plain, tuple(plain.ops), npu) + call_ms,
        draft_ms=draft_ms, verify_ms=verify_ms, compact_ms=compact_ms,
        in_engine_ms=whole_ms + call_ms,
        host_ms=draft_ms + verify_ms + compact_ms + 2 * call_ms + round_trip_ms,
        tokens_per_step=acceptance.tokens_per_step,
    )  # fmt: skip


def _call_ms(like: Program, ops: tuple[Op, ...], npu: Npu) -> float:
    """Simulated milliseconds of operations in one call, without the call's overhead."""
    program = replace(like, calls=(Call(phase=ops[0].phase, ops=ops),))
    run = simulate_tiles(program_table(program), npu)
    return ms_from_cycles(run.calls[0].cycles, npu.clock_hz)


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
