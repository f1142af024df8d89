"""Decode: one token after another, greedy or sampled, a batch at a time, as a stream.

`generate` decodes to the end, `stream` step by step; `encode_step` reads the input and
`decode_step` is one step of the model, both of which an executor may know from the time before.
Chapter: `docs/08_mu.md`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mu_ref.border.arrays import check_rows
from mu_ref.border.ranges import NEW_TOKENS
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import InputError
from mu_ref.generate.step import Ahead, decode_step, encode_step, next_scores
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory
from mu_ref.model.choice import GREEDY, Guide, Sampling, sample, token_probabilities
from mu_ref.ops import Ops, Value

__all__ = [
    "GREEDY", "Guide", "Sampling", "Step", "decode_step", "encode_step", "generate", "greedy",
    "sample", "stream", "token_probabilities",
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
        memory: from `encode_step`, or None for a decoder-only model.
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
    # the first step reads the prompt, later ones a token
    tokens, valid, ended = prompt, prompt_valid, np.zeros(len(prompt), bool)
    states = np.zeros(len(prompt), np.int64) if guide is None else guide.start(len(prompt))
    free = sampling.temperature == 0 and guide is None and len(prompt) == 1
    ahead = Ahead(ops, model, memory, cache, stop_at_eos, AHEAD if free else 0)
    for step in range(max_new_tokens):
        found = ahead.take(tokens, valid, max_new_tokens - step) if step else None
        chosen, scores = found or _chosen(
            ops, next_scores(ops, model, tokens, valid, memory, cache), sampling, rng, guide, states
        )
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


def _chosen(
    ops: Ops,
    scores: Value,
    sampling: Sampling,
    rng: np.random.Generator | None,
    guide: Guide | None,
    states: np.ndarray,
) -> tuple[np.ndarray, Value]:
    """Choose a token for each row of scores [batch, 1, vocab_size]; return both."""
    allowed = None if guide is None else guide.allowed(states[:, None])
    return sample(ops, scores, sampling, rng, allowed)[:, 0], scores


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
        memory = encode_step(ops, model, source, source_valid, source_read)
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
