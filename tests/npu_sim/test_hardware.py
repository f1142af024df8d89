import re
from pathlib import Path

import pytest

from mu_ref.presets import tiny
from npu_sim.errors import HardwareError, UnsupportedError
from npu_sim.hardware.presets import NPUS, npu, npu_to_toml, read_npu, write_npu
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program

SOURCES = Path(__file__).parents[2] / "docs" / "hardware_sources.md"
STATUS_WORDS = ("public: ", "third party: ", "derived: ", "assumed: ", "fitted: ")


@pytest.mark.parametrize("name", NPUS)
def test_every_number_of_a_preset_has_a_source_with_a_status_word(name):
    chip = npu(name)
    assert set(chip.sources) == set(chip.values())
    assert all(source.startswith(STATUS_WORDS) for source in chip.sources.values())


def test_the_page_of_sources_and_the_code_agree():
    page: dict[str, list[tuple[str, str, str]]] = {}
    section = ""
    for line in SOURCES.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        row = re.fullmatch(r"\| `(\S+)` \| (\S+) \| (.+) \|", line)
        if row:
            page.setdefault(section, []).append(row.groups())
    code = {}
    for name in NPUS:
        chip = npu(name)
        code[name] = [
            (path, "none" if v == "" else str(v), chip.sources[path])
            for path, v in chip.values().items()
        ]
    assert page == code


def test_hexagon_has_the_published_45_tops():
    assert npu("hexagon-x-elite").int8_tops == pytest.approx(45, rel=1e-6)


def test_hexagon_bandwidth_lies_in_the_range_measured_by_third_parties():
    chip = npu("hexagon-x-elite")
    assert 37e9 <= chip.memory_bytes_per_s <= 63e9  # SM8550 (v73) to SM8750 (v79)
    assert chip.memory_bytes_per_s < chip.dram.bytes_per_s


def test_the_rate_depends_on_both_widths_and_int4_multiplies_like_int8():
    matrix = npu("teaching-npu").matrix
    rates = [matrix.macs_per_cycle(w, a) for w, a in [(8, 8), (4, 8), (8, 16), (4, 16), (16, 16)]]
    assert rates == [1024, 1024, 512, 512, 256]
    assert matrix.macs_per_cycle(16, 8) == 256


def test_changing_one_number_changes_its_source_and_nothing_else():
    chip = npu("teaching-npu")
    faster = chip.with_value("dma.bytes_per_s", 15_000_000_000)
    assert faster.memory_bytes_per_s == 15_000_000_000
    assert faster.sources["dma.bytes_per_s"] == "assumed: a what-if"
    assert chip.memory_bytes_per_s == 10_000_000_000
    same = faster.with_value("dma.bytes_per_s", 10_000_000_000)
    assert same == chip


def test_dram_limits_a_dma_that_is_faster_than_it():
    assert (
        npu("teaching-npu").with_value("dma.bytes_per_s", 10**12).memory_bytes_per_s == 2 * 10**10
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("clock_hz", -1, "clock_hz must be a whole number from 1 to 100,000,000,000, got -1"),
        ("matrix.rows", 0, "matrix.rows must be a whole number from 1 to 4,096, got 0"),
        ("sram.capacity_bytes", 1.5, "whole number from 1 to .*, got 1.5"),
        ("per_op_overhead_cycles", -1, "whole number from 0 to .*, got -1"),
        ("per_inference_overhead_us", -1.0, "must be a number from 0 to .*, got -1.0"),
        ("per_inference_overhead_us", float("nan"), "must be a number from 0 to .*, got nan"),
        ("dma.channels", 4, "hardware field must be one of clock_hz, .*dma.bytes_per_s"),
    ],
)
def test_impossible_hardware_is_refused_by_name(path, value, message):
    with pytest.raises(HardwareError, match=message):
        npu("teaching-npu").with_value(path, value)


def test_an_unknown_npu_lists_those_that_exist():
    with pytest.raises(
        HardwareError, match=r"NPU must be one of hexagon-x-elite, .*, teaching-npu; got 'tpu'"
    ):
        npu("tpu")


def test_a_file_written_is_the_npu_read(tmp_path):
    for name in NPUS:
        write_npu(npu(name), tmp_path / "chip.toml")
        again = npu(str(tmp_path / "chip.toml"))
        assert (again, dict(again.sources)) == (npu(name), dict(npu(name).sources))


def toml(**changes):
    """The text of the teaching NPU with one line replaced, or left out if None."""
    lines = npu_to_toml(npu("teaching-npu")).splitlines()
    for key, new in changes.items():
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{key} =")]
        lines[at] = "" if new is None else f"{key} = {new}"
    return "\n".join(lines)


def test_units_are_converted_and_a_bare_number_is_assumed(tmp_path):
    text = toml(
        clock_hz='{ value = 1.5, unit = "GHz" }',
        setup_cycles="7",
        transfer_bytes='{ value = 8, unit = "KiB", source = "public: a sheet" }',
        per_inference_overhead_us='{ value = 0.25, unit = "ms" }',
    )
    (tmp_path / "chip.toml").write_text(text)
    chip = read_npu(tmp_path / "chip.toml")
    assert (chip.clock_hz, chip.dma.setup_cycles) == (1_500_000_000, 7)
    assert (chip.dma.transfer_bytes, chip.per_inference_overhead_us) == (8192, 250)
    assert chip.sources["dma.setup_cycles"] == "assumed: no source given"
    assert chip.sources["dma.transfer_bytes"] == "public: a sheet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clock_hz": None}, "must give clock_hz; 1 missing"),
        ({"clock_hz": "-1"}, "clock_hz must be a whole number from 1 to .*, got -1"),
        ({"clock_hz": '{ value = 1, unit = "MB" }'}, "unit of clock_hz must be one of Hz, kHz"),
        ({"rows": '{ value = 1, unit = "Hz" }'}, "unit of matrix.rows must be one of none"),
        ({"clock_hz": '{ value = "fast", unit = "GHz" }'}, "clock_hz must .*, got 'fast'"),
        ({"clock_hz": '{ amount = 1 }'}, "clock_hz must have value, source and perhaps unit"),
        ({"clock_hz": "{ value = 1, sourc = 'x' }"}, "clock_hz must have value, source and"),
        ({"clock_hz": "{ value = 1, source = 3 }"}, "source of clock_hz must be a text, got 3"),
        ({"clock_hz": "[1]"}, "clock_hz must be a whole number"),
        ({"name": "3"}, "must give name as a text, got 3"),
        ({"title": "'x'\nspeed = 3"}, "every key must be a hardware field, got speed"),
        ({"title": "'x'\nspeed"}, "got no TOML"),
        ({"dataflow": "'diagonal'"}, "dataflow must be one of blocks, os, ws, is"),
        ({"keeps_between_calls": "1.5"}, "keeps_between_calls must be one of True, False"),
        ({"keeps_between_calls": "1"}, "keeps_between_calls must be one of True, False"),
        ({"keeps_between_calls": "0.0"}, "keeps_between_calls must be one of True, False"),
        ({"w8a8_efficiency": "1.2"}, "w8a8_efficiency must be a number from 1e-06 to 1, got 1.2"),
        ({"unsupported_ops": "[3]"}, "unsupported_ops must be names separated by blanks"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_the_key(tmp_path, changes, message):
    (tmp_path / "chip.toml").write_text(toml(**changes))
    with pytest.raises(HardwareError, match=message):
        npu(str(tmp_path / "chip.toml"))


def test_a_missing_file_and_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(HardwareError, match="there is no such file"):
        npu("nowhere.toml")
    (tmp_path / "chip.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HardwareError, match="must be text in UTF-8"):
        npu(str(tmp_path / "chip.toml"))


def test_an_operation_or_width_without_an_engine_is_refused_by_site():
    program = record_request(tiny(), 3, 1, Precision())
    with pytest.raises(
        UnsupportedError, match=r"self_attention.scores .* got w16a16; use narrower"
    ):
        simulate_program(program, npu("ethos-u85"))
    chip = npu("teaching-npu").with_value("unsupported_ops", "softmax keep_slots")
    with pytest.raises(UnsupportedError, match=r"encoder.0.self_attention.softmax must be"):
        simulate_program(program, chip)
    chip = npu("teaching-npu").with_value("matrix.w8a16_macs_per_cycle", 0)
    with pytest.raises(UnsupportedError, match=r"attention.q must multiply .*w8a8.*; use other"):
        simulate_program(program, chip)


def test_another_runtime_costs_more_per_call():
    chip = npu("teaching-npu")
    assert chip.call_overhead_cycles("native") == 100_000
    assert chip.call_overhead_cycles("geniex") == 1_100_000
    with pytest.raises(HardwareError, match="runtime must be one of native, geniex"):
        chip.call_overhead_cycles("tensorrt")
