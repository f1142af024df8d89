"""Decode: one token after another, greedy or sampled, a batch at a time, as a stream.

`generate` decodes to the end, `stream` step by step; `decode_step` is one step of the model, which
an executor may know from the step before. Chapter: `docs/08_mu.md`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mu_ref.border.arrays import check_rows
from mu_ref.border.ranges import NEW_TOKENS
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import InputError
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory, Placement
from mu_ref.model.choice import GREEDY, Guide, Sampling, sample, token_probabilities
from mu_ref.model.decoder import Placed, place, run_layers
from mu_ref.ops import Ops, Value

__all__ = [
    "GREEDY", "Guide", "Sampling", "Step", "decode_step", "generate", "greedy", "sample",
    "stream", "token_probabilities",
]  # fmt: skip

AHEAD = 16  # tokens that an executor may find before anybody sees the first of them


@dataclass(frozen=True, slots=True)
class Step:
    """One step of decoding."""

    tokens: np.ndarray  # [batch] int, pad_id for rows that have ended
    ended: np.ndarray  # [batch] bool, True from the row's eos on
    ops: Ops
    scores: object  # value [batch, 1, vocab_size]

    @property
    def logits(self) -> np.ndarray:
        """[batch, vocab_size], what the tokens were chosen from; read when somebody asks."""
        return self.ops.read(self.scores)[:, 0]


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
    placed = place(model, tokens, valid, cache, placement)

    def layers(*_: Any) -> Value:
        return run_layers(ops, model, placed, memory, cache)

    if placed.tokens.shape != tokens.shape or placed.levels:  # other operations, for this once
        return layers()
    inputs = _inputs(placed, memory)
    return ops.repeat(("decode", model), cache.layers, _read(memory), inputs, layers)


def _read(memory: Memory | None) -> list[Value]:
    """List the values that the layers read of the encoder."""
    return [] if memory is None else [x for layer in memory.layers for x in (layer.k, layer.v)]


def _inputs(placed: Placed, memory: Memory | None) -> tuple[Any, ...]:
    """List the arrays that the layers read."""
    memory_mask = () if memory is None else (memory.mask,)
    return placed.tokens, placed.turn, *memory_mask, *placed.masks.values()


def _scores(
    ops: Ops,
    model: ModelConfig,
    tokens: np.ndarray,
    valid: np.ndarray,
    memory: Memory | None,
    cache: Cache,
) -> Value:
    """Compute what the next token is chosen from, [batch, 1, vocab_size]; see `decode_step`."""
    if tokens.shape[1] > 1:
        hidden = decode_step(ops, model, tokens, valid, memory, cache)  # [batch, n_tok, d_model]
        last = valid.shape[1] - 1 - np.argmax(valid[:, ::-1], axis=1)  # last real token of a row
        hidden = ops.take_tokens(hidden, last[:, None], "decoder.last_token")  # [batch, 1, d_model]
        return mu.logits(ops, model, hidden)
    placed = place(model, tokens, valid, cache)

    def compute(*_: Any) -> Value:
        return mu.logits(ops, model, run_layers(ops, model, placed, memory, cache))

    if placed.tokens.shape != tokens.shape or placed.levels:  # as in decode_step
        return compute()
    inputs = _inputs(placed, memory)
    return ops.repeat(("scores", model), cache.layers, _read(memory), inputs, compute)


def _ahead(
    ops: Ops,
    model: ModelConfig,
    token: int,
    memory: Memory | None,
    cache: Cache,
    n: int,
    stops: frozenset[int],
) -> Iterator[tuple[int, Value]]:
    """Let the executor do up to n greedy steps of one row by itself, if it can.

    Where the tokens will stand and what each may read is known before they are.
    """
    preview = Cache(list(cache.layers), cache.tokens, cache.valid)
    preview.positions, preview.theta = cache.positions, cache.theta
    placed = place(model, np.full((1, n), token), np.ones((1, n), bool), preview)
    if placed.tokens.shape != (1, n) or placed.levels:
        return
    n_cached = cache.tokens.shape[1]
    steps = [
        _inputs(
            Placed(
                placed.tokens[:, :1],
                replace(placed.turn, positions=placed.turn.positions[:, i : i + 1]),
                {w: m[:, :, i : i + 1, : n_cached + i + 1] for w, m in placed.masks.items()},
                1,
            ),
            memory,
        )
        for i in range(n)
    ]
    chosen: list[int] = []
    for new, scores in ops.greedy(
        ("scores", model), cache.layers, _read(memory), steps, stops
    ):
        chosen.append(new)
        yield new, scores
    if chosen:
        read = np.array([[token, *chosen[:-1]]])
        place(model, read, np.ones(read.shape, bool), cache)


def stream(
    ops: Ops,
    model: ModelConfig,
    memory: Memory | None,
    prompt: np.ndarray,
    prompt_valid: np.ndarray,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
    *,
    stop_at_eos: bool = True,
    guide: Guide | None = None,
) -> Iterator[Step]:
    """Yield one step after another, until every row has ended or the limit is reached.

    Args:
        ops: the executor.
        model: the configuration.
        memory: from `mu.remember`, or None for a decoder-only model.
        prompt: [batch, n_prompt] int, padded on the right; [[bos_id]] * batch for Mu.
        prompt_valid: [batch, n_prompt] bool.
        max_new_tokens: limit.
        sampling: greedy by default.
        rng: needed unless greedy.
        stop_at_eos: False goes on to the limit whatever comes.
        guide: masks the logits; without one every token may come.

    Yields:
        Steps.

    Raises:
        InputError: a prompt that is empty or holds no tokens of the model, a limit out of its
            range, or sampling without a generator.
    """
    NEW_TOKENS.check("max_new_tokens", max_new_tokens)
    n_layers = _decoder(model).n_layers
    # a token that sees none computes something only in some models
    empty = model.unseeing == "mean"
    check_rows("prompt", prompt, prompt_valid, model.vocab_size, empty=empty)
    cache = Cache.empty(len(prompt), n_layers)
    tokens, valid = prompt, prompt_valid  # the first step reads the prompt, later ones a token
    ended = np.zeros(len(prompt), bool)
    states = np.zeros(len(prompt), np.int64) if guide is None else guide.start(len(prompt))
    # where the likeliest token follows whatever it is, an executor may go ahead
    n_ahead = AHEAD if sampling.temperature == 0 and guide is None and len(prompt) == 1 else 0
    stops = frozenset(model.eos_ids if stop_at_eos else ())
    stops |= {model.pad_id} if model.mask_decoder_pads else frozenset()  # nobody reads it
    ready: Iterator[tuple[int, Value]] = iter(())
    for step in range(max_new_tokens):
        found = next(ready, None)
        if found is None and n_ahead and step and valid.all():
            n = min(n_ahead, max_new_tokens - step)
            ready = _ahead(ops, model, int(tokens[0, 0]), memory, cache, n, stops)
            found = next(ready, None)
        if found is not None:
            chosen, scores = np.array([found[0]]), found[1]
        else:
            scores = _scores(ops, model, tokens, valid, memory, cache)  # [batch, 1, vocab_size]
            allowed = None if guide is None else guide.allowed(states[:, None])
            chosen = sample(ops, scores, sampling, rng, allowed)[:, 0]
        new = np.where(ended, model.pad_id, chosen)
        states = states if guide is None else guide.follow(states, new)
        was_ended = ended  # the eos itself is read by the next step, what follows it is padding
        if stop_at_eos:
            ended = ended | np.isin(new, model.eos_ids)
        yield Step(new, ended, ops, scores)
        if ended.all():
            return
        tokens = new[:, None]
        valid = mu.decoder_valid(model, tokens) & ~was_ended[:, None]


def _decoder(model: ModelConfig) -> StackConfig:
    """Return the stack that writes; InputError if there is none."""
    if model.decoder is None:
        raise InputError(f"{model.name} must have a decoder to write text; it has none")
    return model.decoder


def greedy(
    ops: Ops, model: ModelConfig, source: np.ndarray, source_valid: np.ndarray, max_new_tokens: int
) -> list[list[int]]:
    """Decode a batch of an encoder-decoder, always taking the likeliest token.

        >>> import numpy as np
        >>> import mu_ref
        >>> loaded = mu_ref.load_model()
        >>> tokenizer = mu_ref.Tokenizer.load()
        >>> source = np.array([[*tokenizer.encode(" dark mode please"), loaded.model.eos_id]])
        >>> rows = mu_ref.greedy(loaded.ops, loaded.model, source, source > 0, 20)
        >>> tokenizer.decode(rows[0])
        'set(theme.mode, dark)'

    Args:
        ops: the executor.
        model: the configuration.
        source: [batch, n_src] int, encoder input.
        source_valid: [batch, n_src] bool, False at padding.
        max_new_tokens: limit.

    Returns:
        For each row the new tokens, without eos or padding; on ties the lowest token.

    Raises:
        InputError: see `stream`.
    """
    return generate(ops, model, source, source_valid, max_new_tokens)


def generate(
    ops: Ops,
    model: ModelConfig,
    source: np.ndarray | None,
    source_valid: np.ndarray | None,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
    prompt: np.ndarray | None = None,
    prompt_valid: np.ndarray | None = None,
    source_read: np.ndarray | None = None,
) -> list[list[int]]:
    """Decode a batch to the end, greedily or by drawing tokens.

    Args:
        ops: the executor.
        model: the configuration.
        source: [batch, n_src] int, encoder input; None for a decoder-only model.
        source_valid: [batch, n_src] bool.
        max_new_tokens: limit.
        sampling: greedy by default.
        rng: needed unless greedy.
        prompt: [batch, n_prompt] int; by default bos_id alone.
        prompt_valid: [batch, n_prompt] bool; all True by default.
        source_read: [batch, n_src] bool, what the decoder reads; the valid ones by default.

    Returns:
        For each row the new tokens, without prompt, eos or padding.

    Raises:
        InputError: see `stream`.
    """
    _decoder(model)
    memory = None
    if source is not None and source_valid is not None:
        if model.encoder is None:
            raise InputError(f"{model.name} must have an encoder to read a source; it has none")
        check_rows("source", source, source_valid, model.encoder_vocab_size)
        memory = mu.remember(ops, model, source, source_valid, source_read)
    if prompt is None:
        if source is None:
            raise InputError("a decoder-only model must be given a prompt; it got none")
        prompt, start_valid = mu.start(model, len(source))
        prompt_valid = start_valid if prompt_valid is None else prompt_valid
    if prompt_valid is None:
        prompt_valid = np.ones(prompt.shape, bool)
    rows: list[list[int]] = [[] for _ in prompt]
    for step in stream(ops, model, memory, prompt, prompt_valid, max_new_tokens, sampling, rng):
        for row, token, ended in zip(rows, step.tokens, step.ended, strict=True):
            if not ended:
                row.append(int(token))
    return rows
