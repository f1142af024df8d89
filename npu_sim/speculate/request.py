"""Record a request that is written with drafts: phases "draft" and "verify" in place of "decode".

How many tokens a step keeps depends on the drafter and the texts, so it is given, not computed; see
`mu-ref draft-sweep`. Chapter: `docs/15_drafting.md`.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

import numpy as np

from mu_ref.border.ranges import BEAMS, DRAFTED, Range
from mu_ref.config import ModelConfig
from mu_ref.model.cache import Cache, Memory
from mu_ref.redrafter.config import DrafterConfig
from npu_sim.errors import WorkloadError
from npu_sim.program.call import any_tokens, record_decode
from npu_sim.program.description import describe
from npu_sim.program.log import Shaped
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program
from npu_sim.program.recorder import RecordOps
from npu_sim.program.request import check_recordable, record_reading
from npu_sim.speculate.drafter import drafting_ops, record_draft

__all__ = ["record_speculation"]


def record_speculation(
    model: ModelConfig,
    drafter: DrafterConfig,
    n_input: int,
    n_output: int,
    precision: Precision,
    *,
    beam_width: int,
    draft_len: int,
    tokens_per_step: float,
    n_packed: int | None = None,
    batch: int = 1,
) -> Program:
    """Record a whole request: read, write one token, then draft and verify until the end.

    Args:
        model: the configuration; it must have a decoder.
        drafter: fits the model.
        n_input: tokens, at least 1.
        n_output: tokens, at least 1.
        precision: stored widths, of the drafter too.
        beam_width: beams.
        draft_len: drafted tokens of a beam.
        tokens_per_step: tokens that a verifying pass writes on average, 1..draft_len + 1.
        n_packed: nodes of the tree; by default beams share nothing but the first token.
        batch: rows computed together.

    Returns:
        The program, with phases encode or prefill, decode (an encoder-decoder's first token),
        draft and verify.

    Raises:
        WorkloadError: a length that is out of range, or a model that writes no tokens.
        ConfigError: the drafter was made for another model.
    """
    check_recordable(model, n_input, n_output, batch)
    n_nodes = _checked_nodes(beam_width, draft_len, tokens_per_step, n_packed)
    ops = drafting_ops(describe(model), drafter, precision)
    memory, prompt = record_reading(ops, batch, n_input)
    cache = Cache.empty(batch, model.stacks["decoder"].n_layers)
    ops.log.begin("prefill" if memory is None else "decode")
    hidden = record_decode(ops, prompt, memory, cache)
    for n_kept in _kept(n_output - 1, tokens_per_step):
        ops.log.begin("draft")
        record_draft(ops, drafter, hidden, beam_width, draft_len)
        ops.log.begin("verify")
        hidden = _record_verify(ops, memory, cache, n_nodes, n_kept)
    program = ops.log.program(n_input, n_output, batch)
    return replace(program, model=f"{model.name} with drafter")


def _checked_nodes(
    beam_width: int, draft_len: int, tokens_per_step: float, n_packed: int | None
) -> int:
    """Check the numbers of a step; return the nodes of its tree."""
    BEAMS.check("beam_width", beam_width, WorkloadError)
    DRAFTED.check("draft_len", draft_len, WorkloadError)
    kept = Range(low=1, high=draft_len + 1, whole=False, why="no step writes more")
    kept.check("tokens_per_step", tokens_per_step, WorkloadError)
    # one beam alone has as many
    packed = Range(low=draft_len + 1, high=1 + beam_width * draft_len, why="packing adds no nodes")
    nodes: int = packed.check(
        "n_packed", packed.high if n_packed is None else n_packed, WorkloadError
    )
    return nodes


def _kept(n_tokens: int, tokens_per_step: float) -> Iterator[int]:
    """Yield how many tokens each step writes: whole numbers whose mean is `tokens_per_step`."""
    written = 0
    for step in range(1, ceil(n_tokens / tokens_per_step) + 1):
        before, written = written, min(n_tokens, round(step * tokens_per_step))
        yield written - before


def _record_verify(
    ops: RecordOps, memory: Memory | None, cache: Cache, n_nodes: int, n_kept: int
) -> Shaped:
    """Record one pass over a tree, the choice of tokens, and what stays in the cache.

    Which nodes see which changes masks but no shape, so the tree is recorded as a chain.

    Returns:
        [batch, 1, d_model], the state that the next draft starts from.
    """
    batch, n_past = cache.tokens.shape
    nodes = any_tokens(ops.model, batch, n_nodes)
    hidden = record_decode(ops, nodes, memory, cache, "all")  # [batch, n_nodes, d_model]
    path = np.broadcast_to(np.arange(n_kept), (batch, n_kept))
    cache.keep(ops, n_past, n_past + path, np.ones(path.shape, bool))
    return ops.take_tokens(hidden, path[:, -1:], "decoder.last_token")
