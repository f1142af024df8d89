"""The program of one graph call, and what a request is recorded from: reading, and writing tokens.

Descriptions come from `npu_sim/models/`; what is recorded is the forward pass of `mu_ref`.
`request.py` and `npu_sim/speculate/request.py` put the same parts together for a whole request.
Chapter: `docs/11_machine.md`.
"""

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import check_choice
from mu_ref.model import mu
from mu_ref.model.attention import project_memory
from mu_ref.model.cache import Cache, LayerCache, LayerMemory, Memory
from mu_ref.model.decoder import place, run_layers
from mu_ref.model.encoder import run_encoder
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from mu_ref.ops.rotation import Rotation
from npu_sim.errors import WorkloadError, check_at_least, check_at_most
from npu_sim.program.description import Description
from npu_sim.program.log import Shaped, stored
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program, Tensor
from npu_sim.program.recorder import RecordOps

__all__ = ["PHASES", "any_tokens", "call_program", "record_decode", "remember"]


MAX_CONTEXT = 2**17  # no graph is compiled for more, and all sums stay below 2^63

PHASES = ("encode", "prefill", "decode", "verify")


def call_program(
    description: Description,
    phase: str,
    n_tokens: int,
    n_context: int,
    n_memory: int,
    precision: Precision,
    batch: int = 1,
    n_filled: int | None = None,
) -> Program:
    """Record one graph call with everything that came before it already in the cache.

    Args:
        description: the model.
        phase: "encode" (and K and V of cross-attention, with a decoder), "prefill", "decode", or
            "verify": drafted tokens, all of which the head scores.
        n_tokens: positions computed in this call.
        n_context: slots that self-attention reads, those of this call included.
        n_memory: slots that cross-attention reads; 0 without an encoder.
        precision: stored widths.
        batch: rows computed together.
        n_filled: slots of self-attention that hold tokens, those of this call included; None: all.

    Returns:
        A program of one call.

    Raises:
        WorkloadError: the lengths contradict each other or the model.
    """
    check_choice("phase", phase, PHASES, WorkloadError)
    for what, count in (("n_tokens", n_tokens), ("batch", batch)):
        check_at_least(what, count, 1)
    for what, count in (("n_context", n_context), ("n_memory", n_memory)):
        check_at_least(what, count, 0)
    longest = max(n_context, n_tokens, n_memory)
    check_at_most("n_tokens, n_context and n_memory", longest, MAX_CONTEXT)
    check_at_most("batch x n_tokens", batch * n_tokens, MAX_CONTEXT)
    ops = RecordOps(description, precision)
    tokens = any_tokens(ops.model, batch, n_tokens)
    if phase == "encode":
        _record_encode(ops, tokens)
    else:
        _check_decode(ops.model, n_tokens, n_context, n_memory)
        if n_filled is not None:
            check_at_least("n_filled", n_filled, n_tokens)
            check_at_most("n_filled", n_filled, n_context)
        ops.log.begin(phase)
        ops.log.n_filled = n_filled
        memory = _memory(ops, batch, n_memory) if n_memory else None
        cache = _past(ops, batch, n_context - n_tokens, n_context)
        record_decode(ops, tokens, memory, cache, "all" if phase == "verify" else None)
    return ops.log.program(n_tokens, 1, batch)


def any_tokens(model: ModelConfig, batch: int, n_tokens: int) -> np.ndarray:
    """Return [batch, n_tokens] int: tokens to record with, since no cost depends on which."""
    return np.full((batch, n_tokens), model.bos_id)


def _record_encode(ops: RecordOps, tokens: np.ndarray) -> None:
    """Record the encoder, and what the decoder keeps of it or the head makes of it."""
    model = ops.model
    if model.encoder is None:
        raise WorkloadError(f"phase encode must have an encoder, {model.name} has none")
    if model.decoder is not None:
        remember(ops, tokens, np.ones(tokens.shape, bool))
        return
    ops.log.begin("encode")
    hidden = _encode(ops, tokens)
    if "pooler.weight" in ops.log.shapes:  # one more layer on the first position
        first = ops.take_tokens(hidden, np.zeros((len(tokens), 1), int), "pooler.token")
        ops.activation(ops.linear(first, "pooler"), "tanh", "pooler.activation")
    if ops.description.lm_head != "none":
        hidden = _scored(ops, hidden, ops.description.lm_head)
        ops.linear(hidden, "head", model.embedding_site("encoder"))


def remember(ops: RecordOps, tokens: np.ndarray, valid: np.ndarray) -> Memory:
    """Encode, and put K and V of cross-attention where they outlive the call: in DRAM.

    Args:
        ops: the recorder.
        tokens: [batch, n_src] int.
        valid: [batch, n_src] bool.

    Returns:
        The memory.
    """
    ops.log.begin("encode")
    if ops.inner is not None:
        memory = mu.remember(ops, ops.model, tokens, valid)
    else:
        hidden, stack = _encode(ops, tokens), ops.model.stacks["decoder"]
        sites = [f"decoder.{layer}.cross_attention" for layer in range(stack.n_layers)]
        mask = valid[:, None, None, :]
        memory = Memory(hidden, [project_memory(ops, stack, hidden, mask, at) for at in sites])
    for layer, kept in enumerate(memory.layers):
        site = f"decoder.{layer}.cross_attention"
        for name in ("k", "v"):
            setattr(kept, name, ops.append(None, getattr(kept, name), f"{site}.{name}_cache"))
    return memory


def _encode(ops: RecordOps, tokens: np.ndarray) -> Shaped:
    """Do what `encoder.encode` does, without the masks: they grow with the square of the tokens."""
    stack, valid = ops.model.stacks["encoder"], np.ones(tokens.shape, bool)
    theta = rope_theta(stack, rope_lengths(stack, valid))
    turn = Rotation(positions_of(stack, valid), theta, stack.d_head, stack.rope_factor)
    masks = dict.fromkeys(stack.windows, np.zeros((0, 1, 0, 0), bool))
    hidden: Shaped = run_encoder(ops, ops.model, tokens, turn, masks)
    return hidden


def record_decode(
    ops: RecordOps,
    tokens: np.ndarray,
    memory: Memory | None,
    cache: Cache,
    lm_head: str | None = None,
) -> Shaped:
    """Record new tokens behind the cached ones, and the choice of those that follow them.

    Args:
        ops: the recorder, in a call that has begun; without values, masks are left out.
        tokens: [batch, n_tokens] int.
        memory: of the encoder, or None.
        cache: grows by the new tokens.
        lm_head: positions that the head scores, one of `HEADS`; as described by default.

    Returns:
        Hidden states [batch, n, d_model] of the scored positions.
    """
    scored = lm_head or ops.description.lm_head
    valid = np.ones(tokens.shape, bool)
    placed = place(ops.model, tokens, valid, cache, masked=ops.inner is not None)
    hidden: Shaped = run_layers(ops, ops.model, placed, memory, cache)
    if scored == "none":
        return hidden
    hidden = _scored(ops, hidden, scored)
    ops.argmax(mu.logits(ops, ops.model, hidden), "head.argmax")
    return hidden


def _scored(ops: RecordOps, hidden: Shaped, lm_head: str) -> Shaped:
    """Keep the positions that the head scores."""
    batch, n_tokens, _ = hidden.shape
    if lm_head == "all":
        return hidden
    return ops.take_tokens(hidden, np.full((batch, 1), n_tokens - 1), "decoder.last_token")


def _check_decode(model: ModelConfig, n_tokens: int, n_context: int, n_memory: int) -> None:
    if model.decoder is None:
        raise WorkloadError(f"phases but encode must have a decoder, {model.name} has none")
    if (model.encoder is not None) != (n_memory > 0):
        rule = "at least 1 with an encoder, 0 without"
        raise WorkloadError(f"n_memory must be {rule}, got {n_memory} for {model.name}")
    check_at_least("n_context", n_context, n_tokens)


def _memory(ops: RecordOps, batch: int, n_slots: int) -> Memory:
    """Return what an earlier call has left of `n_slots` encoded tokens."""
    shape = (batch, n_slots, ops.model.stacks["encoder"].d_model)
    hidden = stored(ops.log.activation("encoder.final_norm", shape))
    mask = np.ones((batch, 1, 1, n_slots), bool)
    layers = _cached(ops, "cross_attention", batch, n_slots)
    return Memory(hidden, [LayerMemory(layer.k, layer.v, mask) for layer in layers])


def _past(ops: RecordOps, batch: int, n_past: int, n_total: int) -> Cache:
    """Return a cache as `n_past` earlier tokens have left it."""
    stack = ops.model.stacks["decoder"]
    cache = Cache.empty(batch, stack.n_layers)
    if n_past:
        cache.layers = _cached(ops, "self_attention", batch, n_past)
        cache.tokens = any_tokens(ops.model, batch, n_past)
        cache.valid = np.ones((batch, n_past), bool)
        cache.positions = positions_of(stack, cache.valid)
        # turned as this call will turn them: with another theta all of it would be computed again
        lengths = rope_lengths(stack, np.ones((batch, n_total), bool))
        cache.theta = rope_theta(stack, lengths)
    return cache


def _cached(ops: RecordOps, attention: str, batch: int, n_slots: int) -> list[LayerCache]:
    stack, bits = ops.model.stacks["decoder"], ops.log.precision.kv_bits
    shape = (batch, stack.n_kv_heads, n_slots, stack.d_head)

    def kept(layer: int, name: str) -> Shaped:
        site = f"decoder.{layer}.{attention}.{name}_cache"
        return stored(Tensor(name=site, shape=shape, bits=bits, role="kv"))

    return [LayerCache(kept(layer, "k"), kept(layer, "v")) for layer in range(stack.n_layers)]
