"""What the blocks of both stacks are made of, beside attention: the residual line and the MLP.

A block is a few residual lines around attention and the MLP: `encoder.encoder_block`,
`decoder.decoder_block`. Chapter: `docs/08_mu.md`.
"""

from collections.abc import Callable

from mu_ref.config import StackConfig
from mu_ref.ops import Ops, Value

__all__ = ["mlp", "residual"]


def residual(
    ops: Ops, stack: StackConfig, x: Value, sublayer: Callable[[Value], Value], site: str
) -> Value:
    r"""Add to the stream what a sub-layer makes of it.

    $$x \leftarrow x + \mathrm{Post}(F(\mathrm{Pre}(x)))$$                               (1.2)

    Pre and Post are norms; Post is there where norms are placed on both sides.

    Args:
        ops: the executor.
        stack: uses norm_placement, norm_kind, norm_eps.
        x: [batch, n_tok, d_model], the residual stream.
        sublayer: F, from [batch, n_tok, d_model] to the same.
        site: of the sub-layer, for example "encoder.0.mlp".

    Returns:
        [batch, n_tok, d_model].
    """
    update = sublayer(ops.norm(x, f"{site}.pre_norm", stack.norm_kind, stack.norm_eps))
    if stack.norm_placement == "dual":
        update = ops.norm(update, f"{site}.post_norm", stack.norm_kind, stack.norm_eps)
    return ops.add(x, ops.dropout(update, f"{site}.dropout"), f"{site}.residual")


def mlp(ops: Ops, stack: StackConfig, x: Value, site: str) -> Value:
    """Apply down(act(up(x))), or down(act(gate(x)) * up(x)) where gated.

    Args:
        ops: the executor.
        stack: uses gated and activation.
        x: [batch, n_tok, d_model].
        site: for example "encoder.0.mlp".

    Returns:
        [batch, n_tok, d_model].
    """
    up = ops.linear(x, f"{site}.up")  # [batch, n_tok, d_ff]
    if not stack.gated:
        inner = ops.activation(up, stack.activation, f"{site}.activation")
    else:
        gate = ops.linear(x, f"{site}.gate")  # [batch, n_tok, d_ff]
        gate = ops.activation(gate, stack.activation, f"{site}.activation")
        inner = ops.mul(gate, up, f"{site}.gated")
    return ops.linear(inner, f"{site}.down")  # [batch, n_tok, d_model]
