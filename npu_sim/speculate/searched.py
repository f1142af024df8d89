"""The program of a request that a search answered: greedy steps, if any, then its passes.

Chapter: `docs/11_machine.md`.
"""

from collections.abc import Sequence

from mu_ref.config import ModelConfig
from mu_ref.model.cache import Cache
from npu_sim.errors import check_at_least
from npu_sim.program.call import any_tokens, record_decode
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program
from npu_sim.program.recorder import RecordOps
from npu_sim.program.request import check_recordable, record_reading

__all__ = ["record_search"]


def record_search(
    model: ModelConfig,
    n_input: int,
    n_greedy: int,
    passes: Sequence[int],
    precision: Precision,
) -> Program:
    """Record a request that a search answered.

    A pass computes the new tokens of all prefixes at once, behind a cache of its own, and scores
    each of them, which is an upper bound: the search reads the last one of each prefix. Masks, the
    linear scorer and the choice are the host's and cost the NPU nothing.

    Args:
        model: the configuration; it must have a decoder.
        n_input: tokens read, at least 1.
        n_greedy: steps of greedy decoding before the search, 0 where there was none.
        passes: new tokens of each pass; none for a greedy answer.
        precision: stored widths.

    Returns:
        The program, with phases encode or prefill, decode and search.

    Raises:
        WorkloadError: a length that is out of range, or nothing that is written.
    """
    check_at_least("steps and passes", n_greedy + len(passes), 1)
    check_recordable(model, n_input, max(1, n_greedy) + sum(passes), 1)
    ops = RecordOps(describe(model), precision)
    memory, prompt = record_reading(ops, 1, n_input)
    n_layers = model.stacks["decoder"].n_layers
    cache, tokens = Cache.empty(1, n_layers), prompt
    for _ in range(n_greedy):
        ops.log.begin("decode")
        record_decode(ops, tokens, memory, cache, "last")
        tokens = any_tokens(model, 1, 1)
    cache = Cache.empty(1, n_layers)
    for n_new in passes:
        ops.log.begin("search")
        record_decode(ops, any_tokens(model, 1, n_new), memory, cache, "all")
    # what a search writes stands when it is over, so its first token is its last
    return ops.log.program(n_input, 1 if passes else n_greedy, 1)
