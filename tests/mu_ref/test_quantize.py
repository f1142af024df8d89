"""Observers, calibration, smoothing, integer files, and their errors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_weights

from mu_ref.config import ModelConfig
from mu_ref.errors import QuantizationError, WeightsError
from mu_ref.integers.store import load_integers, save_integers
from mu_ref.model import mu
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import tiny
from mu_ref.quantize.calibrate import Options, calibrate, site_encoding, weight_scales
from mu_ref.quantize.model import watch
from mu_ref.quantize.observe import Observed, SiteRange, observe, observed_range
from mu_ref.quantize.report import site_reports
from mu_ref.quantize.smooth import smooth
from mu_ref.weights import Weights, read_safetensors, save_weights, write_safetensors

RNG = np.random.default_rng(0)
EXAMPLES = [(RNG.integers(3, 61, 6), RNG.integers(3, 61, 5)) for _ in range(6)]


@pytest.fixture(scope="module")
def model() -> ModelConfig:
    return tiny(attention_bias=True, mlp_bias=True, norm_placement="dual")


@pytest.fixture(scope="module")
def weights(model: ModelConfig) -> Weights:
    return random_weights(model, 5)


@pytest.fixture(scope="module")
def observed(model: ModelConfig, weights: Weights) -> Observed:
    return observe(model, weights, EXAMPLES)


def seen(op: str, *values: float) -> SiteRange:
    site = SiteRange(op)
    site.add(np.array([values]))
    return site


# -- observers -------------------------------------------------------------------------------------


def test_every_computing_site_is_seen_with_its_source(observed: Observed) -> None:
    assert observed.inputs["decoder.0.cross_attention.k"] == ("encoder.final_norm", 1.0)
    assert observed.inputs["head"] == ("decoder.final_norm", 1.0)
    assert observed.ranges["encoder.0.self_attention.softmax"].op == "softmax"
    assert "encoder.0.self_attention.merge" not in observed.ranges  # moves data only


def test_a_scaled_input_is_known_with_its_factor() -> None:
    scaled = tiny(embed_scale=3.0, norm_placement="pre")
    found = observe(scaled, random_weights(scaled, 0), EXAMPLES)
    assert ("add", "encoder.0.self_attention.residual") in found.readers["embedding"]


def test_minmax_is_the_range() -> None:
    assert observed_range(seen("linear", -1.5, 0.25, 4.0), "minmax", 8) == (-1.5, 4.0)


def test_percentile_and_mse_cut_an_outlier() -> None:
    x = np.random.default_rng(0).standard_normal(40_000)
    site = SiteRange("linear")
    for part in np.split(x, 1000):
        site.add(part[None])
    for _ in range(2):  # every second value is kept
        site.add(np.array([[-9.0]]))
    for _ in range(2):
        site.add(np.array([[9.0]]))
    assert observed_range(site, "minmax", 8)[1] == 9
    assert observed_range(site, "percentile", 8)[1] < 7
    # n values in steps of 2 r / 255, two of them cut from 9 to r: n r^2 / 195075 + 2 (9 - r)^2
    # is least at r = 9 / (1 + n / 390150); ranges are tried 2 % apart
    n = len(site.values())
    assert observed_range(site, "mse", 8)[1] == pytest.approx(9 / (1 + n / 390150), abs=0.2)


def test_mse_keeps_a_range_that_is_used_evenly() -> None:
    site = SiteRange("linear")
    for part in np.split(np.linspace(-1, 1, 4000), 100):
        site.add(part[None])
    assert observed_range(site, "mse", 8) == (-1, 1)


# -- encodings of sites ----------------------------------------------------------------------------


def test_encodings_by_hand() -> None:
    e = site_encoding(seen("linear", -2.54, 1.0), "minmax", 8)
    assert (e.bits, e.scale, e.zero_point) == (8, pytest.approx(0.02), 0)
    e = site_encoding(seen("activation", -0.5, 50.5), "minmax", 8)  # 51 / 255 = 0.2
    assert (e.scale, e.zero_point) == (pytest.approx(0.2), -126)  # -0.5 is 2.5 steps, even: 2
    e = site_encoding(seen("softmax", 0.0, 0.3), "minmax", 8)
    assert (e.scale, e.zero_point) == (2**-8, -128)
    assert site_encoding(seen("linear", 0.0, 0.0), "minmax", 16).scale == 1.0


def test_stream_sites_keep_16_bits() -> None:
    options = Options(scheme="w8a8", bits={"decoder.*.scores": 16, "decoder.1.*": 8})
    widths = {
        "encoder.0.mlp.residual": 16, "embedding": 16, "head": 16, "encoder.0.mlp.up": 8,
        "decoder.0.self_attention.scores": 16, "decoder.1.self_attention.scores": 8,
    }  # fmt: skip
    assert {site: options.site_bits(site) for site in widths} == widths


def test_weight_scales_by_hand() -> None:
    w = np.array([[1.27, -0.5], [0.0, 0.0], [-2.54, 1.0]])
    np.testing.assert_allclose(weight_scales(w, clip=False), [0.01, 1.0, 0.02], rtol=1e-7)


def test_clipping_weights_never_raises_the_squared_error() -> None:
    w = np.random.default_rng(0).standard_normal((3, 20_000))
    w[0, :-1] = np.linspace(-0.9, 0.9, 19_999)
    w[0, -1] = 1.0  # cutting a tenth off one weight refines all others

    def error(clip: bool) -> np.ndarray:
        s = weight_scales(w, clip=clip).astype(np.float64)[:, None]
        return ((w - np.clip(np.rint(w / s), -127, 127) * s) ** 2).sum(axis=1)

    assert (error(True) <= error(False) + 1e-12).all()
    assert error(True)[0] < 0.95 * error(False)[0]


def test_a_bias_that_dwarfs_its_products_still_fits(model: ModelConfig, weights: Weights) -> None:
    big = dict(weights) | {"encoder.0.mlp.down.bias": np.full(16, 1e9)}
    ranges = observe(model, big, EXAMPLES)
    integers = calibrate(model, big, ranges, Options())
    step = (
        integers.weight_scale("encoder.0.mlp.down")
        * integers.encoding(ranges.inputs["encoder.0.mlp.down"][0]).scale
    )
    bias = integers.bias("encoder.0.mlp.down")
    assert bias is not None
    np.testing.assert_allclose(bias * step, 1e9, rtol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_smoothing_changes_weights_but_not_the_function(
    model: ModelConfig, weights: Weights, observed: Observed, strength: float
) -> None:
    moved = smooth(model, weights, observed, strength)
    changed = {name for name in weights if not np.allclose(moved[name], weights[name])}
    assert "encoder.0.self_attention.q.weight" in changed
    assert "encoder.final_norm.weight" in changed  # read by the matrices of cross-attention only
    assert "decoder.final_norm.weight" not in changed  # its reader is the tied embedding
    source, target = (np.array([row]) for row in EXAMPLES[0])
    valid = np.ones(source.shape, bool)
    before, after = (
        mu.forward(ReferenceOps(w, np.float64), model, source, valid, target)
        for w in (weights, moved)
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


# -- bad calibration -------------------------------------------------------------------------------


def test_calibration_without_examples_is_an_error(model: ModelConfig, weights: Weights) -> None:
    with pytest.raises(QuantizationError, match="at least one example, got none"):
        observe(model, weights, [])


def test_nan_in_the_model_is_an_error(model: ModelConfig, weights: Weights) -> None:
    broken = dict(weights) | {"encoder.1.mlp.up.weight": np.full((32, 16), np.nan)}
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(QuantizationError, match=r"NaN or infinity at encoder\.1\.mlp\.up"),
    ):
        observe(model, broken, EXAMPLES)


def test_ranges_survive_a_file(
    tmp_path: Path, model: ModelConfig, weights: Weights, observed: Observed
) -> None:
    observed.save(tmp_path / "ranges.json")
    again = Observed.load(tmp_path / "ranges.json", observed.ranges)
    ours, theirs = (calibrate(model, weights, o, Options()) for o in (observed, again))
    assert theirs.activations == ours.activations
    for name, tensor in ours.tensors.items():
        np.testing.assert_array_equal(theirs.tensors[name], tensor)
    with pytest.raises(QuantizationError, match="must see values"):
        calibrate(model, weights, again, Options(observer="mse"))
    with pytest.raises(QuantizationError, match="must see values"):
        smooth(model, weights, again, 0.5) if again.readers else observed_range(
            again.ranges["head"], "percentile", 8
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("head"), r"missing \['head'\]"),
        (lambda d: d.update({"elsewhere": d["head"]}), r"unknown \['elsewhere'\]"),
        (lambda d: d["head"].update(low=float("nan")), "NaN is no number of JSON"),
        (lambda d: d["head"].update(low=None), "head: low must be a number from .* got None"),
        (lambda d: d["head"].update(low=True), "head: low must be a number from .* got True"),
        (lambda d: d["head"].update(low="1"), "head: low must be a number from .* got '1'"),
        (lambda d: d["head"].update(high=1e300), "high must be .* float32 ends there"),
        (lambda d: d["head"].update(op=3), "head: op must be a text, got 3"),
        (lambda d: d["head"].update(reads=None), r"reads must be \[site, factor\], got None"),
        (lambda d: d["head"].update(reads=["x", 1.0]), "reads must name a site, got 'x'"),
        (lambda d: d["head"].update(reads=["embedding", -1.0]), "factor of reads must be"),
        (lambda d: d["head"].update(hats=1), "must have op, low, high and reads"),
        (lambda d: d["head"].update(low=9.0, high=-9.0), r"finite range, got 9\.0"),
        (lambda d: d["head"].pop("op"), "must have op, low, high and reads"),
        (lambda d: d.clear(), "missing"),
    ],
)
def test_a_wrong_file_of_ranges_says_why(
    tmp_path: Path, observed: Observed, change: Any, message: str
) -> None:
    path = tmp_path / "ranges.json"
    observed.save(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(QuantizationError, match=message):
        Observed.load(path, observed.ranges)


def test_an_empty_or_foreign_file_of_ranges_says_so(tmp_path: Path, observed: Observed) -> None:
    for text in ("", "[1, 2]", "not json"):
        (tmp_path / "ranges.json").write_text(text)
        with pytest.raises(QuantizationError, match="file of observed ranges"):
            Observed.load(tmp_path / "ranges.json", observed.ranges)


def test_wrong_options_are_errors(model: ModelConfig, weights: Weights, observed: Observed) -> None:
    for options in ({"scheme": "w4a4"}, {"observer": "best"}, {"rounding": "up"}):
        with pytest.raises(QuantizationError, match="must be one of"):
            Options(**options)  # type: ignore[arg-type]
    with pytest.raises(QuantizationError, match="8 or 16 bits, got 4"):
        Options(bits={"head": 4})
    with pytest.raises(QuantizationError, match="smooth must be a number from 0 to 1, got 2"):
        Options(smooth=2.0)
    with pytest.raises(QuantizationError, match="matches none"):
        calibrate(model, weights, observed, Options(bits={"decoder.9.*": 16}))


# -- files -----------------------------------------------------------------------------------------


def test_a_saved_model_computes_the_same_integers(
    tmp_path: Path, model: ModelConfig, weights: Weights, observed: Observed
) -> None:
    path = tmp_path / "model.safetensors"
    integers = calibrate(model, weights, observed, Options(scheme="w8a8", rounding="half_even"))
    save_integers(path, replace(integers, notes={"made": "here"}))
    again = load_integers(path)
    assert (again.scheme, again.rounding, again.notes) == ("w8a8", "half_even", {"made": "here"})
    source, target = (np.array([row]) for row in EXAMPLES[0])
    valid = np.ones(source.shape, bool)
    ours, theirs = (
        mu.forward(IntegerOps(m), model, source, valid, target).q for m in (integers, again)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_wrong_integer_files_say_why(
    tmp_path: Path, model: ModelConfig, weights: Weights, observed: Observed
) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, model, weights)
    with pytest.raises(WeightsError, match="its metadata lacks scheme"):
        load_integers(path)
    integers = calibrate(model, weights, observed, Options())
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"head_scale": np.ones(3)}, "unknown"),
        ({"embedding.weight": np.ones((61, 16))}, "must be int8, got float64"),
        ({"embedding.weight": np.ones((60, 16), np.int8)}, "must have shape"),
        ({"embedding.weight_scale": np.zeros(61, np.float32)}, "positive scales"),
    ]
    for change, message in wrong:
        save_integers(path, replace(integers, tensors={**integers.tensors, **change}))
        with pytest.raises(WeightsError, match=message):
            load_integers(path)
    save_integers(path, integers)
    tensors, metadata = read_safetensors(path)
    for key, text, message in (
        ("activations", "[]", "activations must be a JSON object, got list"),
        ("activations", '{"head": {"bits": 8, "scale": 0}}', r"missing \['zero_point'\]"),
        (
            "activations",
            '{"head": {"bits": 8, "scale": 0, "zero_point": 0}}',
            "head: a scale must be a number above 0 .*got 0",
        ),
        ("scheme", "w1a1", "scheme must be one of"),
    ):
        write_safetensors(path, tensors, {**metadata, key: text})
        with pytest.raises(WeightsError, match=message):
            load_integers(path)
    save_integers(path, integers)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="damaged"):
        load_integers(path)


# -- report ----------------------------------------------------------------------------------------


def test_the_report_lists_every_site_once(
    model: ModelConfig, weights: Weights, observed: Observed
) -> None:
    integers = calibrate(model, weights, observed, Options(scheme="w8a8"))
    rows = site_reports(model, weights, integers, EXAMPLES[:1])
    assert [row.site for row in rows] == list(observed.ranges)
    assert all(10 < row.sqnr_db < 120 for row in rows)
    assert all(0 <= row.saturation <= 1 for row in rows)
    wide_integers = calibrate(model, weights, observed, Options())
    wide = site_reports(model, weights, wide_integers, EXAMPLES[:1])
    mean = [np.mean([row.sqnr_db for row in table]) for table in (rows, wide)]
    assert mean[1] > mean[0] + 3  # 16-bit activations keep more


def test_smoothed_weights_are_what_is_watched_last() -> None:
    model = tiny(norm_placement="pre")
    weights = random_weights(model, 0)
    rows = [(np.array([5, 6, 7]), np.array([1, 8]))]
    plain = observe(model, weights, rows)
    smoothed = smooth(model, weights, plain, 0.5)
    found, seen = watch(model, weights, lambda: rows, Options(smooth=0.5))
    site = "encoder.0.mlp.pre_norm"
    assert not np.array_equal(weights[f"{site}.weight"], smoothed[f"{site}.weight"])
    for name in weights:
        np.testing.assert_array_equal(found[name], smoothed[name])
    expected = observe(model, smoothed, rows).ranges[site]
    assert seen.ranges[site].low == expected.low != plain.ranges[site].low
