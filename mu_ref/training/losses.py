"""Losses: scalars at the end of the tape."""

import numpy as np

from mu_ref.ops.arithmetic import log_softmax
from mu_ref.ops.tape import Gradients, Node, TapeOps

__all__ = ["cross_entropy", "forward_kl", "mixed"]


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
    loss, back = ops.arithmetic.cross_entropy(logits.value, targets, counted, label_smoothing)
    return ops.record(loss, (logits,), back)


def forward_kl(
    ops: TapeOps,
    logits: Node,
    teacher: np.ndarray,
    counted: np.ndarray,
    temperature: float = 1.0,
) -> Node:
    r"""Mean divergence of a student's scores from a teacher's, both softened.

    $$L_{KL} = \frac{\tau^2}{N} \sum_t \sum_v p^T_{tv} (\log p^T_{tv} - \log p_{tv}), \quad
      p = \mathrm{softmax}(z / \tau)$$                                                   (3.5)

    Args:
        ops: the tape.
        logits: [batch, n_tok, vocab_size], z of the student.
        teacher: [batch, n_tok, vocab_size], z of the teacher; no gradient goes there.
        counted: [batch, n_tok] bool, False at padding; N counts the True.
        temperature: tau > 0. Above 1, tokens that the teacher holds for unlikely count more.

    Returns:
        A node with one element.

    Source:
        Hinton et al. 2015, arXiv:1503.02531; tau² keeps the size of the gradient.
    """
    tau = ops.dtype(temperature)
    log_p = log_softmax(logits.value[counted] / tau)  # [N, V]
    log_q = log_softmax(teacher[counted].astype(ops.dtype) / tau)
    q = np.exp(log_q)
    n = len(q)
    loss = tau * tau * (q * (log_q - log_p)).sum(axis=-1).mean()

    def back(grad: np.ndarray) -> Gradients:
        d_logits = np.zeros_like(logits.value)
        d_logits[counted] = (np.exp(log_p) - q) * (grad * tau / ops.dtype(n))
        return (d_logits,)

    return ops.record(np.asarray(loss, ops.dtype), (logits,), back)


def mixed(ops: TapeOps, hard: Node, soft: Node, mix: float) -> Node:
    r"""Weigh what the labels say against what the teacher says.

    $$L = (1 - \mu) L_{CE} + \mu L_{KL}$$                                               (3.6)

    Args:
        ops: the tape.
        hard: loss against the labels, (3.1).
        soft: loss against the teacher, (3.5).
        mix: mu in [0, 1].

    Returns:
        A node with one element.
    """
    return ops.add(ops.scale(hard, 1 - mix, "loss.hard"), ops.scale(soft, mix, "loss.soft"), "loss")
