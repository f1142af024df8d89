import pytest

from npu_sim.units import (
    ceil_div,
    cycles_from_us,
    element_bytes,
    format_bytes,
    format_count,
    format_exact,
    format_ms,
    ms_from_cycles,
)


@pytest.mark.parametrize(
    ("amount", "per", "expected"), [(0, 5, 0), (1, 5, 1), (5, 5, 1), (6, 5, 2)]
)
def test_ceil_div_rounds_up(amount, per, expected):
    assert ceil_div(amount, per) == expected


def test_ceil_div_is_exact_where_floats_are_not():
    assert ceil_div(10**18 + 1, 1) == 10**18 + 1


@pytest.mark.parametrize(("bits", "n_bytes"), [(4, 1), (8, 1), (9, 2), (16, 2), (17, 4), (32, 4)])
def test_lanes_hold_whole_elements_of_a_power_of_two(bits, n_bytes):
    assert element_bytes(bits) == n_bytes


def test_cycles_and_times_convert_at_the_clock():
    assert ms_from_cycles(3_000_000, 1_000_000_000) == 3.0
    assert cycles_from_us(1.5, 1_000_000_000) == 1500


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (117_170_000, "117 MB"),
        (3_800_000_000, "3.80 GB"), (12_340_000_000_000, "12.3 TB"),
    ],
)  # fmt: skip
def test_bytes_read_with_a_decimal_prefix(n_bytes, text):
    assert format_bytes(n_bytes) == text


def test_counts_and_times_read_with_three_digits():
    assert format_count(13_941_866_496) == "13.9 G"
    assert format_count(7) == "7"
    assert [format_ms(t) for t in (0.449, 9.996, 115.2, -3)] == [
        "0.45 ms", "10.0 ms", "115 ms", "-3.00 ms",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (47_088_000_000, "B/s", "47.088 GB/s"), (1_373_291_016, "Hz", "1.373291016 GHz"),
        (200, " cycles", "200 cycles"), (999_999, "", "999,999"), (1_000_000, "", "1 M"),
        (2_500_000_000_000, "", "2.5 T"), (0.25, "", "0.25"), (120_000_000, "B", "120 MB"),
    ],
)  # fmt: skip
def test_an_exact_number_keeps_every_digit(amount, unit, text):
    assert format_exact(amount, unit) == text
