"""int4: packing loses nothing, rounding at most half a step per group, and the model still runs."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from strategies import model_configs, random_weights, rows_of, seeds

from mu_ref.integers.int4 import (
    dequantize_groups,
    dequantize_weights_int4,
    int4_shapes,
    pack_int4,
    quantize_groups,
    quantize_weights_int4,
    unpack_int4,
)
from mu_ref.model import mu
from mu_ref.ops.reference import ReferenceOps

shapes = st.tuples(st.integers(1, 4), st.integers(1, 20))
groups = st.integers(1, 24)
int4s = shapes.flatmap(lambda s: arrays.arrays(np.int8, s, elements=st.integers(-8, 7)))
weights_1 = st.one_of(
    st.floats(-1, 1, width=32),
    st.floats(-400_000, 400_000, width=32),
    st.floats(-(2.0**-18), 2.0**-18, width=32),
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 0.25, 7.0, -8.0]),
)
matrices = shapes.flatmap(lambda s: arrays.arrays(np.float32, s, elements=weights_1))


@given(int4s)
def test_packing_and_unpacking_is_the_identity(q: np.ndarray) -> None:
    d_in = q.shape[1]
    packed = pack_int4(q)
    assert packed.shape == (q.shape[0], (d_in + 1) // 2)
    np.testing.assert_array_equal(unpack_int4(packed, d_in), q)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9))))
def test_unpacking_and_packing_is_the_identity(packed: np.ndarray) -> None:
    np.testing.assert_array_equal(pack_int4(unpack_int4(packed, 2 * packed.shape[1])), packed)


@given(int4s)
def test_each_integer_is_where_the_format_says(q: np.ndarray) -> None:
    for row, line in zip(q.tolist(), pack_int4(q).tolist(), strict=True):
        for k, value in enumerate(row):
            assert (line[k // 2] >> 4 * (k % 2)) % 16 == value % 16


@given(matrices, groups)
def test_the_error_is_at_most_half_a_step_of_its_group(w: np.ndarray, group: int) -> None:
    q, scale = quantize_groups(w, group)
    back = dequantize_groups(q, scale, group)
    assert back.dtype == np.float32
    assert scale.shape == (w.shape[0], -(-w.shape[1] // group))
    assert ((scale > 0) & np.isfinite(scale)).all()
    for (n, k), number in np.ndenumerate(w):
        s = Fraction(float(scale[n, k // group]))
        assert back[n, k] == s * int(q[n, k])  # exact in float32
        error = abs(Fraction(float(number)) - s * int(q[n, k]))
        assert error <= s / 2 * (1 + Fraction(1, 2**48))  # the division is one of float64


@given(matrices, groups)
def test_the_scale_is_the_least_that_saturates_nothing(w: np.ndarray, group: int) -> None:
    _, scale = quantize_groups(w, group)
    for (n, g), s in np.ndenumerate(scale):
        block = w[n, g * group : (g + 1) * group].astype(np.float64)
        if not block.any():
            assert s == 1
            continue
        assert block.max() <= 7 * float(s)
        assert block.min() >= -8 * float(s)
        below = float(np.nextafter(s, np.float16(0)))
        assert block.max() > 7 * below or block.min() < -8 * below


def least_error(block: np.ndarray) -> float:
    """Try the eleven shares of one group, one by one."""
    whole = max(block.max() / 7, block.min() / -8, 0)
    errors = []
    for share in range(100, 49, -5):
        s = np.float16(whole * (share / 100))
        if s < whole * (share / 100):
            s = np.nextafter(s, np.float16(np.inf))
        steps = np.clip(np.rint(block / float(s)), -8, 7) if s > 0 else block * 0
        errors.append(float(np.square(block - steps * float(s)).sum()))
    return min(errors)


@given(matrices, groups)
def test_a_clip_search_finds_the_share_of_least_squared_error(w: np.ndarray, group: int) -> None:
    w = w.astype(np.float64)
    q, scale = quantize_groups(w, group, clip_search=True)
    square = (w - dequantize_groups(q, scale, group)) ** 2
    for n in range(w.shape[0]):
        for k in range(0, w.shape[1], group):
            least = least_error(w[n, k : k + group])
            np.testing.assert_allclose(square[n, k : k + group].sum(), least, rtol=1e-9)


@given(int4s, groups, st.data())
def test_what_was_int4_before_stays_as_it_is(q: np.ndarray, group: int, data) -> None:
    """Every group reaches an end of the range, so its scale is found again."""
    q = q.copy()
    q[:, ::group] = data.draw(st.sampled_from([-8, 7]))
    n_groups = -(-q.shape[1] // group)
    exponents = data.draw(
        arrays.arrays(np.int64, (q.shape[0], n_groups), elements=st.integers(-9, 9))
    )
    scale = np.exp2(exponents).astype(np.float16)
    again, found = quantize_groups(dequantize_groups(q, scale, group), group)
    np.testing.assert_array_equal(again, q)
    np.testing.assert_array_equal(found, scale)


@settings(max_examples=30)
@given(st.data(), seeds, groups)
def test_a_model_runs_on_its_int4_weights(data, seed: int, group: int) -> None:
    model = data.draw(model_configs(("encoder-decoder", "decoder-only")))
    weights = random_weights(model, seed)
    tensors = quantize_weights_int4(model, weights, group)
    assert {n: t.shape for n, t in tensors.items()} == int4_shapes(model, group)
    back = dequantize_weights_int4(model, tensors, group)
    again = dequantize_weights_int4(model, quantize_weights_int4(model, back, group), group)
    source = data.draw(rows_of(model.encoder_vocab_size, 2, 4)) if model.encoder else None
    target = data.draw(rows_of(model.vocab_size, 2, 4))
    memory = (None, None) if source is None else (source.tokens, source.valid)
    logits = [
        mu.forward(ReferenceOps(w), model, *memory, target.tokens, target.valid)
        for w in (back, again)
    ]
    assert np.isfinite(logits[0]).all()
    assert logits[0].shape == (*target.tokens.shape, model.vocab_size)
    for name, w in weights.items():
        assert np.abs(again[name] - w).max() <= 2 * np.abs(w).max() / 7
