"""An executor around another one, which tells what every site computed, and from which sites.

It computes nothing itself. Calibration watches ranges with it, reports compare two executors, the
bound of `mu_ref/quantize/bound.py` puts other values in place of some, and a port can list the
first tensor that differs.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from mu_ref.ops import Ops

__all__ = ["COMPUTING", "Traced", "TracedOps"]

COMPUTING = (
    "embed", "linear", "norm", "rope", "matmul", "softmax", "activation", "add", "mul", "softcap",
    "concat",
)  # fmt: skip
LAYOUT = (
    "scale",
    "split_heads",
    "merge_heads",
    "share_heads",
    "append",
    "take_tokens",
    "keep_slots",
)
DECISIONS = ("argmax", "top_k")
VALUES = ("x", "y", "a", "b", "past", "new", "site")  # of the vocabulary's arguments


@dataclass(frozen=True, slots=True)
class Traced:
    """A value of the inner executor, with the site that computed it."""

    value: Any
    site: str
    factor: float = 1.0  # what `scale` multiplied it by since

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return self.value.shape


Watcher = Callable[[str, str, tuple[Traced, ...], Any], Any]
Given = dict[str, Any]  # arguments of an operation that are no values: tokens, a mask, a rotation


def _passed_on(name: str) -> Callable[..., Any]:
    signature = inspect.signature(getattr(Ops, name))

    def call(self: "TracedOps", *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs).arguments
        del given["self"]
        inputs = tuple(a for a in given.values() if isinstance(a, Traced))
        if self.before is not None:
            self.before(given["site"], name, {k: a for k, a in given.items() if k not in VALUES})
        plain = {k: a.value if isinstance(a, Traced) else a for k, a in given.items()}
        result = getattr(self.inner, name)(**plain)
        if name in DECISIONS:
            return result
        if name in LAYOUT:
            factor = given["factor"] if name == "scale" else 1.0
            return Traced(result, inputs[-1].site, inputs[-1].factor * factor)
        instead = self.watch(given["site"], name, inputs, result)
        return Traced(result if instead is None else instead, given["site"])

    return call


@final
class TracedOps(Ops):
    """Hands every operation on, and the result of those that compute to `watch`.

    Args:
        inner: who computes.
        watch: called with (site, operation, inputs, the inner executor's value); a value that it
            returns takes the place of that one, None leaves it.
        before: called with (site, operation, arguments that are no values) before each operation.
    """

    def __init__(
        self, inner: Ops, watch: Watcher, before: Callable[[str, str, Given], None] | None = None
    ) -> None:
        self.inner = inner
        self.watch = watch
        self.before = before

    embed = _passed_on("embed")
    linear = _passed_on("linear")
    norm = _passed_on("norm")
    rope = _passed_on("rope")
    matmul = _passed_on("matmul")
    softmax = _passed_on("softmax")
    activation = _passed_on("activation")
    add = _passed_on("add")
    mul = _passed_on("mul")
    softcap = _passed_on("softcap")
    concat = _passed_on("concat")
    scale = _passed_on("scale")
    split_heads = _passed_on("split_heads")
    merge_heads = _passed_on("merge_heads")
    share_heads = _passed_on("share_heads")
    append = _passed_on("append")
    take_tokens = _passed_on("take_tokens")
    keep_slots = _passed_on("keep_slots")
    argmax = _passed_on("argmax")
    top_k = _passed_on("top_k")

    def read(self, x: Any) -> np.ndarray:
        """Return the real numbers that a value stands for."""
        return self.inner.read(x.value)
