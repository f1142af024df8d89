"""Traces hold to the rules of viewers, add up, and do not change from run to run."""

import json

import pytest

from mu_ref.presets import preset, tiny
from npu_sim.errors import WorkloadError
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program
from npu_sim.report.shares import shares
from npu_sim.show.csv_file import write_csv
from npu_sim.show.gantt import draw_gantt
from npu_sim.show.pictures import draw_breakdown, draw_roofline
from npu_sim.show.trace import check_trace, read_trace, trace_events, write_trace
from npu_sim.tile.tasks import ENGINES


def report(model=None, chip="teaching-npu", n_input=5, n_output=3, **changes):
    program = record_request(model or tiny(), n_input, n_output, Precision(weight_bits=4))
    return simulate_program(program, npu(chip).with_changes(changes))


@pytest.fixture
def events():
    return list(trace_events(report().tiles))


def test_a_trace_is_sound_and_has_a_thread_for_each_engine(events):
    assert check_trace(events) == []
    names = [e["args"]["name"] for e in events if e["name"] == "thread_name"]
    assert names == ["calls", *ENGINES]


def test_the_trace_of_mu_330m_is_sound_and_stays_within_sram(tmp_path):
    found = report(preset("mu-330m"), "hexagon-x-elite", 64, 2)
    write_trace(found.tiles, tmp_path / "trace.json")
    events = read_trace(tmp_path / "trace.json")
    assert check_trace(events) == []
    sites = {e["name"].rpartition(" ")[0] for e in events if e["ph"] == "X"}
    assert "decoder.3.mlp.up" in sites
    used = [e["args"]["bytes"] for e in events if e["name"] == "SRAM"]
    assert max(used) <= npu("hexagon-x-elite").sram.capacity_bytes
    calls = [e for e in events if e["ph"] == "X" and e["tid"] == 0 and "." not in e["name"]]
    assert max(e["args"]["end_cycles"] for e in calls) == found.latency_cycles


def test_the_same_request_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_trace(report().tiles, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dur": -1}, "must have a name, a start and a duration"),
        ({"name": ""}, "must have a name"),
        ({"tid": 77}, "thread 77 must have a name"),
        ({"ph": "Q"}, "must be X, C or M"),
        ({"args": {"start_cycles": 0, "end_cycles": 10**9}}, "before"),
    ],
)
def test_the_checker_finds_what_is_wrong(events, change, complaint):
    at = next(i for i, e in enumerate(events) if e["ph"] == "X" and e["tid"] == 3)
    events[at] = {**events[at], **change}
    wrong = check_trace(events)
    assert any(complaint in line for line in wrong), wrong


def test_the_checker_finds_spans_that_cross(events):
    at = next(i for i, e in enumerate(events) if e["ph"] == "X" and e["name"] == "embedding")
    late = events[at]["args"]["end_cycles"] + 10**6
    events[at] = {**events[at], "args": {"start_cycles": 100_500, "end_cycles": late}}
    assert any("ends after" in line for line in check_trace(events))


def test_the_checker_finds_counters_that_go_back_or_below_zero(events):
    counters = [i for i, e in enumerate(events) if e["ph"] == "C" and e["name"] == "SRAM"]
    events[counters[-1]] = {**events[counters[-1]], "ts": 0, "args": {"bytes": -1}}
    wrong = check_trace(events)
    assert any("goes back" in line for line in wrong)
    assert any("negative" in line for line in wrong)


def test_a_file_that_is_no_trace_is_refused(tmp_path):
    for text in ("x", "{}", "[3]"):
        (tmp_path / "trace.json").write_text(text)
        with pytest.raises(WorkloadError, match="must"):
            read_trace(tmp_path / "trace.json")


def test_the_table_of_operations_adds_up_to_the_report(tmp_path):
    found = report()
    write_csv(found, tmp_path / "ops.csv")
    header, *lines = (tmp_path / "ops.csv").read_text().splitlines()
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    moved = sum(
        int(row[name])
        for row in rows
        for name in ("weight_bytes", "cache_bytes", "activation_bytes")
    )
    assert moved == found.dram_bytes
    assert sum(int(row["macs"]) for row in rows) == found.macs
    limits = ("overhead", "compute_limit", "vector_limit", "memory_limit")
    spent = sum(int(row[f"{name}_cycles"]) for row in rows for name in limits)
    assert spent + len(found.program.calls) * 100_000 == found.latency_cycles


@pytest.mark.parametrize("by", ["layer", "kind", "site"])
def test_shares_add_up_to_the_request(by):
    found = report()
    parts = shares(found.tiles, by)
    assert sum(share.cycles for share in parts) == found.latency_cycles
    assert sum(share.macs for share in parts) == found.macs
    assert sum(share.dram_bytes for share in parts) == found.dram_bytes


def test_pictures_are_written_whole(tmp_path):
    run = report().tiles
    for draw, name in ((draw_gantt, "a.png"), (draw_roofline, "b.svg"), (draw_breakdown, "c.pdf")):
        draw(run, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    assert len(list(tmp_path.iterdir())) == 3


def test_trace_events_are_plain_json(events):
    assert json.loads(json.dumps(events)) == events
