"""What a drafter is trained on: to name the next tokens, one loss for each place ahead."""

from collections.abc import Sequence

import numpy as np

from mu_ref.ops.tape import Node, TapeOps
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.drafter import advance, scores
from mu_ref.training.losses import cross_entropy

__all__ = ["draft_losses", "draft_scores", "total", "windows"]


def windows(tokens: np.ndarray, draft_len: int) -> np.ndarray:
    """List what follows each position: [batch, n_tok] -> [batch, n_tok, draft_len + 1].

    Column i of position t is token t + 1 + i; behind the end the row begins again, as in Apple's
    training code, and those targets are not counted.
    """
    n_tok = tokens.shape[1]
    index = np.arange(n_tok)[:, None] + 1 + np.arange(draft_len + 1)
    return tokens[:, index % n_tok]


def draft_scores(
    ops: TapeOps, drafter: DrafterConfig, hidden: np.ndarray, embeddings: Sequence[np.ndarray]
) -> list[Node]:
    """Run the drafter on known tokens.

    Args:
        ops: the tape, with the drafter's weights.
        drafter: the drafter.
        hidden: [rows, d_model], the model's states.
        embeddings: for each drafted token the embeddings of the token before it, [n, d_model],
            for the first n rows; n must not grow.

    Returns:
        [n, vocab_size] logits for each drafted token.
    """
    state: Node | None = None
    results = []
    for embedding in embeddings:
        n = len(embedding)  # rows whose text goes on that far; they come first
        if state is not None and n < len(state.value):
            state = _first(ops, state, n)
        state = advance(ops, drafter, Node(embedding), state)
        results.append(scores(ops, drafter, Node(hidden[:n]), state))
    return results


def draft_losses(
    ops: TapeOps,
    logits: Sequence[Node],
    targets: Sequence[np.ndarray],
    counted: Sequence[np.ndarray],
) -> list[Node]:
    r"""Mean cross-entropy of each place ahead.

    $$L = \sum_{i=1}^{n} \frac{1}{N_i} \sum_t -\log q_i(y_{t+1+i})$$                     (6.6)

    Args:
        ops: the tape.
        logits: [rows, vocab_size] for each place.
        targets: [rows] int for each place.
        counted: [rows] bool for each place.

    Returns:
        One scalar for each place; their plain sum is the loss.

    Source:
        apple/ml-recurrent-drafter at bd8586b, `train/loss.py`: no weights, no decay.
    """
    return [
        cross_entropy(ops, z, y, seen) for z, y, seen in zip(logits, targets, counted, strict=True)
    ]


def total(ops: TapeOps, losses: Sequence[Node]) -> Node:
    """Add scalars."""
    loss = losses[0]
    for other in losses[1:]:
        loss = ops.add(loss, other, "drafter.loss")
    return loss


def _first(ops: TapeOps, x: Node, n: int) -> Node:
    """The first n rows."""

    def back(grad: np.ndarray) -> tuple[np.ndarray]:  # the other rows had no part in the loss
        dx = np.zeros_like(x.value)
        dx[:n] = grad
        return (dx,)

    return ops.record(x.value[:n], (x,), back)
