"""Units, rates, overheads, energies and limits of the hardware, with numbers worked out by hand."""

import json
from dataclasses import replace

import pytest

from mu_ref.presets import tiny
from npu_sim.errors import CapacityError, HardwareError, UnsupportedError
from npu_sim.hardware.chip import SWITCHES
from npu_sim.hardware.fits import check_capacity, check_supported
from npu_sim.hardware.presets import NPUS, npu, npu_to_toml
from npu_sim.hardware.units import convert_unit
from npu_sim.program.precision import Precision
from npu_sim.program.program import Gemm, Op, Tensor
from npu_sim.program.request import record_request
from npu_sim.report.budget import Budget
from npu_sim.report.energy import energy_joules, mac_pj
from npu_sim.report.fidelity import simulate_program
from npu_sim.roofline.formula import Work, vector_cycles
from npu_sim.units import (
    GB,
    GIB,
    KIB,
    MB,
    MIB,
    MILLION,
    ceil_div,
    cycles_from_us,
    format_bytes,
    format_count,
    format_ms,
    ms_from_cycles,
)

CHIP = npu("teaching-npu")
FRACTIONS = ("_us", "_pj", "_watts", "special_function_cycles")  # all others count whole things

# -- units -----------------------------------------------------------------------------------------


def test_prefixes_count_in_1024_on_the_chip_and_in_1000_elsewhere() -> None:
    assert (KIB, MIB, GIB) == (1024, 1_048_576, 1_073_741_824)
    assert (MB, GB, MILLION) == (10**6, 10**9, 10**6)


def test_times_and_cycles_at_odd_clocks() -> None:
    assert ms_from_cycles(1, 1000) == 1.0
    assert ms_from_cycles(705, 1_410_000_000) == pytest.approx(0.0005)
    assert cycles_from_us(0.4, 1_000_000) == 0
    assert cycles_from_us(0.6, 1_000_000) == 1  # the nearest, not the one below
    assert cycles_from_us(2.5, 1_410_000_000) == 3525
    assert ceil_div(7, 7) == ceil_div(1, 7) == 1


@pytest.mark.parametrize(
    ("amount", "count", "n_bytes"),
    [
        (0, "0", "0 B"), (1.5, "1.50", "1.50 B"), (9.994, "9.99", "9.99 B"),
        (9.996, "10.0", "10.0 B"), (99.94, "99.9", "99.9 B"), (99.96, "100", "100 B"),
        (999, "999", "999 B"), (1000, "1.00 k", "1.00 kB"), (999_499, "999 k", "999 kB"),
        (10**6, "1.00 M", "1.00 MB"), (10**9 - 1, "1000 M", "1000 MB"),
        (10**9, "1.00 G", "1.00 GB"),
        (10**12, "1.00 T", "1.00 TB"), (3 * 10**15, "3000 T", "3000 TB"),
    ],
)  # fmt: skip
def test_amounts_have_three_digits_and_the_largest_prefix(amount, count, n_bytes) -> None:
    assert (format_count(amount), format_bytes(amount)) == (count, n_bytes)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0.00 ms"), (9.994, "9.99 ms"), (9.995, "10.0 ms"), (99.94, "99.9 ms"),
        (99.95, "100 ms"), (-9.995, "-10.0 ms"), (-99.95, "-100 ms"), (1234.4, "1234 ms"),
    ],
)  # fmt: skip
def test_milliseconds_have_three_digits(ms: float, text: str) -> None:
    assert format_ms(ms) == text


# -- engines ---------------------------------------------------------------------------------------


def test_each_pair_of_widths_has_a_rate_and_a_share_of_its_own() -> None:
    names = ("w4a8", "w4a16", "w8a8", "w8a16", "w16a16")
    chip = CHIP.with_changes(
        {f"matrix.{n}_macs_per_cycle": i for i, n in enumerate(names, start=1)}
        | {f"matrix.{n}_efficiency": i / 10 for i, n in enumerate(names, start=1)}
        | {"matrix.attention_efficiency": 0.9}
    )  # fmt: skip
    widths = {(4, 8): 1, (4, 16): 2, (8, 8): 3, (5, 8): 3, (8, 9): 4, (8, 16): 4, (16, 8): 5,
              (9, 8): 5, (16, 16): 5}  # fmt: skip
    for pair, number in widths.items():
        assert chip.matrix.macs_per_cycle(*pair) == number
        assert chip.matrix.efficiency(*pair, attention=False) == number / 10
        assert chip.matrix.efficiency(*pair, attention=True) == 0.9


def test_lanes_are_counted_in_stored_bytes_and_are_never_none() -> None:
    """640 elements of one simple operation each, on vectors of 64 bytes and of 3."""
    free = dict.fromkeys(Work._fields, 0) | {"elements": 640, "simple_operations": 1}
    cycles = {
        width: [
            vector_cycles(Work(**free | {"element_bytes": n}), {
                "vector.width_bytes": width, "vector.efficiency": 1.0,
                "vector.special_function_cycles": 8,
            })
            for n in (1, 2, 4)
        ]
        for width in (64, 3)
    }  # fmt: skip
    assert cycles == {64: [10, 20, 40], 3: [214, 640, 640]}


def test_rates_and_overheads_of_a_chip() -> None:
    """1,024 MACs of two operations at 1 GHz; 100 us a call, 1 ms and 7 us a position for geniex."""
    chip = CHIP.with_changes({"geniex_overhead_us": 1000.0, "geniex_position_us": 7.0})
    assert chip.int8_tops == pytest.approx(2.048)
    assert chip.call_overhead_cycles("native") == 100_000
    assert chip.call_overhead_cycles("native", 50) == 100_000  # a host's work, not the NPU's
    assert chip.call_overhead_cycles("geniex") == 1_100_000
    assert chip.call_overhead_cycles("geniex", 50) == 1_450_000
    assert chip.with_value("clock_hz", 2 * 10**9).call_overhead_cycles("geniex", 50) == 2_900_000


def test_memory_is_as_fast_as_the_slower_of_its_two_ports() -> None:
    ports = {"dma.bytes_per_s": 30, "dram.bytes_per_s": 20}
    assert CHIP.with_changes(ports).memory_bytes_per_s == 20
    assert CHIP.with_changes({"dma.bytes_per_s": 10}).memory_bytes_per_s == 10


MAY_BE_ZERO = frozenset({
    "matrix.output_elements_per_s", "dma.cache_bytes_per_s",
    "per_op_overhead_cycles", "dma.setup_cycles", "matrix.w4a8_macs_per_cycle",
    "matrix.w4a16_macs_per_cycle", "matrix.w8a16_macs_per_cycle", "matrix.w16a16_macs_per_cycle",
})  # fmt: skip

# -- values by their paths -------------------------------------------------------------------------


def test_numbers_are_the_values_without_texts_and_switches() -> None:
    values = CHIP.values()
    assert list(values)[:2] == ["clock_hz", "matrix.rows"]
    assert {"name", "title", "sources"}.isdisjoint(values)
    left_out = values.keys() - CHIP.numbers().keys()
    assert left_out == SWITCHES | {"matrix.dataflow", "unsupported_ops"}
    assert list(CHIP.numbers()) == [path for path in values if path not in left_out]


def test_zero_is_allowed_where_it_means_none_and_refused_elsewhere() -> None:
    whole = {
        p for p, v in CHIP.numbers().items() if not p.endswith(("efficiency", "_share", *FRACTIONS))
    }
    assert whole >= MAY_BE_ZERO
    for path in sorted(whole):
        if path in MAY_BE_ZERO:
            assert CHIP.with_value(path, 0).values()[path] == 0
        else:
            with pytest.raises(HardwareError, match=f"{path} must be a whole number from 1 to"):
                CHIP.with_value(path, 0)
        for wrong in (True, "5", -1):
            with pytest.raises(HardwareError, match=path):
                CHIP.with_value(path, wrong)


@pytest.mark.parametrize("path", [p for p in CHIP.values() if p.endswith("efficiency")])
def test_a_share_lies_above_zero_and_up_to_one(path: str) -> None:
    assert CHIP.with_value(path, 1).values()[path] == 1
    assert CHIP.with_value(path, 1e-6).values()[path] == 1e-6
    for wrong in (0, 0.0, 1.0001, float("nan"), True, "1"):
        with pytest.raises(HardwareError, match=f"{path} must be a number from 1e-06 to 1, got"):
            CHIP.with_value(path, wrong)


@pytest.mark.parametrize("path", [p for p in CHIP.values() if p.endswith(FRACTIONS)])
def test_a_time_or_a_price_is_at_least_zero(path: str) -> None:
    assert CHIP.with_value(path, 0).values()[path] == 0
    for wrong in (-1e-9, float("inf"), float("nan"), False, "0"):
        with pytest.raises(HardwareError, match=f"{path} must be a number from 0 to"):
            CHIP.with_value(path, wrong)


def test_changed_values_carry_their_source_and_the_rest_keeps_its_own() -> None:
    changed = CHIP.with_changes({"dma.setup_cycles": 1, "clock_hz": 2}, "public: a sheet")
    assert (changed.dma.setup_cycles, changed.clock_hz) == (1, 2)
    for path, source in changed.sources.items():
        own = path in ("dma.setup_cycles", "clock_hz")
        assert source == ("public: a sheet" if own else CHIP.sources[path])
    assert CHIP.with_changes({"clock_hz": 2}).sources["clock_hz"] == "assumed: a what-if"
    assert (changed.name, changed.title) == (CHIP.name, CHIP.title)
    one = CHIP.with_value("clock_hz", 2, "public: a sheet")
    assert (one.clock_hz, one.sources["clock_hz"]) == (2, "public: a sheet")


# -- units in files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "unit", "expected"),
    [
        ("clock_hz", 3, "Hz", 3), ("clock_hz", 3, "kHz", 3000), ("clock_hz", 1.5, "MHz", 1_500_000),
        ("clock_hz", 1.41, "GHz", 1_410_000_000), ("dma.bytes_per_s", 3, "B/s", 3),
        ("dma.bytes_per_s", 3, "kB/s", 3000), ("dma.bytes_per_s", 3, "MB/s", 3 * 10**6),
        ("dma.bytes_per_s", 46, "GB/s", 46 * 10**9), ("dma.bytes_per_s", 2, "TB/s", 2 * 10**12),
        ("sram.capacity_bytes", 5, "B", 5), ("sram.capacity_bytes", 5, "kB", 5000),
        ("sram.capacity_bytes", 5, "MB", 5 * 10**6), ("sram.capacity_bytes", 5, "GB", 5 * 10**9),
        ("sram.capacity_bytes", 5, "KiB", 5120), ("sram.capacity_bytes", 8, "MiB", 8 * 2**20),
        ("dram.capacity_bytes", 2, "GiB", 2**31), ("dma.setup_cycles", 7, "cycles", 7),
        ("per_inference_overhead_us", 7, "us", 7), ("per_inference_overhead_us", 7, "ms", 7000),
        ("per_inference_overhead_us", 2, "s", 2_000_000), ("energy.per_dram_byte_pj", 7, "pJ", 7),
        ("energy.per_dram_byte_pj", 7, "nJ", 7000), ("energy.idle_watts", 7, "W", 7),
        ("energy.idle_watts", 500, "mW", 0.5),
    ],
)  # fmt: skip
def test_every_unit_by_hand(path, value, unit, expected) -> None:
    found = convert_unit(path, value, unit, "x.toml")
    assert found == pytest.approx(expected)
    assert isinstance(found, int) == (not path.endswith(("_us", "_pj", "_watts")) or unit != "mW")


@pytest.mark.parametrize("hundredths", [107, 201, 209, 403, 57, 999])
def test_a_unit_s_multiple_is_whole_though_binary_fractions_are_not(hundredths: int) -> None:
    for path, unit, each in (("clock_hz", "GHz", 10**9), ("dma.bytes_per_s", "GB/s", 10**9)):
        found = convert_unit(path, hundredths / 100, unit, "x")
        assert (found, type(found)) == (hundredths * each // 100, int)


def test_a_fraction_of_a_byte_stays_a_fraction_and_is_refused_later() -> None:
    assert convert_unit("sram.capacity_bytes", 0.3, "B", "x") == 0.3
    assert convert_unit("sram.capacity_bytes", 0.5, "KiB", "x") == 512
    for wrong in (True, "1", None, float("inf"), float("nan")):
        with pytest.raises(HardwareError, match="x: clock_hz must be a number"):
            convert_unit("clock_hz", wrong, "Hz", "x")
    with pytest.raises(HardwareError, match="must be one of Hz, kHz, MHz, GHz; got 'W'"):
        convert_unit("clock_hz", 1, "W", "x")


def test_a_chip_as_a_file_line_by_line() -> None:
    odd = replace(CHIP, title='a "quoted" \\ name').with_changes(
        {"clock_hz": 1_234_567, "dma.runs_ahead": False, "energy.idle_watts": 0.25}
    )
    lines = npu_to_toml(odd).splitlines()
    assert lines[:3] == [
        'name = "teaching-npu"', 'title = "a \\"quoted\\" \\\\ name"',
        'clock_hz = { value = 1_234_567, source = "assumed: a what-if" }',
    ]  # fmt: skip
    assert [line for line in lines if line.startswith("[")] == [
        "[matrix]", "[vector]", "[dma]", "[sram]", "[dram]", "[energy]",
    ]  # fmt: skip
    shown = {"keeps_between_calls": "true", "runs_ahead": "false", "dataflow": '"os"',
             "idle_watts": "0.25"}  # fmt: skip
    for name, value in shown.items():
        assert sum(line.startswith(f"{name} = {{ value = {value}, source") for line in lines) == 1


def test_every_preset_is_named_by_its_file() -> None:
    assert [npu(name).name for name in NPUS] == list(NPUS)


# -- what fits -------------------------------------------------------------------------------------


def test_a_model_may_fill_the_dram_to_the_last_byte() -> None:
    program = record_request(tiny(), 6, 4, Precision())
    n_bytes = program.stored_weight_bytes + program.stored_kv_bytes
    assert n_bytes > program.stored_weight_bytes > 0
    check_capacity(program, CHIP.with_value("dram.capacity_bytes", n_bytes))
    with pytest.raises(CapacityError) as error:
        check_capacity(program, CHIP.with_value("dram.capacity_bytes", n_bytes - 1))
    weights, cache = program.stored_weight_bytes, program.stored_kv_bytes
    parts = f"{format_bytes(weights)} of weights and {format_bytes(cache)} of KV cache"
    assert f"got {parts}, 1 B too much" in str(error.value)


def test_a_rate_of_one_is_enough_and_of_none_is_not() -> None:
    program = record_request(tiny(), 3, 1, Precision())
    check_supported(program, CHIP.with_value("matrix.w8a16_macs_per_cycle", 1))
    with pytest.raises(UnsupportedError, match=r"supports \(w4a8, w4a16, w8a8, w16a16\)"):
        check_supported(program, CHIP.with_value("matrix.w8a16_macs_per_cycle", 0))
    check_supported(program, CHIP.with_value("unsupported_ops", "dropout keep_slots"))


# -- energy ----------------------------------------------------------------------------------------

PRICES = CHIP.with_changes(
    {
        "energy.per_mac_8x8_pj": 2.0, "energy.per_mac_8x16_pj": 3.0, "energy.per_mac_16x16_pj": 5.0,
        "energy.per_vector_operation_pj": 7.0, "energy.per_sram_byte_pj": 11.0,
        "energy.per_dram_byte_pj": 13.0, "energy.idle_watts": 0.5,
        "vector.special_function_cycles": 2.5,
    }
)  # fmt: skip


def tensor(role: str, *shape: int, bits: int = 16) -> Tensor:
    return Tensor(name="t", shape=shape, bits=bits, role=role)


LINEAR = Op(
    site="l", kind="linear", phase="encode",
    inputs=(tensor("activation", 3, 4), tensor("weight", 5, 4, bits=8)),
    output=tensor("activation", 3, 5), gemm=Gemm(count=1, m=3, n=5, k=4),
)  # fmt: skip
SOFTMAX = Op(
    site="s", kind="softmax", phase="encode", inputs=(tensor("activation", 2, 3),),
    output=tensor("activation", 2, 3), vector_elements=6, vector_work="softmax",
)  # fmt: skip


def test_the_energy_of_two_operations_and_of_waiting_by_hand() -> None:
    macs = 60 * 3.0  # 8-bit weights, 16-bit activations
    sram = (24 + 20 + 30) * 11.0 + 24 * 11.0  # 3 x 4 and 3 x 5 of two bytes, 20 of one; 2 x 6
    vector = 6 * (4 + 2.5) * 7.0  # four simple operations and one of 2.5 cycles for each element
    dram = 100 * 13.0
    joules = (macs + sram + vector + dram) * 1e-12
    assert energy_joules([LINEAR, SOFTMAX], 100, 0, PRICES) == pytest.approx(joules, rel=1e-12)
    waiting = energy_joules([], 0, 2_000_000, PRICES)  # 2 ms at half a watt
    assert waiting == pytest.approx(1e-3)
    both = energy_joules([LINEAR, SOFTMAX], 100, 2_000_000, PRICES)
    assert both == pytest.approx(joules + waiting, rel=1e-12)


def test_an_operation_that_runs_twice_costs_twice() -> None:
    once = energy_joules([LINEAR], 0, 0, PRICES)
    assert energy_joules([LINEAR, LINEAR], 0, 0, PRICES) == pytest.approx(2 * once, rel=1e-12)
    apart = replace(LINEAR)  # another object
    assert energy_joules([LINEAR, apart], 0, 0, PRICES) == pytest.approx(2 * once, rel=1e-12)


def test_cached_keys_pass_sram_too() -> None:
    read = replace(LINEAR, inputs=(LINEAR.inputs[0], tensor("kv", 5, 4)), gemm=None)
    assert energy_joules([read], 0, 0, PRICES) == pytest.approx((24 + 40 + 30) * 11e-12)


@pytest.mark.parametrize(
    ("widths", "price"),
    [((4, 8), 2), ((8, 8), 2), ((8, 16), 3), ((16, 8), 3), ((9, 8), 3), ((16, 16), 5)],
)
def test_a_wide_operand_makes_a_product_dearer(widths, price) -> None:
    assert mac_pj(*widths, PRICES) == price


def test_millijoules_are_a_thousandth_of_a_joule_everywhere() -> None:
    """Half a watt at 1 GHz is 0.5 mJ in each million cycles, and all else is free here."""
    free = {p: 0 for p in PRICES.values() if p.endswith("_pj")}
    found = simulate_program(
        record_request(tiny(), 6, 4, Precision()), PRICES.with_changes(free), fidelity="roofline"
    )
    expected = 0.5 * found.latency_cycles / 1e6
    data = json.loads(json.dumps(found.to_json()))
    assert data["energy_mj"] == pytest.approx(expected)
    assert sum(phase["energy_mj"] for phase in data["phases"]) == pytest.approx(expected)
    assert dict(found.summary_rows())["energy"] == f"{expected:.3g} mJ"


# -- budgets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "used", "unit", "met", "line"),
    [
        (500, 120.4, "ms", True, "500 ms met, 380 ms left"),
        (500, 500, "ms", True, "500 ms met, 0.00 ms left"),
        (500, 500.5, "ms", False, "500 ms missed, 0.50 ms over"),
        (64, 60.5, "MB", True, "64.0 MB met, 3.50 MB left"),
        (64, 1064, "MB", False, "64.0 MB missed, 1.00 GB over"),
        (1_000_000, 1_234_567, "cycles", False, "1,000,000 cycles missed, 234,567 cycles over"),
        (2, 1, "cycles", True, "2 cycles met, 1 cycles left"),
    ],
)
def test_a_budget_says_what_is_left_or_over(limit, used, unit, met, line) -> None:
    budget = Budget(limit=limit, used=used, unit=unit)
    assert (budget.margin, budget.met, budget.line()) == (limit - used, met, line)
