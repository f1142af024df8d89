"""Widths, encodings, scales, rounded layers and smoothing, each worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from mu_ref.errors import QuantizationError
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.store import IntegerModel
from mu_ref.presets import tiny
from mu_ref.quantize.calibrate import Options, calibrate, site_encoding, weight_scales
from mu_ref.quantize.observe import Observed, SiteRange
from mu_ref.quantize.smooth import smooth
from mu_ref.weights import Weights


def seen(op: str, *tensors: object) -> SiteRange:
    site = SiteRange(op)
    for tensor in tensors:
        site.add(np.array(tensor, np.float64))
    return site


def ramp(low: int, high: int) -> SiteRange:
    """The whole numbers low..high, 10,001 of them, in tensors of which every value is kept."""
    return seen("linear", *np.arange(low, high + 1).reshape(-1, 1, 73))


# -- widths, encodings, scales ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "bits"),
    [
        ("embedding", 16), ("encoder.embedding", 16), ("encoder.embed_norm", 16),
        ("decoder.0.mlp.post_norm", 16), ("decoder.0.mlp.residual", 16), ("head", 16),
        ("head.softcap", 16), ("drafter.concat", 16), ("drafter.head", 16),
        ("decoder.0.mlp.pre_norm", 8), ("decoder.final_norm", 8), ("decoder.0.mlp.up", 8),
        ("encoder.0.self_attention.softmax", 8), ("encoder.0.self_attention.scores", 8),
        ("drafter.0", 8), ("drafter.input_proj", 8),
    ],
)  # fmt: skip
def test_the_stream_has_16_bits_under_w8a8_and_the_rest_8(site: str, bits: int) -> None:
    assert Options(scheme="w8a8").site_bits(site) == bits
    assert Options(scheme="w8a16").site_bits(site) == 16


def test_the_last_matching_width_wins() -> None:
    options = Options(scheme="w8a16", bits={"*.up": 8, "decoder.*": 16, "decoder.1.*": 8})
    sites = ("encoder.0.mlp.up", "decoder.0.mlp.up", "decoder.1.mlp.up", "decoder.1.mlp.down")
    assert [options.site_bits(site) for site in sites] == [8, 16, 8, 8]
    assert Options(smooth=0.0).smooth == 0.0
    assert Options(smooth=1.0).smooth == 1.0
    with pytest.raises(QuantizationError, match="smooth must be a number from 0 to 1"):
        Options(smooth=-0.1)


def test_encodings_of_one_sided_and_wide_sites_by_hand() -> None:
    positive = seen("activation", [[10.0, 51.0]])  # 0 belongs to it: 51 / 255 = 0.2
    assert site_encoding(positive, "minmax", 8) == Encoding(8, 0.2, -128)
    negative = seen("activation", [[-51.0, -10.0]])
    assert site_encoding(negative, "minmax", 8) == Encoding(8, 0.2, 127)
    assert site_encoding(positive, "minmax", 16) == Encoding(16, 51 / 32767)
    assert site_encoding(seen("mul", [[-1.0, 0.5]]), "minmax", 8) == Encoding(8, 1 / 127)
    assert site_encoding(seen("mul", [[-0.5, 1.0]]), "minmax", 16) == Encoding(16, 1 / 32767)
    softmax = seen("softmax", [[0.0, 0.3]])
    assert site_encoding(softmax, "minmax", 16) == Encoding(16, 2**-15, 0)
    cut = site_encoding(ramp(-5000, 5000), "percentile", 8)
    assert (cut.bits, cut.scale) == (8, pytest.approx(4999 / 127))


def test_half_of_the_largest_weight_is_the_smallest_range_tried() -> None:
    # s = 0.5 cuts 127 to 63.5, and holds 128,000 odd multiples of 0.5 exactly
    w = np.stack([np.tile(np.arange(-63.5, 64), 1000), np.full(128_000, 100.0)])
    w[:, 0] = 127
    assert weight_scales(w, clip=False).tolist() == [1.0, 1.0]
    assert weight_scales(w, clip=True).tolist() == [0.5, 1.0]


def test_the_best_of_26_shares_is_kept_for_each_channel() -> None:
    w = np.random.default_rng(5).standard_t(3, (6, 400))
    expected = []
    for row in w:
        full = np.abs(row).max() / 127
        scales = [np.float64(np.float32(full * (1 - i * 0.02))) for i in range(26)]
        errors = [
            ((row - np.clip(np.round(row / s), -127, 127) * s) ** 2).sum() for s in scales
        ]  # fmt: skip
        expected.append(scales[int(np.argmin(errors))])
    np.testing.assert_allclose(weight_scales(w, clip=True), expected, rtol=1e-6)


# -- a whole layer ---------------------------------------------------------------------------------

UP, NORM = "decoder.0.mlp.up", "decoder.0.mlp.pre_norm"


def layer(reads: tuple[str, float], low: float, high: float, **weights: object):
    """Calibrate one linear and the norm that it reads, under w8a8."""
    found = Observed()
    found.ranges = {NORM: SiteRange("norm", low, high), UP: SiteRange("linear", -1.0, 1.0)}
    found.inputs = {UP: reads}
    named = {name.replace("__", "."): np.array(w, np.float64) for name, w in weights.items()}
    named = {f"decoder.0.mlp.{name}": w for name, w in named.items()}
    return calibrate(tiny(), named, found, Options(scheme="w8a8"), names=named)


def test_a_matrix_and_its_bias_by_hand() -> None:
    # the norm's step is 5.08 / 127 = 0.04, what the linear reads 3 times that: 0.12
    model = layer(
        (NORM, 3.0), -5.08, 2.0, up__weight=[[1.27, -0.64], [0.5, -0.251]], up__bias=[0.3, -1.2]
    )
    assert model.weight(UP).tolist() == [[127, -64], [127, -64]]
    assert model.weight(UP).dtype == np.int8
    np.testing.assert_allclose(model.weight_scale(UP), [0.01, 0.5 / 127], rtol=1e-7)
    assert model.bias(UP).tolist() == [250, round(-1.2 / (0.12 * 0.5 / 127))]
    assert model.bias(UP).dtype == np.int32
    assert model.activations == {NORM: Encoding(8, 0.04), UP: Encoding(8, 1 / 127)}
    assert set(model.tensors) == {f"{UP}.weight", f"{UP}.weight_scale", f"{UP}.bias"}
    assert model == IntegerModel(
        tiny(), "w8a8", "tflite_single", model.tensors, model.activations
    )  # fmt: skip


def test_a_bias_beyond_2_to_the_30_steps_widens_its_channel_only() -> None:
    # the input's step is 1; a bias of 4 * 2^30 needs steps of 4, not 1
    model = layer(
        (NORM, 1.0), -127.0, 127.0, up__weight=[[127.0, -2.0], [127.0, 64.0]],
        up__bias=[4.0 * 2**30, 2.0**30],
    )  # fmt: skip
    assert model.weight_scale(UP).tolist() == [4.0, 1.0]
    assert model.weight(UP).tolist() == [[32, 0], [127, 64]]  # 31.75 and -0.5
    assert model.bias(UP).tolist() == [2**30, 2**30]


def test_a_gain_has_16_bits_and_the_bias_of_a_norm_steps_of_a_256th() -> None:
    gains = layer(
        (NORM, 1.0), -5.08, 2.0, pre_norm__weight=[3.2767, -1.0], pre_norm__bias=[0.04, -1.0]
    )
    assert gains.weight(NORM).tolist() == [32767, -10000]
    assert gains.weight(NORM).dtype == np.int16
    np.testing.assert_allclose(gains.weight_scale(NORM), [1e-4], rtol=1e-7)
    assert gains.bias(NORM).tolist() == [256, -6400]
    zeros = layer((NORM, 1.0), -5.08, 2.0, pre_norm__weight=[0.0, 0.0])
    assert zeros.weight_scale(NORM).tolist() == [2.0**-40]
    with pytest.raises(QuantizationError, match=r"pre_norm.bias must fit int32"):
        layer((NORM, 1.0), -5.08, 2.0, pre_norm__weight=[1.0], pre_norm__bias=[0.04 * 2**23])
    fits = layer((NORM, 1.0), -127.0, 2.0, pre_norm__weight=[1.0], pre_norm__bias=[2.0**23 - 1])
    assert fits.bias(NORM).tolist() == [2**31 - 256]


def test_a_gain_that_is_added_to_one_is_stored_with_it() -> None:
    found = Observed()
    found.ranges = {NORM: SiteRange("norm", -1.0, 1.0)}
    config = tiny(norm_kind="rms_plus_one")
    weights = {f"{NORM}.weight": np.array([0.0, 1.0, -2.0])}
    model = calibrate(config, weights, found, Options(), names=weights)
    steps = model.weight(NORM) * model.weight_scale(NORM)
    np.testing.assert_allclose(steps, [1.0, 2.0, -1.0], atol=1e-4)


def test_a_tied_head_s_bias_counts_in_the_steps_of_the_table() -> None:
    config = replace(tiny(), head_bias=True)
    found = Observed()
    found.ranges = {"decoder.final_norm": SiteRange("norm", -2.0, 32.767),
                    "head": SiteRange("linear", -1.0, 1.0)}  # fmt: skip
    found.inputs = {"head": ("decoder.final_norm", 1.0)}
    weights = {
        "embedding.weight": np.array([[1.27, 0.0], [0.0, 2.54]]), "head.bias": np.array([1.0, 1.0])
    }  # fmt: skip
    model = calibrate(config, weights, found, Options(), names=weights)
    assert model.bias("head").tolist() == [100_000, 50_000]  # 1 / (0.01 * 0.001), / (0.02 * 0.001)


def test_encodings_that_are_known_are_kept() -> None:
    found = Observed()
    found.ranges = {"a": SiteRange("linear", -1.0, 1.0), "b": SiteRange("linear", -1.0, 1.0)}
    model = calibrate(tiny(), {}, found, Options(), names=[], known={"a": Encoding(8, 0.5)})
    assert model.activations == {"a": Encoding(8, 0.5), "b": Encoding(16, 1 / 32767)}
    some = calibrate(tiny(), {}, found, Options(bits={"b": 8}), names=[])  # a pattern of one site
    assert some.activations["b"].bits == 8


# -- smoothing -------------------------------------------------------------------------------------


def smoothed(kind: str, strength: float, largest: list[float]) -> Weights:
    """Smooth one norm with two readers whose largest columns are 4, 1 and 1/4."""
    found = Observed()
    found.ranges = {NORM: SiteRange("norm", -1, 1, np.array(largest))}
    found.readers = {NORM: {("linear", UP), ("linear", "decoder.0.mlp.gate")}}
    weights = {
        f"{NORM}.weight": np.array([2.0, 2.0, 2.0]),
        f"{NORM}.bias": np.array([8.0, 8.0, 8.0]),
        f"{UP}.weight": np.array([[-4.0, 0.5, 0.25], [1.0, 0.25, 0.0]]),
        "decoder.0.mlp.gate.weight": np.array([[0.5, -1.0, 0.125]]),
    }
    return smooth(tiny(norm_kind=kind), weights, found, strength)


def test_smoothing_by_hand() -> None:
    # s = sqrt(max X / max W) = sqrt(1/4), sqrt(1/1), sqrt(1/(1/4)) = 1/2, 1, 2; their mean is 1
    moved = smoothed("layer", 0.5, [1.0, 1.0, 1.0])
    assert moved[f"{NORM}.weight"].tolist() == pytest.approx([4.0, 2.0, 1.0])
    assert moved[f"{NORM}.bias"].tolist() == pytest.approx([16.0, 8.0, 4.0])
    np.testing.assert_allclose(moved[f"{UP}.weight"], [[-2, 0.5, 0.5], [0.5, 0.25, 0]], rtol=1e-6)
    np.testing.assert_allclose(moved["decoder.0.mlp.gate.weight"], [[0.25, -1, 0.25]], rtol=1e-6)
    # all of it to the weights: s = max X = 8, 1, 1 over their mean, 2
    moved = smoothed("layer", 1.0, [8.0, 1.0, 1.0])
    assert moved[f"{NORM}.weight"].tolist() == pytest.approx([0.5, 4.0, 4.0])


def test_smoothing_a_gain_that_is_added_to_one() -> None:
    moved = smoothed("rms_plus_one", 0.5, [1.0, 1.0, 1.0])
    assert moved[f"{NORM}.weight"].tolist() == pytest.approx([5.0, 2.0, 0.5])  # 3 / s - 1


def test_a_feature_that_is_always_zero_counts_as_a_hundred_thousandth() -> None:
    # s = max X: 0 counts as 1e-5, the others are 1e-5 and 1e5; their mean is 1e-5/3 of a power
    moved = smoothed("layer", 1.0, [0.0, 1e-5, 1e5])
    mean = 1e-5 ** (1 / 3)
    expected = [2 * mean / 1e-5, 2 * mean / 1e-5, 2 * mean / 1e5]
    assert moved[f"{NORM}.weight"].tolist() == pytest.approx(expected, rel=1e-5)


def test_a_norm_that_is_read_by_anything_else_is_left_alone() -> None:
    config = tiny()
    weights = {f"{NORM}.weight": np.ones(2), f"{UP}.weight": np.ones((1, 2))}
    for readers in ({("linear", UP), ("add", "x")}, {("linear", "elsewhere")}, set()):
        found = Observed()
        found.ranges = {NORM: SiteRange("norm", -1, 1, np.array([9.0, 1.0]))}
        found.readers = {NORM: readers}
        moved = smooth(config, weights, found, 0.5)
        assert {n: w.tolist() for n, w in moved.items()} == {
            n: w.tolist() for n, w in weights.items()
        }  # fmt: skip
    found.ranges[NORM].channel_max = None
    found.readers = {NORM: {("linear", UP)}}
    with pytest.raises(QuantizationError, match="must see values"):
        smooth(config, weights, found, 0.5)
