"""Simulated beside published and measured: the twins by cause, graph calls, products."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mu_ref.presets import preset
from npu_sim.evidence.cases import calibration_cases
from npu_sim.evidence.gemm import calibrate_gemms
from npu_sim.evidence.headline.mu import CAUSES, MU, N_WRITTEN, NPU, TWIN, call_causes
from npu_sim.evidence.plots import COLOURS, MARKS, plot_gemms
from npu_sim.evidence.validate import validate
from npu_sim.hardware.presets import npu
from npu_sim.program.description import describe
from npu_sim.show.figure import BLUE, DARK, GREY, PALE, PURPLE, SAND, SKY, figure

__all__ = ["causes", "gemms", "validation"]

N_INPUT = 512
LOOKS = dict(zip(CAUSES, (
    (BLUE, "", "weights and products of layers"), (SKY, "//", "attention"),
    (SAND, "", "norms, activations"), (PURPLE, "", "head"),
    (GREY, "..", "starts of operations"), (PALE, "xx", "start of the call"),
), strict=True))  # fmt: skip


def causes() -> Figure:
    """Draw where Mu and its twin spend a decode step and the first token, by cause."""
    from matplotlib.patches import Patch

    chip, mu, twin = npu(NPU), describe(preset(MU)), describe(preset(TWIN))
    encode = call_causes(mu, "encode", (N_INPUT, N_INPUT, 0), chip)
    start = call_causes(mu, "decode", (1, 1, N_INPUT), chip)
    first = {cause: encode[cause] + start[cause] for cause in CAUSES}
    step = call_causes(mu, "decode", (1, N_WRITTEN, N_INPUT), chip)
    twin_first = call_causes(twin, "prefill", (N_INPUT, N_INPUT, 0), chip)
    twin_step = call_causes(twin, "decode", (1, N_INPUT + N_WRITTEN, 0), chip)
    drawing, (above, below) = figure(8.0, 4.0, rows=2)
    a, b = sum(step.values()), sum(twin_step.values())
    _bars(above, {"encoder-decoder": step, "decoder-only": twin_step})
    above.set_title(f"a decode step: {b / a:.2f} times as fast (published 4.67, rest unexplained)")
    a, b = sum(first.values()), sum(twin_first.values())
    _bars(below, {"encoder-decoder": first, "decoder-only": twin_first})
    below.set_title(f"first token: {100 * (1 - a / b):.0f} % less time (published 47 %)")
    below.set_xlabel(f"ms, simulated on {NPU}, {N_INPUT} input tokens")
    handles = [Patch(facecolor=colour, hatch=hatch, edgecolor=DARK, linewidth=0.5, label=name)
               for colour, hatch, name in LOOKS.values()]  # fmt: skip
    drawing.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return drawing


def _bars(axes: Any, found: dict[str, dict[str, float]]) -> None:
    left = np.zeros(len(found))
    for cause in CAUSES:
        width = np.array([costs[cause] for costs in found.values()])
        colour, hatch, _ = LOOKS[cause]
        axes.barh(list(found), width, left=left, color=colour, hatch=hatch, edgecolor=DARK,
                  linewidth=0.5, height=0.65)  # fmt: skip
        left += width
    for place, total in enumerate(left):
        axes.text(total, place, f" {total:.3g}", va="center")
    axes.set_xlim(0, 1.08 * left.max())
    axes.invert_yaxis()


def validation() -> Figure:
    """Draw the calls of the fit: predicted over measured, and the errors by network."""
    cases, models = calibration_cases()
    rows = validate(cases, models).rows
    drawing, (left, right) = figure(8.0, 4.2, columns=2)
    left.set_box_aspect(1)
    ends = np.array([0.4, 300.0])
    left.plot(ends, ends, color=GREY, linewidth=1)
    names = sorted({row.case.model for row in rows}, reverse=True)
    for phase, colour in COLOURS.items():
        those = [row for row in rows if row.case.phase == phase]
        left.plot([row.measured_ms for row in those], [row.predicted_ms for row in those],
                  MARKS[phase], color=colour, label=phase, markersize=4)  # fmt: skip
        places = [names.index(row.case.model) for row in those]
        right.plot([100 * row.error for row in those], places, MARKS[phase], color=colour,
                   markersize=4)  # fmt: skip
    left.set(xlabel="measured ms", ylabel="simulated ms (tile)", xscale="log", yscale="log",
             title=f"{len(rows)} graph calls, fitted")  # fmt: skip
    left.legend(frameon=False)
    right.axvline(0, color=GREY, linewidth=1)
    right.set_yticks(range(len(names)), names)
    right.grid(axis="y", color=PALE, linewidth=0.8)
    right.set(xlabel="simulated / measured - 1, %", xlim=(-30, 30), title="error by network")
    return drawing


def gemms() -> Figure:
    """Draw the errors of the TPU v6e's products over their size."""
    return plot_gemms(calibrate_gemms("tpu-v6e"), None)
