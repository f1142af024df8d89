"""What integers lose: at one operation, and from site to site."""

import sys
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.figure import Figure

from docs.figures.model import QUERY
from mu_ref.executors import load_model
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.fixed_point import quantize_multiplier, requantize
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.quantize.report import site_reports
from mu_ref.settings.agent import load_agent
from npu_sim.show.figure import BLUE, DARK, GREY, PALE, SAND, SKY, figure

__all__ = ["int8_error", "int8_line", "int8_sites"]


def int8_line() -> Figure:
    """Draw how the product of the chapter's example becomes the next int8 input."""
    x, weights, bias = np.array([64, -20]), np.array([90, 50]), 800
    weight_scale, x_scale, out = 0.01, 0.05, Encoding(8, 0.2)
    sums = int((x * weights).sum()) + bias
    step = weight_scale * x_scale
    by = quantize_multiplier(step / out.scale)
    result = int(requantize(np.array(sums), by))
    real = sums * step
    drawing, axes = figure(8.0, 2.9)
    low, high = 2.35, 3.3
    axes.plot([low, high], [1, 1], color=DARK, linewidth=1)
    axes.plot([low, high], [0, 0], color=DARK, linewidth=1)
    fine = np.arange(4700, 6601, 20) * step  # every twentieth
    axes.plot(fine, np.ones_like(fine), "|", color=GREY, markersize=6)
    for q in range(int(low // out.scale) + 1, int(high // out.scale) + 1):
        axes.plot(q * out.scale, 0, "|", color=DARK, markersize=16)
        axes.text(q * out.scale, -0.22, f"{q}", ha="center", va="top", weight="bold")
        axes.text(q * out.scale, -0.52, f"stands for {q * out.scale:g}", ha="center", va="top")
    axes.plot(real, 1, "o", color=BLUE, markersize=8)
    axes.plot(result * out.scale, 0, "s", color=BLUE, markersize=8)
    axes.annotate("", (result * out.scale, 0.1), (real, 0.9),
                  arrowprops={"arrowstyle": "-|>", "color": BLUE, "linewidth": 1.5})  # fmt: skip
    terms = " + ".join(f"{w} x {q}" for q, w in zip(x, weights, strict=True))
    above = f"{terms} + {bias} = {sums:,} steps of {step:g}: {real:g}"
    between = f"times {step:g} / {out.scale:g}: {by.m:,} x 2^({by.shift} - 31), rounded"
    axes.text(real + 0.02, 1.17, above, va="bottom")
    axes.text((real + result * out.scale) / 2 + 0.03, 0.5, between, va="center")
    axes.text(low, 1.17, "accumulator, 32 bits\n(every 20th step)", va="bottom")
    axes.text(low, 0.14, "output, 8 bits", va="bottom")
    axes.set(xlim=(low - 0.02, high + 0.05), ylim=(-0.8, 1.75))
    axes.set_axis_off()
    return drawing


def int8_error() -> Figure:
    """Draw the errors of the integer non-linearities against float64, in steps of the output."""
    tests = str(Path(__file__).parents[2] / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    from nonlinearity import all_errors  # type: ignore[import-not-found]

    errors = all_errors(np.random.default_rng(0))
    drawing, panels = figure(8.0, 3.4, columns=2)
    for panel, bits in zip(panels, (8, 16), strict=True):
        data = [by_bits[bits] for by_bits in errors.values()]
        places = range(len(data))
        low, high = (np.array([np.percentile(d, p) for d in data]) for p in (1, 99))
        panel.axhspan(-0.5, 0.5, color=PALE, zorder=0, label="rounding alone")
        panel.bar(places, high - low, 0.6, bottom=low, color=SKY, edgecolor=DARK, linewidth=0.5,
                  hatch="//", label="98 % of them")  # fmt: skip
        panel.vlines(places, [d.min() for d in data], [d.max() for d in data], color=BLUE,
                     label="all")  # fmt: skip
        panel.set_xticks(places, errors, rotation=50, ha="right")
        panel.set(title=f"{bits}-bit output", ylabel="error, output steps")
    panels[0].set_ylim(-0.65, 1.0)
    panels[0].legend(frameon=False, loc="upper right")
    return drawing


def int8_sites() -> Figure:
    """Draw how exact every site of mu-nano is in w8a8 and w8a16, along the README's query."""
    agent = load_agent()
    floats = cast("ReferenceOps", agent.ops).weights
    source, tokens = np.array(agent.source_tokens(QUERY)), agent.write(agent.remember(QUERY), 1)[0]
    target = np.array([agent.model.bos_id, *tokens[:-1]])
    drawing, axes = figure(8.0, 3.6)
    looks = {"w8a16": (SAND, "^", "16-bit activations"), "w8a8": (BLUE, "o", "8-bit activations")}
    for scheme, (colour, marker, name) in looks.items():
        integers = cast("IntegerOps", load_model(scheme=scheme).ops).model
        rows = site_reports(agent.model, floats, integers, [(source, target)])
        values = [min(row.sqnr_db, 120.0) for row in rows]
        axes.plot(range(len(rows)), values, marker, markersize=3.5, color=colour, label=name,
                  markeredgecolor=DARK, markeredgewidth=0.4)  # fmt: skip
    # the memory of all decoder layers is computed before the first of them begins
    starts = [(i, row.site.split(".self_attention.pre_norm")) for i, row in enumerate(rows)]
    layers = {parts[0]: i for i, parts in starts if len(parts) > 1}
    for at in layers.values():
        axes.axvline(at, color=PALE, linewidth=0.8, zorder=0)
    axes.set_xticks(list(layers.values()), list(layers), rotation=60, ha="right")
    axes.set_ylim(top=62)
    axes.set(ylabel="signal over error, dB", title="sites of mu-nano along a forward pass")
    axes.legend(frameon=False, ncols=2, loc="upper right")
    return drawing
