"""int4 by hand: nibbles, scales, groups, which tensors stay float16, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from strategies import random_weights

from mu_ref.errors import QuantizationError, WeightsError
from mu_ref.integers.int4 import (
    dequantize_groups,
    dequantize_weights_int4,
    int4_shapes,
    pack_int4,
    quantize_groups,
    quantize_rows,
    quantize_weights_int4,
    unpack_int4,
)
from mu_ref.presets import preset, tiny
from mu_ref.weights import weight_shapes

TABLES = {"embedding.weight", "encoder.embedding.weight", "decoder.embedding.weight", "head.weight"}


# -- nibbles ---------------------------------------------------------------------------------------


def test_the_first_integer_is_in_the_low_nibble() -> None:
    packed = pack_int4(np.array([1, -2, 7, -8], np.int8))
    assert packed.dtype == np.uint8
    assert packed.tolist() == [0xE1, 0x87]


def test_an_odd_row_ends_with_an_empty_nibble() -> None:
    packed = pack_int4(np.array([[1, -2, 7], [-1, -1, -1]], np.int8))
    assert packed.tolist() == [[0xE1, 0x07], [0xFF, 0x0F]]
    assert unpack_int4(packed, 3).tolist() == [[1, -2, 7], [-1, -1, -1]]


def test_all_sixteen_integers_come_back() -> None:
    every = np.arange(-8, 8)
    unpacked = unpack_int4(pack_int4(every), 16)
    assert unpacked.dtype == np.int8
    assert unpacked.tolist() == every.tolist()


@pytest.mark.parametrize("wrong", [-9, 8])
def test_an_integer_of_five_bits_is_refused(wrong: int) -> None:
    with pytest.raises(QuantizationError, match=r"int4 must lie in -8\.\.7, got"):
        pack_int4(np.array([0, wrong]))


# -- one matrix ------------------------------------------------------------------------------------


def test_the_scale_fits_both_ends_of_the_range() -> None:
    w = np.array([[7.0, -7.0, 3.4, 0.0], [-8.0, 6.0, 0.5, 1.5]])
    q, scale = quantize_groups(w, 4)
    assert (q.dtype, scale.dtype) == (np.int8, np.float16)
    assert scale.tolist() == [[1.0], [1.0]]  # 7 / 7, and 8 / 8
    assert q.tolist() == [[7, -7, 3, 0], [-8, 6, 0, 2]]  # ties to even


def test_the_last_group_may_be_shorter() -> None:
    w = np.array([[7.0, 1.0, 14.0, 2.0, 0.5]])
    q, scale = quantize_groups(w, 2)
    assert scale.tolist() == [[1.0, 2.0, float(np.float16(0.5 / 7)) + 2.0**-14]]
    assert q.tolist() == [[7, 1, 7, 1, 7]]
    assert dequantize_groups(q, scale, 2)[0, :4].tolist() == [7.0, 1.0, 14.0, 2.0]


def test_a_scale_is_rounded_up_so_that_nothing_saturates() -> None:
    w = np.array([[2049.0 * 7]])  # 2049 is between the float16 numbers 2048 and 2050
    q, scale = quantize_groups(w, 1)
    assert scale.tolist() == [[2050.0]]
    assert q.tolist() == [[7]]


def test_a_group_of_zeros_has_a_scale_all_the_same() -> None:
    for clip_search in (False, True):
        q, scale = quantize_groups(np.zeros((1, 3)), 2, clip_search=clip_search)
        assert (q.tolist(), scale.tolist()) == ([[0, 0, 0]], [[1.0, 1.0]])


def test_weights_below_float16_get_its_least_step() -> None:
    q, scale = quantize_groups(np.array([[1e-12, -1e-12]]), 2)
    assert scale.tolist() == [[2.0**-24]]
    assert q.tolist() == [[0, 0]]


def test_clipping_one_outlier_is_found_to_be_better() -> None:
    # s = 1: a thousand times 0.4 is lost, error 160; s = 0.5: 1000 * 0.1^2 + (7 - 3.5)^2 = 22.25
    w = np.array([[7.0, *[0.4] * 1000]])
    whole_q, whole = quantize_groups(w, 1001)
    q, clipped = quantize_groups(w, 1001, clip_search=True)
    assert (whole.tolist(), whole_q[0, :2].tolist()) == ([[1.0]], [7, 0])
    assert (clipped.tolist(), q[0, :2].tolist()) == ([[0.5]], [7, 1])


def test_each_row_and_group_has_a_scale_of_its_own() -> None:
    w = np.array([[7.0, 1.0, -16.0, 4.0], [0.5, -4.0, 0.0, 0.0], [-1.0, 3.5, 56.0, 7.0]])
    q, scale = quantize_groups(w, 2)
    assert scale.tolist() == [[1.0, 2.0], [0.5, 1.0], [0.5, 8.0]]
    assert q.tolist() == [[7, 1, -8, 2], [1, -8, 0, 0], [-2, 7, 7, 1]]
    back = [[7, 1, -16, 4], [0.5, -4, 0, 0], [-1, 3.5, 56, 8]]
    assert dequantize_groups(q, scale, 2).tolist() == back
    for row in range(3):
        assert pack_int4(q)[row].tolist() == pack_int4(q[row : row + 1])[0].tolist()
    assert unpack_int4(pack_int4(q), 4).tolist() == q.tolist()


def test_a_tie_of_two_shares_keeps_the_larger_scale_and_a_model_s_search_is_passed_on() -> None:
    # s = 1 loses 0.15 of fifteen weights 2.85; s = 0.95 holds them and cuts 0.35 of one
    weights = random_weights(tiny(), 0)
    name = "encoder.0.mlp.up.weight"
    weights[name] = np.tile([7.0, *[2.85] * 15], (32, 1))
    searched = quantize_weights_int4(tiny(), weights, 16, clip_search=True)
    plain = quantize_weights_int4(tiny(), weights, 16)
    assert searched[f"{name}_scale"][0, 0] < plain[f"{name}_scale"][0, 0]
    zeros, scale = quantize_groups(np.array([[7.0, -7.0]]), 2, clip_search=True)
    assert (zeros.tolist(), scale.tolist()) == ([[7, -7]], [[1.0]])


def test_the_largest_float16_is_still_a_weight() -> None:
    weights = random_weights(tiny(), 0)
    name = "decoder.1.mlp.down.weight"
    weights[name] = np.full_like(weights[name], -65504.0)
    assert quantize_weights_int4(tiny(), weights)[f"{name}_scale"].max() == 8188
    edge = np.array([[7 * 65504.0]])
    assert quantize_groups(edge, 1)[1].tolist() == [[65504.0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e6])
def test_weights_beyond_float16_are_refused(bad: float) -> None:
    with pytest.raises(QuantizationError, match="must be finite and below 458528"):
        quantize_groups(np.array([[1.0, bad]]), 2)
    weights = random_weights(tiny(), 0)
    for name in ("decoder.1.mlp.down.weight", "decoder.1.mlp.down.bias"):
        array = weights[name].copy()
        array.flat[1] = bad
        with pytest.raises(QuantizationError, match=rf"{name} must hold numbers up to 65504"):
            quantize_weights_int4(tiny(), weights | {name: array})


@pytest.mark.parametrize("group", [0, -1])
def test_a_group_without_inputs_is_refused(group: int) -> None:
    with pytest.raises(QuantizationError, match=f"at least 1 input, got {group}"):
        quantize_groups(np.ones((1, 2)), group)


def test_rows_of_a_table_by_hand() -> None:
    q, scale = quantize_rows(np.array([[127.0, -254.0, 1.0], [0.0, 0.0, 0.0], [63.5, 0.3, -0.2]]))
    assert scale.tolist() == [[2.0], [1.0], [0.5]]
    assert q.tolist() == [[64, -127, 0], [0, 0, 0], [127, 1, 0]]  # 63.5 and 0.5 go to the even side


# -- a whole model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tied_head", [False, True])
def test_the_matrices_of_the_layers_are_int4_and_the_tables_int8(tied_head: bool) -> None:
    model = replace(tiny(), tied_head=tied_head)
    shapes = weight_shapes(model)
    tensors = quantize_weights_int4(model, random_weights(model, 0), 5)
    assert {n: t.shape for n, t in tensors.items()} == int4_shapes(model, 5)
    for name, shape in shapes.items():
        if len(shape) == 2 and name not in TABLES:
            d_out, d_in = shape
            assert tensors[name].shape == (d_out, (d_in + 1) // 2)
            assert tensors[name].dtype == np.uint8
            assert tensors[f"{name}_scale"].shape == (d_out, (d_in + 4) // 5)
            assert tensors[f"{name}_scale"].dtype == np.float16
        elif name in TABLES:
            assert (tensors[name].shape, tensors[name].dtype) == (shape, np.int8)
            assert tensors[f"{name}_scale"].shape == (shape[0], 1)
        else:
            assert tensors[name].shape == shape
            assert tensors[name].dtype == np.float16
            assert f"{name}_scale" not in tensors
    assert len(TABLES & set(shapes)) == (1 if tied_head else 2)


def test_a_weight_takes_four_bits_and_an_eighth() -> None:
    shapes, floats = int4_shapes(preset("mu-330m"), 128), weight_shapes(preset("mu-330m"))
    matrices = [name for name in floats if f"{name}_scale" in shapes and name not in TABLES]
    assert len(matrices) > 100
    for name in matrices:
        (d_out, d_in), packed, scales = floats[name], shapes[name], shapes[f"{name}_scale"]
        assert d_in % 128 == 0
        assert 8 * np.prod(packed) + 16 * np.prod(scales) == d_out * d_in * 4.125


def test_weights_of_another_model_are_refused() -> None:
    weights = random_weights(tiny(), 0)
    del weights["decoder.1.mlp.down.bias"]
    with pytest.raises(WeightsError, match="missing"):
        quantize_weights_int4(tiny(), weights)


def test_what_stays_float16_is_only_rounded_to_it() -> None:
    model = tiny()
    weights = random_weights(model, 0)
    back = dequantize_weights_int4(model, quantize_weights_int4(model, weights))
    assert {n: w.shape for n, w in back.items()} == weight_shapes(model)
    assert {w.dtype.type for w in back.values()} == {np.float32}
    for name in ("decoder.final_norm.weight", "decoder.0.mlp.up.bias"):
        if name in back:
            np.testing.assert_array_equal(back[name], weights[name].astype(np.float16))
