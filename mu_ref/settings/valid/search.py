"""Search the likeliest calls of a trie: N whole calls with the model's log-probabilities.

The probability of a call is the product of those of its tokens, each among the tokens that the trie
allows there: where one token alone may follow it is certain, and the model is not asked. Prefixes
of all rows grow in one decoder pass a round, as a tree in the cache: a token sees its own ancestors
alone. Logits do not depend on what is computed beside them, and sums are float64 in a fixed order,
so a query's candidates are the same in any batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.generate import decode_step
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory, Placement
from mu_ref.ops import Ops
from mu_ref.settings.valid.trie import ASTRAY, ROOT, Trie

__all__ = ["Candidate", "Passes", "log_probabilities", "search"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One call of the trie."""

    tokens: tuple[int, ...]  # its end included
    log_p: float  # natural logarithm of its probability among the calls of the trie


@dataclass(slots=True)
class Passes:
    """What a search asked of the decoder: tokens of each pass, and cached tokens before it."""

    n_new: list[int] = field(default_factory=list)
    n_cached: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Prefix:
    tokens: tuple[int, ...]
    log_p: float
    node: int  # of the trie
    slots: tuple[int, ...]  # of the tokens that are computed, the start token's first

    @property
    def whole(self) -> bool:
        return self.node == ASTRAY


def log_probabilities(logits: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """Return the log-probabilities of some tokens among themselves.

    Args:
        logits: [vocab_size].
        tokens: those that may follow, ascending.

    Returns:
        [len(tokens)] float64; the sum is taken in the order of the tokens.
    """
    z = logits[list(tokens)].astype(np.float64)
    z -= z.max()
    return z - np.log(np.cumsum(np.exp(z))[-1])  # cumsum adds one after another


def search(
    ops: Ops,
    model: ModelConfig,
    memory: Memory,
    tries: Sequence[Trie],
    n: int,
    passes: Passes | None = None,
) -> list[list[Candidate]]:
    """Find n likely calls for each row: a beam search whose prefixes end where there is a choice.

    Args:
        ops: the executor.
        model: an encoder-decoder.
        memory: of the queries.
        tries: of each row, the calls that may answer it.
        n: prefixes that are kept after each round, and so calls that are found.
        passes: counts along, if given.

    Returns:
        For each row its calls, the likeliest first; of equals the one with the lowest tokens.

    Raises:
        InputError: the model turns its keys anew within so few tokens.
    """
    stack = model.stacks["decoder"]
    deepest = 2 + max(_depth(trie) for trie in tries)
    if stack.rope_ntk_factor > 1 and stack.rope_base_len < deepest:
        raise InputError(
            f"a search must stay within rope_base_len, got {stack.rope_base_len} for texts of "
            f"{deepest} tokens; use --decode greedy"
        )
    cache = Cache.empty(len(tries), stack.n_layers)
    beams = [[_Prefix((), 0.0, ROOT, ())] for _ in tries]
    while any(not prefix.whole for row in beams for prefix in row):
        grown = [[prefix for prefix in row if not prefix.whole] for row in beams]
        logits = _pass(ops, model, memory, cache, grown, passes)
        for i, row in enumerate(beams):
            found = [prefix for prefix in row if prefix.whole]
            for prefix, scores in zip(grown[i], logits[i], strict=True):
                found += _children(tries[i], prefix, scores)
            beams[i] = sorted(found, key=lambda p: (-p.log_p, p.tokens))[:n]
    return [[Candidate(p.tokens, p.log_p) for p in row] for row in beams]


def _depth(trie: Trie) -> int:
    """Count the tokens of the longest path."""
    depth, level = 0, {ROOT}
    while level := {child for node in level for child in trie.children[node].values()} - {ASTRAY}:
        depth += 1
    return depth + 1


def _children(trie: Trie, prefix: _Prefix, logits: np.ndarray) -> list[_Prefix]:
    """Continue a prefix by each token that may follow, and by what must follow that."""
    children = trie.children[prefix.node]
    found = []
    for (token, node), log_p in zip(
        children.items(), log_probabilities(logits, list(children)).tolist(), strict=True
    ):
        tokens = [*prefix.tokens, token]
        while len(trie.children[node]) == 1:
            ((only, node),) = trie.children[node].items()  # noqa: PLW2901
            tokens.append(only)
        found.append(_Prefix(tuple(tokens), prefix.log_p + log_p, node, prefix.slots))
    return found


def _pass(
    ops: Ops,
    model: ModelConfig,
    memory: Memory,
    cache: Cache,
    grown: list[list[_Prefix]],
    passes: Passes | None,
) -> list[list[np.ndarray]]:
    """Compute the tokens of all prefixes that are not yet cached; return the last one's logits.

    Siblings begin alike, but what they have in common was computed in the round before: a round
    ends where the model chooses, so no token is computed twice but the few that must follow a
    choice.
    """
    n_past = cache.tokens.shape[1]
    new: list[list[tuple[int, int]]] = [[] for _ in grown]  # (token, place in its text) of a row
    sees: list[list[tuple[int, ...]]] = [[] for _ in grown]  # slots of each
    for i, row in enumerate(grown):
        for prefix in row:
            text = (model.bos_id, *prefix.tokens)
            for place in range(len(prefix.slots), len(text)):
                prefix.slots = (*prefix.slots, n_past + len(new[i]))
                new[i].append((text[place], place))
                sees[i].append(prefix.slots)
    width = max(map(len, new))
    batch, n_slots = len(grown), n_past + width
    tokens = np.full((batch, width), model.pad_id)
    positions, valid = np.zeros((batch, width), np.int64), np.zeros((batch, width), bool)
    seen = np.zeros((batch, width, n_slots), bool)
    for i, row_tokens in enumerate(new):
        for k, (token, place) in enumerate(row_tokens):
            tokens[i, k], positions[i, k], valid[i, k] = token, place, True
            seen[i, k, list(sees[i][k])] = True
    if passes is not None:
        passes.n_new.append(width)
        passes.n_cached.append(n_past)
    placement = Placement(positions, positions.max(axis=1) + 1, seen)
    hidden = decode_step(ops, model, tokens, valid, memory, cache, placement)
    ends = [[prefix.slots[-1] - n_past for prefix in row] for row in grown]
    most = max(map(len, ends))
    index = np.array([row + [0] * (most - len(row)) for row in ends])
    logits = ops.read(mu.logits(ops, model, ops.take_tokens(hidden, index, "decoder.last_token")))
    return [[logits[i, k] for k in range(len(row))] for i, row in enumerate(grown)]
