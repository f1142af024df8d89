"""The Settings agent's drafter: training data, quantization, a look at a draft."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mu_ref.errors import InputError
from mu_ref.integers.store import IntegerModel
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.ops import Value
from mu_ref.ops.reference import ReferenceOps
from mu_ref.redrafter.beams import Beams, proposer
from mu_ref.redrafter.generate import speculate
from mu_ref.redrafter.quantize import quantize_drafter
from mu_ref.redrafter.store import IntegerDrafter, load_drafter
from mu_ref.redrafter.train import Distilled, distill
from mu_ref.redrafter.tree import Tree, pack
from mu_ref.settings.agent import MAX_NEW_TOKENS, Agent
from mu_ref.training.datasets import pad

__all__ = ["distill_queries", "first_tree", "quantize_agent_drafter"]


def distill_queries(
    agent: Agent,
    queries: Iterable[str],
    draft_len: int,
    console: Console,
    batch_size: int = 128,
    *,
    later_share: float = 1.0,
    seed: int = 0,
) -> Distilled:
    """Let the agent answer queries and note its states; see `train.distill`.

    Args:
        agent: on a float executor.
        queries: any that fit the model.
        draft_len: how far ahead to look.
        console: where progress is shown.
        batch_size: queries answered together, of similar length.
        later_share: of the positions behind an answer's first; see `train.distill`.
        seed: of the run, for which they are.

    Returns:
        Positions of all answers.
    """
    rng = None if later_share == 1 else np.random.default_rng([seed, 3])
    # Sorted by length, so that texts answered together need little padding.
    rows = sorted((agent.source_tokens(query) for query in queries), key=len)
    parts = []
    for first in track(
        range(0, len(rows), batch_size),
        "answering",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        source, valid = pad(rows[first : first + batch_size], agent.model.source_pad)
        given = agent.ops, agent.model, source, valid, MAX_NEW_TOKENS, draft_len
        parts.append(distill(*given, later_share=later_share, rng=rng))
    return Distilled(
        np.concatenate([part.hidden for part in parts]),
        np.concatenate([part.following for part in parts]),
        np.concatenate([part.n_targets for part in parts]),
    )


def quantize_agent_drafter(
    agent: Agent, source: Path, integers: IntegerModel, queries: Sequence[str], draft_len: int
) -> IntegerDrafter:
    """Quantize the agent's drafter for an integer model.

    Args:
        agent: in floats, on the reference executor.
        source: float drafter.
        integers: the integer model that it will work with.
        queries: to calibrate on.
        draft_len: drafted tokens to watch.

    Returns:
        The integer drafter.

    Raises:
        InputError: the agent is not in floats on the reference executor.
    """
    if not isinstance(agent.ops, ReferenceOps):
        raise InputError("a drafter must be calibrated in floats on the reference executor")
    drafter, own = load_drafter(source, agent.model)
    hidden, tokens = [], []
    for query in queries:
        memory = agent.remember(query)
        (written,) = agent.write(memory, 1)
        read = np.array([[agent.model.bos_id, *written]])  # the texts that it will draft
        valid = np.ones(read.shape, bool)
        hidden.append(decode(agent.ops, agent.model, read, valid, memory)[0])
        tokens.append(read[0])
    made = quantize_drafter(
        agent.model, agent.ops.weights, drafter, own, integers, hidden, tokens,
        draft_len,
    )  # fmt: skip
    notes = {"drafter file": source.name, "calibration": f"{len(queries)} queries"}
    return replace(made, notes=notes)


def first_tree(agent: Agent, query: str) -> tuple[Tree, np.ndarray, list[int]]:
    """Draft once and show what was drafted.

    Args:
        agent: with a drafter and a search.
        query: what the encoder reads.

    Returns:
        The first tree, its beams, and the nodes of the accepted path.

    Raises:
        InputError: an agent without a drafter.
    """
    if agent.drafter is None or agent.search is None:
        raise InputError("a tree must be drafted; give a drafter")
    memory = agent.remember(query)
    drafts = proposer(agent.ops, agent.model, agent.drafter, agent.search)
    seen: list[np.ndarray] = []

    def noted(hidden: Value, tokens: np.ndarray, longest: int) -> Beams:
        found = drafts(hidden, tokens, longest)
        seen.append(found.tokens)
        return found

    start = mu.start(agent.model, 1)
    steps = speculate(agent.ops, agent.model, noted, memory, *start, MAX_NEW_TOKENS)
    next(steps)  # the first token comes without a draft
    written = next(steps, None)
    if written is None:
        raise InputError(f"the answer to {query!r} is a single token; there is no draft")
    tree, beams = pack(seen[0]), seen[0]
    text = written.tokens[0, : written.n_tokens[0]]
    # What was written shows which drafts were right; its last token is the model's own, and counts
    # as drafted only where a beam holds it too.
    n = min(len(text), beams.shape[2] - 1)
    right = np.logical_and.accumulate(beams[0, :, 1 : n + 1] == text[:n], axis=1).sum(axis=1)
    best = int(np.argmax(right))
    return tree, beams, tree.unpacker[0, best, : right[best] + 1].tolist()
