"""Memory, heads, caches and repeated stretches of the fast executors, each by hand."""

from typing import Any

import numpy as np
import pytest

from mu_ref.errors import QuantizationError
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.store import IntegerModel
from mu_ref.model.cache import LayerCache
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.fast.integers import FastIntegerOps
from mu_ref.ops.fast.stretches.replay import Script
from mu_ref.ops.fast.turns import turns_of
from mu_ref.ops.rotation import Rotation
from mu_ref.presets import tiny


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def heads(ops: FastOps, x: np.ndarray) -> Any:
    """[batch, n_heads, n_tok, d_head], held as the executor holds heads."""
    batch, n_heads, n_tok, d_head = x.shape
    rows = x.transpose(0, 2, 1, 3).reshape(batch, n_tok, n_heads * d_head)
    return ops.split_heads(ops._stored(np.ascontiguousarray(rows)), n_heads, "split")


def test_two_caches_go_on_from_one_beginning() -> None:
    ops = FastOps({})
    start, one, other = (numbers(2, 3, n, 4, seed=n) for n in (2, 1, 3))
    past = ops.append(None, heads(ops, start), "k", 16)
    first = ops.append(past, heads(ops, one), "k")
    second = ops.append(past, heads(ops, other), "k")
    np.testing.assert_array_equal(ops.read(first), np.concatenate([start, one], axis=2))
    np.testing.assert_array_equal(ops.read(second), np.concatenate([start, other], axis=2))


def test_heads_with_room_to_spare_are_merged_without_it() -> None:
    ops, x = FastOps({}), numbers(2, 3, 5, 4)
    grown = ops.append(None, heads(ops, x), "k", 16)
    merged = ops.read(ops.merge_heads(grown, "o"))
    np.testing.assert_array_equal(merged, x.transpose(0, 2, 1, 3).reshape(2, 5, 12))


def test_a_shared_head_is_read_for_every_head_that_it_serves() -> None:
    ops, x = FastOps({}), numbers(2, 2, 5, 4)
    shared = ops.share_heads(heads(ops, x), (1, 0, 1, 1), "k")
    np.testing.assert_array_equal(ops.read(shared), x[:, [1, 0, 1, 1]])


TABLE = numbers(9, 4)


def steps(compute: Any) -> list[np.ndarray]:
    """What a stretch gives for eight tokens, one after another, with a cache that grows."""
    ops, layer, found = FastOps({"e.weight": TABLE}), LayerCache(), []

    def stretch(tokens: np.ndarray) -> Any:
        x = ops.embed(tokens, "e")
        layer.k = ops.append(layer.k, ops.split_heads(x, 1, "split"), "k", 16)
        layer.v = ops.append(layer.v, ops.split_heads(x, 1, "split"), "v", 16)
        return compute(ops, x, layer.k.shape[2])

    for token in range(8):
        result = ops.repeat("a stretch", [layer], [], [np.array([[token]])], stretch)
        found.append(ops.read(result).copy())
    np.testing.assert_array_equal(ops.read(layer.k)[0, 0], TABLE[:8])
    return found


def test_what_depends_on_numbers_is_computed_anew_in_every_step() -> None:
    found = steps(lambda ops, x, n: ops._stored(2 * ops.read(x)))
    np.testing.assert_array_equal(np.concatenate(found)[:, 0], 2 * TABLE[:8])


def test_what_was_made_of_an_input_in_another_way_is_made_anew() -> None:
    script, given = Script(), np.arange(4)
    given.flags.writeable = False
    for factor in (2, 3):
        script.begin((given,), (0, 0))
        script.buffer(given, lambda x, factor=factor: x * factor)
        for _ in range(2):  # the second time nothing is made
            assert script.buffers[0].fill(given)
            found = script.buffers[0].memory[: given.nbytes].view(np.int64)
            np.testing.assert_array_equal(found, factor * given)


def test_what_depends_on_the_size_of_a_cache_is_not_replayed_for_another() -> None:
    found = steps(lambda ops, x, n: ops.scale(x, float(n), "scale"))
    np.testing.assert_array_equal(
        np.concatenate(found)[:, 0], TABLE[:8] * np.arange(1, 9, dtype=np.float32)[:, None]
    )


@pytest.mark.parametrize("zero_point", [-3, 5])
def test_sixteen_bits_have_no_zero_point(zero_point: int) -> None:
    out = {"site": Encoding(16, 0.1, zero_point)}
    ops = FastIntegerOps(IntegerModel(tiny(), "w8a16", "half_even", {}, out))
    x = ops._stored(np.ones((1, 2), np.int16), Encoding(16, 0.1))
    with pytest.raises(QuantizationError, match=f"zero point of 0 at 16 bits, got {zero_point}"):
        ops.mul(x, x, "site")


@pytest.mark.parametrize(("scale", "fits"), [(2.0**-14, True), (2.0**-15, False)])
def test_a_multiplier_of_a_wide_sum_stays_below_a_power_of_two(scale: float, fits: bool) -> None:
    # 1 * 1 / scale is 2^14 or 2^15: m 2^(s - 31) with s one above
    weights = {"site.weight": np.ones((4, 4), np.int8), "site.weight_scale": np.ones(4) / 2}
    out = {"site": Encoding(16, scale)}
    ops = FastIntegerOps(IntegerModel(tiny(), "w8a16", "half_even", weights, out))
    x = ops._stored(np.ones((1, 1, 4), np.int16), Encoding(16, 1.0))
    if fits:
        assert (ops._quantized(ops.linear(x, "site")).q == 2**15 - 1).all()
        return
    with pytest.raises(QuantizationError, match="below 2\\^14"):
        ops.linear(x, "site")


@pytest.mark.parametrize("token", [-1, 5])
def test_a_token_outside_the_table_is_not_looked_up(token: int) -> None:
    ops = FastOps({"e.weight": numbers(5, 4)})
    with pytest.raises(IndexError, match=r"0\.\.4"):
        ops.embed(np.array([[0, token]]), "e")


@pytest.mark.parametrize("places", [[[3], [5]], [[3]], [[3, 4], [5, 6]]])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_turns_are_those_of_a_row_s_place_and_theta(places: list[list[int]], factor: float) -> None:
    """By hand: pairs turn by p and p / sqrt(theta), and nothing is taken for another row's."""
    theta = np.array([4.0, 9.0])
    rotation = Rotation(np.array(places), theta, 4, factor)

    def make(rotation: Rotation) -> tuple[np.ndarray, np.ndarray]:
        return rotation.cos, rotation.sin

    for _ in range(2):  # found, and known
        cos, sin = turns_of(rotation, (2, len(places[0]), 2), make)
        for row in range(2):
            for i, place in enumerate(places[row % len(places)]):
                angles = np.array([place, place / theta[row] ** 0.5]) / factor
                np.testing.assert_allclose(cos[row, i], np.cos(angles))
                np.testing.assert_allclose(sin[row, i], np.sin(angles))
