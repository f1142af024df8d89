"""Plans: one pass and its executors; the layers of Mu, with the sizes of its configuration."""

from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure

from mu_ref.config import StackConfig
from mu_ref.presets import preset
from npu_sim.show.figure import DARK, PALE, SAND, SKY, figure

__all__ = ["architecture", "executors"]

ENCODER, DECODER, OPS, PLAIN = "#dbe8f7", "#d9eadf", SAND, "white"


def _box(axes: Any, x: float, y: float, width: float, height: float, colour: str,
         *lines: str, size: float = 8.5) -> None:  # fmt: skip
    """A box with a bold first line; (x, y) is its middle."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x - width / 2, y - height / 2), width, height,
                             facecolor=colour, edgecolor=DARK, linewidth=1))  # fmt: skip
    step = 0.21
    top = y + step * (len(lines) - 1) / 2
    for i, line in enumerate(lines):
        look = {"weight": "bold", "fontsize": size + 0.7} if i == 0 else {"fontsize": size}
        axes.text(x, top - i * step, line, ha="center", va="center", **look)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": DARK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=look)


def _line(axes: Any, *points: tuple[float, float]) -> None:
    axes.plot(*zip(*points, strict=True), color=DARK, linewidth=1.1)


def _sheet(height: float) -> tuple[Figure, Any]:
    drawing, axes = figure(8.0, height)
    axes.set(xlim=(0, 8), ylim=(0, height))
    axes.set_axis_off()
    return drawing, axes


def executors() -> Figure:
    """Draw one forward pass, the operations that it asks for, and who computes them."""
    model = preset("mu-330m")
    encoder, decoder = model.stacks["encoder"], model.stacks["decoder"]
    drawing, axes = _sheet(4.3)
    axes.text(4, 4.15, "one forward pass: mu_ref/model", ha="center", va="center", weight="bold")
    flow = (
        (0.75, 1.3, PLAIN, ("query", "text", "to tokens")),
        (2.45, 1.4, ENCODER, ("encoder", f"{encoder.n_layers} layers", "reads all at once")),
        (4.05, 1.1, PLAIN, ("memory", "K and V", "of each layer")),
        (5.65, 1.4, DECODER, ("decoder", f"{decoder.n_layers} layers", "writes one by one")),
        (7.25, 1.3, PLAIN, ("call", "set(...)", "or none()")),
    )
    for x, width, colour, lines in flow:
        _box(axes, x, 3.45, width, 0.9, colour, *lines)
    for (x, width, *_), (then, its, *_) in pairwise(flow):
        _arrow(axes, (x + width / 2, 3.45), (then - its / 2, 3.45))
    _line(axes, (7.25, 3.0), (7.25, 2.72), (5.65, 2.72))
    _arrow(axes, (5.65, 2.72), (5.65, 3.0))
    axes.text(6.45, 2.58, "a token is fed back", ha="center", va="center", fontsize=8)
    _box(axes, 4, 2.1, 7.8, 0.55, OPS, "Ops: embed, linear, norm, rope, matmul, softmax, add, ...",
         "every call names its site, such as decoder.3.cross_attention.q")  # fmt: skip
    for x in (2.45, 5.05):
        _arrow(axes, (x, 3.0), (x, 2.375))
    axes.text(4, 1.55, "many executors", ha="center", va="center", weight="bold")
    kinds = (
        ("reference", "NumPy, to read", "and compare with"),
        ("integer", "8 and 16 bits:", "ports equal it"),
        ("fast", "compiled, at the", "speed of memory"),
        ("tape", "arrays with", "gradients: trains"),
        ("recorder", "cycles and bytes", "of a 45-TOPS NPU"),
    )
    for i, lines in enumerate(kinds):
        x = 0.82 + i * 1.59
        _box(axes, x, 0.55, 1.46, 0.85, PLAIN, *lines, size=8)
        if i != 2:
            _arrow(axes, (x, 1.825), (x, 0.975))
    _arrow(axes, (4, 1.42), (4, 0.975))
    return drawing


def architecture() -> Figure:
    """Draw one layer of each stack of `mu-330m`, and what passes between the stacks."""
    model = preset("mu-330m")
    encoder, decoder = model.stacks["encoder"], model.stacks["decoder"]
    drawing, axes = _sheet(6.1)
    _stack(
        axes, 2.1, encoder, "encoder", ENCODER, (("self-attention", "all see all"), _mlp(encoder))
    )
    cross = ("cross-attention", "sees what was read")
    _stack(axes, 5.9, decoder, "decoder", DECODER,
           (("self-attention", "sees what is written"), cross, _mlp(decoder)))  # fmt: skip
    for x, text in ((2.1, "tokens of the query, all at once"), (5.9, "one written token")):
        _box(axes, x, 0.3, 2.9, 0.4, PLAIN, text)
    _box(axes, 5.9, 5.8, 2.9, 0.4, OPS, f"head: {model.vocab_size:,} scores")
    # out of the last encoder layer, into every cross-attention
    _line(axes, (2.1, 3.75), (2.1, 4.45), (3.98, 4.45), (3.98, 2.89))
    _arrow(axes, (3.98, 2.89), (5.02, 2.89))
    text = "memory: keys and values for each\ndecoder layer, computed once"
    axes.text(2.3, 4.75, text, va="center", ha="center", fontsize=8.5)
    return drawing


def _mlp(stack: StackConfig) -> tuple[str, str]:
    return "MLP", f"{stack.d_model} to {stack.d_ff:,} and back"


def _stack(
    axes: Any, x: float, stack: StackConfig, name: str, colour: str, parts: Any
) -> None:  # fmt: skip
    """One layer of a stack from below: norm, sub-layer, norm, sum; for each of its parts."""
    from matplotlib.patches import Rectangle

    each, bottom = 1.5, 0.75
    height = each * len(parts) + 0.15
    axes.add_patch(Rectangle((x - 1.75, bottom), 3.5, height, facecolor="#f4f4f2",
                             edgecolor=DARK, linewidth=1, linestyle="--"))  # fmt: skip
    top = bottom + height - 0.13
    axes.text(x - 1.68, top, f"{name}: {stack.n_layers} layers", fontsize=8.5, va="center",
              weight="bold")  # fmt: skip
    axes.text(x + 1.68, top, f"{stack.n_heads} heads, {stack.n_kv_heads} of keys",
              fontsize=8, va="center", ha="right")  # fmt: skip
    _arrow(axes, (x, 0.5), (x, bottom))
    for i, (part, what) in enumerate(parts):
        y = bottom + 0.02 + i * each
        _line(axes, (x, y), (x, y + 0.08), (x - 1.4, y + 0.08), (x - 1.4, y + 1.25))
        _arrow(axes, (x - 1.4, y + 1.25), (x - 0.12, y + 1.25))
        _box(axes, x, y + 0.27, 1.75, 0.22, PALE, "norm", size=7.9)
        _box(axes, x, y + 0.62, 1.75, 0.44, colour, part, what, size=7.9)
        _box(axes, x, y + 0.97, 1.75, 0.22, PALE, "norm", size=7.9)
        axes.text(x, y + 1.25, "+", ha="center", va="center", weight="bold", fontsize=10,
                  bbox={"boxstyle": "circle,pad=0.1", "fc": SKY, "ec": DARK})  # fmt: skip
        _line(axes, (x, y + 1.34), (x, y + each))
    if name == "decoder":
        _arrow(axes, (x, bottom + height - 0.13), (x, 5.6))
