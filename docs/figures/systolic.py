"""The array of chapter 8: waves of one product, and how much of it a few rows use."""

import numpy as np
from matplotlib.figure import Figure

from mu_ref.presets import preset
from npu_sim.show.figure import BLUE, DARK, PALE, RED, SKY, YELLOW, figure
from npu_sim.systolic.closed_form import SystolicArray, systolic_counts

__all__ = ["systolic", "systolic_use"]


def systolic() -> Figure:
    """Draw which cells of 4 x 4 work on which of 3 products, in four cycles."""
    n_cells, n_products, cycles = 4, 3, (0, 2, 4, 8)
    drawing, panels = figure(8.0, 2.6, columns=len(cycles))
    from matplotlib.patches import Rectangle

    for axes, cycle in zip(panels, cycles, strict=True):
        working = 0
        for row in range(n_cells):
            for column in range(n_cells):
                i = cycle - row - column
                at_work = 0 <= i < n_products
                working += at_work
                done = i >= n_products
                colour = SKY if at_work else PALE if done else "white"
                axes.add_patch(Rectangle((column, -row), 0.92, 0.92, facecolor=colour,
                                         hatch=".." if done else "", edgecolor=DARK))  # fmt: skip
                if at_work:
                    axes.text(column + 0.46, 0.46 - row, str(i), ha="center", va="center",
                              fontsize=10, weight="bold")  # fmt: skip
        axes.set(xlim=(-0.75, n_cells), ylim=(-n_cells + 0.9, 1.75), aspect="equal")
        for place in range(n_cells):
            axes.annotate("", (place + 0.46, 0.95), (place + 0.46, 1.55),
                          arrowprops={"arrowstyle": "-|>", "color": DARK})  # fmt: skip
            axes.annotate("", (-0.03, 0.46 - place), (-0.7, 0.46 - place),
                          arrowprops={"arrowstyle": "-|>", "color": DARK})  # fmt: skip
        axes.set_axis_off()
        axes.set_title(f"cycle {cycle}: {working} of {n_cells**2} work")
    drawing.supxlabel(
        "a from the left, b from above; digit: which product of its sum; dotted: sum complete",
        fontsize=9,
    )
    return drawing


def systolic_use() -> Figure:
    """Draw the share of 128 x 128 cells that a layer's MLP uses, over rows at once."""
    stack = preset("mu-330m").stacks["decoder"]
    rows = np.unique(np.geomspace(1, 1024, 25).round().astype(int))
    drawing, axes = figure(8.0, 3.2)
    looks = (("os", "-", "o", BLUE, "sums stay"), ("ws", "--", "s", RED, "weights stay"),
             ("is", ":", "^", YELLOW, "inputs stay"))  # fmt: skip
    for dataflow, form, marker, colour, what in looks:
        array = SystolicArray(rows=128, cols=128, dataflow=dataflow)
        used = [
            100 * systolic_counts(int(m), stack.d_ff, stack.d_model, array).utilization
            for m in rows
        ]
        axes.plot(rows, used, form, marker=marker, markersize=4, color=colour,
                  label=f"{dataflow}: {what}")  # fmt: skip
    product = f"[rows x {stack.d_model}] times [{stack.d_model} x {stack.d_ff:,}]"
    axes.set(xscale="log", xlabel="rows at once: tokens read together, or drafted and checked",
             ylabel="% of cells at work", ylim=(0, 100),
             title=f"{product} on 128 x 128 cells")  # fmt: skip
    axes.set_xticks([1, 4, 16, 64, 256, 1024], ["1", "4", "16", "64", "256", "1,024"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return drawing
