"""Ranges, scales and bounds worked out by hand: what is kept, which share wins, what is rounded.

A quantized model is near the floats whatever a percentile or a share is; only numbers that come
from elsewhere notice another one.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from strategies import random_weights

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError, QuantizationError
from mu_ref.integers.encodings import Encoding
from mu_ref.model import mu
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.traced import TracedOps
from mu_ref.presets import tiny
from mu_ref.quantize.bound import MarginBound, margin_bound
from mu_ref.quantize.calibrate import Options, calibrate, site_encoding, weight_scales
from mu_ref.quantize.observe import Observed, SiteRange, observe, observed_range
from mu_ref.quantize.report import SiteReport, site_reports
from mu_ref.quantize.smooth import smooth
from mu_ref.weights import Weights

RNG = np.random.default_rng(3)
EXAMPLES = [(RNG.integers(3, 61, 6), RNG.integers(3, 61, 5)) for _ in range(4)]


def seen(op: str, *tensors: object) -> SiteRange:
    site = SiteRange(op)
    for tensor in tensors:
        site.add(np.array(tensor, np.float64))
    return site


# -- what one site keeps ---------------------------------------------------------------------------


def test_a_norm_remembers_the_largest_magnitude_of_each_feature_over_all_examples() -> None:
    site = seen("norm", [[[1.0, -7.0, 0.5], [-2.0, 3.0, 0.0]]], [[[-9.0, 1.0, 0.25]]])
    assert site.channel_max is not None
    assert site.channel_max.tolist() == [9.0, 7.0, 0.5]
    assert (site.low, site.high) == (-9.0, 3.0)
    assert seen("linear", [[1.0]]).channel_max is None


@pytest.mark.parametrize(("n", "step"), [(1, 1), (127, 1), (128, 2), (640, 10), (703, 10)])
def test_of_each_tensor_about_64_values_are_kept_evenly_spread(n: int, step: int) -> None:
    site = seen("linear", np.arange(n)[None])
    assert site.values().tolist() == list(range(0, n, step))
    assert site.values().dtype == np.float64
    assert site.sample[0].dtype == np.float32


def test_of_all_values_about_16384_are_kept_evenly_spread() -> None:
    parts = [np.arange(i * 100, i * 100 + 100)[None] for i in range(500)]
    assert seen("linear", *parts).values().tolist() == list(range(0, 50_000, 3))  # 50000 // 16384
    few = seen("linear", *parts[:327])  # 32,700: below twice 16,384, and so all
    assert len(few.values()) == 32_700


# -- which part of a range is covered --------------------------------------------------------------


def ramp(low: int, high: int) -> SiteRange:
    """The whole numbers low..high, 10,001 of them, in tensors of which every value is kept."""
    return seen("linear", *np.arange(low, high + 1).reshape(-1, 1, 73))


def test_a_percentile_leaves_out_one_value_in_ten_thousand_at_each_end() -> None:
    # 10,001 evenly spaced values: 0.01 % of them is exactly one step
    assert observed_range(ramp(-5000, 5000), "percentile", 8) == pytest.approx((-4999, 4999))


def test_zero_lies_inside_every_percentile_range() -> None:
    assert observed_range(ramp(1, 10_001), "percentile", 8) == (0.0, pytest.approx(10_000))
    assert observed_range(ramp(-10_001, -1), "percentile", 8) == (pytest.approx(-10_000), 0.0)


@pytest.mark.parametrize(("bits", "outlier", "least"), [(3, 16, 0.3), (4, 7, 0.52), (5, 6, 0.76)])
def test_mse_takes_the_best_of_36_shares(bits: int, outlier: float, least: float) -> None:
    """All 36 shares, 1 down to 0.3, are tried here by hand: the least squared error wins."""
    x = np.random.default_rng(bits).standard_normal(3000).astype(np.float32).astype(np.float64)
    x[:2] = -outlier / 2, outlier
    errors = {}
    for i in range(36):
        share = 1 - i * 0.02
        low, high = share * x.min(), share * x.max()
        step = (high - low) / (2**bits - 1)
        clipped = np.clip(x, low, high)
        errors[share] = ((x - np.round(clipped / step) * step) ** 2).sum()
    best = min(errors, key=lambda share: errors[share])
    found = observed_range(seen("linear", *x.reshape(30, 1, 100)), "mse", bits)
    np.testing.assert_allclose(found, [best * x.min(), best * x.max()], rtol=1e-6)
    assert best == pytest.approx(least)


def test_a_site_that_is_always_zero_has_a_range_all_the_same() -> None:
    zeros = seen("linear", np.zeros((1, 8)))
    assert observed_range(zeros, "mse", 8) == (0.0, 0.0)
    assert site_encoding(zeros, "mse", 8) == Encoding(8, 1.0)
    assert site_encoding(seen("activation", np.zeros((1, 8))), "minmax", 8) == Encoding(
        8, 1.0, -128
    )


# -- a file of ranges ------------------------------------------------------------------------------


def observed_by_hand() -> Observed:
    found = Observed()
    found.ranges = {
        "a": SiteRange("norm", -5.08, 2.0),
        "b": SiteRange("linear", 0.25, 0.25),
    }
    found.inputs = {"b": ("a", 3.5)}
    return found


def test_ranges_sources_and_factors_come_back_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    observed_by_hand().save(path)
    assert json.loads(path.read_text()) == {
        "a": {"op": "norm", "low": -5.08, "high": 2.0, "reads": None},
        "b": {"op": "linear", "low": 0.25, "high": 0.25, "reads": ["a", 3.5]},
    }
    again = Observed.load(path, ["b", "a"])
    assert again.inputs == {"b": ("a", 3.5)}
    assert {s: (r.op, r.low, r.high) for s, r in again.ranges.items()} == {
        "a": ("norm", -5.08, 2.0), "b": ("linear", 0.25, 0.25),  # one value is a range
    }  # fmt: skip


@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_end_that_is_no_number_is_refused(tmp_path: Path, end: str, value: float) -> None:
    path = tmp_path / "ranges.json"
    observed_by_hand().save(path)
    data = json.loads(path.read_text())
    data["a"][end] = value if end == "high" else -value
    path.write_text(json.dumps(data))
    with pytest.raises(QuantizationError, match="a must have a finite range"):
        Observed.load(path, ["a", "b"])


def test_a_scaled_input_keeps_its_factor_and_every_reader_is_known() -> None:
    config = tiny(embed_scale=3.0, norm_placement="pre")
    found = observe(config, random_weights(config, 0), EXAMPLES)
    assert found.readers["decoder.0.self_attention.pre_norm"] == {
        ("linear", f"decoder.0.self_attention.{name}") for name in "qkv"
    }
    assert found.inputs["encoder.1.mlp.down"] == ("encoder.1.mlp.activation", 1.0)
    pass_through = Observed()
    ops = TracedOps(ReferenceOps({"l.weight": np.ones((1, 2)), "t.weight": np.ones((3, 2))}),
                    pass_through.take)  # fmt: skip
    ops.linear(ops.scale(ops.embed(np.array([[1]]), "t"), 3.0, "t.scale"), "l")
    assert pass_through.inputs == {"l": ("t", 3.0)}
    assert pass_through.readers == {"t": {("linear", "l")}}


def test_a_decoder_only_model_is_observed_without_a_source() -> None:
    config = replace(tiny(), encoder=None)
    found = observe(config, random_weights(config, 0), [(None, target) for _, target in EXAMPLES])
    assert all(site.startswith(("decoder", "embedding", "head")) for site in found.ranges)


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
    with pytest.raises(QuantizationError, match=r"in 0\.\.1, got -0.1"):
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
    assert (model.scheme, model.rounding, model.config) == ("w8a8", "tflite_single", tiny())


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


# -- reports ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> tuple[ModelConfig, Weights, IntegerOps]:
    config = replace(tiny(norm_placement="dual"), head_bias=True)
    weights = random_weights(config, 5)
    options = Options(scheme="w8a8")
    integers = calibrate(config, weights, observe(config, weights, EXAMPLES), options)
    return config, weights, IntegerOps(integers)


def forward(ops, config: ModelConfig, source: np.ndarray, target: np.ndarray):
    full = np.ones(source.shape, bool)
    return mu.forward(ops, config, source, full, target, np.ones(target.shape, bool))


def test_a_report_adds_up_signal_noise_and_ends_of_all_examples(model) -> None:
    config, weights, ops = model
    values: dict[str, list] = {}

    def keep(site, op, inputs, value):
        values.setdefault(site, []).append(value)

    rows = {row.site: row for row in site_reports(config, weights, ops.model, EXAMPLES[:2])}
    for executor in (ReferenceOps(weights), ops):
        for source, target in EXAMPLES[:2]:
            forward(TracedOps(executor, keep), config, source[None], target[None])
    assert rows.keys() == values.keys()
    for site, found in values.items():
        half = len(found) // 2
        x = np.concatenate([v.ravel() for v in found[:half]]).astype(np.float64)
        q = np.concatenate([v.q.ravel() for v in found[half:]]).astype(np.float64)
        e, row = found[-1].encoding, rows[site]
        assert (row.encoding, row.n) == (e, x.size)
        assert row.signal == pytest.approx((x**2).sum(), rel=1e-6)
        noise = ((x - e.scale * (q - e.zero_point)) ** 2).sum()
        assert row.noise == pytest.approx(noise, rel=1e-6)
        assert row.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / noise), rel=1e-6)
        top = 2 ** (e.bits - 1) - 1
        lowest = -9999999 if site.endswith("softmax") else -top - 1  # of a softmax 0 is no end
        assert row.saturated == ((q == top) | (q == lowest)).sum()
        assert row.saturation == row.saturated / x.size
    assert sum(row.saturated for row in rows.values()) > 0


def test_a_report_without_noise_or_signal() -> None:
    encoding = Encoding(8, 1.0)
    assert SiteReport("a", encoding, signal=4.0, noise=0.04, n=10, saturated=3).saturation == 0.3
    assert SiteReport("a", encoding, signal=4.0, noise=0.04).sqnr_db == pytest.approx(20)
    assert SiteReport("a", encoding, signal=4.0).sqnr_db == float("inf")
    assert SiteReport("a", encoding, noise=1.0).sqnr_db == pytest.approx(-3000)
    assert SiteReport("a", encoding).saturation == 0.0


# -- the bound -------------------------------------------------------------------------------------


class Replaced(ReferenceOps):
    """Floats whose streams are taken from elsewhere at the sites that are given."""

    given: dict[str, np.ndarray]

    def add(self, x, y, site):
        return self.given.get(site, super().add(x, y, site))

    def norm(self, x, site, kind, eps):
        return self.given.get(site, super().norm(x, site, kind, eps))


def test_the_terms_of_the_bound_are_those_of_its_formula(model) -> None:
    """F_k has the streams after blocks 1..k of the integer model; each step between two counts."""
    config, weights, ops = model
    source, target = EXAMPLES[0][0][None], EXAMPLES[0][1][None]
    streams: dict[str, np.ndarray] = {}
    keep = TracedOps(ops, lambda site, op, inputs, v: streams.update({site: ops.read(v)}))
    forward(keep, config, source, target)
    found = margin_bound(config, weights, ops, source, target)
    sites = [
        "encoder.0.mlp.residual", "encoder.1.mlp.residual", "encoder.final_norm",
        "decoder.0.mlp.residual", "decoder.1.mlp.residual", "decoder.final_norm",
    ]  # fmt: skip
    assert list(found.blocks) == [*sites, "head"]
    floats = Replaced(weights, np.float64)
    floats.given = {}
    z = forward(floats, config, source, target)[0]  # F_0
    best = z.argmax(axis=-1)
    rows = np.arange(len(best))
    assert found.best[0].tolist() == best.tolist()
    np.testing.assert_allclose(found.margin[0], z[rows, best][:, None] - z, rtol=1e-12)
    total = 0.0
    for site in sites:
        floats.given[site] = streams[site]
        after = forward(floats, config, source, target)[0]
        change = after - z
        term = np.abs(change[rows, best][:, None] - change)
        np.testing.assert_allclose(found.blocks[site][0], term, rtol=1e-9, atol=1e-12)
        z, total = after, total + term
    # the head: rounded weights and bias, half a step of the logit, the 15-bit multiplier
    w = weights["embedding.weight"]
    scale = ops.model.weight_scale("embedding")[:, None]
    norm, head = (ops.model.encoding(site).scale for site in ("decoder.final_norm", "head"))
    hidden = np.abs(streams["decoder.final_norm"][0])
    error = hidden @ np.abs(w - scale * ops.model.weight("embedding")).T
    error += head / 2 + scale[:, 0] * norm / 2
    error += 2.0**-15 * (np.abs(z) + error)
    beyond = np.abs(z) + error >= head * 32767
    both = np.where(beyond, np.inf, error)
    both = both + both[rows, best][:, None]
    np.testing.assert_allclose(found.blocks["head"][0], both, rtol=1e-9)
    np.testing.assert_allclose(found.bound[0], total + both, rtol=1e-9)


def test_a_token_is_covered_if_every_other_margin_exceeds_its_bound() -> None:
    best = np.array([[0, 1, 1]])
    margin = np.array([[[0.0, 3.0, 5.0], [2.0, 0.0, 2.0], [9.0, 0.0, 1.0]]])
    bound = np.array([[[9.0, 2.9, 4.9], [1.0, 9.0, 2.0], [8.0, 9.0, 0.5]]])
    assert MarginBound(best, margin, bound).covered.tolist() == [[True, False, True]]


def test_the_bound_is_refused_where_it_does_not_hold(model) -> None:
    config, weights, ops = model
    source, target = EXAMPLES[0][0][None], EXAMPLES[0][1][None]
    for wrong in (replace(config, final_softcap=3.0), replace(config, decoder=None)):
        with pytest.raises(InputError, match="without a final soft-cap"):
            margin_bound(wrong, weights, ops, source, target)
