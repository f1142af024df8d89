"""Losses: scalars at the end of the tape."""

import numpy as np

from mu_ref.ops.tape import Gradients, Node, TapeOps

__all__ = ["cross_entropy"]


def cross_entropy(
    ops: TapeOps,
    logits: Node,
    targets: np.ndarray,
    counted: np.ndarray,
    label_smoothing: float = 0.0,
) -> Node:
    r"""Mean negative log-likelihood of the target tokens.

    $$L = -\frac{1}{N} \sum_t \sum_v q_{tv} \log p_{tv}, \quad
      q_{tv} = (1 - \epsilon) [v = y_t] + \epsilon / V$$                                (3.1)

    Args:
        ops: the tape.
        logits: [batch, n_tok, vocab_size].
        targets: [batch, n_tok] int, y.
        counted: [batch, n_tok] bool, False at padding; N counts the True.
        label_smoothing: epsilon in [0, 1).

    Returns:
        A node with one element.

    Source:
        Szegedy et al. 2016, arXiv:1512.00567, section 7, for the smoothing.
    """
    vocab_size = logits.shape[-1]
    scores = logits.value[counted]  # [N, V]
    y = targets[counted]  # [N]
    n = len(y)
    scores = scores - scores.max(axis=-1, keepdims=True)  # so that exp cannot overflow
    log_p = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    epsilon = ops.dtype(label_smoothing)
    hit = log_p[np.arange(n), y]  # [N], of the target token
    loss = -((1 - epsilon) * hit + epsilon * log_p.mean(axis=-1)).mean()

    def back(grad: np.ndarray) -> Gradients:
        d = np.exp(log_p) - epsilon / ops.dtype(vocab_size)  # p - q
        d[np.arange(n), y] -= 1 - epsilon
        d_logits = np.zeros_like(logits.value)
        d_logits[counted] = d * (grad / ops.dtype(n))
        return (d_logits,)

    return ops.record(np.asarray(loss, ops.dtype), (logits,), back)
