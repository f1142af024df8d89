"""Record a request that is written with drafts: phases "draft" and "verify" in place of "decode".

How many tokens a step keeps depends on the drafter and the texts, so it is given, not computed; see
`mu-ref draft-sweep`. Chapter: `docs/06_redrafter.md`.
"""

from math import ceil

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.model import mu
from mu_ref.model.cache import Cache
from mu_ref.model.decoder import decode
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes
from npu_sim.errors import WorkloadError, check_at_least, check_at_most
from npu_sim.program.call import remember
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program
from npu_sim.program.recorder import RecordOps
from npu_sim.program.request import MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS
from npu_sim.speculate.drafter import record_draft, record_verify

__all__ = ["record_speculation"]


def record_speculation(
    config: ModelConfig,
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
        config: the model; it must have a decoder.
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
    """
    for what, count in (("n_input", n_input), ("n_output", n_output), ("batch", batch),
                        ("beam_width", beam_width), ("draft_len", draft_len)):  # fmt: skip
        check_at_least(what, count, 1)
    check_at_most("batch x n_input", batch * n_input, MAX_INPUT_TOKENS)
    check_at_most("n_output", n_output, MAX_OUTPUT_TOKENS)
    if config.decoder is None:
        raise WorkloadError(
            f"a model that writes tokens must have a decoder, {config.name} has none"
        )
    if not 1 <= tokens_per_step <= draft_len + 1:
        raise WorkloadError(
            f"tokens_per_step must lie in 1..{draft_len + 1}, got {tokens_per_step}"
        )
    nodes = 1 + beam_width * draft_len if n_packed is None else n_packed
    check_at_least("n_packed", nodes, draft_len + 1)
    drafter.check_fits(config)
    ops = RecordOps(config, precision)
    ops.log.shapes |= drafter_shapes(drafter)
    tokens = np.full((batch, n_input), config.bos_id)
    valid = np.ones(tokens.shape, bool)
    memory = None
    if config.encoder is not None:
        memory = remember(ops, tokens, valid)
        tokens, valid = tokens[:, :1], valid[:, :1]
    cache = Cache.empty(batch, config.decoder.n_layers)
    ops.log.begin("prefill" if memory is None else "decode")
    hidden = decode(ops, config, tokens, valid, memory, cache)
    hidden = ops.take_tokens(hidden, np.full((batch, 1), tokens.shape[1] - 1), "decoder.last_token")
    ops.argmax(mu.logits(ops, config, hidden), "head.argmax")
    for step in range(ceil((n_output - 1) / tokens_per_step)):
        ends = (min(n_output - 1, round(k * tokens_per_step)) for k in (step, step + 1))
        before, after = ends
        ops.log.begin("draft")
        record_draft(ops, config, drafter, hidden, beam_width, draft_len)
        ops.log.begin("verify")
        hidden = record_verify(ops, config, memory, cache, nodes, after - before)
    stored = sum(tensor.n_bytes for tensor in ops.log.weights(*ops.log.shapes))
    return Program(
        model=f"{config.name} with drafter", precision=precision, n_input=n_input,
        n_output=n_output, batch=batch, stored_weight_bytes=stored, calls=ops.log.calls(),
    )  # fmt: skip
