"""Faults that users of other tools reported, held against what this one shows."""

import json

import pytest

from mu_ref.presets import preset
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program
from npu_sim.report.shares import DIVISIONS, shares
from npu_sim.show.trace import write_trace

CHIP = npu("teaching-npu")  # a cycle takes 1 ns


@pytest.fixture(scope="module")
def report():
    return simulate_program(record_request(preset("tiny"), 8, 3, Precision(), 2), CHIP)


def test_a_trace_counts_in_microseconds(report, tmp_path):
    """Traces in nanoseconds or milliseconds, or ten times too long.

    https://github.com/amzn/hawktracer/issues/2 (nanoseconds),
    https://github.com/microsoft/perfview/pull/2013 (milliseconds),
    https://github.com/uiuc-hpc/Recorder/pull/20 (ten times too long).
    """
    write_trace(report.tiles, tmp_path / "t.json")
    data = json.loads((tmp_path / "t.json").read_text())
    ends = [e["ts"] + e["dur"] for e in data["traceEvents"] if e["ph"] == "X"]
    assert max(ends) == pytest.approx(1000 * report.latency_ms)
    for event in data["traceEvents"]:
        if event["ph"] == "X":
            cycles = event["args"]["end_cycles"] - event["args"]["start_cycles"]
            assert event["dur"] == pytest.approx(1e6 * cycles / CHIP.clock_hz)


def test_short_events_stay_apart_in_a_viewer(report, tmp_path):
    """Events of a few nanoseconds looked nested, or had no length, where times were rounded.

    https://github.com/pytorch/kineto/pull/1074, https://github.com/pytorch/kineto/issues/853.
    """
    write_trace(report.tiles, tmp_path / "t.json")
    data = json.loads((tmp_path / "t.json").read_text())
    assert data["displayTimeUnit"] == "ns"
    spans = [e for e in data["traceEvents"] if e["ph"] == "X"]
    assert all(e["dur"] > 0 for e in spans)
    assert any(e["dur"] < 1 for e in spans)  # less than a microsecond


def test_shares_sum_to_the_whole(report):
    """Parts that are more, or less, than what they are parts of.

    https://github.com/catapult-project/catapult/issues/3849,
    https://github.com/KristofferC/TimerOutputs.jl/issues/28.
    """
    for by in DIVISIONS:
        parts = shares(report.tiles, by)
        assert sum(part.cycles for part in parts) == report.latency_cycles
        assert sum(part.macs for part in parts) == report.macs
        assert sum(part.dram_bytes for part in parts) == report.dram_bytes
    for phase in report.phases:
        assert sum(phase.limit_cycles.values()) == phase.cycles
