"""Axes, points, chunks and files of a sweep by hand; nothing is simulated here.

`evaluate_points` is replaced by arithmetic on what a point changes, so that every line of a result
can be written down.
"""

import csv
import json
import math
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mu_ref.config import StackConfig
from npu_sim.errors import NpuSimError, SweepError, WorkloadError
from npu_sim.program.precision import Precision
from npu_sim.whatif import sweep
from npu_sim.whatif.resume import parts
from npu_sim.whatif.scenario import ALIASES, Scenario, Workload, full_path
from npu_sim.whatif.scenario_toml import base_scenario, read_tables
from npu_sim.whatif.sweep import run_sweep
from npu_sim.whatif.varied.axes import Axis, read_axis
from npu_sim.whatif.varied.sweep_toml import read_spec, spec_from

BASE = base_scenario({"model": "tiny", "npu": "teaching-npu"})


# -- one axis --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "entry", "values"),
    [
        ("n_input", [3, 1, 2], (3, 1, 2)), ("kv_bits", {"values": [4, 8]}, (4, 8)),
        ("clock", {"values": [1, 1.5], "unit": "GHz"}, (10**9, 15 * 10**8)),
        ("n_input", {"range": [1, 7], "step": 3}, (1, 4, 7)),
        ("n_input", {"range": [1, 6], "step": 3}, (1, 4)),
        ("n_input", {"range": [5, 5], "step": 3}, (5,)),
        ("n_input", {"range": [1, 2], "n": 1}, (1,)),
        ("n_input", {"range": [1, 3], "n": 5}, (1, 2, 3)),  # 1.5 and 2.5 go to the even side
        ("n_input", {"log": [1, 16], "n": 5}, (1, 2, 4, 8, 16)),
        ("n_input", {"log": [1, 3], "n": 3}, (1, 2, 3)),
        ("call_overhead", {"range": [0, 0.3], "step": 0.1}, (0, 0.1, 0.2, 0.3)),
        ("call_overhead", {"range": [1, 2], "n": 3}, (1.0, 1.5, 2.0)),
        ("call_overhead", {"log": [1, 4], "n": 3}, (1.0, 2.0, 4.0)),
        ("sram", {"log": [1, 4], "n": 3, "unit": "KiB"}, (1024, 2048, 4096)),
    ],
)  # fmt: skip
def test_an_axis_becomes_these_values(key: str, entry: object, values: tuple) -> None:
    axis = read_axis(key, entry, BASE)
    assert axis.values == pytest.approx(values)
    whole = key != "call_overhead"
    assert [type(v) for v in axis.values] == [int if whole else float] * len(values)
    assert (axis.path, axis.interval) == (ALIASES[key], None)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"range": [1, 2], "n": 2, "step": 1}, "n_input must have either n or step, got range, n"),
        ({"log": [1, 2], "step": 1}, "n_input must have n, got log, step"),
        ({"log": [1, 2]}, "n_input must have n, got log"),
        ({"range": [1, 2], "n": 0}, "n_input.n must be a whole number from 1 .*, got 0"),
        ({"range": [1, 2], "n": True}, "n_input.n must be a whole number from 1 .*, got True"),
        ({"range": [1, 2], "n": 1.5}, "n_input.n must be a whole number from 1 .*, got 1.5"),
        ({"range": [1, 2], "n": 1_000_001}, "n_input.n must be a whole number"),
        ({"range": [1, 2], "step": 0}, "n_input.step must be a number above 0 .*, got 0"),
        ({"range": [1, 2], "step": -1}, "n_input.step must be a number above 0 .*, got -1"),
        ({"range": [1, 2], "step": "1"}, "n_input.step must be a number above 0 .*, got '1'"),
        ({"range": [0, 2], "step": 1e-7}, "n_input.step must give at most 1,000,000 values"),
        ({"range": [2, 1], "n": 2}, r"n_input.range must be in rising order, got \[2, 1\]"),
        ({"log": [2, 1], "n": 2}, "n_input.log must be two positive numbers in rising order"),
        ({"log": [0, 1], "n": 2}, "n_input.log must be two positive numbers in rising order"),
        ({"range": [1], "n": 2}, r"n_input.range must be two numbers, .*got \[1\]"),
        ({"range": [1, 2, 3], "n": 2}, "n_input.range must be two numbers"),
        ({"range": [1, True], "n": 2}, "n_input.range must be two numbers"),
        ({"range": 3, "n": 2}, "n_input.range must be a list, got 3"),
        ({"values": []}, "n_input must have at least one value"),
        ({"values": [1], "log": [1, 2]}, "n_input must have one of values, range, log and uniform"),
        ({"n": 2}, "n_input must have one of values, range, log and uniform"),
        ({"values": [1], "steps": 1}, "n_input must have one of values, range, log and uniform"),
        ({"uniform": [1, 2]}, "n_input must stand in .sample. to be drawn, got uniform in .vary."),
        ("3", "n_input must be a list or a table such as"),
    ],
)
def test_an_axis_that_is_none_is_refused_by_its_key(entry: object, message: str) -> None:
    with pytest.raises(NpuSimError, match=message):
        read_axis("n_input", entry, BASE)


def test_an_axis_that_is_drawn_has_an_interval_or_values() -> None:
    drawn = {
        "uniform": ("n_input", {"uniform": [3, 5]}), "log": ("call_overhead", {"log": [1, 100]}),
        "values": ("n_input", [7, 9]), "range": ("call_overhead", {"range": [2, 4]}),
        "grid": ("n_input", {"range": [1, 9], "n": 3}),
    }  # fmt: skip
    axes = {name: read_axis(key, entry, BASE, drawn=True) for name, (key, entry) in drawn.items()}
    assert axes["uniform"] == Axis(path="workload.n_input", interval=(3, 5), whole=True)
    assert axes["log"] == Axis(
        path="npu.per_inference_overhead_us", interval=(1, 100), logarithmic=True
    )
    assert axes["range"] == Axis(path="npu.per_inference_overhead_us", interval=(2, 4))
    assert axes["grid"].values == (1, 5, 9)
    assert axes["values"].values == (7, 9)


def test_draws_are_even_in_the_number_or_its_logarithm() -> None:
    for seed in range(5):
        again = np.random.default_rng(seed)
        u = again.uniform(np.log(2.0), np.log(50.0))
        axis = Axis(path="x", interval=(2.0, 50.0), logarithmic=True)
        assert axis.draw(np.random.default_rng(seed)) == pytest.approx(math.exp(u))
        plain = np.random.default_rng(seed).uniform(2.0, 50.0)
        assert Axis(path="x", interval=(2.0, 50.0)).draw(np.random.default_rng(seed)) == plain
        whole = Axis(path="x", interval=(2.0, 50.0), whole=True).draw(np.random.default_rng(seed))
        assert (whole, type(whole)) == (round(plain), int)
        one = Axis(path="x", values=(5, 6, 7)).draw(np.random.default_rng(seed))
        assert one == (5, 6, 7)[int(np.random.default_rng(seed).integers(3))]


# -- all points ------------------------------------------------------------------------------------

SPEC = """
model = "tiny"
npu = "teaching-npu"
[vary]
n_input = [4, 5]
weight_bits = [4, 8, 16]
[sample]
n = 2
seed = 7
call_overhead = { uniform = [1, 3] }
batch = [1, 2]
"""


MANY = "{ range = [1, 5000], n = 5000 }"


def test_points_are_numbered_grid_first_and_drawn_by_seed_and_number() -> None:
    spec = spec_from(SPEC)
    assert (spec.n_points, spec.n_draws, spec.seed, spec.fidelity) == (12, 2, 7, "roofline")
    assert spec.paths == (
        "workload.n_input", "precision.weight_bits", "npu.per_inference_overhead_us",
        "workload.batch",
    )  # fmt: skip
    for index in range(12):
        rng = np.random.default_rng([7, index])
        combination = index // 2
        assert list(spec.point(index).items()) == [
            ("workload.n_input", (4, 5)[combination // 3]),
            ("precision.weight_bits", (4, 8, 16)[combination % 3]),
            ("npu.per_inference_overhead_us", rng.uniform(1, 3)),
            ("workload.batch", (1, 2)[rng.integers(2)]),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sample]\nn = 0\nbatch = [1]", "sample.n must be a whole number from 1 .*, got 0"),
        ("[sample]\nn = true\nbatch = [1]", "sample.n must be a whole number from 1 .*, got T"),
        ("[sample]\nseed = -1\nbatch = [1]", "sample.seed must be a whole number from 0"),
        ("[sample]\nseed = 1.0\nbatch = [1]", "sample.seed must be a whole number"),
        ("[sample]\nn = 2\n[vary]\nbatch = [1]", "sample.n must come with a field to draw"),
        ("[sample]\nbatch = [1]\n[vary]\nbatch = [1]", "each field must be varied once"),
        ("[vary]\nbatch = [1]\n'workload.batch' = [1]", "varied once, got a field and its alias"),
        ("vary = 3", "vary must be a table, got 3"),
        (f"[vary]\nn_input = {MANY}\nn_output = {MANY}", "10,000,000 points, got 25,000,000"),
        ("[vary]\n[sample]", "must vary something"),
        ("[workload]\nn_inputs = 3\n[vary]\nbatch = [1]", r"key of \[workload\] must be one of"),
        ("[workload]\nn_input = 0\n[vary]\nbatch = [1]", "workload.n_input must be a whole number"),
    ],
)  # fmt: skip
def test_a_wrong_sweep_names_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(NpuSimError, match=message):
        spec_from(f'model = "tiny"\n{text}\n')


def test_the_least_that_a_sweep_may_say() -> None:
    for text in ("[vary]\nbatch = [1]", "[sample]\nseed = 0\nbatch = [1]"):
        spec = spec_from(f'model = "tiny"\nfidelity = "tile"\n{text}\n')
        assert (spec.n_points, spec.fidelity, spec.seed) == (1, "tile", 0)
    assert spec.base.npu.name == "hexagon-x-elite"
    square = "n_output = { range = [1, 3162], n = 3162 }\nn_input = { range = [1, 3162], n = 3162 }"
    assert spec_from(f'model = "tiny"\n[vary]\n{square}\n').n_points == 3162**2


def test_a_file_is_named_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('model = "tiny"\n[vary]\nwarp = [1]\n')
    with pytest.raises(SweepError, match=r"s\.toml: field must be one of"):
        read_spec(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SweepError, match="must be text in UTF-8"):
        read_spec(path)
    with pytest.raises(SweepError, match="must be text in UTF-8"):
        read_tables(path)
    path.write_text("model")
    with pytest.raises(SweepError, match="must be a TOML file of a scenario, got no TOML"):
        read_tables(path)
    path.write_text('model = "tiny"\n[vary]\n')
    with pytest.raises(SweepError, match=r"key of .*s\.toml must be one of model"):
        read_tables(path)
    path.write_text('model = "tiny"\nnpu = "teaching-npu"\n')
    assert base_scenario(read_tables(path)) == BASE
    with pytest.raises(SweepError, match="there is no such file"):
        read_tables(tmp_path / "absent.toml")


# -- fields of a scenario --------------------------------------------------------------------------


def stacks(scenario: Scenario) -> dict[str, StackConfig]:
    (found,) = (v for v in vars_of(scenario.description) if hasattr(v, "stacks"))
    return found.stacks


def vars_of(thing: object) -> list[object]:
    return [getattr(thing, name) for name in thing.__dataclass_fields__]


def test_every_part_can_be_changed_by_its_path() -> None:
    changed = BASE.with_fields({
        "npu.dma.setup_cycles": 3, "model.decoder.n_layers": 5, "model.decoder.d_ff": 40,
        "model.encoder.gated": True, "model.vocab_size": 99, "model.lm_head": "all",
        "precision.kv_bits": 8, "workload.n_output": 7, "drafter.beam_width": 2,
    })  # fmt: skip
    assert changed.npu == BASE.npu.with_value("dma.setup_cycles", 3)
    assert changed.precision == Precision(kv_bits=8)
    assert changed.workload == Workload(n_output=7)
    assert changed.drafter == replace(BASE.drafter, beam_width=2)
    decoder, encoder = stacks(changed)["decoder"], stacks(changed)["encoder"]
    assert (decoder.n_layers, decoder.d_ff, decoder.gated) == (5, 40, False)
    assert decoder.windowed_layers == (False,) * 5
    assert (encoder.n_layers, encoder.d_ff, encoder.gated) == (2, 32, True)
    paths = changed.paths()
    assert (paths["model.vocab_size"], paths["model.lm_head"]) == (99, "all")
    same = {p for p, v in BASE.paths().items() if v == paths[p]}
    assert paths["model.encoder_vocab_size"] == 99  # the embedding is shared
    assert len(paths) - len(same) == 10
    assert BASE.with_fields({}) == BASE


def test_paths_list_what_can_be_changed() -> None:
    paths = BASE.paths()
    assert {p.split(".")[0] for p in paths} == {"npu", "model", "precision", "workload", "drafter"}
    assert {p for p in paths if p.startswith("model.decoder")} == {
        f"model.decoder.{field.name}"
        for field in fields(StackConfig)
        if field.name != "windowed_layers"  # follows from the window and the layers
    }
    assert (paths["workload.n_input"], paths["npu.clock_hz"]) == (64, 10**9)


def test_fewer_layers_keep_the_first_windows_and_more_repeat_them() -> None:
    (field,) = [n for n in BASE.description.__dataclass_fields__
                if hasattr(getattr(BASE.description, n), "stacks")]  # fmt: skip
    config = getattr(BASE.description, field)
    decoder = replace(config.decoder, window=4, windowed_layers=(True, False))
    windowed = replace(
        BASE, description=replace(BASE.description, **{field: replace(config, decoder=decoder)})
    )  # fmt: skip
    for n, expected in ((1, (True,)), (2, (True, False)), (3, (True, False, True))):
        found = stacks(windowed.with_fields({"model.decoder.n_layers": n}))["decoder"]
        assert found.windowed_layers == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warp": 1}, "field must be one of"),
        ({"model.decoder.n_layers": 0}, "n_layers must be a whole number from 1 to 1,024, got 0"),
        ({"model.decoder.d_ff": 1.5}, "d_ff must be a whole number.*, got 1.5"),
        ({"model.decoder.n_heads": 3}, "model.decoder.n_heads must fit together: n_heads must be"),
        ({"workload.batch": 0}, "workload.batch must be a whole number from 1 .*, got 0"),
        ({"workload.runtime": "x"}, "workload.runtime must be one of native, geniex"),
        ({"workload.static_context": 0}, "workload.context must be a whole number"),
        ({"precision.kv_bits": 5}, "kv_bits must be one of 4, 8, 16"),
    ],
)
def test_a_change_that_cannot_be_names_its_field(changes: dict, message: str) -> None:
    with pytest.raises(NpuSimError, match=message):
        BASE.with_fields(changes)


def test_short_names_are_completed() -> None:
    assert full_path("workload.batch", BASE) == "workload.batch"
    assert full_path("dma.setup_cycles", BASE) == "npu.dma.setup_cycles"
    assert {name: full_path(name, BASE) for name in ALIASES} == dict(ALIASES)
    with pytest.raises(WorkloadError, match="field must be one of dma_bandwidth"):
        full_path("warp", BASE)


# -- running ---------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch) -> list[tuple[int, int]]:
    """Replace the simulation; remember which points were asked for together."""
    asked: list[tuple[int, int]] = []

    def points(spec, start, stop):
        asked.append((start, stop))
        for index in range(start, stop):
            changes = spec.point(index)
            n = changes["workload.n_input"]
            if n == 5:
                yield index, changes, None, "five, is odd"
            else:
                numbers = (index / 3, float("nan"), np.float64(2.5), 1e12, 123456789012.0, 0.5,
                           100.0, 20.0, 120.0, -1.5)  # fmt: skip
                yield index, changes, dict(zip(sweep.METRICS, numbers, strict=True)), ""

    monkeypatch.setattr(sweep, "evaluate_points", points)
    return asked


SMALL = (
    'model = "tiny"\nnpu = "teaching-npu"\n[vary]\nn_input = [4, 5]\ncall_overhead = [0.1, 0.25]\n'
)


def test_a_result_line_by_line(tmp_path: Path, measured) -> None:
    seen = []
    n = run_sweep(spec_from(SMALL), tmp_path / "a.csv", progress=lambda *p: seen.append(p), chunk=3)
    assert n == 4
    assert (tmp_path / "a.csv").read_bytes().decode() == (
        "point,workload.n_input,npu.per_inference_overhead_us,"
        "ttft_ms,tpot_ms,decode_tok_per_s,latency_ms,dram_bytes,energy_mj,"
        "stored_weight_bytes,stored_kv_bytes,stored_bytes,budget_left_ms,reason\n"
        "0,4,0.1,0,,2.5,1e+12,1.23456789e+11,0.5,100,20,120,-1.5,\n"
        "1,4,0.25,0.333333333,,2.5,1e+12,1.23456789e+11,0.5,100,20,120,-1.5,\n"
        '2,5,0.1,,,,,,,,,,,"five, is odd"\n'
        '3,5,0.25,,,,,,,,,,,"five, is odd"\n'
    )
    assert measured == [(0, 3), (3, 4)]
    assert seen == [(0, 4), (3, 4), (4, 4)]
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.json"}
    sidecar = json.loads((tmp_path / "a.json").read_text())
    assert {k: sidecar[k] for k in ("simulated", "fidelity", "n_points", "varied", "spec")} == {
        "simulated": True, "fidelity": "roofline", "n_points": 4, "spec": SMALL,
        "varied": ["workload.n_input", "npu.per_inference_overhead_us"],
    }  # fmt: skip
    assert sidecar["npu"]["name"] == "teaching-npu"
    assert sidecar["npu"]["values"] == BASE.npu.values()
    assert sidecar["npu"]["sources"] == dict(BASE.npu.sources)
    assert sidecar["metrics"] == list(sweep.METRICS)


def test_an_executor_is_given_the_same_chunks(tmp_path: Path, measured) -> None:
    with ThreadPoolExecutor(2) as pool:
        run_sweep(spec_from(SMALL), tmp_path / "a.csv", pool, chunk=3)
    assert sorted(measured) == [(0, 3), (3, 4)]
    measured.clear()
    run_sweep(spec_from(SMALL), tmp_path / "b.csv", chunk=3)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_chunk_is_a_twentieth_but_not_below_500_and_not_above_20000(
    tmp_path: Path, monkeypatch
) -> None:
    starts: list[int] = []
    monkeypatch.setattr(
        sweep, "evaluate_chunk", lambda text, start, stop, inputs: starts.append(start) or ""
    )
    for n, chunk in ((400, 500), (2000, 500), (30_000, 1500), (900_000, 20_000)):
        starts.clear()
        spec = spec_from(f'model = "tiny"\n[vary]\nn_input = {{ range = [1, {n}], n = {n} }}\n')
        run_sweep(spec, tmp_path / "a.csv")
        assert starts == list(range(0, n, chunk))
    with pytest.raises(SweepError, match="chunk must be a whole number from 1"):
        run_sweep(spec, tmp_path / "a.csv", chunk=0)


class Waiting(Executor):
    """Hands out futures; the first one fails, and nobody ever starts the others."""

    def __init__(self) -> None:
        self.futures: list[Future] = []

    def submit(self, *call):
        future: Future = Future()
        self.futures.append(future)
        if len(self.futures) == 1:
            future.set_exception(SweepError("broken"))
        return future


def test_what_waits_is_cancelled_when_a_chunk_fails(tmp_path: Path, measured) -> None:
    executor = Waiting()
    with pytest.raises(SweepError, match="broken"):
        run_sweep(spec_from(SMALL), tmp_path / "a.csv", executor, chunk=1)
    assert len(executor.futures) == 4
    assert [future.cancelled() for future in executor.futures] == [False, True, True, True]


def test_parts_of_another_version_chunk_or_specification_are_refused(
    tmp_path: Path, measured, monkeypatch
) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    out, spec = tmp_path / "a.csv", spec_from(SMALL)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(spec, out, progress=stop, chunk=1)
    assert (out.with_name("a.csv.parts") / "000000000.csv").exists()
    monkeypatch.setattr(parts, "__version__", "99.9")
    with pytest.raises(SweepError, match="must hold parts of this sweep"):
        run_sweep(spec, out, chunk=1)
    monkeypatch.undo()
    for other, chunk in ((spec_from(SMALL + "\n"), 1), (spec, 2)):
        with pytest.raises(SweepError, match="must hold parts of this sweep"):
            run_sweep(other, out, chunk=chunk)


def test_what_is_finished_is_not_measured_again(tmp_path: Path, measured) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    out, spec = tmp_path / "a.csv", spec_from(SMALL)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(spec, out, progress=stop, chunk=1)
    measured.clear()
    seen = []
    run_sweep(spec, out, progress=lambda *p: seen.append(p), chunk=1)
    assert measured == [(2, 3), (3, 4)]
    assert seen == [(2, 4), (3, 4), (4, 4)]
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(int(b["point"]) - int(a["point"]) == 1 for a, b in pairwise(rows))
    assert len(rows) == 4


def test_a_value_that_an_npu_cannot_have_is_a_reason_at_every_input_length() -> None:
    rows = sweep.sweep(
        'model = "mu-nano"\n[vary]\n"npu.dma.bytes_per_s" = [1e9, 0]\nn_input = [1, 8]'
    )
    assert ["latency_ms" in row for row in rows] == [True, True, False, False]
    assert len({row["reason"] for row in rows}) == 2
    assert "dma.bytes_per_s" in rows[2]["reason"]
