r"""Drafting and verifying on the NPU: what a step costs, and what it gains.

A step drafts `draft_len` tokens for each of W beams, verifies the N nodes of the packed tree in one
decoder pass of M = N rows, and keeps the cache entries of the accepted path. With $\tau$ tokens per
step and $t_1$ for a plain decode step at the same context,

$$\mathrm{speedup} = \tau \, t_1 / (t_\mathrm{draft} + t_\mathrm{verify} + t_\mathrm{compact} +
  t_\mathrm{calls})$$                                                                     (7.7)

In-engine, all of it is one graph call; host-side, the drafter and the verification are two, and the
host packs the tree and accepts in between. Acceptance is an input: measured, or a distribution.
Chapter: `docs/07_npu_tiles.md`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.model import mu
from mu_ref.model.cache import Cache
from mu_ref.model.decoder import decode
from npu_sim.errors import WorkloadError, check_at_least
from npu_sim.hardware.chip import Npu
from npu_sim.program.call import remember
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Op, Program, Tensor
from npu_sim.program.recorder import RecordOps
from npu_sim.speculate.acceptance import Acceptance
from npu_sim.speculate.drafter import DrafterShape, drafter_ops
from npu_sim.tile.rows import program_table
from npu_sim.tile.simulate import simulate_tiles
from npu_sim.units import cycles_from_us, ms_from_cycles

__all__ = ["StepCost", "compaction_op", "record_pass", "speculate", "step_cost"]


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


def record_pass(
    config: ModelConfig, n_input: int, n_context: int, n_rows: int, precision: Precision
) -> Program:
    """Record one decoder pass over some rows at a context, with the head on every row.

    Args:
        config: the model.
        n_input: tokens that the encoder has read; unused without one.
        n_context: tokens in the cache before the pass, at least 1.
        n_rows: tokens computed: 1 for plain decoding, the nodes of a tree to verify.
        precision: stored widths.

    Returns:
        A program of one call.

    Raises:
        WorkloadError: a length below 1, or a model without a decoder.
    """
    for what, value in (("n_input", n_input), ("n_context", n_context), ("n_rows", n_rows)):
        check_at_least(what, value, 1)
    if config.decoder is None:
        raise WorkloadError(f"a model that drafts must have a decoder, {config.name} has none")
    ops = RecordOps(config, precision)
    memory = None
    if config.encoder is not None:
        source = np.full((1, n_input), config.bos_id)
        memory = remember(ops, source, np.ones(source.shape, bool))
    cache = Cache.empty(1, config.decoder.n_layers)
    for n_tok in (n_context, n_rows):
        ops.log.begin("verify" if n_rows > 1 else "decode")
        tokens = np.full((1, n_tok), config.bos_id)
        hidden = decode(ops, config, tokens, np.ones(tokens.shape, bool), memory, cache)
    ops.argmax(mu.logits(ops, config, hidden), "head.argmax")
    stored = sum(t.n_bytes for t in ops.log.weights(*ops.log.shapes))
    whole = Program(
        model=config.name, precision=precision, n_input=n_input, n_output=1, batch=1,
        stored_weight_bytes=stored, calls=ops.log.calls(),
    )  # fmt: skip
    return replace(whole, calls=whole.calls[-1:])


def step_cost(
    plain: Program,
    verify: dict[int, Program],
    draft: tuple[Op, ...],
    cache_bytes_per_token: int,
    acceptance: Acceptance,
    npu: Npu,
    host_us: float,
) -> StepCost:
    """Price a step from its parts, which may come from any description of a model.

    Args:
        plain: one decode step, a program of one call.
        verify: for each number of nodes in `acceptance`, the pass over so many rows.
        draft: the drafter's operations of one step.
        cache_bytes_per_token: of all layers, keys and values.
        acceptance: what steps keep.
        npu: the NPU.
        host_us: a round trip to the host: packing, accepting, and what it waits for.

    Returns:
        The cost, averaged over the steps.
    """
    call_ms = ms_from_cycles(npu.call_overhead_cycles(plain.runtime), npu.clock_hz)
    round_trip_ms = ms_from_cycles(cycles_from_us(host_us, npu.clock_hz), npu.clock_hz)
    draft_ms = _call_ms(draft, plain, npu)
    sums = np.zeros(3)  # verify, compact, whole step in one call
    timed: dict[tuple[int, int], np.ndarray] = {}
    for accepted, nodes, weight in zip(
        acceptance.n_accepted, acceptance.nodes, acceptance.weights, strict=True
    ):
        if (accepted, nodes) not in timed:
            ops = verify[nodes].calls[0].ops
            # accepted keys are moved behind the context; the first node stays where it is
            kept = (compaction_op(accepted * cache_bytes_per_token),) if accepted else ()
            timed[accepted, nodes] = np.array([
                _call_ms(ops, plain, npu),
                _call_ms(kept, plain, npu) if kept else 0.0,
                _call_ms((*draft, *ops, *kept), plain, npu),
            ])  # fmt: skip
        sums += weight * timed[accepted, nodes]
    verify_ms, compact_ms, whole_ms = (float(value) for value in sums)
    return StepCost(
        plain_ms=_call_ms(plain.calls[0].ops, plain, npu) + call_ms,
        draft_ms=draft_ms, verify_ms=verify_ms, compact_ms=compact_ms,
        in_engine_ms=whole_ms + call_ms,
        host_ms=draft_ms + verify_ms + compact_ms + 2 * call_ms + round_trip_ms,
        tokens_per_step=acceptance.tokens_per_step,
    )  # fmt: skip


def speculate(
    config: ModelConfig,
    drafter: DrafterShape,
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
    """Price a step of a model that `mu_ref` can run.

    Args:
        config: the model.
        drafter: sizes of the drafter.
        beam_width: W.
        draft_len: drafted tokens per beam.
        acceptance: what steps keep.
        npu: the NPU.
        precision: stored widths, also the drafter's.
        n_input: tokens that the encoder has read.
        n_context: tokens in the cache.
        host_us: a round trip to the host.

    Returns:
        The cost.

    Raises:
        WorkloadError: a size below 1, or a tree larger than the beams allow.
    """
    for what, value in (("beam_width", beam_width), ("draft_len", draft_len)):
        check_at_least(what, value, 1)
    most, nodes, accepted = (
        1 + beam_width * draft_len, max(acceptance.nodes), max(acceptance.n_accepted),
    )  # fmt: skip
    if nodes > most or accepted > draft_len:
        raise WorkloadError(
            f"a tree of {beam_width} beams of {draft_len} tokens must have at most {most} nodes "
            f"and {draft_len} accepted, got {nodes} and {accepted}"
        )

    def passes(n_rows: int) -> Program:
        return record_pass(config, n_input, n_context, n_rows, precision)

    stack = config.stacks["decoder"]
    per_token = 2 * stack.n_layers * stack.n_kv_heads * stack.d_head * precision.kv_bits // 8
    return step_cost(
        passes(1), {nodes: passes(nodes) for nodes in set(acceptance.nodes)},
        drafter_ops(drafter, beam_width, draft_len, precision), per_token, acceptance, npu, host_us,
    )  # fmt: skip


def _call_ms(ops: tuple[Op, ...], like: Program, npu: Npu) -> float:
    """Simulated milliseconds of some operations as one call, without the call's overhead."""
    changes: dict[str, Any] = {"calls": (Call(phase=ops[0].phase, ops=ops),)}
    run = simulate_tiles(program_table(replace(like, **changes)), npu)
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
