"""Pieces and cycles against counts by hand and by brute force."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npu_sim.hardware.presets import npu
from npu_sim.systolic.closed_form import SystolicArray, systolic_counts
from npu_sim.tile.tiling import (
    chip_numbers,
    mac_slots,
    matrix_cycles,
    transfer_cycles,
    weight_piece,
)

TEACHING = npu("teaching-npu")
sizes = st.integers(1, 300)


def chip(**changes):
    return chip_numbers(
        TEACHING.with_changes({k.replace("__", "."): v for k, v in changes.items()})
    )


@pytest.mark.parametrize(
    ("flow", "cycles"),
    [("os", 138_240), ("ws", 142_336), ("is", 153_600)],  # one more than SCALE-Sim reports
)
def test_an_array_of_8_by_8_takes_the_folds_times_the_cycles_per_fold(flow, cycles):
    small = chip(matrix__dataflow=flow, matrix__rows=8, matrix__columns=8)
    assert mac_slots(256, 128, 256, small) == cycles * 64


@given(sizes, sizes, sizes)
def test_blocks_count_whole_tiles(m, n, k):
    blocks = chip(matrix__dataflow="blocks", matrix__tile_m=4, matrix__tile_n=8, matrix__tile_k=16)
    tiles = ceil(m / 4) * ceil(n / 8) * ceil(k / 16)
    assert mac_slots(m, n, k, blocks) == tiles * 4 * 8 * 16


@pytest.mark.parametrize(
    ("tile_rows", "m", "rows"),
    [(1, 1, 8), (1, 9, 16), (4, 1, 4), (4, 4, 4), (4, 5, 8), (4, 9, 16), (12, 9, 12), (12, 13, 16)],
)
def test_few_rows_are_multiplied_as_the_one_tile_that_they_lie_in(tile_rows, m, rows):
    blocks = chip(
        matrix__dataflow="blocks", matrix__tile_m=8, matrix__tile_n=2, matrix__tile_k=3,
        sram__tile_rows=tile_rows,
    )  # fmt: skip
    assert mac_slots(m, 3, 4, blocks) == rows * 4 * 6
    array = chip(matrix__dataflow="os", sram__tile_rows=tile_rows)
    assert mac_slots(m, 3, 4, array) == mac_slots(m, 3, 4, chip(matrix__dataflow="os"))


@given(sizes, sizes, sizes, st.integers(1, 100), st.integers(1, 100))
def test_more_rows_than_a_short_tile_never_take_fewer_slots(m, n, k, tile_m, tile_rows):
    blocks = chip(matrix__dataflow="blocks", matrix__tile_m=tile_m, sram__tile_rows=tile_rows)
    assert mac_slots(m, n, k, blocks) >= m * n * k
    assert mac_slots(m + 1, n, k, blocks) >= mac_slots(m, n, k, blocks)


@given(sizes, sizes, sizes, st.sampled_from(["blocks", "os", "ws", "is"]))
def test_slots_cover_the_product_and_more_rows_never_take_fewer(m, n, k, flow):
    array = chip(matrix__dataflow=flow)
    assert mac_slots(m, n, k, array) >= m * n * k
    assert mac_slots(m + 1, n, k, array) >= mac_slots(m, n, k, array)
    assert mac_slots(m, n + 1, k, array) >= mac_slots(m, n, k, array)
    assert mac_slots(m, n, k + 1, array) >= mac_slots(m, n, k, array)


def test_efficiency_divides_the_rate():
    half = chip(matrix__dataflow="blocks", matrix__w8a8_efficiency=0.5)
    full = chip(matrix__dataflow="blocks")
    assert matrix_cycles(3, 32, 32, 32, full.weight_rates[2], full) == 96  # 3 x 32,768 / 1,024
    assert matrix_cycles(3, 32, 32, 32, half.weight_rates[2], half) == 192


@given(st.integers(0, 10**11), st.integers(10**6, 4 * 10**12), st.integers(10**6, 4 * 10**9))
def test_a_transfer_takes_its_setup_and_its_bytes_rounded_up(n_bytes, rate, clock):
    numbers = chip(dma__bytes_per_s=rate, dram__bytes_per_s=rate, clock_hz=clock)
    expected = 0 if n_bytes == 0 else 100 + -(-n_bytes * clock // rate)
    assert transfer_cycles(n_bytes, numbers) == expected


@given(
    st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([4, 8, 16]),
    st.integers(2, 100_000), st.sampled_from(["blocks", "os", "ws", "is"]),
)  # fmt: skip
def test_a_piece_keeps_its_limit_and_is_aligned_where_it_can_be(n, k, bits, limit, flow):
    array = chip(matrix__dataflow=flow)
    columns, depth = weight_piece(n, k, bits, limit, array)
    assert 1 <= columns <= n
    assert 1 <= depth <= k
    assert columns * depth * bits <= 8 * limit
    if columns < n and depth == k and columns > 32:
        assert columns % 32 == 0


@given(
    sizes, sizes, sizes, st.integers(1, 40), st.integers(1, 40), st.sampled_from(["os", "ws", "is"])
)
def test_tiles_take_the_cycles_of_the_array_cell_by_cell(m, n, k, rows, columns, flow):
    array = SystolicArray(rows=rows, cols=columns, dataflow=flow)
    numbers = chip(matrix__dataflow=flow, matrix__rows=rows, matrix__columns=columns)
    assert mac_slots(m, n, k, numbers) == systolic_counts(m, n, k, array).cycles * rows * columns
