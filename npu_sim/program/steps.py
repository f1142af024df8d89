"""Decode steps of a growing cache: each has one slot more than the one before, so few are recorded.

Where nothing bends the growth, every number of a step (shapes, products, elements, bytes) is a
straight line over the steps. Some are recorded by the forward pass, and the rest follows from two.
Chapter: `docs/11_machine.md`.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from mu_ref.config import ModelConfig
from npu_sim.program.log import Recording
from npu_sim.program.program import Call

__all__ = ["grows_evenly", "line_of", "record_steps"]

LIKE = 3  # steps that are recorded to continue them: two for the line, and one to check it


def record_steps(
    log: Recording, step: Callable[[], None], n_steps: int, *, evenly: bool
) -> tuple[Call, ...]:
    """Record decode steps, and continue them where each differs from the one before alike.

    Args:
        log: where `step` records.
        step: records the next decode step as one call.
        n_steps: decode steps.
        evenly: from `grows_evenly`.

    Returns:
        All calls of the log, and the steps behind them that were not recorded.
    """
    n_recorded = min(n_steps, LIKE) if evenly else n_steps
    for _ in range(n_recorded):
        step()
    calls = log.calls()
    if n_more := n_steps - n_recorded:
        line = line_of(*calls[-LIKE : 2 - LIKE])
        if line(2) == calls[-1]:
            return (*calls, *(line(2 + n) for n in range(1, n_more + 1)))
        for _ in range(n_more):
            step()
        calls = log.calls()
    return calls


def grows_evenly(model: ModelConfig, kv_bits: int, n_first: int, n_last: int) -> bool:
    """Whether decode steps grow by one slot alike.

    Args:
        model: with a decoder.
        kv_bits: stored width of keys and values.
        n_first: slots that the first of these steps reads.
        n_last: slots that the last one reads.

    Returns:
        False where a window begins to forget on the way, where another theta lets the whole prefix
        be computed again, or where a slot takes no whole bytes.
    """
    stack = model.stacks["decoder"]
    windows = [window for window in stack.windows if window is not None]
    bends = any(n_first < window < n_last for window in windows)
    whole = stack.n_kv_heads * stack.d_head * kv_bits % 8 == 0
    return whole and not bends and stack.rope_ntk_factor <= 1


def line_of(a: Call, b: Call) -> Callable[[int], Call]:
    """Continue a call and the next one: n -> the call n steps behind the first.

    What does not change stays the same object.
    """
    if [(op.site, op.kind) for op in a.ops] != [(op.site, op.kind) for op in b.ops]:
        return lambda _: b
    ops = [_line(x, y) for x, y in zip(a.ops, b.ops, strict=True)]
    return lambda n: Call(
        phase=b.phase, ops=tuple([op(n) if callable(op) else op for op in ops]), is_continued=True
    )


def _line(a: Any, b: Any) -> Any:
    """Continue two values of one kind, whole numbers or what holds some; b itself if it stays."""
    if a is b or a == b:
        return b
    if isinstance(a, int):
        return lambda n: a + n * (b - a)
    if isinstance(a, tuple):
        parts = [_line(x, y) for x, y in zip(a, b, strict=True)]
        return lambda n: tuple([part(n) if callable(part) else part for part in parts])
    kind = type(b)
    values = {f.name: _line(getattr(a, f.name), getattr(b, f.name)) for f in fields(kind)}
    moving = [(name, value) for name, value in values.items() if callable(value)]
    return lambda n: kind(**{**values, **{name: value(n) for name, value in moving}})
