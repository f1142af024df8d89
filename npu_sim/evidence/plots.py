"""Pictures of predictions beside measurements."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mu_ref.border.text import mathless
from npu_sim.evidence.calibrate import Calibration
from npu_sim.evidence.cases import Case
from npu_sim.evidence.gemm import GemmFit
from npu_sim.evidence.validate import Validation
from npu_sim.show.figure import BLUE, DARK, GREEN, GREY, ORANGE, figure, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "MARKS", "plot_calibration", "plot_gemms", "plot_headline", "plot_validation"]

COLOURS = {"encode": BLUE, "prefill": ORANGE, "decode": DARK}
MARKS = {"encode": "o", "prefill": "s", "decode": "^"}


def plot_validation(found: Validation, path: Path | None) -> "Figure":
    """Draw predicted over measured, and the error of each row.

    Args:
        found: from `validate`.
        path: the picture; None writes nothing.

    Returns:
        The figure.
    """
    cases = [row.case for row in found.rows]
    return _predicted_and_errors(cases, [row.error for row in found.rows], None, path)


def plot_calibration(found: Calibration, path: Path | None) -> "Figure":
    """Draw the residuals of a fit, with each row's error when it was left out.

    Args:
        found: from `calibrate`.
        path: the picture; None writes nothing.

    Returns:
        The figure.
    """
    return _predicted_and_errors(found.cases, found.fit.residuals, found.fit.left_out, path)


def _predicted_and_errors(
    cases: Sequence[Case], errors: Any, left_out: Any, path: Path | None
) -> "Figure":  # fmt: skip
    drawing, (left, right) = figure(8.0, max(4.0, 0.6 + 0.18 * len(cases)), columns=2)
    left.set_box_aspect(1)
    left.set_anchor("N")
    measured = np.array([case.measured_us / 1000 for case in cases])
    predicted = measured * (1 + np.asarray(errors))
    ends = [min(measured.min(), predicted.min()) * 0.7, max(measured.max(), predicted.max()) * 1.4]
    left.plot(ends, ends, color=GREY, linewidth=1)
    for phase, colour in COLOURS.items():
        those = np.array([case.phase == phase for case in cases])
        if those.any():
            left.plot(
                measured[those],
                predicted[those],
                MARKS[phase],
                color=colour,
                label=phase,
                markersize=4,
            )
    left.set(xlabel="measured ms", ylabel="simulated ms (tile)", xscale="log", yscale="log")
    left.legend(frameon=False)
    at = np.arange(len(cases))[::-1]
    for position, case, error in zip(at, cases, errors, strict=True):
        right.barh(position, 100 * error, color=COLOURS[case.phase], height=0.65)
        if case.remeasured_us is not None:  # what another compiler version would have shown
            span = [100 * (us / case.measured_us - 1) for us in case.remeasured_us]
            right.plot(span, [position, position], color=GREY, linewidth=3, alpha=0.45)
    if left_out is not None:
        right.plot(100 * np.asarray(left_out), at, "k|", markersize=9, label="left out of the fit")
        right.legend(frameon=False, loc="lower right", fontsize=8)
    right.set_yticks(at, [mathless(case.name) for case in cases], fontsize=8)
    right.axvline(0, color=GREY, linewidth=1)
    most = max(30.0, 130 * np.abs([*errors, *(() if left_out is None else left_out)]).max())
    right.set(xlabel="simulated / measured - 1, %\n(grey: measured again)", xlim=(-most, most))
    return save(drawing, path)


def plot_gemms(found: GemmFit, path: Path | None) -> "Figure":
    """Draw the error of each measured product over its arithmetic.

    Args:
        found: from `calibrate_gemms`.
        path: the picture; None writes nothing.

    Returns:
        The figure.
    """
    drawing, axes = figure(8.0, 3.5)
    macs = np.array([row.m * row.n * row.k for row in found.rows], float)
    for fitted_on, colour, label in ((True, GREY, "in the fit"), (False, BLUE, "held out")):
        those = np.array([row.fitted_on is fitted_on for row in found.rows])
        axes.plot(macs[those], 100 * found.errors[those], ".", color=colour, label=label)
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set(xlabel="MACs", ylabel="simulated / measured - 1, %", xscale="log", title=found.npu)
    axes.legend(frameon=False)
    return save(drawing, path)


def plot_headline(found: Any, path: Path | None) -> "Figure":
    """Draw the encoder-decoder against its decoder-only twin.

    Args:
        found: from `headline`.
        path: the picture; None writes nothing.

    Returns:
        The figure.
    """
    drawing, (left, right) = figure(11.5, 4.2, columns=2)
    lengths = [row.n_input for row in found.twins]
    for axis, name, title, published in (
        (left, "decode_ratio", "decode speed, encoder-decoder / decoder-only", 4.67),
        (right, "first_token_ratio", "first token, encoder-decoder / decoder-only", 189 / 358),
    ):
        # a decode step has one position, whatever the head scores of a prompt
        heads = (("-", "last"),) if name == "decode_ratio" else (("-", "last"), ("--", "all"))
        for style, head in heads:
            values = [getattr(row, f"{name}_{head}") for row in found.twins]
            axis.plot(lengths, values, style, color=BLUE, marker="o",
                      label=f"simulated, exact lengths, head on {head} position(s)")  # fmt: skip
        static = [getattr(row, f"{name}_static") for row in found.twins]
        axis.plot(lengths, static, ":", color=GREEN, marker="s",
                  label="simulated, graphs padded to 2,048 slots")  # fmt: skip
        axis.axhline(published, color=ORANGE, label=f"published: {published:.3g}")
        axis.set(xlabel="input tokens", ylabel=title, xscale="log")
        axis.set_xticks(lengths, [str(n) for n in lengths])
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False, fontsize=8)
    return save(drawing, path)
