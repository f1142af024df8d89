"""Presets: published parameter counts, layer ratios, and an origin for every field."""

import json
import tracemalloc
from dataclasses import replace

import pytest
from safetensors import safe_open

from mu_ref.config import ModelConfig
from mu_ref.errors import ConfigError
from mu_ref.presets import PRESETS, field_origins, preset, tiny
from mu_ref.readers import config_from_fields
from mu_ref.settings.catalog import DATA
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


STACK = {
    "d_model": 768, "d_ff": 3072, "n_heads": 16, "n_kv_heads": 8, "d_head": 48,
    "kv_head_map": "blocked", "attention_scale": pytest.approx(0.14433756729740643),
    "attention_softcap": None, "attention_bias": True, "mlp_bias": True, "window": None,
    "norm_kind": "rms", "norm_placement": "dual", "norm_eps": 0.000001, "embed_norm": False,
    "embed_scale": 1.0, "activation": "gelu_tanh", "gated": False, "rope_theta": 10000.0,
    "rope_ntk_factor": 1.0, "rope_base_len": 1024, "rope_length": "row",
}  # fmt: skip
MODEL = {
    "vocab_size": 32128, "encoder_vocab_size": 32128, "shared_embedding": True, "tied_head": True,
    "head_bias": False, "final_softcap": None, "max_len": 4096, "pad_id": 0, "bos_id": 1,
    "eos_id": 32000, "mask_decoder_pads": True, "dropout": 0.1,
}  # fmt: skip


def stack_by_hand(n_layers: int, origin: str, **changes: object) -> dict[str, object]:
    layers = {"n_layers": n_layers, "windowed_layers": [False] * n_layers, "rope_origin": origin}
    return STACK | layers | changes


def small(widths: tuple[int, int, int, int, int], scale: float) -> dict[str, object]:
    names = ("d_model", "d_ff", "n_heads", "n_kv_heads", "d_head")
    return dict(zip(names, widths, strict=True)) | {"attention_scale": pytest.approx(scale)}


def test_every_field_of_every_preset_by_hand() -> None:
    """As `docs/mu_facts.md` lists them: mu_v2's widths, the public code's switches."""
    twin = stack_by_hand(47, "start", norm_placement="pre", embed_norm=True)
    public = small((1024, 4096, 6, 3, 64), 0.125)
    public |= {"kv_head_map": "cyclic", "norm_placement": "pre", "rope_length": "padded"}
    nano = small((192, 768, 6, 3, 32), 0.17677669529663687)
    nano |= {"embed_scale": pytest.approx(13.856406460551018)}
    tiny_widths = small((16, 32, 4, 2, 4), 0.5)
    ends = {"max_len": 256, "eos_id": 2}
    expected = {
        "mu-330m": (stack_by_hand(32, "centre"), stack_by_hand(12, "start"), {}),
        "decoder-only-330m": (None, twin, {}),
        "microsoft-mu-text2text": (
            stack_by_hand(20, "centre", **public), stack_by_hand(10, "start", **public),
            {"max_len": 1024, "unseeing": "mean"},
        ),
        "mu-nano": (
            stack_by_hand(8, "centre", **nano), stack_by_hand(3, "start", **nano),
            ends | {"vocab_size": 1536, "encoder_vocab_size": 1536, "dropout": 0.2},
        ),
        "tiny": (
            stack_by_hand(2, "centre", **tiny_widths), stack_by_hand(2, "start", **tiny_widths),
            ends | {"vocab_size": 61, "encoder_vocab_size": 61},
        ),
    }  # fmt: skip
    assert sorted(expected) == sorted(PRESETS)
    for name, (encoder, decoder, changes) in expected.items():
        data = json.loads(preset(name).to_json())
        assert data == MODEL | changes | {"name": name, "encoder": encoder, "decoder": decoder}


def test_the_weights_that_ship_are_of_the_preset() -> None:
    with safe_open(DATA / "mu-nano.safetensors", framework="np") as file:
        assert ModelConfig.from_json(file.metadata()["config"]) == preset("mu-nano")


def test_the_public_model_is_what_its_reader_makes_of_its_defaults() -> None:
    read = config_from_fields({"n_encoder_layer": 20})
    assert replace(read, name="microsoft-mu-text2text") == preset("microsoft-mu-text2text")


def test_origins_differ_between_presets_where_their_values_do() -> None:
    mu = field_origins("mu-330m")
    assert (mu["tied_head"], mu["d_model"]) == ("fact", "assumed; mu_v2")
    other = {
        name: {field for field, origin in field_origins(name).items() if origin != mu.get(field)}
        for name in PRESETS
    }
    assert other["mu-330m"] == set()
    assert other["decoder-only-330m"] == {"n_layers", "norm_placement", "embed_norm"}
    assert other["mu-nano"] == other["tiny"] == {
        "n_layers", "d_model", "d_ff", "n_heads", "n_kv_heads", "d_head", "vocab_size",
        "encoder_vocab_size", "attention_scale", "embed_scale", "max_len", "eos_id", "dropout",
    }  # fmt: skip
    public = field_origins("microsoft-mu-text2text")
    assert {field for field, origin in public.items() if "source code" not in origin} == {"name"}


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
