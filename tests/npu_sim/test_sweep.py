"""Sweeps: what is varied, in which order, failing points, resume, executors."""

import csv
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from at_roofline import evaluate

from npu_sim.errors import NpuSimError, SweepError
from npu_sim.whatif.sweep import local_executor, run_sweep
from npu_sim.whatif.varied.sweep_toml import read_spec, spec_from

SPEC = """
model = "tiny"
npu = "teaching-npu"
[workload]
n_output = 4
[vary]
"dma_bandwidth" = { log = [0.1, 10], n = 3, unit = "GB/s" }
"workload.n_input" = { range = [4, 8], step = 2 }
"npu.dram.capacity_bytes" = [1000, 1000000]
[sample]
n = 2
seed = 7
"npu.per_inference_overhead_us" = { uniform = [1, 3] }
"""


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_points_are_all_combinations_the_last_axis_fastest():
    spec = spec_from('model = "tiny"\n[vary]\nn_input = [4, 5]\nweight_bits = [4, 8]\n')
    assert [tuple(spec.point(i).values()) for i in range(spec.n_points)] == [
        (4, 4), (4, 8), (5, 4), (5, 8),
    ]  # fmt: skip


def test_units_and_spacing_are_what_the_file_says():
    spec = spec_from(SPEC)
    assert spec.grid[0].values == (100_000_000, 1_000_000_000, 10_000_000_000)
    assert spec.grid[1].values == (4, 6, 8)
    drawn = [spec.point(i)["npu.per_inference_overhead_us"] for i in range(36)]
    assert len(set(drawn)) == 36
    assert all(1 <= value <= 3 for value in drawn)


def test_a_row_is_the_simulation_of_its_point_and_a_failing_one_has_a_reason(tmp_path):
    spec = spec_from(SPEC)
    assert run_sweep(spec, tmp_path / "a.csv") == 36
    rows = table(tmp_path / "a.csv")
    assert [int(row["point"]) for row in rows] == list(range(36))
    for index, row in enumerate(rows):
        changes = spec.point(index)
        assert row["workload.n_input"] == str(changes["workload.n_input"])
        if changes["npu.dram.capacity_bytes"] == 1000:
            assert "tiny must fit the 1.00 kB DRAM" in row["reason"]
            assert row["latency_ms"] == ""
        else:
            alone = evaluate(spec.base.with_fields(changes))
            assert float(row["latency_ms"]) == pytest.approx(alone["latency_ms"], rel=1e-8)
            assert float(row["dram_bytes"]) == alone["dram_bytes"]


def test_a_sidecar_tells_the_specification_and_the_versions(tmp_path):
    run_sweep(spec_from(SPEC), tmp_path / "a.csv")
    sidecar = json.loads((tmp_path / "a.json").read_text())
    assert sidecar["spec"] == SPEC
    assert sidecar["simulated"] is True
    assert {"mu_ref", "numpy", "python"} <= set(sidecar["versions"])


def test_every_executor_gives_the_same_bytes(tmp_path):
    spec = spec_from(SPEC)
    run_sweep(spec, tmp_path / "a.csv")
    with ThreadPoolExecutor(3) as threads:
        run_sweep(spec, tmp_path / "b.csv", threads, chunk=5)
    with local_executor(2) as processes:
        run_sweep(spec, tmp_path / "c.csv", processes, chunk=11)
    whole = (tmp_path / "a.csv").read_bytes()
    assert (tmp_path / "b.csv").read_bytes() == whole
    assert (tmp_path / "c.csv").read_bytes() == whole


class KilledError(Exception):
    pass


def test_a_sweep_killed_half_way_goes_on_and_ends_with_the_same_file(tmp_path):
    spec = spec_from(SPEC)
    run_sweep(spec, tmp_path / "whole.csv", chunk=7)

    def kill(done, _total):
        if done >= 14:
            raise KilledError

    out = tmp_path / "resumed.csv"
    with pytest.raises(KilledError):
        run_sweep(spec, out, progress=kill, chunk=7)
    assert not out.exists()
    seen = []
    run_sweep(spec, out, progress=lambda done, _total: seen.append(done), chunk=7)
    assert seen[0] == 14  # what was there is not computed again
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not out.with_name("resumed.csv.parts").exists()


def test_parts_of_another_sweep_are_not_mixed_in(tmp_path):
    def kill(done, _total):
        if done:
            raise KilledError

    with pytest.raises(KilledError):
        run_sweep(spec_from(SPEC), tmp_path / "a.csv", progress=kill, chunk=7)
    other = spec_from(SPEC.replace("seed = 7", "seed = 8"))
    with pytest.raises(SweepError, match="must hold parts of this sweep"):
        run_sweep(other, tmp_path / "a.csv", chunk=7)


def test_parts_of_another_version_are_not_mixed_in(tmp_path, monkeypatch):
    def kill(done, _total):
        if done:
            raise KilledError

    with pytest.raises(KilledError):
        run_sweep(spec_from(SPEC), tmp_path / "a.csv", progress=kill, chunk=7)
    versions = {"mu_ref": "0.0.0", "numpy": "0.0.0", "python": "0.0.0"}
    monkeypatch.setattr("npu_sim.whatif.resume.parts.versions", lambda: versions)
    with pytest.raises(SweepError, match=r"got another mu_ref, numpy, python"):
        run_sweep(spec_from(SPEC), tmp_path / "a.csv", chunk=7)


def test_a_sweep_that_stops_takes_back_what_waits(tmp_path, monkeypatch):
    started = []

    def slow(_text, start, _stop, _inputs):
        started.append(start)
        time.sleep(0.02)
        return ""

    def kill(done, _total):
        if done:
            raise KilledError

    monkeypatch.setattr("npu_sim.whatif.sweep.evaluate_chunk", slow)
    with ThreadPoolExecutor(1) as threads, pytest.raises(KilledError):
        run_sweep(spec_from(SPEC), tmp_path / "a.csv", threads, progress=kill, chunk=1)
    assert len(started) < 18  # of 36: what ran while the first was written, no more


def test_a_dask_cluster_gives_the_same_bytes(tmp_path):
    import distributed

    from npu_sim.whatif.sweep import dask_executor

    spec = spec_from(SPEC)
    run_sweep(spec, tmp_path / "a.csv")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        dask_executor(cluster.scheduler_address) as executor,
    ):
        run_sweep(spec, tmp_path / "b.csv", executor, chunk=7)
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_model_widths_and_drafters_can_be_varied(tmp_path):
    spec = spec_from(
        'model = "mu-nano"\n[workload]\nn_output = 9\n[drafter]\ntokens_per_step = 2.0\n[vary]\n'
        '"model.decoder.n_layers" = [1, 3]\n"drafter.beam_width" = [0, 2]\n'
    )
    run_sweep(spec, tmp_path / "a.csv")
    rows = table(tmp_path / "a.csv")
    assert not any(row["reason"] for row in rows)
    latencies = [float(row["latency_ms"]) for row in rows]
    assert latencies[0] < latencies[2]  # more layers
    assert latencies[1] < latencies[3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense = 1\nmodel = 'tiny'\n[vary]\nn_input = [1]", "key must be one of model"),
        ("model = 'tiny'\n[vary]\n'npu.warp_drive' = [1]", "field must be one of"),
        ("model = 'tiny'\n[vary]\nn_input = []", "n_input must have at least one value"),
        ("model = 'tiny'\n[vary]\nn_input = { range = [9, 3], step = 1 }", "range is empty"),
        ("model = 'tiny'\n[vary]\nn_input = { range = [1, 3] }", "either n or step"),
        ("model = 'tiny'\n[vary]\nclock = { log = [0, 3], n = 2 }", "two positive numbers"),
        ("model = 'tiny'\n[vary]\nclock = { values = [1], unit = 'GB' }", "unit of clock_hz"),
        ("model = 'tiny'\n[vary]\nn_input = { values = [1], unit = 'GB' }", "unit of workload"),
        ("model = 'huge'\n[vary]\nn_input = [1]", "model: preset must be one of"),
        ("[vary]\nn_input = [1]", "one of model, model_json and hf_config"),
        ("model = 'tiny'", "must vary something"),
        ("model = 'tiny'\n[workload]\nn_inputs = 3\n[vary]\nn_input = [1]", "n_inputs"),
        ("model = 'tiny'\n[vary]\nn_input = [1]\n'workload.n_input' = [2]", "varied once"),
        ("model = 'tiny'\n[sample]\nn = 0\nn_input = [1]", "sample.n must be a whole number"),
        ("model = 'tiny'\nfidelity = 'guess'\n[vary]\nn_input = [1]", "fidelity must be one of"),
        ("model = 'tiny'\n[vary]\nn_input = 3", "must be a list or a table"),
        ("model = ", "must be TOML"),
    ],
)
def test_a_wrong_specification_names_its_key(text, message):
    with pytest.raises(NpuSimError, match=message):
        spec_from(text)


def test_values_that_a_field_cannot_have_become_reasons(tmp_path):
    spec = spec_from(
        "model = 'tiny'\n[vary]\n'npu.clock_hz' = [-1, 1000000000]\n"
        "'precision.weight_bits' = [7, 8]\n"
    )
    run_sweep(spec, tmp_path / "a.csv")
    reasons = [row["reason"] for row in table(tmp_path / "a.csv")]
    assert "weight_bits must be one of 4, 8, 16" in reasons[0]
    assert "clock_hz must be a whole number from 1 to 100,000,000,000, got -1" in reasons[1]
    assert reasons[3] == ""


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SweepError, match="there is no such file"):
        read_spec(tmp_path / "absent.toml")


def test_many_random_lengths_are_measured_as_single_ones(tmp_path):
    spec = spec_from(
        "model = 'tiny'\nnpu = 'teaching-npu'\n[workload]\nn_output = 6\n"
        "[vary]\n'npu.dram.capacity_bytes' = [13000, 1000000]\n"
        "[sample]\nn = 12\nn_input = { uniform = [1, 60] }\n"
    )
    run_sweep(spec, tmp_path / "a.csv")
    for index, row in enumerate(table(tmp_path / "a.csv")):
        changed = spec.base.with_fields(spec.point(index))
        if row["reason"]:
            with pytest.raises(NpuSimError) as refused:
                evaluate(changed)
            assert str(refused.value) == row["reason"]
        else:
            alone = evaluate(changed)
            assert float(row["latency_ms"]) == pytest.approx(alone["latency_ms"], rel=1e-8)
            assert float(row["ttft_ms"]) == pytest.approx(alone["ttft_ms"], rel=1e-8)


def test_a_sidecar_tells_every_npu_that_was_varied(tmp_path):
    spec = "model = 'mu-nano'\nfidelity = 'roofline'\nvary.npu = ['h100', 'teaching-npu']"
    run_sweep(spec_from(spec), tmp_path / "a.csv")
    sidecar = json.loads((tmp_path / "a.json").read_text())
    assert "npu" not in sidecar  # the base runs nowhere
    assert [chip["name"] for chip in sidecar["npus"]] == ["h100", "teaching-npu"]
    assert all(chip["values"]["clock_hz"] and chip["sources"] for chip in sidecar["npus"])
