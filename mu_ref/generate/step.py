"""One step of decoding, which an executor may know from the step before, and reading the input.

From step to step the layers do the same, with other tokens, positions and masks, on a longer cache;
`Ops.repeat` says so, and `Ops.greedy` of several steps at once. So it is with inputs of one length.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.model import mu
from mu_ref.model.cache import Cache, LayerCache, LayerMemory, Memory, Placement
from mu_ref.model.decoder import Placed, place, run_layers
from mu_ref.model.encoder import Survey, run_encoder, survey
from mu_ref.ops import Ops, Value

__all__ = [
    "Ahead", "check_step", "check_stretch", "decode_step", "encode_step", "next_scores",
    "places_ahead",
]  # fmt: skip

MOST_REMEMBERED = 256  # lengths of rows without padding whose masks and positions are kept


def encode_step(
    ops: Ops,
    model: ModelConfig,
    source: np.ndarray,
    valid: np.ndarray,
    read: np.ndarray | None = None,
) -> Memory:
    """Do what `mu.remember` does, and let the executor recognise an input of a length it knows.

    Args:
        ops: the executor.
        model: the configuration; has both stacks.
        source: [batch, n_src] int.
        valid: [batch, n_src] bool, False at padding.
        read: [batch, n_src] bool, what the decoder reads; the valid ones by default.

    Returns:
        The memory: encoder output, K and V of every decoder layer, mask.
    """
    whole = valid.shape[0] == 1 and valid.shape[1] <= MOST_REMEMBERED and valid.all()
    seen = _whole_survey(model, valid.shape[1]) if whole else survey(model, valid)
    read = valid if read is None else read
    if seen.levels:  # other operations, for this once
        return mu.remember(ops, model, source, valid, read)

    def compute(*_: Any) -> tuple[Value, ...]:
        hidden = run_encoder(ops, model, source, seen.turn, seen.masks)
        return hidden, *_read(mu.project(ops, model, hidden, read))

    inputs = source, seen.turn, *seen.masks.values()
    hidden, *found = ops.repeat(("encode", model), (), (), inputs, compute)
    pairs = zip(found[::2], found[1::2], strict=True)
    mask = read[:, None, None, :]
    return Memory(hidden, [LayerMemory(k, v, mask) for k, v in pairs])


@lru_cache(maxsize=MOST_REMEMBERED)
def _whole_survey(model: ModelConfig, n: int) -> Survey:
    """Survey an input of n tokens without padding; nobody writes to it."""
    seen = survey(model, np.ones((1, n), bool))
    for mask in seen.masks.values():
        mask.flags.writeable = False
    return seen


def decode_step(
    ops: Ops,
    model: ModelConfig,
    tokens: np.ndarray,
    valid: np.ndarray,
    memory: Memory | None,
    cache: Cache,
    placement: Placement | None = None,
) -> Value:
    """Do what `decoder.decode` does, and let the executor recognise a step that it did before.

    From step to step the layers do the same, with other tokens, positions and masks, on a longer
    cache; `Ops.repeat` says so.

    Args:
        ops: the executor.
        model: its `decoder` must not be None.
        tokens: [batch, n_new] int, the tokens not yet in the cache.
        valid: [batch, n_new] bool, False at padding.
        memory: from `mu.remember`, or None for a decoder-only model.
        cache: earlier tokens; updated.
        placement: for tokens that do not simply follow the cached ones.

    Returns:
        [batch, n_new, d_model], after the final norm.
    """
    if placement is None:
        placed = _place_next(model, tokens, valid, cache)
    else:
        placed = place(model, tokens, valid, cache, placement)

    def layers(*_: Any) -> Value:
        return run_layers(ops, model, placed, memory, cache)

    inputs = _inputs(placed, memory)
    return _repeated(ops, "decode", model, placed, tokens.shape, memory, cache, inputs, layers)


def _repeated(
    ops: Ops,
    what: str,
    model: ModelConfig,
    placed: Placed,
    shape: tuple[int, ...],
    memory: Memory | None,
    cache: Cache,
    inputs: Sequence[Any],
    compute: Callable[..., Value],
) -> Value:
    """Compute what was placed for new tokens of a shape; the executor may know how."""
    if placed.tokens.shape != shape or placed.levels:  # other operations, for this once
        return compute()
    return ops.repeat((what, model), cache.layers, _read(memory), inputs, compute)


def _read(memory: Memory | None) -> list[Value]:
    """List the values that the layers read of the encoder."""
    return [] if memory is None else [x for layer in memory.layers for x in (layer.k, layer.v)]


def _inputs(placed: Placed, memory: Memory | None) -> tuple[Any, ...]:
    """List the arrays that the layers read."""
    memory_mask = () if memory is None else (memory.mask,)
    return placed.tokens, placed.turn, *memory_mask, *placed.masks.values()


def next_scores(
    ops: Ops,
    model: ModelConfig,
    tokens: np.ndarray,
    valid: np.ndarray,
    memory: Memory | None,
    cache: Cache,
) -> Value:
    """Compute what the next token is chosen from, [batch, 1, vocab_size]; see `decode_step`."""
    # last real token of a row, [batch, 1]
    last = valid.shape[1] - 1 - np.argmax(valid[:, ::-1], axis=1)[:, None]
    if tokens.shape[1] > 1:
        hidden = decode_step(ops, model, tokens, valid, memory, cache)  # [batch, n_tok, d_model]
        return _scores_of(ops, model, hidden, last)
    placed = _place_next(model, tokens, valid, cache)

    def compute(*_: Any) -> Value:
        return _scores_of(ops, model, run_layers(ops, model, placed, memory, cache), last)

    inputs = (*_inputs(placed, memory), last)
    return _repeated(ops, "scores", model, placed, tokens.shape, memory, cache, inputs, compute)


def _scores_of(ops: Ops, model: ModelConfig, hidden: Value, last: np.ndarray) -> Value:
    """Score what follows the tokens at `last` [batch, 1] of hidden [batch, n_tok, d_model]."""
    return mu.logits(ops, model, ops.take_tokens(hidden, last, "decoder.last_token"))


@dataclass(slots=True)
class Ahead:
    """Steps of one row that an executor does by itself: the likeliest token always follows.

    Args:
        ops: the executor.
        model: its `decoder` must not be None.
        memory: from `mu.remember`, or None for a decoder-only model.
        cache: earlier tokens; updated when the tokens found ahead are used up.
        stop_at_eos: whether an eos is the last.
        most: tokens found ahead at a time.
    """

    ops: Ops
    model: ModelConfig
    memory: Memory | None
    cache: Cache
    stop_at_eos: bool
    most: int
    _found: Iterator[tuple[int, Value]] = field(default_factory=lambda: iter(()))

    def take(
        self, tokens: np.ndarray, valid: np.ndarray, n_left: int
    ) -> tuple[np.ndarray, Value] | None:
        """Return what follows the tokens: [1] int, and scores [1, 1, vocab_size].

        Args:
            tokens: [batch, n_new] int, the tokens not yet in the cache.
            valid: [batch, n_new] bool.
            n_left: tokens still to be found.

        Returns:
            The token and its scores; None if the executor cannot go ahead here.
        """
        found, n = next(self._found, None), min(self.most, n_left)
        if found is None and n and tokens.shape == (1, 1) and valid.all():
            # what ends a row, and what nobody reads: behind these the caller goes on
            stops = frozenset(self.model.eos_ids if self.stop_at_eos else ())
            stops |= {self.model.pad_id} if self.model.mask_decoder_pads else frozenset()
            row = self.ops, self.model, int(tokens[0, 0]), self.memory, self.cache
            self._found = _found_ahead(*row, n, stops)
            found = next(self._found, None)
        return None if found is None else (np.array([found[0]]), found[1])


def _found_ahead(
    ops: Ops,
    model: ModelConfig,
    token: int,
    memory: Memory | None,
    cache: Cache,
    n: int,
    stops: frozenset[int],
) -> Iterator[tuple[int, Value]]:
    """Yield up to n tokens behind `token` with their scores.

    Where the tokens will stand and what each may read is known before they are.
    """
    found = places_ahead(model, memory, cache, np.array([[token]]), n)
    if found is None:
        return
    last = np.zeros((1, 1), np.int64)
    steps = [(*found(i), last) for i in range(n)]
    chosen: list[int] = []
    for new, scores in ops.greedy(("scores", model), cache.layers, _read(memory), steps, stops):
        chosen.append(new)
        yield new, scores
    if chosen:
        fed = np.array([[token, *chosen[:-1]]])
        place(model, fed, np.ones(fed.shape, bool), cache)


def places_ahead(
    model: ModelConfig, memory: Memory | None, cache: Cache, tokens: np.ndarray, n: int
) -> Callable[[int], tuple[Any, ...]] | None:
    """Find where tokens of one row would stand, and what they could read, in later steps.

    Args:
        model: its `decoder` must not be None.
        memory: from `mu.remember`, or None for a decoder-only model.
        cache: earlier tokens; it stays as it is.
        tokens: [1, width] int, what every step reads.
        n: steps; each stands one slot behind the one before it.

    Returns:
        Inputs of `Ops.repeat` for step 0, 1, ..; None where steps do not simply follow.
    """
    width = tokens.shape[1]
    total = width + n - 1
    if cache.valid.all():  # all such rows are alike
        theta = None if cache.theta is None else float(cache.theta[0])
        placed, _ = _placed_in_whole_row(model, cache.tokens.shape[1], total, theta)
    else:
        preview = Cache(list(cache.layers), cache.tokens, cache.valid)
        preview.positions, preview.theta = cache.positions, cache.theta
        placed = place(model, np.zeros((1, total), np.int64), np.ones((1, total), bool), preview)
    if placed.tokens.shape != (1, total) or placed.levels:
        return None
    turn, behind = placed.turn, cache.tokens.shape[1] + width

    def inputs(i: int) -> tuple[Any, ...]:
        step = Placed(
            tokens=tokens,
            turn=replace(turn, positions=turn.positions[:, i : i + width]),
            masks={w: m[:, :, i : i + width, : behind + i] for w, m in placed.masks.items()},
            n_new=width,
        )
        return _inputs(step, memory)

    return inputs


@lru_cache(maxsize=MOST_REMEMBERED)
def _placed_in_whole_row(
    model: ModelConfig, n_slots: int, n_new: int, theta: float | None
) -> tuple[Placed, Cache]:
    """Place n_new tokens behind n_slots without a gap, whose keys were rotated under theta."""
    cache = Cache([], np.zeros((1, n_slots), np.int64), np.ones((1, n_slots), bool))
    cache.theta = None if theta is None else np.array([theta])
    placed = place(model, np.zeros((1, n_new), np.int64), np.ones((1, n_new), bool), cache)
    for array in (cache.valid, cache.positions, *placed.masks.values()):
        array.flags.writeable = False  # all who ask get these
    return placed, cache


def _place_next(model: ModelConfig, tokens: np.ndarray, valid: np.ndarray, cache: Cache) -> Placed:
    """Do what `place` does; for a row of tokens that all count it may be known."""
    if len(tokens) == 1 and valid.all() and cache.valid.all():
        n_slots, n_new = cache.tokens.shape[1], tokens.shape[1]
        theta = None if cache.theta is None else float(cache.theta[0])
        placed, after = _placed_in_whole_row(model, n_slots, n_new, theta)
        if placed.tokens.shape == tokens.shape:  # else all is computed again
            cache.tokens = np.concatenate([cache.tokens, tokens], axis=1)
            cache.valid, cache.positions, cache.theta = after.valid, after.positions, after.theta
            if not n_slots:
                cache.layers = [LayerCache() for _ in after.layers]
            return replace(placed, tokens=tokens)
    return place(model, tokens, valid, cache)


def check_step(
    ops: Ops, model: ModelConfig, tokens: np.ndarray, memory: Memory | None, cache: Cache
) -> tuple[Value, Value]:
    """Do what `decode_step` does for one row of tokens, and score what follows each.

    Args:
        ops: the executor.
        model: its `decoder` must not be None.
        tokens: [1, n] int; all of them count.
        memory: from `mu.remember`, or None for a decoder-only model.
        cache: earlier tokens; updated.

    Returns:
        Hidden states [1, n, d_model], and scores [1, n, vocab_size].
    """
    placed = _place_next(model, tokens, np.ones(tokens.shape, bool), cache)

    def compute(*_: Any) -> tuple[Value, Value]:
        hidden = run_layers(ops, model, placed, memory, cache)
        return hidden, mu.logits(ops, model, hidden)

    inputs, read = _inputs(placed, memory), _read(memory)
    if placed.tokens.shape != tokens.shape or placed.levels:
        return compute()
    return ops.repeat(check_stretch(model), cache.layers, read, inputs, compute)


def check_stretch(model: ModelConfig) -> Hashable:
    """The name of what `check_step` does; see `Ops.repeat`."""
    return "check", model
