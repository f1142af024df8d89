"""What calibration sees, by hand: which values are kept, which part of a range is covered, files.

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
from mu_ref.errors import QuantizationError
from mu_ref.integers.encodings import Encoding
from mu_ref.model import mu
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.traced import TracedOps
from mu_ref.presets import tiny
from mu_ref.quantize.calibrate import site_encoding
from mu_ref.quantize.observe import Observed, SiteRange, observe, observed_range

RNG = np.random.default_rng(3)
EXAMPLES = [(RNG.integers(3, 61, 6), RNG.integers(3, 61, 5)) for _ in range(4)]
EXAMPLES[0][1][1] = 0  # the id of padding: what is calibrated with has none, and this counts


def forward(ops, config: ModelConfig, source: np.ndarray | None, target: np.ndarray):
    full = None if source is None else np.ones(source.shape, bool)
    return mu.forward(ops, config, source, full, target, np.ones(target.shape, bool))


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
    with pytest.raises(QuantizationError, match=r"ranges\.json must be .* is no number of JSON"):
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


def test_factors_multiply_and_what_is_appended_has_the_site_of_the_new() -> None:
    seen: list[tuple[str, float]] = []
    ops = TracedOps(
        ReferenceOps({"a.weight": np.ones((3, 2)), "b.weight": np.ones((3, 2))}),
        lambda site, op, inputs, value: seen.extend((x.site, x.factor) for x in inputs),
    )
    a, b = (ops.split_heads(ops.embed(np.array([[1]]), site), 1, "heads") for site in "ab")
    twice = ops.scale(ops.scale(b, 3.0, "s"), 5.0, "s")
    ops.mul(ops.append(a, twice, "cache"), a, "product")
    assert seen == [("b", 15.0), ("a", 1.0)]


def test_ranges_are_those_of_all_examples_and_pad_ids_count() -> None:
    config, ranges = tiny(), {}

    def keep(site, op, inputs, value):
        low, high = ranges.get(site, (np.inf, -np.inf))
        ranges[site] = (min(low, value.min()), max(high, value.max()))

    weights = random_weights(config, 1)
    for source, target in EXAMPLES:
        forward(TracedOps(ReferenceOps(weights), keep), config, source[None], target[None])
    found = observe(config, weights, EXAMPLES)
    assert {site: (r.low, r.high) for site, r in found.ranges.items()} == ranges


def test_one_number_that_is_none_is_enough_to_refuse() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(QuantizationError, match="NaN or infinity at here"):
            Observed().take("here", "linear", (), np.array([[1.0, bad]]))


def test_a_decoder_only_model_is_observed_without_a_source() -> None:
    config = replace(tiny(), encoder=None)
    found = observe(config, random_weights(config, 0), [(None, target) for _, target in EXAMPLES])
    assert all(site.startswith(("decoder", "embedding", "head")) for site in found.ranges)
