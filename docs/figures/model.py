"""What happens inside: attention of the README's query, turning positions, a cache that grows."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mu_ref import ReferenceOps, load_agent, preset
from mu_ref.generate import generate
from mu_ref.ops.rotation import Rotation
from mu_ref.ops.traced import Traced, TracedOps
from npu_sim.show.figure import BLUE, DARK, GREY, PALE, RED, SKY, YELLOW, figure

__all__ = ["QUERY", "attention", "cache", "rotation"]

QUERY = "my eyes hurt at night, make the screen warmer"


def attention() -> Figure:
    """Draw the attention of mu-nano's last layers on the README's query, mean over the heads."""
    tokens, written, (encoder, own, cross) = _weights()
    drawing, ((top, right), (left, below)) = figure(8.0, 7.2, columns=2, rows=2)
    right.set_axis_off()
    right.text(0.02, 0.95, _LEGEND, va="top", transform=right.transAxes, linespacing=1.5)
    n = len(written)
    _map(top, encoder, tokens, tokens, "encoder, self: a token of the query reads the query")
    _map(left, cross, written, tokens, "decoder, cross: a written token reads the query")
    _map(below, own, written, written, "decoder, self: and what is written")
    below.set_xlim(-0.5, n - 0.5)
    return drawing


_LEGEND = """A row is a token that reads, a column one that is read.
The darker, the larger its weight; a row adds up to 1.

Last encoder and last decoder layer of mu-nano,
mean over the heads.

The decoder's self-attention is a triangle: nothing
that comes later can be read. Of the query it reads
all, at every step the same keys and values."""


def _weights() -> tuple[list[str], list[str], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    agent = load_agent()
    model, named = agent.model, agent.tokenizer.decode
    source = np.array([agent.source_tokens(QUERY)])
    ops = ReferenceOps(agent.ops.weights)
    answer = generate(ops, model, source, np.ones(source.shape, bool), 24)[0]
    written = [model.bos_id, *(int(t) for t in answer)]
    kept: dict[str, np.ndarray] = {}

    def watch(site: str, op: str, inputs: tuple[Traced, ...], value: Any) -> None:
        if op == "softmax":
            kept[site] = value[0].mean(axis=0)

    from mu_ref.model import mu

    valid = np.ones(source.shape, bool)
    mu.forward(TracedOps(ops, watch), model, source, valid, np.array([written[:-1]]))
    last = {name: stack.n_layers - 1 for name, stack in model.stacks.items()}
    found = (
        kept[f"encoder.{last['encoder']}.self_attention.softmax"],
        kept[f"decoder.{last['decoder']}.self_attention.softmax"],
        kept[f"decoder.{last['decoder']}.cross_attention.softmax"],
    )
    texts = [named([int(t)]).strip() or "end" for t in source[0]]
    outputs = ["start", *(named([t]).strip() or "end" for t in written[1:-1])]
    return texts, outputs, found


def _map(axes: Any, weights: np.ndarray, rows: list[str], columns: list[str], title: str) -> None:
    axes.imshow(weights, cmap="Greys", vmin=0, vmax=float(weights.max()), aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_title(title, fontsize=8.5)


def rotation() -> Figure:
    """Draw how pairs of a head turn with the position, and what is left of it in a product."""
    d_head, theta = 8, 100.0
    drawing = Figure(figsize=(8.0, 2.9), layout="constrained")
    axes = drawing.subplots(1, 4, width_ratios=[1, 1, 1, 1.35])
    axes[3].spines[["top", "right"]].set_visible(False)
    positions = np.arange(9)
    turn = Rotation(positions[None], np.array([theta]), d_head)
    cos, sin = turn.cos.reshape(9, -1), turn.sin.reshape(9, -1)
    for pair, circle in enumerate(axes[:3]):
        around = np.linspace(0, 2 * np.pi, 100)
        circle.plot(np.cos(around), np.sin(around), color=GREY, linewidth=0.8)
        for p in positions:
            x, y = cos[p, pair], sin[p, pair]
            circle.plot([0, x], [0, y], color=BLUE if p else DARK, linewidth=0.8)
            if pair < 2 or p in (0, 8):
                circle.text(1.22 * x, 1.22 * y, str(p), ha="center", va="center", fontsize=8.5)
        circle.plot(cos[:, pair], sin[:, pair], "o", color=BLUE, markersize=3.5)
        circle.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
        circle.set_axis_off()
        circle.set_title(f"pair {pair}: {theta ** (-2 * pair / d_head):.2g} rad/token")
    q, k = np.random.default_rng(0).standard_normal((2, 1, 1, 1, d_head))
    ops = ReferenceOps({"none": np.zeros(1)}, np.float64)

    def score(p_query: int, p_key: int) -> float:
        a, b = (Rotation(np.array([[p]]), np.array([theta]), d_head) for p in (p_query, p_key))
        return float(np.sum(ops.rope(q, a, "q") * ops.rope(k, b, "k")))

    apart = np.arange(17)
    for first, form, colour in ((0, "-", SKY), (100, "--", DARK)):
        values = [score(first + int(n), first) for n in apart]
        axes[3].plot(apart, values, form, color=colour, linewidth=3 if first == 0 else 1.2,
                     label=f"key at {first}")  # fmt: skip
    axes[3].set(xlabel="tokens between q and k", title="q · k: only distance counts")
    axes[3].set_ylim(top=1.2)
    axes[3].legend(frameon=False, loc="upper left", ncols=2, columnspacing=0.8)
    return drawing


def cache() -> Figure:
    """Draw what a decode step computes and what it finds in the cache, and how caches grow."""
    drawing, (left, right) = figure(8.0, 3.6, columns=2)
    n_source, n_steps = 6, 6
    from matplotlib.patches import Patch, Rectangle

    kinds = (("computed in this step", BLUE, ""), ("kept from before", SKY, "//"),
             ("memory: once, from the encoder", PALE, ".."))  # fmt: skip
    for step in range(n_steps):
        for slot in range(n_source + 1 + step):
            what = 2 if slot < n_source else int(slot < n_source + step)
            _, colour, hatch = kinds[what]
            x = slot + (0.6 if slot >= n_source else 0)
            left.add_patch(Rectangle((x, -step), 0.9, 0.8, facecolor=colour, hatch=hatch,
                                     edgecolor=DARK, linewidth=0.5))  # fmt: skip
    left.set(xlim=(-0.2, n_source + n_steps + 0.8), ylim=(-n_steps + 0.8, 1.0),
             title="keys and values that a step reads")  # fmt: skip
    left.set_yticks([0.4 - s for s in range(n_steps)], [f"step {s + 1}" for s in range(n_steps)])
    left.set_xticks([n_source / 2, n_source + 0.6 + n_steps / 2], ["the query", "what is written"])
    left.tick_params(length=0)
    left.legend(handles=[Patch(facecolor=c, hatch=h, edgecolor=DARK, label=t) for t, c, h in kinds],
                frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12))  # fmt: skip
    _growth(right)
    return drawing


def _growth(axes: Any) -> None:
    """Bytes of keys and values that one step reads, 64 tokens of input, 16 bits."""
    n_input, written = 64, np.arange(1, 257)
    lines = []
    for name, form, colour in (("decoder-only-330m", "--", RED), ("mu-330m", "-", BLUE)):
        stack = preset(name).stacks["decoder"]
        slot = 2 * 2 * stack.n_layers * stack.d_kv  # keys and values, 2 bytes each
        lines.append((f"{name}, {stack.n_layers} layers", form, colour, slot * (n_input + written)))
    stack = preset("mu-330m").stacks["decoder"]
    memory = 2 * 2 * stack.n_layers * stack.d_kv * n_input
    for label, form, colour, read in lines:
        axes.plot(written, read / 2**20, form, color=colour, label=label)
    axes.axhline(memory / 2**20, color=YELLOW, linestyle=":", linewidth=2, label="of it memory")
    axes.set(xlabel="tokens written", ylabel="MiB read in a step", title="64 tokens of input")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
