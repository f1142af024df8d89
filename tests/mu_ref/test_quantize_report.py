"""Reports and the bound on the logits, restated from their formulas over whole small models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from strategies import random_weights

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.integers.encodings import Encoding
from mu_ref.model import mu
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.traced import TracedOps
from mu_ref.presets import tiny
from mu_ref.quantize.bound import MarginBound, margin_bound
from mu_ref.quantize.calibrate import Options, calibrate
from mu_ref.quantize.observe import observe
from mu_ref.quantize.report import SiteReport, plot_sqnr, site_reports
from mu_ref.weights import Weights

RNG = np.random.default_rng(3)
EXAMPLES = [(RNG.integers(3, 61, 6), RNG.integers(3, 61, 5)) for _ in range(4)]
EXAMPLES[0][1][1] = 0  # the id of padding: what is calibrated with has none, and this counts


def forward(ops, config: ModelConfig, source: np.ndarray | None, target: np.ndarray):
    full = None if source is None else np.ones(source.shape, bool)
    return mu.forward(ops, config, source, full, target, np.ones(target.shape, bool))


# -- reports ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> tuple[ModelConfig, Weights, IntegerOps]:
    config = replace(tiny(norm_placement="dual"), head_bias=True)
    weights = random_weights(config, 5)
    options = Options(scheme="w8a8")
    integers = calibrate(config, weights, observe(config, weights, EXAMPLES), options)
    return config, weights, IntegerOps(integers)


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


def test_a_report_of_a_decoder_only_model_has_no_encoder() -> None:
    config = replace(tiny(), encoder=None)
    weights, pairs = random_weights(config, 2), [(None, target) for _, target in EXAMPLES]
    integers = calibrate(config, weights, observe(config, weights, pairs), Options())
    rows = site_reports(config, weights, integers, pairs)
    assert {row.site.split(".")[0] for row in rows} == {"embedding", "decoder", "head"}
    assert all(row.sqnr_db > 10 for row in rows)
    found = margin_bound(config, weights, IntegerOps(integers), None, pairs[0][1][None])
    assert list(found.blocks) == [
        "decoder.0.mlp.residual", "decoder.1.mlp.residual", "decoder.final_norm", "head",
    ]  # fmt: skip


def test_a_plot_shows_every_site_in_its_place_by_kind(tmp_path: Path, monkeypatch) -> None:
    from matplotlib import pyplot

    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    sites = {"embedding": 1e3, "encoder.0.self_attention.q": 1e2, "encoder.0.mlp.up": 1e30,
             "encoder.0.mlp.residual": 1e4, "encoder.1.mlp.up": 10.0}  # fmt: skip
    rows = [SiteReport(site, Encoding(8, 1.0), power, 1.0) for site, power in sites.items()]
    plot_sqnr(rows, "a title", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    assert (axes.get_title(), axes.get_ylabel()) == ("a title", "SQNR (dB)")
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {
        "residual stream": [[3, 40]], "attention": [[1, 20]], "MLP": [[2, 120], [4, 10]],
        "other": [[0, 30]],
    }  # fmt: skip
    ticks = dict(zip(axes.get_xticks(), axes.get_xticklabels(), strict=True))
    assert {at: text.get_text() for at, text in ticks.items()} == {1: "encoder.0", 4: "encoder.1"}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(drawn)
    with pytest.raises(InputError, match="image format must be one of"):
        plot_sqnr(rows, "a title", tmp_path / "a.docx")


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


def test_a_logit_that_may_saturate_has_no_bound(model) -> None:
    """The head's range ends between the largest logit and that logit with its error."""
    config, weights, ops = model
    source, target = EXAMPLES[1][0][None], EXAMPLES[1][1][None]
    wide = margin_bound(config, weights, ops, source, target)
    assert np.isfinite(wide.bound).all()
    floats = Replaced(weights, np.float64)
    streams: dict[str, np.ndarray] = {}
    keep = TracedOps(ops, lambda site, op, inputs, v: streams.update({site: ops.read(v)}))
    forward(keep, config, source, target)
    floats.given = {"decoder.final_norm": streams["decoder.final_norm"]}
    z = np.abs(forward(floats, config, source, target))
    at = np.unravel_index(z.argmax(), z.shape)
    both = wide.blocks["head"][at]  # its error and that of the best token: at least half is in it
    for share, finite in ((0.01, False), (4.0, True)):
        scale = (z[at] + share * both) / 32767
        head = {**ops.model.activations, "head": Encoding(16, float(scale))}
        changed = IntegerOps(replace(ops.model, activations=head))
        found = margin_bound(config, weights, changed, source, target)
        assert np.isfinite(found.bound[at]) == finite


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
