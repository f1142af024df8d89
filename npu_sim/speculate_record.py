"""Record a request that is written with drafts: phases "draft" and "verify" in place of "decode".

How many tokens a step keeps depends on the drafter and the texts, so it is given, not computed; see
`mu-ref draft-sweep`. Chapter: `docs/06_redrafter.md`.
"""

from math import ceil

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory, Placement
from mu_ref.model.decoder import decode
from mu_ref.model.encoder import embed
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes
from mu_ref.redrafter.drafter import advance, scores
from npu_sim.errors import WorkloadError, check_at_least, check_at_most
from npu_sim.program import Precision, Program
from npu_sim.record import MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS, RecordOps, Shaped, remember

__all__ = ["record_draft", "record_speculation", "record_verify"]


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
    hidden = decode(ops, tokens, valid, config, memory, cache)
    hidden = ops.take_tokens(hidden, np.full((batch, 1), tokens.shape[1] - 1), "decoder.last_token")
    ops.argmax(mu.logits(ops, hidden, config), "head.argmax")
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
        state = advance(ops, embed(ops, tokens, config, "decoder"), state, drafter)
        each = ops.take_tokens(hidden, np.zeros((batch, n), np.int64), "drafter.hidden")
        z = scores(ops, each, state, drafter)
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
