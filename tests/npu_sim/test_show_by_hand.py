"""What is shown of one small run, worked out by hand: events, lines of text, tables, pictures.

A product [1 5] x [5 3] with 4-bit weights on the chip of `test_schedule.py`, twice. It starts in 20
cycles, reads 8 B of weights and 6 B of scales in 5 + 2, unpacks 15 elements at 7 a cycle in 3, and
multiplies 1 x 1 x 1 blocks of 2 x 4 x 10 at 10 a cycle in 8. A cycle takes 2 ns.
"""

from dataclasses import replace

import numpy as np
import pytest
from rich.table import Table

from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Gemm, Op, Program, Tensor
from npu_sim.program.rows import program_table
from npu_sim.report.phases import phase_reports, tile_calls
from npu_sim.report.report import Report
from npu_sim.show.csv_file import write_csv
from npu_sim.show.explain import _alike, explain
from npu_sim.show.gantt import draw_gantt
from npu_sim.show.pictures import draw_breakdown, draw_roofline
from npu_sim.show.tables import phase_table, share_table
from npu_sim.show.trace import _switches, check_trace, trace_events
from npu_sim.tile.engine_kernel import TIMES
from npu_sim.tile.plan import Plan
from npu_sim.tile.simulate import Bench, CallRun, TileRun
from npu_sim.tile.tasks import ENGINES, Engine, Part
from npu_sim.tile.tiling import vector_cycles

CHIP = npu("teaching-npu").with_changes(
    {
        "clock_hz": 500_000_000, "dma.bytes_per_s": 5_000_000_000, "dma.setup_cycles": 5,
        "per_op_overhead_cycles": 20, "vector.unpack_elements_per_cycle": 7,
        "matrix.dataflow": "blocks", "matrix.tile_m": 2, "matrix.tile_n": 4, "matrix.tile_k": 10,
        "matrix.w4a16_macs_per_cycle": 10,
    }
)  # fmt: skip
PLAN = Plan(
    piece_bytes=40, kept_classes=3, rows_outer=False, panel=1, kept_bytes=6, weight_ring_bytes=120,
    activation_ring_bytes=0, out_ring_bytes=80, weights_pinned=False, cache_pinned=False,
)  # fmt: skip
CALL_CYCLES, OVERHEAD = 31, 50_000  # 100 us


def product(m: int = 1) -> Op:
    x = Tensor(name="x", shape=(1, m, 5), bits=16, role="activation")
    weight = Tensor(name="up.weight", shape=(3, 5), bits=4, role="weight")
    out = Tensor(name="decoder.0.mlp.up", shape=(1, m, 3), bits=16, role="activation")
    return Op(site=out.name, kind="linear", phase="decode", inputs=(x, weight), output=out,
              gemm=Gemm(count=1, m=m, n=3, k=5))  # fmt: skip


def run_of(op: Op, chip=CHIP, pins: tuple[int, int] = (0, 0), plan: Plan = PLAN) -> TileRun:
    call = Call(phase="decode", ops=(op,))
    program = Program(
        model="by hand", precision=Precision(weight_bits=4), n_input=1, n_output=2, batch=1,
        stored_weight_bytes=0, calls=(call, call),
    )  # fmt: skip
    table, bench, calls = program_table(program), Bench(chip), []
    for made in table.calls:
        cycles, times = bench.time(made, vector_cycles(made.rows, chip), plan)
        calls.append(CallRun(table=made, plan=plan, cycles=cycles, overhead_cycles=OVERHEAD,
                             times=times))  # fmt: skip
    return TileRun(table=table, npu=chip, pins=pins, calls=tuple(calls))


# -- traces ----------------------------------------------------------------------------------------


def test_the_events_of_two_calls():
    events = [e for e in trace_events(run_of(product())) if e["ph"] == "X"]
    name, one_call = "decoder.0.mlp.up", []
    for engine, part, start, end in (
        ("control", "start", 0, 20), ("dma_in", "weights", 0, 7), ("matrix", "product", 23, 31),
        ("vector", "unpack", 20, 23),
    ):  # fmt: skip
        one_call.append((1 + ENGINES.index(engine), f"{name} {part}", start, end))
    expected = []
    for number, origin in enumerate((0, OVERHEAD + CALL_CYCLES)):
        begin = origin + OVERHEAD
        expected += [
            (0, f"decode {number}", origin, begin + CALL_CYCLES),
            (0, "call overhead", origin, begin), (0, name, begin, begin + CALL_CYCLES),
            *((tid, what, begin + start, begin + end) for tid, what, start, end in one_call),
        ]  # fmt: skip
    found = [(e["tid"], e["name"], e["args"]["start_cycles"], e["args"]["end_cycles"])
             for e in events]  # fmt: skip
    assert sorted(found) == sorted(expected)
    for event in events:  # two nanoseconds a cycle
        start, end = event["args"]["start_cycles"], event["args"]["end_cycles"]
        assert event["ts"] == pytest.approx(start / 500)
        assert event["dur"] == pytest.approx((end - start) / 500)
    weights = next(e for e in events if e["name"].endswith("weights"))
    assert (weights["args"]["bytes"], weights["args"]["cycles"]) == (14, 7)
    assert (weights["args"]["columns"], weights["args"]["rows"]) == ("0:3", "0:1")
    whole = next(e for e in events if e["name"] == name)
    assert (whole["args"]["macs"], whole["args"]["dram_bytes"]) == (15, 14)


def test_the_counters_of_a_call():
    events = list(trace_events(run_of(product(), pins=(1_000, 200))))[:60]
    found = {
        name: [(round(500 * e["ts"]) - OVERHEAD, *e["args"].values())
               for e in events if e["ph"] == "C" and e["name"] == name][:3]
        for name in ("SRAM", "DRAM reads")
    }  # fmt: skip
    # 14 B as they come and 15 unpacked, 6 of the result; what is pinned lies there all the time
    assert found["SRAM"][:2] == [(0, 14 + 15 + 6 + 1_200), (31, 6 + 1_200)]
    assert found["DRAM reads"][:2] == [(0, 5.0), (7, 0)]


def event(tid: int, name: str, start: int, end: int) -> dict:
    return {"ph": "X", "tid": tid, "name": name, "ts": start / 1000, "dur": (end - start) / 1000}


NAMES = [{"ph": "M", "name": "thread_name", "tid": tid, "args": {"name": name}}
         for tid, name in enumerate(("calls", "dma_in"))]  # fmt: skip


def test_a_port_that_gives_way_reads_nothing():
    tasks = np.zeros(3, [(name, int) for name in ("engine", "part", "start", "end")])
    tasks["engine"] = Engine.DMA_IN
    tasks["part"] = Part.WEIGHTS, Part.GIVE_WAY, Part.WEIGHTS
    tasks["start"], tasks["end"] = (20, 30, 35), (30, 35, 50)
    assert _switches(tasks, Engine.DMA_IN) == [(20, True), (30, False), (35, True), (50, False)]


def test_tasks_that_sum_over_more_are_not_alike():
    names = ["part", "cycles", "n_bytes", "head"]
    names += [f"{axis}_{end}" for axis in ("row", "col", "sum") for end in (0, 1)]
    tasks = np.zeros(3, [(name, int) for name in names])
    tasks["row_1"], tasks["col_1"], tasks["sum_1"] = 2, 4, (10, 6, 10)  # blocks take equally long
    assert sorted(_alike(tasks)) == [(0, 2), (1, 1)]


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([event(1, "a", 0, 5), event(1, "b", 5, 9)], []),  # one ends as the next starts
        ([event(1, "a", 0, 5), event(1, "b", 4, 9)],
         ["dma_in: b starts at 4, before a ends at 5"]),
        ([event(0, "a", 0, 9), event(0, "b", 0, 5), event(0, "c", 5, 9)], []),
        ([event(0, "a", 0, 5), event(0, "b", 5, 9), event(0, "c", 7, 9)], []),
        ([event(0, "a", 0, 5), event(0, "b", 4, 9)], ["calls: b ends after a, which it starts in"]),
        ([{"ph": "X", "tid": 1, "name": "a", "ts": 3}], ["an event must have a name, a start"]),
        ([{"ph": "X", "tid": 1, "name": "a", "dur": 3}], ["an event must have a name, a start"]),
    ],
)  # fmt: skip
def test_spans_that_touch_are_sound_and_those_that_cross_are_not(events, wrong):
    found = check_trace([*NAMES, *events])
    assert [line[: len(text)] for line, text in zip(found, wrong, strict=True)] == wrong


# -- text ------------------------------------------------------------------------------------------


def test_a_product_in_blocks_explained():
    assert explain(run_of(product()), "decoder.0.mlp.up")[1:] == [
        "  reads   x [1, 1, 5], 16 bits, activation: 10 B",
        "  reads   up.weight [3, 5], 4 bits, weight: 8 B + 6 B of scales",
        "  writes  decoder.0.mlp.up [1, 1, 3], 16 bits, activation: 6 B",
        "  product [1, 5] x [5, 3] = 15 MACs of w4a16",
        "  control: 1 task, 20 cycles",
        "    1 x start, 20 cycles",
        "      = 20: to start an operation",
        "  dma_in: 1 task, 7 cycles",
        "    1 x weights, 7 cycles",
        "      = 5: to set up the transfer",
        "      + 2: 14 B x 500 MHz / 5 GB/s",
        "  vector: 1 task, 3 cycles",
        "    1 x unpack, 3 cycles",
        "      = 3: 15 elements / 7 per cycle",
        "  matrix: 1 task, 8 cycles",
        "    1 x product [1, 5] x [5, 3], 8 cycles",
        "      = 8: 1 x 1 x 1 blocks of 2 x 4 x 10 / (10 x 1 MACs per cycle)",
        "  took 31 cycles (0.062 us), from 0 to 31 of its call",
        "    = 20 for its start + 8 for the matrix engine + 3 for the vector engine",
    ]  # fmt: skip


def test_every_piece_is_explained_the_longest_first():
    """Nine columns of 5 B in pieces of four, four and one; scales of 36 B come with the first."""
    op = product()
    weight = Tensor(name="up.weight", shape=(9, 5), bits=8, role="weight")
    wider = replace(op, inputs=(op.inputs[0], weight), gemm=Gemm(count=1, m=1, n=9, k=5))
    lines = explain(run_of(wider, plan=PLAN._replace(piece_bytes=20)), "decoder.0.mlp.up")
    at = lines.index("  dma_in: 3 tasks, 24 cycles")
    assert lines[at + 1 : at + 10] == [
        "    1 x weights, 11 cycles",
        "      = 5: to set up the transfer",
        "      + 6: 56 B x 500 MHz / 5 GB/s",
        "    1 x weights, 7 cycles",
        "      = 5: to set up the transfer",
        "      + 2: 20 B x 500 MHz / 5 GB/s",
        "    1 x weights, 6 cycles",
        "      = 5: to set up the transfer",
        "      + 1: 5 B x 500 MHz / 5 GB/s",
    ]


def test_the_last_call_is_explained_unless_another_is_asked_for():
    run = run_of(product())
    assert "in call 1 (decode)" in explain(run, "decoder.0.mlp.up")[0]
    assert "in call 0 (decode)" in explain(run, "decoder.0.mlp.up", 0)[0]


@pytest.mark.parametrize(
    ("flow", "text"),
    [
        # nine rows on four are three folds, three columns on two are two
        ("os", "6 folds x (5 + 4) x 4 x 2 cells, output-stationary"),
        ("ws", "4 folds x (9 + 8) x 4 x 2 cells, weight-stationary"),
        ("is", "10 folds x (3 + 8) x 4 x 2 cells, input-stationary"),
    ],
)
def test_a_product_on_an_array_explained(flow, text):
    chip = CHIP.with_changes(
        {"matrix.dataflow": flow, "matrix.rows": 4, "matrix.columns": 2,
         "matrix.w4a16_efficiency": 0.5, "matrix.attention_efficiency": 0.25}
    )  # fmt: skip
    lines = explain(run_of(product(m=9), chip), "decoder.0.mlp.up")
    assert any(line.startswith("    1 x product [9, 5] x [5, 3], ") for line in lines)
    assert any(line.endswith(f": {text} / (10 x 0.5 MACs per cycle)") for line in lines)


def test_attention_is_explained_head_by_head_at_its_own_share():
    """Four query heads of two rows share two stored heads of three keys."""
    q = Tensor(name="q", shape=(1, 4, 2, 5), bits=16, role="activation")
    keys = Tensor(name="keys", shape=(1, 2, 3, 5), bits=16, role="kv")
    out = Tensor(name="scores", shape=(1, 4, 2, 3), bits=16, role="activation")
    op = Op(site="scores", kind="matmul", phase="decode", inputs=(q, keys), output=out,
            gemm=Gemm(count=4, m=2, n=3, k=5))  # fmt: skip
    chip = CHIP.with_changes(
        {"matrix.attention_efficiency": 0.25, "matrix.w16a16_macs_per_cycle": 20}
    )
    lines = explain(run_of(op, chip), "scores")
    assert "  product 4 x [2, 5] x [5, 3] = 120 MACs of w16a16" in lines
    # keys of 60 B come in two pieces; 320 places at 5 a cycle
    at = lines.index("    2 x product 2 x [4, 5] x [5, 3], together 64 cycles")
    blocks = "2 x 2 x 1 x 1 blocks of 2 x 4 x 10 / (20 x 0.25 MACs per cycle)"
    assert lines[at + 1] == f"      = 64: {blocks}"
    # where keys are laid out as they are read, the product takes no longer
    slow = chip.with_changes({"dma.cache_bytes_per_s": 1_000_000_000})
    assert f"      = 64: {blocks}" in explain(run_of(op, slow), "scores")


def cells(table: Table) -> list[list[str]]:
    columns = [[*map(str, column.cells), str(column.footer)] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def made_up(*limits: tuple[int, int, int, int]) -> Report:
    """A call for each, with so many cycles of compute, vector, memory and overhead."""
    run = run_of(product())
    names = ("compute", "vector", "memory", "overhead")
    calls = [
        replace(call, limit_cycles=dict(zip(names, cycles, strict=True)))
        for call, cycles in zip(tile_calls(run), limits, strict=True)
    ]
    return Report(npu=CHIP, program=run.table.program, phases=phase_reports(calls, CHIP),
                  ttft_cycles=1, budget_ms=1.0, tiles=run)  # fmt: skip


def test_a_table_of_phases():
    found = made_up((100_000, 0, 300_000, 1_000), (0, 2_000, 100_000, 2_000))
    # 505,000 cycles of 2 ns; parts below half a per cent are not named
    texts = ["2", "30", "28 B", "1.01 ms", "memory 79 %, compute 20 %, overhead 1 %"]
    assert cells(phase_table(found)) == [["decode", *texts], ["request", *texts]]


def test_a_table_of_shares():
    found = made_up((0, 0, 1, 0), (0, 0, 1, 0))
    rows = [row[:] for row in cells(share_table(found, "layer"))][:2]
    # two calls of 50,000 and 31 cycles
    assert rows == [
        ["decoder.0", "0.00 ms", "0.1 %", "30", "28 B"],
        ["(calls)", "0.20 ms", "99.9 %", "0", "0 B"],
    ]


def test_a_line_for_each_operation_and_call(tmp_path):
    run = run_of(product())
    times = np.zeros(1, TIMES)
    times["begin"], times["end"], times["busy_cycles"] = 7, 107, [[20, 30, 40, 11, 5]]
    times["dram_bytes"] = [[14, 3, 2]]
    calls = (run.calls[0], replace(run.calls[1], times=times, cycles=107))
    write_csv(replace(made_up((0, 0, 1, 0), (0, 0, 1, 0)), tiles=replace(run, calls=calls)),
              tmp_path / "ops.csv")  # fmt: skip
    assert (tmp_path / "ops.csv").read_text().splitlines()[1:] == [
        "0,decode,decoder.0.mlp.up,linear,15,0,31,20,7,8,3,0,14,0,0,8,3,0",
        "1,decode,decoder.0.mlp.up,linear,15,7,107,20,30,40,11,5,14,3,2,40,11,29",
    ]


# -- pictures --------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been saved."""
    figures = []
    for room in ("gantt", "pictures"):
        monkeypatch.setattr(f"npu_sim.show.{room}.save", lambda figure, _: figures.append(figure))
    return figures


def test_a_picture_of_engines_and_memory(drawn, tmp_path):
    draw_gantt(run_of(product(), pins=(2**20, 0)), tmp_path / "a.png")
    whole, zoom, memory = drawn[0].axes
    assert memory.get_xlim() == zoom.get_xlim() == (0, pytest.approx(0.062))  # 31 cycles in us
    (area,) = memory.collections
    heights = area.get_paths()[0].vertices[:, 1]
    assert max(heights) == pytest.approx(1 + 35 / 2**20)  # a MiB is pinned, 35 B come beside it
    assert [label.get_text() for label in whole.get_yticklabels()] == [
        name.replace("_", " ") for name in ENGINES
    ]


def test_a_picture_of_what_each_kind_waits_for(drawn, tmp_path):
    draw_breakdown(run_of(product()), tmp_path / "a.png")
    (axes,) = drawn[0].axes
    bars = {(round(b.get_x(), 9), round(b.get_width(), 9)) for b in axes.patches if b.get_width()}
    us = 1000 / CHIP.clock_hz  # ms of a cycle; two calls, one after the other from the left
    expected = [(0, 16), (16, 6), (22, 40), (0, 2 * OVERHEAD)]
    assert bars == {(round(x * us, 9), round(w * us, 9)) for x, w in expected}


def test_a_picture_of_the_roofline(drawn, tmp_path):
    draw_roofline(run_of(product()), tmp_path / "a.png")
    (axes,) = drawn[0].axes
    roofs = [line.get_ydata() for line in axes.lines]
    # 1,024 MACs of two operations at 0.5 GHz; a hundredth of a MAC for each of 5 GB a second
    assert max(roofs[0]) == pytest.approx(2 * 1024 * 0.5e9)
    assert min(roofs[0]) == pytest.approx(2 * 0.01 * 5e9)
    (points,) = axes.collections
    # 15 MACs for 14 B, in 31 cycles
    assert np.unique(points.get_offsets(), axis=0).ravel() == pytest.approx(
        [15 / 14, 2 * 15 / (31 / 0.5e9)]
    )
