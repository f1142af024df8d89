"""The program of a whole request: read some tokens, write some. Chapter: `docs/11_machine.md`."""

from dataclasses import replace

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import check_choice
from mu_ref.model.cache import Cache, Memory
from npu_sim.errors import WorkloadError, check_at_least, check_at_most
from npu_sim.program.call import (
    MAX_CONTEXT,
    any_tokens,
    call_program,
    record_decode,
    remember,
)
from npu_sim.program.description import Description, describe
from npu_sim.program.precision import Precision
from npu_sim.program.program import RUNTIMES, Program
from npu_sim.program.recorder import RecordOps
from npu_sim.program.steps import grows_evenly, record_steps
from npu_sim.units import ceil_div

__all__ = [
    "check_recordable",
    "described_program",
    "input_tokens",
    "record_reading",
    "record_request",
    "request_program",
]


# A recording keeps every operation of every step in memory.
MAX_INPUT_TOKENS = 8192  # of all rows of the batch

# A decoder-only model reads a longer prompt piece by piece, as serving runtimes do.
CHUNK_TOKENS = 2048  # of each row

MAX_OUTPUT_TOKENS = 2048

DEFAULT_INPUT = 64  # tokens, where nobody says how many

MAX_LAYER_STEPS = 2**15  # layers that steps run: each is some forty operations to price

MAX_ROW_TOKENS = 2**20  # written by all rows of the batch: the cache notes each


def request_program(
    description: Description,
    n_input: int,
    n_output: int,
    precision: Precision,
    batch: int = 1,
    static_context: int | None = None,
    n_filled: int | None = None,
) -> Program:
    """Record a whole request: read `n_input` tokens, write `n_output`.

    An encoder-decoder encodes once, with the keys and values of cross-attention, then takes
    `n_output` decode steps, the first from the start token. A decoder-only model prefills the
    input, which gives the first token, and takes `n_output - 1` decode steps; more than
    `MAX_INPUT_TOKENS` are prefilled in chunks, one call each.

    Args:
        description: the model; it must have a decoder.
        n_input: tokens, at least 1.
        n_output: tokens, at least 1; decoding does not stop earlier.
        precision: stored widths.
        batch: rows computed together, all of the same length.
        static_context: slots that every call processes whatever the length, as a compiled graph
            does; None computes exact lengths.
        n_filled: slots among them that hold tokens in a decode step; by default as many as the
            request has, in the mean over its steps.

    Returns:
        The program; encode and decode steps, or prefill and decode steps.

    Raises:
        WorkloadError: a length below 1, too long to record or longer than the static context, or a
            model that writes no tokens.
    """
    if static_context is not None:
        return _static_request(
            description, n_input, n_output, precision, batch, static_context, n_filled
        )
    if n_filled is not None:
        raise WorkloadError(
            f"n_filled must come with a static context, whose other slots are empty, got {n_filled}"
        )
    if description.model.encoder is None and batch * n_input > MAX_INPUT_TOKENS:
        return _chunked_request(description, n_input, n_output, precision, batch)
    check_recordable(description.model, n_input, n_output, batch)
    ops = RecordOps(description, precision)
    memory, tokens = record_reading(ops, batch, n_input)
    cache = Cache.empty(batch, ops.model.stacks["decoder"].n_layers)
    if memory is None:
        ops.log.begin("prefill")
        record_decode(ops, tokens, memory, cache, "last")
    n_steps = n_output - (memory is None)
    return _written(ops, memory, cache, n_input, n_output, n_steps, "last")


def _written(
    ops: RecordOps, memory: Memory | None, cache: Cache, n_input: int, n_output: int,
    n_steps: int, lm_head: str | None,
) -> Program:  # fmt: skip
    """Record the decode steps of a request whose input has been read."""
    batch, n_past = cache.tokens.shape

    def step() -> None:
        ops.log.begin("decode")
        record_decode(ops, any_tokens(ops.model, batch, 1), memory, cache, lm_head)

    slots = n_past + 1, n_past + n_steps
    evenly = grows_evenly(ops.model, ops.log.precision.kv_bits, *slots)
    calls = record_steps(ops.log, step, n_steps, evenly=evenly)
    return ops.log.program(n_input, n_output, batch, calls)


def record_request(
    model: ModelConfig, n_input: int, n_output: int, precision: Precision, batch: int = 1
) -> Program:
    """Record a whole request of a model that `mu_ref` runs; see `request_program`.

    Args:
        model: the configuration; it must have a decoder.
        n_input: tokens read, at least 1.
        n_output: tokens written, at least 1.
        precision: stored widths.
        batch: rows computed together.

    Returns:
        The program.

    Raises:
        WorkloadError: a length below 1 or too long to record, or a model that writes no tokens.
    """
    return request_program(describe(model), n_input, n_output, precision, batch)


def described_program(
    description: Description,
    n_input: int | None,
    n_output: int,
    precision: Precision,
    batch: int = 1,
    *,
    static_context: int | None = None,
    n_filled: int | None = None,
    runtime: str = "native",
) -> Program:
    """Record what a user asks of a model: a request, or one pass of a model that only reads.

    Args:
        description: the model.
        n_input: tokens read; None: see `input_tokens`.
        n_output: tokens written; an encoder alone writes none, which counts as 1.
        precision: stored widths.
        batch: rows computed together.
        static_context: slots of a compiled graph, or None.
        n_filled: slots of it that hold tokens; see `request_program`.
        runtime: who calls the graphs.

    Returns:
        The program.

    Raises:
        WorkloadError: lengths that contradict each other or the model, or an unknown runtime.
    """
    check_choice("runtime", runtime, RUNTIMES, WorkloadError)
    n_input = input_tokens(description, n_input, static_context)
    if description.model.decoder is None:
        if n_filled is not None:
            raise WorkloadError(
                f"n_filled must be left out for {description.name}, which caches nothing, got "
                f"{n_filled}"
            )
        check_at_least("n_input", n_input, 1)
        n = n_input if static_context is None else static_context
        check_at_least(f"static_context for {n_input} tokens", n, n_input)
        program = call_program(description, "encode", n, n, 0, precision, batch)
        program = replace(program, n_input=n_input)
    else:
        program = request_program(
            description, n_input, n_output, precision, batch, static_context, n_filled
        )
    return replace(program, runtime=runtime)


def input_tokens(
    description: Description, n_input: int | None, static_context: int | None = None
) -> int:
    """Say how many tokens (frames, patches) are read.

    Args:
        description: the model.
        n_input: what a user asks for, or None.
        static_context: slots of a compiled graph, or None.

    Returns:
        `n_input`. By default all that the model has positions for, if its input has a fixed length,
        or else 64; no more than the static context.

    Raises:
        WorkloadError: more than the model has positions for.
    """
    slots = description.input_slots
    if n_input is None:
        if slots is not None and description.model.decoder is not None:
            return slots  # the context is that of the decoder
        return min(slots or DEFAULT_INPUT, static_context or MAX_CONTEXT)
    if slots is not None and n_input > slots:
        raise WorkloadError(
            f"n_input must be at most the {slots} positions of {description.name}, got {n_input}"
        )
    return n_input


def record_reading(
    ops: RecordOps, batch: int, n_input: int
) -> tuple[Memory | None, np.ndarray]:  # fmt: skip
    """Record the encoder, if there is one; a decoder-only model reads in its first decoding call.

    Args:
        ops: the recorder.
        batch: rows computed together.
        n_input: tokens read.

    Returns:
        The memory or None, and the tokens [batch, n] that the decoder starts from.
    """
    tokens = any_tokens(ops.model, batch, n_input)
    if ops.model.encoder is None:
        return None, tokens
    memory = remember(ops, tokens, np.ones(tokens.shape, bool))
    return memory, tokens[:, :1]  # the decoder starts from the start token


def check_recordable(model: ModelConfig, n_input: int, n_output: int, batch: int) -> None:
    """Refuse a request that cannot be recorded.

    Args:
        model: must write tokens.
        n_input: tokens read.
        n_output: tokens written.
        batch: rows computed together.

    Raises:
        WorkloadError: a length below 1 or too long to record, or a model that writes no tokens.
    """
    for what, count in (("n_input", n_input), ("n_output", n_output), ("batch", batch)):
        check_at_least(what, count, 1)
    check_at_most("batch x n_input", batch * n_input, MAX_INPUT_TOKENS)
    check_at_most("n_output", n_output, MAX_OUTPUT_TOKENS)
    if model.decoder is None:
        raise WorkloadError(
            f"a model that writes tokens must have a decoder, {model.name} has none"
        )
    check_at_most("batch x n_output", batch * n_output, MAX_ROW_TOKENS)
    check_at_most("layers x n_output", model.decoder.n_layers * n_output, MAX_LAYER_STEPS)


def _chunked_request(
    description: Description, n_input: int, n_output: int, precision: Precision, batch: int
) -> Program:
    """Record a request whose prompt is read in chunks, each against the cache of those before."""
    most = min(CHUNK_TOKENS, MAX_INPUT_TOKENS // batch)
    check_at_least("batch x n_input, which leaves tokens for a chunk", most, 1)
    check_recordable(description.model, min(n_input, most), n_output, batch)
    check_at_most("n_input + n_output", n_input + n_output, MAX_CONTEXT)
    n_layers = description.model.stacks["decoder"].n_layers
    n_calls = n_output + ceil_div(n_input, most)
    check_at_most("layers x (chunks + n_output)", n_layers * n_calls, MAX_LAYER_STEPS)
    ops, cache = RecordOps(description, precision), Cache.empty(batch, n_layers)
    every = description.lm_head == "all"
    for start in range(0, n_input, most):
        ops.log.begin("prefill")
        tokens = any_tokens(ops.model, batch, min(most, n_input - start))
        last = start + most >= n_input
        record_decode(ops, tokens, None, cache, None if last or every else "none")
    return _written(ops, None, cache, n_input, n_output, n_output - 1, None)


def _static_request(
    description: Description,
    n_input: int,
    n_output: int,
    precision: Precision,
    batch: int,
    static_context: int,
    n_filled: int | None,
) -> Program:
    """Record a request of compiled graphs: one graph per phase, which each call runs whole."""
    for what, count in (("n_input", n_input), ("n_output", n_output)):
        check_at_least(what, count, 1)
    both = description.model.encoder is not None
    # an input of a fixed length has slots of its own
    n_memory = 0 if not both else static_context if description.input_slots is None else n_input
    longest = max(n_input, n_output) if both else n_input + n_output - 1
    if both and description.input_slots is not None:
        longest = n_output
    check_at_least(f"static_context for {longest} tokens", static_context, longest)
    check_at_most("n_output", n_output, MAX_OUTPUT_TOKENS)
    n_layers = description.model.stacks["decoder"].n_layers
    check_at_most("layers x n_output", n_layers * n_output, MAX_LAYER_STEPS)
    phase, n_first = ("encode", n_memory) if both else ("prefill", n_input)
    n_slots = n_memory if both else static_context
    if n_filled is None:  # of the mean step: all steps are one call
        n_filled = (n_output + 1) // 2 + (0 if both else n_input)
    # a prompt fills the slots that it reads
    filled = None if both else n_input
    first = call_program(description, phase, n_first, n_slots, 0, precision, batch, filled)
    step = call_program(
        description, "decode", 1, static_context, n_memory, precision, batch,
        min(n_filled, static_context),
    )  # fmt: skip
    calls = first.calls + step.calls * (n_output if both else n_output - 1)
    return replace(first, n_input=n_input, n_output=n_output, calls=calls)
