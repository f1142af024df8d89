"""The vocabulary: every operation the model asks for, with its shapes; it knows nothing else.

An executor is a subclass of `Ops` that says what a value is and how each operation computes it:
`reference.py` (NumPy arrays), `tape.py` (arrays with gradients), `npu_sim/program/recorder.py`
(shapes). It owns the weights; the model only names **sites**. A site such as
`"decoder.3.cross_attention.q"` is also the key of the weight file, the tensor name of a golden
file and the name in a trace.

Axis letters: a value `x` has any leading axes, written `...`; `n_tok` tokens; `d` features.
A value has a `.shape`. Masks, positions and token ids are plain NumPy arrays on every executor.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from mu_ref.ops.rotation import Rotation

__all__ = ["Cached", "Drafting", "Ops", "Pass", "Value"]

Value = Any  # what an executor computes with: an array, a tape node, a shape


class Cached(Protocol):
    """What `repeat` is told of a layer's cache: values [batch, heads, n, d], or None."""

    k: Any
    v: Any


@dataclass(frozen=True, slots=True)
class Drafting:
    """Two stretches, see `Ops.repeat`, by which one row is written: one drafts, one checks."""

    draft: Hashable  # on [1, 1] tokens; reads the hidden state, and its own first result before
    check: Hashable  # on [1, n_drafted + 1] tokens; returns their hidden states and scores
    grown: Sequence[Cached]  # of `check`, like read
    read: Sequence[Value]
    inputs: Callable[[int], Sequence[Any]]  # of `check`, so many slots further than now
    n_places: int  # for how many slots there are inputs
    alike: Hashable  # equal for equal inputs, but those that are the same in all places


@dataclass(frozen=True, slots=True)
class Pass:
    """What was written by drafting and checking once."""

    tokens: list[int]  # drafted ones that were right, and the one behind them
    n_drafted: int
    hidden: Value  # [1, 1, d_model], of the last token but one; until the next pass
    draft_s: float  # seconds of the processor
    check_s: float


class Ops(ABC):
    """The operations of the forward pass. Every call names its site."""

    compiled: bool = False  # may the bookkeeping around this executor use compiled code too?

    # -- operations that read a weight -------------------------------------------------------

    @abstractmethod
    def embed(self, tokens: np.ndarray, site: str) -> Value:
        """Look up rows of `site.weight`: [batch, n_tok] int -> [batch, n_tok, d_model]."""

    @abstractmethod
    def linear(self, x: Value, site: str, weight_site: str | None = None) -> Value:
        """Return $y_n = \\sum_k x_k W_{nk} + b_n$: [..., d_in] -> [..., d_out].

        W is `site.weight` [d_out, d_in], b is `site.bias` [d_out] or absent. `weight_site` names
        another site's weight, for a head tied to the embedding.
        """

    @abstractmethod
    def norm(self, x: Value, site: str, kind: str, eps: float) -> Value:
        """Normalise the last axis: [..., d] -> [..., d], gain `site.weight`, bias `site.bias`.

        kind "rms": $g x / \\sqrt{mean(x^2) + eps}$; "rms_plus_one": gain 1 + g;
        "layer": $g (x - mean) / \\sqrt{var + eps} + b$, var with n in the denominator.
        """

    # -- operations on activations ------------------------------------------------------------

    @abstractmethod
    def rope(self, x: Value, rotation: Rotation, site: str) -> Value:
        """Rotate the pairs (x_i, x_{i+d/2}): [batch, heads, n_tok, d_head] -> same."""

    @abstractmethod
    def matmul(self, a: Value, b: Value, site: str, *, transpose_b: bool = False) -> Value:
        """Return a @ b: [..., m, k], [..., k, n] -> [..., m, n].

        With transpose_b, b is [..., n, k].
        """

    @abstractmethod
    def softmax(self, x: Value, mask: np.ndarray, site: str) -> Value:
        """Softmax over the last axis where mask is True, 0 elsewhere: [..., n] -> [..., n].

        mask broadcasts to x. A row without any True gives zeros: such rows are padding, and what
        they compute is never read.
        """

    @abstractmethod
    def activation(self, x: Value, kind: str, site: str) -> Value:
        """Apply "gelu_tanh", "gelu" (erf), "silu" or "relu" to each element."""

    @abstractmethod
    def add(self, x: Value, y: Value, site: str) -> Value:
        """Return x + y, both of one shape."""

    @abstractmethod
    def mul(self, x: Value, y: Value, site: str) -> Value:
        """Return x * y element by element, both of one shape."""

    @abstractmethod
    def scale(self, x: Value, factor: float, site: str) -> Value:
        """Return x * factor."""

    @abstractmethod
    def softcap(self, x: Value, cap: float, site: str) -> Value:
        """Return cap * tanh(x / cap)."""

    @abstractmethod
    def concat(self, x: Value, y: Value, site: str) -> Value:
        """Join along the last axis: [..., d], [..., e] -> [..., d + e]."""

    def dropout(self, x: Value, site: str) -> Value:
        """Return x. Only an executor in training drops elements; it knows the rate."""
        del site
        return x

    # -- layout: moves data, computes nothing ---------------------------------------------------

    @abstractmethod
    def split_heads(self, x: Value, n_heads: int, site: str) -> Value:
        """[batch, n_tok, n_heads * d_head] -> [batch, n_heads, n_tok, d_head]."""

    @abstractmethod
    def merge_heads(self, x: Value, site: str) -> Value:
        """[batch, n_heads, n_tok, d_head] -> [batch, n_tok, n_heads * d_head]."""

    @abstractmethod
    def share_heads(self, x: Value, head_of: tuple[int, ...], site: str) -> Value:
        """Give each query head its kv head: [batch, n_kv_heads, ...] -> [batch, n_heads, ...]."""

    @abstractmethod
    def append(self, past: Value | None, new: Value, site: str) -> Value:
        """Join along the token axis: [batch, heads, n, d] + [batch, heads, m, d] -> n + m."""

    @abstractmethod
    def take_tokens(self, x: Value, index: np.ndarray, site: str) -> Value:
        """Pick tokens per row: [batch, n_tok, d], index [batch, n] -> [batch, n, d]."""

    @abstractmethod
    def keep_slots(self, x: Value, n_kept: int, index: np.ndarray, site: str) -> Value:
        """Keep the first slots of a cache and those of index [batch, m]: n -> n_kept + m slots.

        x is [batch, heads, n, d]. It is used up: an executor may write over it.
        """

    # -- decisions, and the way out -------------------------------------------------------------

    @abstractmethod
    def argmax(self, x: Value, site: str) -> np.ndarray:
        """Return the lowest index of the largest element: [..., n] -> [...] int."""

    @abstractmethod
    def top_k(self, x: Value, k: int, site: str) -> np.ndarray:
        """Return the indices of the k largest, largest first, lowest index on ties: [..., k]."""

    def repeat(
        self,
        what: Hashable,
        grown: Sequence[Cached],
        read: Sequence[Value],
        inputs: Sequence[Any],
        compute: Callable[..., Value],
    ) -> Value:
        """Return compute(*inputs), a stretch of operations that comes again and again.

        The loops around the model say so: `generate/step.py` of a step of decoding and of reading
        an input, `redrafter/beams.py` of a step of drafting. An executor may note how it was done,
        and do the same again without asking; this one asks.

        Args:
            what: names the stretch: equal names stand for the same operations.
            grown: caches of layers, to each of which the stretch appends the n_new keys of a step.
            read: all other values that it reads.
            inputs: all arrays that it reads; the first one is [batch, n_new].
            compute: the stretch; returns a value, or a tuple of values.

        Returns:
            What compute returned.
        """
        return compute(*inputs)

    def greedy(
        self,
        what: Hashable,
        grown: Sequence[Cached],
        read: Sequence[Value],
        steps: Sequence[Sequence[Any]],
        stops: Collection[int],
        fed: Mapping[int, int] = MappingProxyType({}),
    ) -> Iterator[tuple[int, Value]]:
        """Do a stretch that an executor knows several times, each on the likeliest token before.

        Args:
            what: as in `repeat`, like grown and read.
            grown: caches of layers.
            read: all other values.
            steps: inputs of each time; the first is the token, [1, 1], known for the first time.
            stops: tokens behind which it does not go on.
            fed: {place in read: place among the results} of values that the time before computes.

        Yields:
            The token that each time chose, the lowest on ties, and the scores [1, 1, vocab_size],
            the last result; fewer than asked for, or none (as here), where that is all it can.
        """
        yield from ()

    def drafted(
        self, how: Drafting, hidden: Value, token: int, n_left: int, stops: Collection[int]
    ) -> Iterator[Pass]:
        """Draft one beam and check it, again and again, as long as the likeliest token is written.

        Args:
            how: both stretches, which an executor knows by now.
            hidden: [1, 1, d_model], of the last token in the cache.
            token: the one behind it.
            n_left: tokens that may be written.
            stops: tokens behind which nothing is drafted or written.

        Yields:
            Passes; none (as here) where an executor cannot do this by itself.
        """
        yield from ()

    def read(self, x: Value) -> np.ndarray:
        """Return the real numbers that a value stands for, as a NumPy array."""
        return np.asarray(x)
