r"""Mixtures of experts: each token passes through k of E MLPs, which a router chooses.

A call reads the weights of those experts alone that some token has chosen. Which they are, nobody
knows before, so their number is an expectation over tokens that choose alike and on their own:

$$n = E \left(1 - (1 - k / E)^\mathrm{tokens}\right)$$

Chapter: `docs/families.md`.
"""

from mu_ref.ops import Ops
from npu_sim.program.log import Recording, Shaped
from npu_sim.program.program import Gemm, Tensor
from npu_sim.units import ceil_div

__all__ = ["expected_experts", "route", "routed_linear"]


def expected_experts(n_experts: int, per_token: int, n_tokens: int) -> float:
    """Return how many experts some token of a call is expected to choose.

    Args:
        n_experts: of a layer (E).
        per_token: that each token chooses (k).
        n_tokens: of the call.

    Returns:
        The expectation: k for one token, nearly E for many.
    """
    return n_experts * (1 - (1 - per_token / n_experts) ** n_tokens)


def route(ops: Ops, log: Recording, x: Shaped, per_token: int, site: str) -> None:
    """Record the choice of experts.

    Args:
        ops: the recorder.
        log: of the recorder.
        x: [batch, n_tok, d_model].
        per_token: experts that each token chooses.
        site: of the MLP.
    """
    scores = ops.linear(x, f"{site}.router")
    weights = log.vector("softmax", "softmax", scores.shape, (scores.tensor,),
                         f"{site}.router_softmax", None)  # fmt: skip
    ops.top_k(weights, per_token, f"{site}.router_top_k")


def routed_linear(log: Recording, x: Shaped, weight: Tensor, per_token: int, site: str) -> Shaped:
    """Record the same matrix of all chosen experts, side by side.

    Each serves as many rows as a token and expert have on average, rounded up: a graph has room for
    whole rows. So one token more never costs less.

    Args:
        log: of the recorder.
        x: [batch, n_tok, d_in], or [batch, n_tok * per_token, d_in] inside of the MLP.
        weight: [n_experts, d_out, d_in].
        per_token: experts that each token chooses.
        site: of the matrix.

    Returns:
        [batch, n_tok * per_token, d_out]; behind the last matrix, of [batch, n_tok, d_out].
    """
    n_experts, d_out, d_in = weight.shape
    last = site.endswith(".down")
    batch, n_rows, _ = x.shape
    n_tokens = n_rows // per_token if last else n_rows
    chosen = batch * n_tokens * per_token  # rows of all experts
    columns = round(d_out * expected_experts(n_experts, per_token, batch * n_tokens))
    rows = ceil_div(chosen * d_out, columns)
    part = Tensor(name=weight.name, shape=(columns, d_in), bits=weight.bits, role="weight")
    biases = [log.weight(f"{site}.bias", (columns,))] if f"{site}.bias" in log.shapes else []
    inputs = (x.tensor, part, *biases)
    shape = (batch, n_tokens * per_token, d_out)
    gemm = Gemm(count=1, m=rows, n=columns, k=d_in)
    y = log.matrix("linear", shape, inputs, gemm, site, None)
    if not last:
        return y
    site = site.removesuffix("down") + "mixture"
    mixed = log.vector("mul", "mul", shape, (y.tensor,), f"{site}_weights", None)
    shape = (batch, n_tokens, d_out)
    return log.vector("add", "add", shape, (mixed.tensor,), site, None)
