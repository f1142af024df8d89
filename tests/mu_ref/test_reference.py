"""The reference executor's operations by hand numbers, ties, edges, and batch invariance."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import dtypes, seeds

from mu_ref.errors import ConfigError, WeightsError
from mu_ref.ops.reference import ReferenceOps


def ops_with(**weights: object) -> ReferenceOps:
    arrays = {name.replace("__", "."): np.array(w, float) for name, w in weights.items()}
    return ReferenceOps(arrays, np.float64)


OPS = ops_with()

# -- linear and embed ------------------------------------------------------------------------------


def test_linear_by_hand() -> None:
    ops = ops_with(l__weight=[[1, 2], [3, 4], [5, 6]], l__bias=[10, 20, 30])
    # 1*1 + 2*(-1) + 10 = 9, 3 - 4 + 20 = 19, 5 - 6 + 30 = 29
    assert ops.linear(np.array([1.0, -1.0]), "l").tolist() == [9, 19, 29]


def test_linear_takes_the_weight_of_one_site_and_the_bias_of_another() -> None:
    ops = ops_with(table__weight=[[1, 2], [3, 4]], table__bias=[7, 7], head__bias=[100, 200])
    assert ops.linear(np.array([[1.0, 1.0]]), "head", "table").tolist() == [[103, 207]]


def test_embed_picks_rows() -> None:
    ops = ops_with(t__weight=[[1, 2], [3, 4], [5, 6]])
    assert ops.embed(np.array([[2, 0]]), "t").tolist() == [[[5, 6], [1, 2]]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d_in", [*range(1, 10), 64, 192, 768])
def test_a_row_of_linear_does_not_depend_on_the_other_rows(d_in: int, dtype: type) -> None:
    rng = np.random.default_rng(d_in)
    x = rng.normal(size=(9, d_in)).astype(dtype)
    for d_out in (1, 2, 7, 33):
        ops = ReferenceOps({"l.weight": rng.normal(size=(d_out, d_in))}, dtype)
        whole = ops.linear(x, "l")
        for rows in range(1, 10):
            np.testing.assert_array_equal(ops.linear(x[:rows], "l"), whole[:rows])
        for row in range(9):
            np.testing.assert_array_equal(ops.linear(x[row], "l"), whole[row])
            np.testing.assert_array_equal(ops.linear(x[None, row : row + 1], "l")[0, 0], whole[row])


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), dtypes, seeds)
def test_more_keys_with_weight_zero_change_no_attention(
    rows: int, n_key: int, more: int, d: int, dtype: type, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ops = ReferenceOps({}, dtype)
    scores = rng.normal(size=(rows, n_key + more)).astype(dtype)
    v = rng.normal(size=(n_key + more, d)).astype(dtype)
    mask = np.arange(n_key + more) < n_key
    few = ops.softmax(scores[:, :n_key], mask[:n_key], "")
    many = ops.softmax(scores, mask, "")
    np.testing.assert_array_equal(many[:, :n_key], few)
    np.testing.assert_array_equal(ops.matmul(many, v, ""), ops.matmul(few, v[:n_key], ""))


def test_matmul_by_hand() -> None:
    a = np.array([[1.0, 2.0], [3.0, 4.0]])
    b = np.array([[5.0, 6.0], [7.0, 8.0]])
    assert OPS.matmul(a, b, "").tolist() == [[19, 22], [43, 50]]
    assert OPS.matmul(a, b, "", transpose_b=True).tolist() == [[17, 23], [39, 53]]


# -- norms -----------------------------------------------------------------------------------------


def test_rms_norm_by_hand() -> None:
    # the mean of 9, 16, 25 and 0 is 12.5; eps 3.5 makes it 16, whose root is 4
    x = np.array([[3.0, 4.0, 5.0, 0.0]])
    ops = ops_with(n__weight=[1, 2, 4, 8])
    assert ops.norm(x, "n", "rms", 3.5).tolist() == [[0.75, 2.0, 5.0, 0.0]]
    assert ops.norm(x, "n", "rms_plus_one", 3.5).tolist() == [[1.5, 3.0, 6.25, 0.0]]


def test_layer_norm_by_hand() -> None:
    # mean 4; deviations -3, -1, 1, 3; variance 20 / 4 = 5 (not 20 / 3); eps 4 makes 9, root 3
    ops = ops_with(n__weight=[1, 3, 3, 2], n__bias=[0, 10, 20, 30])
    y = ops.norm(np.array([1.0, 3.0, 5.0, 7.0]), "n", "layer", 4.0)
    np.testing.assert_allclose(y, [-1, 9, 21, 32], rtol=1e-15)


def test_a_norm_of_zeros_is_zero_or_the_bias() -> None:
    ops = ops_with(n__weight=[1, 1], n__bias=[5, 6])
    assert ops.norm(np.zeros(2), "n", "rms", 1e-6).tolist() == [0, 0]
    assert ops.norm(np.full(2, 3.0), "n", "layer", 1e-6).tolist() == [5, 6]


# -- softmax ---------------------------------------------------------------------------------------


def test_softmax_by_hand() -> None:
    x = np.log(np.array([[1.0, 2.0, 5.0]]))
    p = OPS.softmax(x, np.array([[True, True, True]]), "")
    np.testing.assert_allclose(p, [[0.125, 0.25, 0.625]], rtol=1e-15)
    p = OPS.softmax(x, np.array([[True, False, True]]), "")
    np.testing.assert_allclose(p, [[1 / 6, 0, 5 / 6]], rtol=1e-15)
    assert p[0, 1] == 0


def test_softmax_with_nothing_to_attend_to_gives_zeros() -> None:
    mask = np.array([[False, False], [True, False]])
    assert OPS.softmax(np.ones((2, 2)), mask, "").tolist() == [[0, 0], [1, 0]]


def test_softmax_of_huge_scores_does_not_overflow() -> None:
    x = np.array([[1e4, 1e4, -1e4]], np.float32)
    p = ReferenceOps({}, np.float32).softmax(x, np.ones((1, 3), bool), "")
    assert p.tolist() == [[0.5, 0.5, 0.0]]


@given(st.integers(1, 6), st.integers(1, 9), dtypes, seeds)
def test_softmax_sums_to_one_and_a_shift_changes_nothing(
    m: int, n: int, dtype: type, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = (3 * rng.normal(size=(m, n))).astype(dtype)
    mask = rng.random((m, n)) < 0.7
    mask[:, 0] = True
    ops = ReferenceOps({}, dtype)
    p = ops.softmax(x, mask, "")
    tolerance = 1e-5 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=tolerance)
    assert (p[~mask] == 0).all()
    np.testing.assert_allclose(ops.softmax(x + dtype(7), mask, ""), p, rtol=0, atol=tolerance)


# -- elements --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "values"),
    [  # at -2, -1, 0, 1, 2: the definitions, worked out with Python's math module
        ("gelu", [-0.045500263896, -0.158655253931, 0, 0.841344746069, 1.954499736104]),
        ("gelu_tanh", [-0.045402305912, -0.158808009392, 0, 0.841191990608, 1.954597694088]),
        ("silu", [-0.238405844044, -0.268941421370, 0, 0.731058578630, 1.761594155956]),
        ("relu", [0, 0, 0, 1, 2]),
    ],
)
def test_activations_by_table(kind: str, values: list[float]) -> None:
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    np.testing.assert_allclose(OPS.activation(x, kind, ""), values, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "silu", "relu"])
def test_activations_of_large_numbers_are_the_number_or_zero(kind: str) -> None:
    x = np.array([-1000.0, 1000.0], np.float32)
    assert ReferenceOps({}, np.float32).activation(x, kind, "").tolist() == [0, 1000]


def test_softcap_by_hand() -> None:
    y = OPS.softcap(np.array([0.0, 2.0, -1e9]), 2.0, "")
    np.testing.assert_allclose(y, [0, 2 * math.tanh(1), -2], rtol=1e-15)


def test_elementwise_operations_by_hand() -> None:
    x, y = np.array([1.0, -2.0]), np.array([3.0, 5.0])
    assert OPS.add(x, y, "").tolist() == [4, 3]
    assert OPS.mul(x, y, "").tolist() == [3, -10]
    assert OPS.scale(x, 0.5, "").tolist() == [0.5, -1]
    assert OPS.dropout(x, "").tolist() == [1, -2]


# -- layout ----------------------------------------------------------------------------------------


def test_heads_are_neighbouring_slices_of_the_width() -> None:
    x = np.arange(8.0).reshape(1, 2, 4)  # token 0: 0..3, token 1: 4..7
    heads = OPS.split_heads(x, 2, "")
    assert heads.tolist() == [[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]]
    assert OPS.merge_heads(heads, "").tolist() == x.tolist()


def test_query_heads_share_key_heads_as_the_map_says() -> None:
    x = np.array([10.0, 20.0]).reshape(1, 2, 1, 1)
    assert OPS.share_heads(x, (0, 0, 1, 1), "")[0, :, 0, 0].tolist() == [10, 10, 20, 20]
    assert OPS.share_heads(x, (0, 1, 0, 1), "")[0, :, 0, 0].tolist() == [10, 20, 10, 20]


def test_append_and_take_tokens() -> None:
    past, new = np.zeros((1, 1, 2, 1)), np.ones((1, 1, 1, 1))
    assert OPS.append(past, new, "")[0, 0, :, 0].tolist() == [0, 0, 1]
    assert OPS.append(None, new, "") is new
    x = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    assert OPS.take_tokens(x, np.array([[1], [0]]), "")[:, :, 0].tolist() == [[2], [3]]


# -- decisions -------------------------------------------------------------------------------------


def test_ties_go_to_the_lowest_index() -> None:
    x = np.array([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    assert OPS.argmax(x, "").tolist() == [1, 0]
    assert OPS.top_k(x, 3, "").tolist() == [[1, 2, 3], [0, 1, 2]]


def test_top_k_of_more_than_a_sort_block_keeps_ties_in_order() -> None:
    x = np.tile(np.array([0.0, 1.0]), 50)
    assert OPS.top_k(x, 60, "").tolist() == [*range(1, 100, 2), *range(0, 20, 2)]


# -- errors ----------------------------------------------------------------------------------------


def test_a_missing_weight_is_named() -> None:
    with pytest.raises(WeightsError, match=r"'nowhere\.weight'"):
        OPS.linear(np.ones(2), "nowhere")


def test_half_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="float32 or float64"):
        ReferenceOps({}, np.float16)


@given(dtypes)
def test_weights_are_converted_to_the_dtype(dtype: type) -> None:
    ops = ReferenceOps({"l.weight": np.ones((2, 2), np.float16)}, dtype)
    assert ops.linear(np.ones(2, dtype), "l").dtype == dtype
