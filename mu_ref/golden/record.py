"""Record what every site computes in a run, step by step: the numbers that a port must reproduce.

A run is a sequence of **calls**: `encode` and `remember` once, then `decode/0`, `decode/1`, ... for
each token; with a drafter `decode/0`, then `draft/1/0`, `draft/1/1`, ... and `verify/1` for each
step. A tensor's key is its call and its site: `decode/3/decoder.0.self_attention.q`. What a call is
given has keys of its own: `decode/3/tokens`, `decode/3/positions`, `decode/3/cross_attention.mask`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.generate import stream
from mu_ref.integers.encodings import Encoding
from mu_ref.model import mu
from mu_ref.ops import Ops
from mu_ref.ops.integer import Quantized
from mu_ref.ops.rotation import Rotation
from mu_ref.ops.traced import Traced, TracedOps
from mu_ref.redrafter.beams import Beams, Search, proposer
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.generate import speculate

__all__ = ["Entry", "Recorder", "record_run"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a run."""

    array: np.ndarray
    op: str  # of the vocabulary; "input" or "decision" for what calls are given and decide
    inputs: tuple[str, ...] = ()  # keys of what it was computed from
    encoding: Encoding | None = None  # of integers


@dataclass(slots=True)
class Recorder:
    """Records the operations of an executor; `ops` is what the model is run with.

    Args:
        inner: who computes, plainly: the reference or the integer executor.
    """

    inner: Ops
    call: str = ""
    entries: dict[str, Entry] = field(default_factory=dict)  # by key, in execution order
    ops: TracedOps = field(init=False)
    _latest: dict[str, str] = field(default_factory=dict)  # {site: key of its last value}
    _all: dict[str, list[str]] = field(default_factory=dict)  # {site: keys of all its values}
    _read: list[str] = field(default_factory=list)  # keys of what the operation at work is given

    def __post_init__(self) -> None:
        """Wrap the executor."""
        self.ops = TracedOps(self.inner, self._take, self._before)

    def put(self, name: str, array: np.ndarray, op: str) -> None:
        """Record what a call is given or decides, under the key `CALL/name`."""
        self.entries[f"{self.call}/{name}"] = Entry(_native(array), op)

    def stand_for(self, value: Any, name: str) -> Traced:
        """Return a value that a call is given, to be handed to the model under its name."""
        self._latest[name] = f"{self.call}/{name}"
        return Traced(value, name)

    def _call_of(self, site: str) -> str:
        """The call that a site belongs to; a memory and a draft begin where their sites do."""
        if self.call == "encode" and ".cross_attention." in site:
            self.call = "remember"
        elif self.call.startswith("draft/") and f"{self.call}/{site}" in self.entries:
            step, position = self.call.removeprefix("draft/").split("/")
            self.call = f"draft/{step}/{int(position) + 1}"
        return self.call

    def _before(self, site: str, op: str, given: dict[str, Any]) -> None:
        call = self._call_of(site)
        self._read = []
        for name, value in given.items():
            if isinstance(value, Rotation):
                self._give(f"{call}/theta", site, value.theta)
                self._give(f"{call}/positions", site, value.positions)
            elif name == "tokens":
                self._give(f"{call}/tokens", site, value)
            elif name == "mask":  # one for all layers, unless some have a window
                self._give(f"{call}/{site.split('.')[-2]}.mask", site, value)

    def _give(self, key: str, site: str, array: np.ndarray) -> None:
        """Record an array that an operation is given, once for all that are given the same."""
        known = self.entries.get(key)
        if known is not None and not np.array_equal(known.array, _native(array)):
            key = f"{key}:{site}"
        self.entries.setdefault(key, Entry(_native(array), "input"))
        self._read.append(key)

    def _take(self, site: str, op: str, inputs: tuple[Traced, ...], value: Any) -> None:
        key = f"{self.call}/{site}"
        read = [key for x in inputs for key in self._keys_of(x)] + self._read
        encoding = value.encoding if isinstance(value, Quantized) else None
        array = value.q if isinstance(value, Quantized) else np.asarray(value)
        self.entries[key] = Entry(array.copy(), op, tuple(dict.fromkeys(read)), encoding)
        self._latest[site] = key
        self._all.setdefault(site, []).append(key)

    def _keys_of(self, x: Traced) -> list[str]:
        """Keys of a value; a cache holds what its site computed in this call and before."""
        key = self._latest[x.site]
        grown = x.shape[-2] > self.entries[key].array.shape[-2]  # tokens, of heads or of none
        return self._all[x.site] if grown else [key]


def record_run(
    inner: Ops,
    model: ModelConfig,
    source: np.ndarray | None,
    source_valid: np.ndarray | None,
    prompt: np.ndarray,
    max_new_tokens: int,
    drafter: DrafterConfig | None = None,
    search: Search | None = None,
    source_read: np.ndarray | None = None,
    prompt_valid: np.ndarray | None = None,
) -> Recorder:
    """Run a model greedily, and record every site of every call.

    Args:
        inner: the executor; with a drafter it owns the drafter's weights too.
        model: the configuration.
        source: [batch, n_src] int, or None for a decoder-only model.
        source_valid: [batch, n_src] bool, or None.
        prompt: [batch, n_prompt] int; [[bos_id]] for Mu.
        max_new_tokens: limit.
        drafter: writes with drafts, if given.
        search: how to draft; needed with a drafter.
        source_read: [batch, n_src] bool, what the decoder reads; by default what is valid.
        prompt_valid: [batch, n_prompt] bool; all by default.

    Returns:
        The recorder, with its entries in execution order.
    """
    recorder = Recorder(inner)
    memory = None
    if source is not None and source_valid is not None:
        recorder.call = "encode"
        recorder.put("valid", source_valid, "input")
        memory = mu.remember(recorder.ops, model, source, source_valid, source_read)
    valid = np.ones(prompt.shape, bool) if prompt_valid is None else prompt_valid
    start = memory, prompt, valid, max_new_tokens
    if drafter is None or search is None:
        _number(recorder, stream(recorder.ops, model, *start), "decode/{}", "next_tokens")
        return recorder
    drafts = proposer(recorder.ops, model, drafter, search)
    steps = iter(range(1, max_new_tokens + 1))

    def noted(hidden: Any, tokens: np.ndarray, longest: int) -> Beams:
        number = next(steps)
        recorder.call = f"draft/{number}/0"
        beams = drafts(hidden, tokens, longest)
        recorder.call = f"draft/{number}"
        recorder.put("beams", beams.tokens, "decision")
        recorder.call = f"verify/{number}"
        return beams

    run = speculate(recorder.ops, model, noted, *start)
    _number(recorder, run, "decode/{}", "written")
    return recorder


def _number(recorder: Recorder, steps: Any, call: str, name: str) -> None:
    """Walk through the steps of a run, each a call of its own, and record what it decided."""
    number = 0
    while True:
        recorder.call = call.format(number)
        try:
            step = next(steps)
        except StopIteration:
            return
        recorder.put(name, step.tokens, "decision")
        number += 1


def _native(array: np.ndarray) -> np.ndarray:
    """Token ids and positions as int32, masks as 0 and 1 in uint8."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    return array.astype(np.int32) if array.dtype.kind in "iu" else array
