"""An executor around another one, which adds a low-rank change to some linear layers (LoRA).

The inner executor holds the weights of the base and the two thin matrices of each changed site, so
that any executor in floats runs a LoRA, the tape too. Chapter: `docs/09_training.md`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np

from mu_ref.ops import Ops, Value

__all__ = ["LoraOps"]


def _passed_on(name: str) -> Callable[..., Any]:
    signature = inspect.signature(getattr(Ops, name))

    def call(self: "LoraOps", *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs).arguments
        del given["self"]
        return getattr(self.inner, name)(**given)

    return call


@final
class LoraOps(Ops):
    """Hands every operation on; a changed site computes y = x Wᵀ + f (x Aᵀ) Bᵀ.

    Args:
        inner: who computes; its weights hold `SITE.lora_a.weight`, A [rank, d_in], and
            `SITE.lora_b.weight`, B [d_out, rank], of each changed site. Rows keep their bits if
            they do there.
        factors: {changed site: f}; without any it is the base.
    """

    def __init__(self, inner: Ops, factors: Mapping[str, float]) -> None:
        self.inner = inner
        self.factors = dict(factors)

    def linear(self, x: Value, site: str, weight_site: str | None = None) -> Value:
        """Compute the base's y, and add the change where there is one."""
        y = self.inner.linear(x, site, weight_site)
        if site not in self.factors:
            return y
        thin = self.inner.linear(x, f"{site}.lora_a")  # [..., rank]
        change = self.inner.linear(thin, f"{site}.lora_b")
        change = self.inner.scale(change, self.factors[site], f"{site}.lora_b.scale")
        return self.inner.add(y, change, f"{site}.lora")

    embed = _passed_on("embed")
    norm = _passed_on("norm")
    rope = _passed_on("rope")
    matmul = _passed_on("matmul")
    softmax = _passed_on("softmax")
    activation = _passed_on("activation")
    add = _passed_on("add")
    mul = _passed_on("mul")
    scale = _passed_on("scale")
    softcap = _passed_on("softcap")
    concat = _passed_on("concat")
    dropout = _passed_on("dropout")
    split_heads = _passed_on("split_heads")
    merge_heads = _passed_on("merge_heads")
    share_heads = _passed_on("share_heads")
    append = _passed_on("append")
    take_tokens = _passed_on("take_tokens")
    keep_slots = _passed_on("keep_slots")
    argmax = _passed_on("argmax")
    top_k = _passed_on("top_k")

    def read(self, x: Value) -> np.ndarray:
        """Return the real numbers that a value stands for."""
        return self.inner.read(x)
