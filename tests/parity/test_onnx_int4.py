"""Our int4 is ONNX's: the order of the nibbles, and DequantizeLinear with blocks."""

import ml_dtypes
import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx.reference import ReferenceEvaluator

from mu_ref.integers.int4 import dequantize_groups, pack_int4

int4s = arrays.arrays(
    np.int8, st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=st.integers(-8, 7)
)


@given(int4s)
def test_packing_equals_the_raw_data_of_an_onnx_tensor(q: np.ndarray) -> None:
    """ONNX packs a whole tensor, we pack rows: the same for one row, or for even ones."""
    for rows in (q[:1], np.concatenate([q, q], axis=1)):
        tensor = onnx.numpy_helper.from_array(rows.astype(ml_dtypes.int4))
        assert tensor.data_type == onnx.TensorProto.INT4
        assert tensor.raw_data == pack_int4(rows).tobytes()


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_dequantizing_equals_dequantize_linear_with_blocks(d_out, n_groups, group, seed) -> None:
    rng = np.random.default_rng(seed)
    q = rng.integers(-8, 8, (d_out, n_groups * group))
    scale = (rng.random((d_out, n_groups)) + 0.01).astype(np.float16)
    node = onnx.helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1, block_size=group)
    info = [
        onnx.helper.make_tensor_value_info("q", onnx.TensorProto.INT4, q.shape),
        onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, scale.shape),
    ]
    out = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, q.shape)
    graph = onnx.helper.make_graph([node], "blocks", info, [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)])
    inputs = {"q": q.astype(ml_dtypes.int4), "s": scale.astype(np.float32)}
    (theirs,) = ReferenceEvaluator(model).run(None, inputs)
    np.testing.assert_array_equal(dequantize_groups(q, scale, group), theirs)
