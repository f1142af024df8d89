"""Presets: published parameter counts, layer ratios, and an origin for every field."""

import json
import tracemalloc

import pytest

from mu_ref.errors import ConfigError
from mu_ref.presets import PRESETS, field_origins, preset, tiny
from mu_ref.weights import count_parameters, weight_shapes


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mu-330m", 331_835_904),
        ("microsoft-mu-text2text", 332_042_240),
        ("decoder-only-330m", 329_975_808),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, count: int) -> None:
    assert count_parameters(preset(name)) == count


def test_two_thirds_of_mu_s_layers_are_in_the_encoder() -> None:
    """32 and 12 layers, the decoder's with a second attention: 67.7 % of the layers' parameters."""
    model = preset("mu-330m")
    assert (model.encoder.n_layers, model.decoder.n_layers) == (32, 12)
    encoder, decoder = (count_parameters(model, f"{s}.") for s in ("encoder", "decoder"))
    assert round(100 * encoder / (encoder + decoder), 1) == 67.7


def test_a_parameter_count_by_hand() -> None:
    """d 16, d_ff 32, 4 query heads and 2 kv heads of 4, 61 tokens, dual norm, biases."""
    attention = (16 * 16 + 16) + 2 * (8 * 16 + 8) + (16 * 16 + 16) + 2 * 16
    mlp = (32 * 16 + 32) + (16 * 32 + 16) + 2 * 16
    encoder = 2 * (attention + mlp) + 16
    decoder = 2 * (2 * attention + mlp) + 16
    assert count_parameters(tiny(), "encoder.") == encoder
    assert count_parameters(tiny(), "decoder.") == decoder
    assert count_parameters(tiny()) == encoder + decoder + 61 * 16


def test_counting_allocates_no_weights() -> None:
    tracemalloc.start()
    try:
        count_parameters(preset("mu-330m"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000  # the model itself has 1.3 GB


def test_mu_nano_keeps_mu_s_switches_at_its_own_size() -> None:
    nano, mu = preset("mu-nano"), preset("mu-330m")
    assert 3_000_000 <= count_parameters(nano) <= 8_000_000
    assert (nano.encoder.n_layers, nano.decoder.n_layers) == (8, 3)
    assert nano.tied_head
    assert nano.shared_embedding
    for stack in ("encoder", "decoder"):
        ours, theirs = nano.stacks[stack], mu.stacks[stack]
        assert ours.norm_placement == theirs.norm_placement == "dual"
        assert ours.n_kv_heads < ours.n_heads
        assert ours.attention_scale == pytest.approx(ours.d_head**-0.5)
        for field in ("norm_kind", "activation", "gated", "rope_theta", "rope_origin"):
            assert getattr(ours, field) == getattr(theirs, field)


@pytest.mark.parametrize("name", PRESETS)
def test_every_field_of_every_preset_has_an_origin(name: str) -> None:
    data = json.loads(preset(name).to_json())
    names = set(data) - {"encoder", "decoder"}
    names |= {field for stack in ("encoder", "decoder") for field in data[stack] or {}}
    origins = field_origins(name)
    assert set(origins) == names
    for origin in origins.values():
        assert origin.startswith(("fact", "assumed", "ours"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_called_what_it_says(name: str) -> None:
    assert preset(name).name == name


def test_the_twin_has_no_cross_attention_and_mu_has() -> None:
    assert not [n for n in weight_shapes(preset("decoder-only-330m")) if "cross" in n]
    assert sum("cross_attention.q.weight" in n for n in weight_shapes(preset("mu-330m"))) == 12


@pytest.mark.parametrize("ask", [preset, field_origins])
def test_an_unknown_preset_is_refused_and_the_others_listed(ask) -> None:
    with pytest.raises(ConfigError) as error:
        ask("mu-7b")
    for name in PRESETS:
        assert name in str(error.value)
