"""The drafter: from the model's hidden state and a few tokens to scores of the token after them.

    h ───────────────┐
    x₀ x₁ ... ─▶ cell ─▶ [h, s] ─▶ blocks ─▶ head ─▶ scores

One state and one set of weights serve every drafted position. Chapter: `docs/15_drafting.md`.
"""

from mu_ref.ops import Ops, Value
from mu_ref.redrafter.config import DrafterConfig

__all__ = ["advance", "scores"]


def advance(ops: Ops, drafter: DrafterConfig, embedding: Value, state: Value | None) -> Value:
    r"""Take one token into the recurrent state.

    $$s_t = \mathrm{SiLU}(W e_{t-1} + U s_{t-1} + b), \quad s_0 = 0$$                    (6.1)

    or, without a trained cell, $s_t = e_{t-1} + s_{t-1}$.

    Args:
        ops: the executor.
        drafter: uses rnn.
        embedding: [..., d_model], e, as the decoder's first layer reads it.
        state: [..., d_model], or None before the first token.

    Returns:
        [..., d_model].

    Source:
        apple/ml-recurrent-drafter at bd8586b, `modeling_drafter.py`.

    Differs from the source:
        b is stored with W instead of U: the same sum, and the first token needs no product with
        s_0. The paper keeps s_1 = e_0; the code, and this, pass the first token through the cell.
    """
    if not drafter.rnn:
        return embedding if state is None else ops.add(embedding, state, "drafter.state_sum")
    x = ops.linear(embedding, "drafter.rnn_w")
    if state is not None:
        x = ops.add(x, ops.linear(state, "drafter.rnn_u"), "drafter.rnn_sum")
    return ops.activation(x, "silu", "drafter.state")


def scores(ops: Ops, drafter: DrafterConfig, hidden: Value, state: Value) -> Value:
    r"""Score the next token.

    $$y \leftarrow y + \mathrm{SiLU}(R_i y + r_i), \quad y = P [h, s_t] + p$$            (6.2)

    and z = Q y with the drafter's own head Q; P and p are there only where the widths differ.

    Args:
        ops: the executor.
        drafter: uses input_proj and n_blocks.
        hidden: [..., d_model], h: the model's, after its final norm, of the last token before the
            draft.
        state: [..., d_model], of the same leading axes.

    Returns:
        [..., vocab_size] logits.

    Source:
        apple/ml-recurrent-drafter at bd8586b, `modeling_drafter.py`; h comes first in [h, s].
    """
    y = ops.concat(hidden, state, "drafter.concat")  # [..., 2 * d_model]
    if drafter.input_proj:
        y = ops.linear(y, "drafter.input_proj")  # [..., d_exit]
    for block in range(drafter.n_blocks):
        site = f"drafter.{block}"
        change = ops.activation(ops.linear(y, site), "silu", f"{site}.activation")
        y = ops.add(y, change, f"{site}.residual")
    return ops.linear(y, "drafter.head")
