"""What the NPU does: a request on the roofline, and a decode step over time."""

import math
from dataclasses import replace
from functools import cache

from matplotlib.figure import Figure

from mu_ref.presets import preset
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.program.rows import program_table
from npu_sim.report.fidelity import simulate_program
from npu_sim.roofline.formula import LIMITS
from npu_sim.show.figure import BLUE, DARK, PALE, PURPLE, SAND, figure
from npu_sim.show.gantt import draw_gantt
from npu_sim.show.pictures import draw_roofline
from npu_sim.tile.simulate import TileRun, simulate_tiles

__all__ = ["gantt", "latency", "roofline"]


@cache
def _run() -> TileRun:
    """64 tokens read and two written: what `npu-sim run mu-330m --output 2` simulates."""
    program = record_request(preset("mu-330m"), 64, 2, Precision())
    return simulate_tiles(program_table(program), npu("hexagon-x-elite"))


def roofline() -> Figure:
    """Draw the products of mu-330m, read and written, below the roofs of the chip."""
    run = _run()
    drawing = draw_roofline(run, None)
    axes = drawing.axes[0]
    groups: dict[tuple[str, int], list[tuple[float, float, str]]] = {}
    for call in run.calls:
        for op, time in zip(call.table.ops, call.times, strict=True):
            moved, took = int(time.dram_bytes.sum()), int(time.end - time.begin)
            if op.macs and moved and took:
                rate = 2 * op.macs / took * run.npu.clock_hz
                group = call.table.call.phase, round(4 * math.log10(rate))  # within a factor of 1.8
                groups.setdefault(group, []).append((op.macs / moved, rate, _short_name(op.site)))
    for members in groups.values():
        intensities, rates, names = zip(*members, strict=True)
        axes.text(1.2 * max(intensities), sum(rates) / len(rates), ", ".join(dict.fromkeys(names)),
                  fontsize=8, va="center",
                  bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    axes.set_xlim(0.1, 1e4)
    return drawing


def _short_name(site: str) -> str:
    """The last word, and for the products of attention which attention."""
    *_, part, name = f".{site}".split(".")
    where = {"self_attention": "self ", "cross_attention": "cross "}.get(part, "")
    return f"{where if name in ('scores', 'mix') else ''}{name}"


def gantt() -> Figure:
    """Draw the engines over one decode call, and over one layer of it."""
    return draw_gantt(_run(), None)


def latency() -> Figure:
    """Draw what a written token waits for, as the chip and the decoder are, and changed."""
    model, chip = preset("mu-330m"), npu("hexagon-x-elite")
    half = replace(model.stacks["decoder"], n_layers=6, windowed_layers=(False,) * 6)
    as_it_is = record_request(model, 64, 32, Precision())
    scenarios = {
        "as it is": (as_it_is, chip),
        "twice the bandwidth": (as_it_is, chip.with_value("dma.bytes_per_s", 122_400_000_000)),
        "starts cost nothing": (as_it_is, chip.with_value("per_op_overhead_cycles", 0)),
        "4-bit weights": (record_request(model, 64, 32, Precision(weight_bits=4)), chip),
        "6 decoder layers": (
            record_request(replace(model, decoder=half), 64, 32, Precision()), chip,
        ),
    }  # fmt: skip
    drawing, axes = figure(8.0, 2.9)
    looks = dict(zip(LIMITS, (("", PURPLE), ("..", SAND), ("", BLUE), ("//", PALE)), strict=True))
    for place, (program, changed) in enumerate(scenarios.values()):
        decode = simulate_program(program, changed).phases[-1]
        left, whole = 0.0, decode.time_ms / decode.n_calls
        share = whole / sum(decode.limit_cycles.values())
        for limit, (hatch, colour) in looks.items():
            width = decode.limit_cycles.get(limit, 0) * share
            axes.barh(place, width, left=left, color=colour, hatch=hatch, edgecolor=DARK,
                      linewidth=0.5, height=0.65, label=limit if place == 0 else None)  # fmt: skip
            left += width
        axes.text(whole, place, f" {whole:.2f} ms", va="center")
    axes.set_yticks(range(len(scenarios)), list(scenarios))
    axes.invert_yaxis()
    axes.set(xlabel="ms for a decode step: what it waits for, simulated (tile)", xlim=(0, 3.9))
    axes.legend(frameon=False, loc="center right")
    return drawing
