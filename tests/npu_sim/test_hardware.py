import re
from pathlib import Path

import pytest

from npu_sim.errors import HardwareError
from npu_sim.hardware import NPUS, npu

SOURCES = Path(__file__).parents[2] / "docs" / "hardware_sources.md"
STATUS_WORDS = ("public: ", "third party: ", "derived: ", "assumed: ")


@pytest.mark.parametrize("name", NPUS)
def test_every_number_of_a_preset_has_a_source_with_a_status_word(name):
    chip = npu(name)
    assert set(chip.sources) == set(chip.numbers())
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
        code[name] = [(path, str(v), chip.sources[path]) for path, v in chip.numbers().items()]
    assert page == code


def test_hexagon_has_the_published_45_tops():
    assert npu("hexagon-x-elite").int8_tops == pytest.approx(45, rel=1e-6)


def test_hexagon_bandwidth_lies_in_the_range_measured_by_third_parties():
    chip = npu("hexagon-x-elite")
    assert 37e9 <= chip.memory_bytes_per_s <= 55e9
    assert chip.memory_bytes_per_s < chip.dram.bytes_per_s


def test_the_rate_depends_on_both_widths_and_int4_multiplies_like_int8():
    matrix = npu("teaching-npu").matrix
    rates = [matrix.macs_per_cycle(w, a) for w, a in [(8, 8), (4, 8), (8, 16), (4, 16), (16, 16)]]
    assert rates == [1024, 1024, 512, 512, 256]
    assert matrix.macs_per_cycle(16, 8) == 256


def test_narrow_elements_fill_more_lanes():
    vector = npu("teaching-npu").vector
    assert [vector.lanes(bits) for bits in (4, 8, 16, 32)] == [64, 64, 32, 16]


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
        ("clock_hz", -1, "clock_hz must be a whole number of at least 1, got -1"),
        ("matrix.rows", 0, r"matrix\.rows must be a whole number of at least 1, got 0"),
        ("sram.capacity_bytes", 1.5, "whole number of at least 1, got 1.5"),
        ("per_op_overhead_cycles", -1, "whole number of at least 0, got -1"),
        ("per_inference_overhead_us", -1.0, "must be at least 0, got -1.0"),
        ("per_inference_overhead_us", float("nan"), "must be at least 0, got nan"),
        ("dma.channels", 4, "hardware field must be one of clock_hz, .*dma.bytes_per_s"),
    ],
)
def test_impossible_hardware_is_refused_by_name(path, value, message):
    with pytest.raises(HardwareError, match=message):
        npu("teaching-npu").with_value(path, value)


def test_an_unknown_npu_lists_those_that_exist():
    with pytest.raises(HardwareError, match="NPU must be one of hexagon-x-elite, teaching-npu"):
        npu("tpu")
