"""The program of a whole request: read some tokens, write some. Chapter: `docs/04_npu.md`."""

from dataclasses import replace

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import check_choice
from mu_ref.generate import stream
from npu_sim.errors import WorkloadError, check_at_least, check_at_most
from npu_sim.program.call import _program, call_program, remember
from npu_sim.program.description import DescribedOps, Description
from npu_sim.program.precision import Precision
from npu_sim.program.program import RUNTIMES, Program
from npu_sim.program.recorder import RecordOps

__all__ = ["described_program", "record_request", "request_program"]


# A recording keeps the model's masks, input x input, and every operation of every step in memory.
MAX_INPUT_TOKENS = 8192  # of all rows of the batch

MAX_OUTPUT_TOKENS = 2048


def request_program(
    model: Description,
    n_input: int,
    n_output: int,
    precision: Precision,
    batch: int = 1,
    static_context: int | None = None,
) -> Program:
    """Record a whole request of a described model.

    Args:
        model: the description.
        n_input: tokens read, at least 1.
        n_output: tokens written, at least 1.
        precision: stored widths.
        batch: rows computed together.
        static_context: slots that every call processes whatever the length, as a compiled graph
            does; None computes exact lengths.

    Returns:
        The program; encode and decode steps, or prefill and decode steps.

    Raises:
        WorkloadError: a length below 1 or longer than the static context.
    """
    if static_context is None:
        ops = DescribedOps(model, precision)
        return record_request(model.config, n_input, n_output, precision, batch, ops=ops)
    for what, count in (("n_input", n_input), ("n_output", n_output)):
        check_at_least(what, count, 1)
    both = model.config.encoder is not None
    longest = max(n_input, n_output) if both else n_input + n_output - 1
    check_at_least(f"static_context for {longest} tokens", static_context, longest)
    n_memory = static_context if both else 0
    phase, n_first = ("encode", static_context) if both else ("prefill", n_input)
    first = call_program(model, phase, n_first, static_context, 0, precision, batch)
    step = call_program(model, "decode", 1, static_context, n_memory, precision, batch)
    calls = first.calls + step.calls * (n_output if both else n_output - 1)
    return _program(DescribedOps(model, precision), (n_input, n_output, batch), calls)


def described_program(
    model: Description,
    n_input: int,
    n_output: int,
    precision: Precision,
    batch: int = 1,
    *,
    static_context: int | None = None,
    runtime: str = "native",
) -> Program:
    """Record what a user asks of a model: a request, or one pass of a model that only reads.

    Args:
        model: the description.
        n_input: tokens read.
        n_output: tokens written; an encoder alone writes none.
        precision: stored widths.
        batch: rows computed together.
        static_context: slots of a compiled graph, or None.
        runtime: who calls the graphs.

    Returns:
        The program.

    Raises:
        WorkloadError: lengths that contradict each other or the model, or an unknown runtime.
    """
    check_choice("runtime", runtime, RUNTIMES, WorkloadError)
    if model.config.decoder is None:
        n = n_input if static_context is None else static_context
        program = call_program(model, "encode", n, n, 0, precision, batch)
    else:
        program = request_program(model, n_input, n_output, precision, batch, static_context)
    return replace(program, runtime=runtime)


def record_request(
    config: ModelConfig,
    n_input: int,
    n_output: int,
    precision: Precision,
    batch: int = 1,
    *,
    ops: RecordOps | None = None,
) -> Program:
    """Record a whole request: read `n_input` tokens, write `n_output`.

    An encoder-decoder encodes once, with the keys and values of cross-attention, then takes
    `n_output` decode steps, the first from the start token. A decoder-only model prefills the
    input, which gives the first token, and takes `n_output - 1` decode steps.

    Args:
        config: the model; it must have a decoder.
        n_input: tokens, at least 1.
        n_output: tokens, at least 1; decoding does not stop earlier.
        precision: stored widths.
        batch: rows computed together, all of the same length.
        ops: another recorder than a new `RecordOps` of this configuration.

    Returns:
        The program.

    Raises:
        WorkloadError: a length below 1 or too long to record, or a model that writes no tokens.
    """
    for what, count in (("n_input", n_input), ("n_output", n_output), ("batch", batch)):
        check_at_least(what, count, 1)
    check_at_most("batch x n_input", batch * n_input, MAX_INPUT_TOKENS)
    check_at_most("n_output", n_output, MAX_OUTPUT_TOKENS)
    if config.decoder is None:
        raise WorkloadError(
            f"a model that writes tokens must have a decoder, {config.name} has none"
        )
    ops = RecordOps(config, precision) if ops is None else ops
    tokens = np.full((batch, n_input), config.bos_id)
    valid = np.ones(tokens.shape, bool)
    memory = None
    if config.encoder is not None:
        memory = remember(ops, tokens, valid)
        tokens, valid = tokens[:, :1], valid[:, :1]  # the decoder starts from the start token
    steps = stream(ops, config, memory, tokens, valid, n_output, stop_at_eos=False)
    for step in range(n_output):
        ops.log.begin("prefill" if step == 0 and memory is None else "decode")
        next(steps)
    stored = sum(tensor.n_bytes for tensor in ops.log.weights(*ops.log.shapes))
    return Program(
        model=config.name, precision=precision, n_input=n_input, n_output=n_output, batch=batch,
        stored_weight_bytes=stored, calls=ops.log.calls(),
    )  # fmt: skip
