r"""A bound on what quantization does to the logits, and so to the greedy token.

The residual stream after every block carries all that later blocks see. Let $F_k(h)$ be the logits
that the **float** model computes when the streams after blocks 1..k are replaced by those of the
integer model, so $F_0$ is the float model and $F_n$ the float head on the integer model's last
hidden state $\tilde h$. Then for any two tokens i, j, with $D_{ij}$ the difference of two logits,

$$|D_{ij}(F_0) - D_{ij}(\tilde z)| \le \sum_k |D_{ij}(F_k) - D_{ij}(F_{k-1})| + b_i + b_j$$ (5.10)

where the integer head adds at most

$b_i = \sum_m |W_{im} - \tilde W_{im}| \, |\tilde h_m| + s / 2 + 2^{-15} |z_i|$:

the rounding of its weights, half a step s for the rounding of the logit $z_i$ to 16 bits, and the
error of the 15-bit multiplier, which lies in $[2^{14}, 2^{15})$ and is off by at most a half, or by
one where it is cut at its top. So if the float model prefers i to every j by more than the
right-hand side, the integer model chooses i. The integer head itself is never run to find the
bound, and each term says what one block costs.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.traced import TracedOps
from mu_ref.quantize.observe import run_unpadded
from mu_ref.weights import Weights

__all__ = ["MarginBound", "margin_bound"]


@dataclass(slots=True)
class MarginBound:
    """Per step: the float margin of the best token, and what quantization can take from it."""

    best: np.ndarray  # [batch, n_tgt] int, greedy token of the float model
    margin: np.ndarray  # [batch, n_tgt, vocab_size] logit of best minus each logit
    bound: np.ndarray  # [batch, n_tgt, vocab_size], right-hand side of (5.10); inf if it saturates
    blocks: dict[str, np.ndarray] = field(default_factory=dict)  # site: its term of the sum

    @property
    def covered(self) -> np.ndarray:
        """[batch, n_tgt] bool: the margin over every other token exceeds its bound."""
        others = np.arange(self.margin.shape[-1]) != self.best[..., None]
        return np.all(~others | (self.margin > self.bound), axis=-1)


def margin_bound(
    model: ModelConfig,
    weights: Weights,
    integers: IntegerOps,
    source: np.ndarray | None,
    target: np.ndarray,
) -> MarginBound:
    """Bound the difference between float and integer logits.

    Args:
        model: the configuration, with a decoder and without a final soft-cap.
        weights: float weights that the integers stand for; with smoothing the smoothed ones.
        integers: executor of the integer model.
        source: [batch, n_src] int without padding, or None for a decoder-only model.
        target: [batch, n_tgt] int without padding.

    Returns:
        Margins and bounds of every step.

    Raises:
        InputError: a model with a final soft-cap, or without a decoder.
    """
    if model.decoder is None or model.final_softcap is not None:
        raise InputError("the bound is of models with a decoder and without a final soft-cap")
    blocks = [
        f"{name}.{layer}.mlp.residual"
        for name, stack in model.stacks.items()
        for layer in range(stack.n_layers)
    ]
    last = ["encoder.final_norm"] if model.encoder else []
    sites = [*(b for b in blocks if b.startswith("encoder")), *last,
             *(b for b in blocks if b.startswith("decoder")), "decoder.final_norm"]  # fmt: skip
    streams = _streams(model, integers, source, target, sites)
    floats = ReferenceOps(weights, np.float64)
    given: dict[str, np.ndarray] = {}  # streams of the integer model, from the first block on
    replaced = TracedOps(floats, lambda site, op, inputs, value: given.get(site))

    def run() -> np.ndarray:
        return replaced.read(run_unpadded(replaced, model, source, target))

    before = run()
    best = np.argmax(before, axis=-1)  # [batch, n_tgt]
    result = MarginBound(best, _over(before, best), np.zeros(before.shape))
    for site in sites:
        given[site] = streams[site]
        after = run()
        result.blocks[site] = np.abs(_over(after, best) - _over(before, best))
        result.bound += result.blocks[site]
        before = after
    head = _head_error(model, floats, integers, streams["decoder.final_norm"], before)
    result.blocks["head"] = head + np.take_along_axis(head, best[..., None], axis=-1)
    result.bound += result.blocks["head"]
    return result


def _over(logits: np.ndarray, best: np.ndarray) -> np.ndarray:
    return np.take_along_axis(logits, best[..., None], axis=-1) - logits


def _streams(
    model: ModelConfig,
    integers: IntegerOps,
    source: np.ndarray | None,
    target: np.ndarray,
    sites: list[str],
) -> dict[str, np.ndarray]:
    kept: dict[str, np.ndarray] = {}

    def keep(site: str, op: str, inputs: Any, value: Any) -> None:
        if site in sites:
            kept[site] = integers.read(value)

    run_unpadded(TracedOps(integers, keep), model, source, target)
    return kept


def _head_error(
    model: ModelConfig,
    floats: ReferenceOps,
    integers: IntegerOps,
    hidden: np.ndarray,
    logits: np.ndarray,
) -> np.ndarray:
    """Return b of (5.10), [batch, n_tgt, vocab_size]; infinite where the head may saturate."""
    quantized = integers.model
    scales = quantized.weight_scale(model.head_site)[:, None]
    rounded = quantized.weight(model.head_site) * scales
    difference = np.abs(floats.weight(f"{model.head_site}.weight") - rounded)
    encoding = quantized.encoding("head")
    bias = quantized.bias("head")
    slack = np.full(len(scales), 0.5 * encoding.scale)
    if bias is not None:  # its own rounding: half a step of the accumulator
        slack = slack + 0.5 * np.ravel(scales) * quantized.encoding("decoder.final_norm").scale
    error = np.abs(hidden) @ difference.T + slack
    error += 2.0**-15 * (np.abs(logits) + error)
    fits = np.abs(logits) + error < encoding.high
    return np.where(fits, error, np.inf)
