"""Programs of described models: one graph call, or a whole request, with static or exact lengths.

Descriptions come from `model_json.py` and `hf_configs.py`; the forward pass of `mu_ref` is what is
recorded (`described.py`). Chapter: `docs/04_npu.md`.
"""

from dataclasses import replace

import numpy as np

from mu_ref.errors import check_choice
from mu_ref.generate import GREEDY, sample
from mu_ref.model import mu
from mu_ref.model.cache import Cache, LayerCache, LayerMemory, Memory
from mu_ref.model.decoder import decode
from mu_ref.model.encoder import encode
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from npu_sim.errors import WorkloadError, check_at_least, check_at_most
from npu_sim.program.description import DescribedOps, Description
from npu_sim.program.log import Shaped
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Program, Tensor
from npu_sim.program.recorder import RecordOps

__all__ = ["PHASES", "call_program", "remember"]


# A recording keeps the masks of attention in memory.
MAX_CONTEXT, MAX_SCORES = 2**17, 2**27

PHASES = ("encode", "prefill", "decode", "verify")


def call_program(
    model: Description,
    phase: str,
    n_tokens: int,
    n_context: int,
    n_memory: int,
    precision: Precision,
    batch: int = 1,
) -> Program:
    """Record one graph call with everything that came before it already in the cache.

    Args:
        model: the description.
        phase: "encode" (and K and V of cross-attention, with a decoder), "prefill", "decode", or
            "verify": drafted tokens, all of which the head scores.
        n_tokens: positions computed in this call.
        n_context: slots that self-attention reads, those of this call included.
        n_memory: slots that cross-attention reads; 0 without an encoder.
        precision: stored widths.
        batch: rows computed together.

    Returns:
        A program of one call.

    Raises:
        WorkloadError: the lengths contradict each other or the model.
    """
    check_choice("phase", phase, PHASES, WorkloadError)
    for what, count in (("n_tokens", n_tokens), ("batch", batch)):
        check_at_least(what, count, 1)
    check_at_most("n_context", max(n_context, n_tokens), MAX_CONTEXT)
    n_scores = batch * n_tokens * max(n_context, n_tokens)
    check_at_most("batch x n_tokens x n_context", n_scores, MAX_SCORES)
    if phase == "verify":
        model = replace(model, lm_head="all")
    ops = DescribedOps(model, precision)
    tokens = np.full((batch, n_tokens), model.config.bos_id)
    if phase == "encode":
        _record_encode(ops, tokens)
    else:
        ops.log.begin(phase)
        _record_decode(ops, tokens, n_context, n_memory)
    return _program(ops, (n_tokens, 1, batch), ops.log.calls())


def _program(ops: DescribedOps, lengths: tuple[int, int, int], calls: tuple[Call, ...]) -> Program:
    stored = sum(tensor.n_bytes for tensor in ops.log.weights(*ops.log.shapes))
    n_input, n_output, batch = lengths
    return Program(
        model=ops.config.name, precision=ops.log.precision, n_input=n_input, n_output=n_output,
        batch=batch, stored_weight_bytes=stored, calls=calls,
    )  # fmt: skip


def _record_encode(ops: DescribedOps, tokens: np.ndarray) -> None:
    """Record the encoder, and what the decoder keeps of it or the head makes of it."""
    config, valid = ops.config, np.ones(tokens.shape, bool)
    if config.encoder is None:
        raise WorkloadError(f"phase encode must have an encoder, {config.name} has none")
    if config.decoder is not None:
        remember(ops, tokens, valid)
        return
    ops.log.begin("encode")
    hidden = encode(ops, config, tokens, valid)
    if ops.model.lm_head != "none":
        hidden = _scored(ops, hidden)
        ops.linear(hidden, "head", config.embedding_site("encoder"))


def _scored(ops: DescribedOps, hidden: Shaped) -> Shaped:
    """Keep the positions that the head scores."""
    batch, n_tokens, _ = hidden.shape
    if ops.model.lm_head == "all":
        return hidden
    return ops.take_tokens(hidden, np.full((batch, 1), n_tokens - 1), "decoder.last_token")


def _record_decode(ops: DescribedOps, tokens: np.ndarray, n_context: int, n_memory: int) -> None:
    """Record `n_tokens` new positions behind `n_context - n_tokens` cached ones."""
    config = ops.config
    if config.decoder is None:
        raise WorkloadError(f"phases but encode must have a decoder, {config.name} has none")
    if (config.encoder is not None) != (n_memory > 0):
        rule = "at least 1 with an encoder, 0 without"
        raise WorkloadError(f"n_memory must be {rule}, got {n_memory} for {config.name}")
    batch, n_tokens = tokens.shape
    check_at_least("n_context", n_context, n_tokens)
    memory = None
    if config.encoder is not None:
        kept = _cached(ops, "cross_attention", batch, n_memory)
        hidden = ops.log.activation("encoder.final_norm", (batch, n_memory, config.encoder.d_model))
        mask = np.ones((batch, 1, 1, n_memory), bool)
        layers = [LayerMemory(layer.k, layer.v, mask) for layer in kept]
        memory = Memory(Shaped(shape=hidden.shape, tensor=hidden), layers)
    hidden = decode(
        ops, config, tokens, np.ones(tokens.shape, bool), memory,
        _past(ops, batch, n_context - n_tokens, n_context),
    )  # fmt: skip
    if ops.model.lm_head != "none":
        sample(ops, mu.logits(ops, config, _scored(ops, hidden)), GREEDY, None)


def _past(ops: DescribedOps, batch: int, n_past: int, n_total: int) -> Cache:
    """Return a cache as `n_past` earlier tokens have left it."""
    stack = ops.config.stacks["decoder"]
    cache = Cache.empty(batch, stack.n_layers)
    if n_past:
        cache.layers = _cached(ops, "self_attention", batch, n_past)
        cache.tokens = np.full((batch, n_past), ops.config.bos_id)
        cache.valid = np.ones((batch, n_past), bool)
        cache.positions = positions_of(stack, cache.valid)
        lengths = rope_lengths(stack, np.ones((batch, n_total), bool))
        cache.theta = rope_theta(stack, lengths)
    return cache


def _cached(ops: DescribedOps, attention: str, batch: int, n_slots: int) -> list[LayerCache]:
    stack, bits = ops.config.stacks["decoder"], ops.log.precision.kv_bits
    shape = (batch, stack.n_kv_heads, n_slots, stack.d_head)

    def kept(layer: int, name: str) -> Shaped:
        site = f"decoder.{layer}.{attention}.{name}_cache"
        return Shaped(shape=shape, tensor=Tensor(name=site, shape=shape, bits=bits, role="kv"))

    return [LayerCache(kept(layer, "k"), kept(layer, "v")) for layer in range(stack.n_layers)]


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
    memory = mu.remember(ops, ops.config, tokens, valid)
    for layer, kept in enumerate(memory.layers):
        site = f"decoder.{layer}.cross_attention"
        for name in ("k", "v"):
            setattr(kept, name, ops.append(None, getattr(kept, name), f"{site}.{name}_cache"))
    return memory
