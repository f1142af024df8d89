"""Configurations refuse what contradicts itself, and survive the way through JSON."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from strategies import model_configs

from mu_ref.config import ModelConfig
from mu_ref.errors import ConfigError
from mu_ref.presets import PRESETS, preset, tiny


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name: str) -> None:
    config = preset(name)
    assert ModelConfig.from_json(config.to_json()) == config


@given(model_configs())
def test_every_configuration_survives_json(config: ModelConfig) -> None:
    again = ModelConfig.from_json(config.to_json())
    assert again == config
    assert hash(again) == hash(config)  # a list where a tuple was would not hash


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_layers", 0),
        ("d_model", 0),
        ("d_ff", -1),
        ("n_heads", 3),  # of 2 kv heads
        ("n_kv_heads", 3),
        ("d_head", 5),
        ("windowed_layers", (False,)),
        ("windowed_layers", (True, False)),  # without a window
        ("kv_head_map", "striped"),
        ("norm_kind", "batch"),
        ("norm_placement", "post"),
        ("activation", "tanh"),
        ("rope_origin", "end"),
        ("rope_length", "batch"),
    ],
)
def test_a_contradiction_in_a_stack_names_its_field(field: str, value: object) -> None:
    named = {"n_kv_heads": "n_kv_heads", "windowed_layers": "window"}.get(field, field)
    with pytest.raises(ConfigError, match=named):
        replace(tiny().stacks["encoder"], **{field: value})


def test_a_window_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="window must be at least 1"):
        tiny(window=0, windowed_layers=(True, False))


def test_ntk_scaling_needs_two_pairs() -> None:
    with pytest.raises(ConfigError, match="d_head"):
        replace(tiny().stacks["decoder"], d_head=2, rope_ntk_factor=2.0)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"vocab_size": 0}, "vocab_size"),
        ({"encoder_vocab_size": 60}, "encoder_vocab_size"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"encoder": None, "decoder": None}, "encoder or a decoder"),
    ],
)
def test_a_contradiction_in_a_model_names_its_field(changes: dict, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        replace(tiny(), **changes)


def test_stacks_that_share_an_embedding_have_one_width() -> None:
    wide = replace(tiny().stacks["encoder"], d_model=18)
    with pytest.raises(ConfigError, match="d_model"):
        replace(tiny(), encoder=wide)
    assert replace(tiny(), encoder=wide, shared_embedding=False).encoder.d_model == 18


def test_a_decoder_cannot_place_the_origin_in_the_centre() -> None:
    """Its centre would move with every token, and the cached keys would not."""
    with pytest.raises(ConfigError, match="rope_origin"):
        replace(tiny(), decoder=replace(tiny().stacks["decoder"], rope_origin="centre"))


def test_head_maps_by_hand() -> None:
    stack = tiny().stacks["decoder"]  # 4 heads, 2 kv heads
    assert replace(stack, kv_head_map="blocked").kv_head_of == (0, 0, 1, 1)
    assert replace(stack, kv_head_map="cyclic").kv_head_of == (0, 1, 0, 1)


def test_a_window_applies_to_its_layers() -> None:
    stack = tiny(window=3, windowed_layers=(False, True)).stacks["decoder"]
    assert [stack.layer_window(layer) for layer in range(2)] == [None, 3]


# -- the last value that is allowed, and the first that is not -------------------------------------


@pytest.mark.parametrize(
    ("field", "allowed", "refused"),
    [
        ("n_layers", None, 0), ("d_model", 1, 0), ("d_ff", 1, 0), ("d_head", 2, 0),
        ("n_heads", 2, 0), ("n_kv_heads", 1, 0), ("norm_eps", 0.0, -1e-9),
        ("norm_eps", 1e-9, float("nan")), ("rope_theta", 0.5, 0.0), ("rope_base_len", 1, 0),
        ("attention_softcap", 0.5, 0.0), ("attention_softcap", None, -1.0),
        ("rope_theta", 1.0, float("nan")),
    ],
)  # fmt: skip
def test_each_number_of_a_stack_is_allowed_to_its_limit(field, allowed, refused) -> None:
    stack = tiny().stacks["decoder"]
    if field != "n_layers":
        assert getattr(replace(stack, **{field: allowed}), field) == allowed
    with pytest.raises(ConfigError, match=rf"^{field} must be .*got {refused}"):
        replace(stack, **{field: refused})


def test_a_window_is_looked_at_only_where_a_layer_has_one() -> None:
    stack = tiny().stacks["decoder"]
    assert replace(stack, window=0).layer_window(1) is None
    assert replace(stack, window=1, windowed_layers=(False, True)).layer_window(1) == 1


def test_the_ntk_factor_asks_for_two_pairs_only_above_one() -> None:
    stack = tiny().stacks["decoder"]
    assert replace(stack, d_head=2, rope_ntk_factor=1.0).d_head == 2
    assert replace(stack, d_head=4, rope_ntk_factor=2.0).d_head == 4
    with pytest.raises(ConfigError, match="at least 4 with an NTK factor, got 2"):
        replace(stack, d_head=2, rope_ntk_factor=1.5)


def test_each_number_of_a_model_is_allowed_to_its_limit() -> None:
    apart = replace(tiny(), shared_embedding=False)
    alone = replace(apart, pad_id=0, bos_id=0, eos_id=0)  # the only token there is
    assert replace(alone, vocab_size=1, encoder_vocab_size=1).vocab_size == 1
    for sizes in ({"vocab_size": 0}, {"encoder_vocab_size": 0}):
        with pytest.raises(ConfigError, match=r"vocab_size must be .* from 1 to .*0$"):
            replace(apart, **sizes)
    assert replace(tiny(), final_softcap=0.5, dropout=0.0).final_softcap == 0.5
    assert replace(tiny(), dropout=0.99).dropout == 0.99
    for cap in (0.0, -1.0, float("nan")):
        with pytest.raises(
            ConfigError, match=f"final_softcap must be a number above 0 .* got {cap}"
        ):
            replace(tiny(), final_softcap=cap)


def test_widths_and_sites_by_hand() -> None:
    """4 heads and 2 kv heads of 4; the head is the decoder's table, or has one of its own."""
    stack = tiny().stacks["decoder"]
    assert (stack.d_attn, stack.d_kv) == (16, 8)
    sites = {}
    for shared in (True, False):
        for tied in (True, False):
            config = replace(tiny(), shared_embedding=shared, tied_head=tied)
            tables = (config.embedding_site("encoder"), config.embedding_site("decoder"))
            sites[shared, tied] = (*tables, config.head_site)
    assert sites == {
        (True, True): ("embedding", "embedding", "embedding"),
        (True, False): ("embedding", "embedding", "head"),
        (False, True): ("encoder.embedding", "decoder.embedding", "decoder.embedding"),
        (False, False): ("encoder.embedding", "decoder.embedding", "head"),
    }
    assert list(tiny().stacks) == ["encoder", "decoder"]
    assert list(replace(tiny(), encoder=None).stacks) == ["decoder"]


def test_missing_and_unknown_fields_are_listed_apart_in_order() -> None:
    data = json.loads(tiny().to_json())
    for name in ("pad_id", "dropout", "max_len"):
        del data[name]
    data |= {"zebra": 1, "apes": 2}
    message = r"missing \['dropout', 'max_len', 'pad_id'\], got \['apes', 'zebra'\]"
    with pytest.raises(ConfigError, match=f"configuration must have exactly its fields; {message}"):
        ModelConfig.from_json(json.dumps(data))


# -- reading ---------------------------------------------------------------------------------------


def changed(path: tuple[str, ...], value: object) -> str:
    data = json.loads(tiny().to_json())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "must be JSON"),
        ("nonsense", "must be JSON"),
        ("[1]", "must be a JSON object, got list"),
        ("{}", "missing"),
        (changed(("medusa_heads",), 4), "medusa_heads"),
        (changed(("encoder",), 4), "encoder must be a JSON object"),
        (changed(("encoder", "hats"), 4), "hats"),
        (changed(("decoder", "norm_kind"), "batch"), "norm_kind"),
    ],
)
def test_a_text_that_is_no_configuration_is_refused(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        ModelConfig.from_json(text)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("vocab_size",), "many"),
        (("dropout",), None),
        (("encoder", "n_layers"), None),
        (("encoder", "windowed_layers"), 2),
        (("encoder", "d_head"), "wide"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(path: tuple[str, ...], value: object) -> None:
    with pytest.raises(ConfigError):
        ModelConfig.from_json(changed(path, value))


@pytest.mark.parametrize("value", [None, True, "1", 1.5, 2**70, -3, [1], {}, float("nan")])
@pytest.mark.parametrize(
    "path",
    [
        ("vocab_size",), ("max_len",), ("pad_id",), ("bos_id",), ("encoder", "n_layers"),
        ("encoder", "d_model"), ("encoder", "d_ff"), ("decoder", "n_heads"),
        ("decoder", "n_kv_heads"), ("decoder", "d_head"), ("decoder", "rope_base_len"),
    ],
)  # fmt: skip
def test_each_whole_number_of_a_file_is_one_or_named(path: tuple[str, ...], value: object) -> None:
    with pytest.raises(ConfigError, match=r"must be .*, got ") as caught:
        ModelConfig.from_json(changed(path, value), "f: configuration")
    assert path[-1] in str(caught.value) or "NaN is no number of JSON" in str(caught.value)
    assert str(caught.value).startswith("f: configuration")


@pytest.mark.parametrize("value", [True, "1", float("inf"), -1.0, 10**400, [1.0]])
@pytest.mark.parametrize(
    "path",
    [
        ("final_softcap",), ("dropout",), ("encoder", "attention_scale"), ("encoder", "norm_eps"),
        ("encoder", "attention_softcap"), ("encoder", "embed_scale"), ("decoder", "rope_theta"),
        ("decoder", "rope_ntk_factor"),
    ],
)  # fmt: skip
def test_each_real_number_of_a_file_is_one_or_named(path: tuple[str, ...], value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{path[-1]} must be|is no number of JSON"):
        ModelConfig.from_json(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        (("encoder", "n_layers"), 10**7, "n_layers must be .*some hundred layers"),
        (("encoder", "window"), -3, "window must be .* from 0 to .* got -3"),
        (("encoder", "windowed_layers"), [0, 1], "windowed_layers must be a list, each true"),
        (("encoder", "gated"), 1, "gated must be true or false, got 1"),
        (("decoder", "rope_ntk_factor"), 0.5, "rope_ntk_factor must be a number from 1 to 1,024"),
        (("name",), None, "name must be a text and not null, got None"),
        (("tied_head",), "yes", "tied_head must be true or false, got 'yes'"),
        (("pad_id",), 61, "pad_id must be .* from 0 to 60, got 61; the vocabulary has 61 tokens"),
        (("eos_id",), 61, "eos_id must be .* from 0 to 60, got 61"),
        (("bos_id",), -5, "bos_id must be .* from 0 to 60, got -5"),
        (("encoder",), [1], "encoder must be a JSON object, got list"),
    ],
)  # fmt: skip
def test_a_field_out_of_its_range_says_why(path: tuple[str, ...], value: object, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        ModelConfig.from_json(changed(path, value))


def test_a_text_may_end_nowhere_but_not_where_it_must() -> None:
    endless = replace(tiny(), eos_id=None)
    assert ModelConfig.from_json(endless.to_json()) == endless
    assert tiny().end_token == 2
    with pytest.raises(ConfigError, match="tiny must have an eos_id where texts end"):
        endless.end_token  # noqa: B018


def test_weights_are_counted_before_there_are_any() -> None:
    """One layer by hand: q, k, v, o of 16 x 16 or 8 x 16, and an MLP of 2 or 3 times 32 x 16."""
    one = tiny(n_layers=1, windowed_layers=(False,)).stacks["decoder"]
    attention = 2 * 16 * 16 + 2 * 8 * 16
    assert one.n_weights == attention + 2 * 32 * 16
    assert replace(one, gated=True).n_weights == attention + 3 * 32 * 16
    with pytest.raises(ConfigError, match=r"number of weights must be .* million million weights"):
        tiny(n_layers=1024, windowed_layers=(False,) * 1024, d_ff=2**24, d_model=2**12)
