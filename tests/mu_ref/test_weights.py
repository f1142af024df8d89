"""Weight files: there and back, and a clear error for every way in which one can be wrong."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from safetensors import safe_open
from safetensors.numpy import save_file
from strategies import model_configs, random_weights, seeds

from mu_ref.config import ModelConfig
from mu_ref.errors import WeightsError
from mu_ref.presets import tiny
from mu_ref.weights import (
    initial_weights,
    load_weights,
    read_safetensors,
    save_weights,
    weight_shapes,
    write_safetensors,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, tiny(), random_weights(tiny(), 0, np.float32))
    return path


def with_tensors(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_file(tensors, path, {"config": tiny().to_json()})
    return path


@settings(max_examples=20)
@given(model_configs(), seeds)
def test_what_is_saved_is_loaded(tmp_path_factory, model: ModelConfig, seed: int) -> None:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    weights = random_weights(model, seed, np.float32)
    save_weights(path, model, weights)
    loaded_model, loaded = load_weights(path)
    assert loaded_model == model
    assert loaded.keys() == weights.keys()
    for name, array in weights.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_stored_dtype_stays(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, tiny(), random_weights(tiny(), 0, dtype))
    assert {array.dtype.type for array in load_weights(path)[1].values()} == {dtype}


def test_a_transposed_view_is_written_as_it_reads(tmp_path: Path) -> None:
    weights = random_weights(tiny(), 0, np.float32)
    name = "encoder.0.mlp.up.weight"
    view = np.ascontiguousarray(weights[name].T).T
    save_weights(tmp_path / "w.safetensors", tiny(), weights | {name: view})
    np.testing.assert_array_equal(load_weights(tmp_path / "w.safetensors")[1][name], weights[name])


def test_anyone_can_read_the_configuration_in_the_metadata(saved: Path) -> None:
    with safe_open(saved, framework="np") as file:
        config = json.loads(file.metadata()["config"])
    assert config["name"] == "tiny"
    assert config["decoder"]["norm_placement"] == "dual"


# -- files that are wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"tiny\.safetensors.*whole safetensors"):
        load_weights(saved)


def test_a_text_file_is_refused(saved: Path) -> None:
    saved.write_text("once upon a time\n" * 20)
    with pytest.raises(WeightsError, match=r"tiny\.safetensors.*whole safetensors"):
        load_weights(saved)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.safetensors.*no such file"):
        load_weights(tmp_path / "nothing.safetensors")
    with pytest.raises(WeightsError):
        load_weights(tmp_path)


def test_a_foreign_file_is_refused(saved: Path) -> None:
    save_file({"model.embed_tokens.weight": np.zeros((2, 2), np.float32)}, saved)
    with pytest.raises(WeightsError, match="configuration in its metadata; it has none"):
        load_weights(saved)


@pytest.mark.parametrize("config", ["{", "[]", '{"name": "tiny"}'])
def test_a_damaged_configuration_is_refused(saved: Path, config: str) -> None:
    save_file(random_weights(tiny(), 0, np.float32), saved, {"config": config})
    with pytest.raises(ValueError, match="must"):
        load_weights(saved)


def test_a_missing_tensor_is_named(saved: Path) -> None:
    weights = random_weights(tiny(), 0, np.float32)
    del weights["decoder.1.mlp.down.bias"]
    with pytest.raises(WeightsError, match=r"missing \['decoder\.1\.mlp\.down\.bias'\]"):
        load_weights(with_tensors(saved, weights))


def test_an_extra_tensor_is_named(saved: Path) -> None:
    weights = random_weights(tiny(), 0, np.float32) | {"medusa": np.zeros(2, np.float32)}
    with pytest.raises(WeightsError, match=r"unknown \['medusa'\]"):
        load_weights(with_tensors(saved, weights))


def test_a_wrong_shape_is_named_with_both_shapes(saved: Path) -> None:
    weights = random_weights(tiny(), 0, np.float32)
    weights["encoder.0.mlp.up.weight"] = np.zeros((16, 32), np.float32)  # transposed
    message = r"encoder\.0\.mlp\.up\.weight must have shape \(32, 16\), got \(16, 32\)"
    with pytest.raises(WeightsError, match=message):
        load_weights(with_tensors(saved, weights))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_neither_written_nor_read(saved: Path, bad: float) -> None:
    before, weights = saved.read_bytes(), random_weights(tiny(), 0, np.float32)
    weights["encoder.0.mlp.up.weight"][2, 3] = bad
    rule = r"encoder\.0\.mlp\.up\.weight must hold finite numbers, got .* at \[2, 3\]"
    with pytest.raises(WeightsError, match=rule):
        save_weights(saved, tiny(), weights)
    assert saved.read_bytes() == before
    with pytest.raises(WeightsError, match=rule):
        load_weights(with_tensors(saved, weights))


def test_weights_in_integers_and_beyond_float32_are_refused(saved: Path) -> None:
    weights = random_weights(tiny(), 0, np.float64)
    name = "encoder.0.mlp.up.weight"
    wrong = ((weights[name].astype(np.int32), "must hold floats, got int32"),
             (weights[name] * 1e300, "must hold weights of at most"))  # fmt: skip
    for tensor, rule in wrong:
        with pytest.raises(WeightsError, match=f"{name} {rule}"):
            load_weights(with_tensors(saved, {**weights, name: tensor}))


def test_wrong_tensors_are_not_even_written(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="missing"):
        save_weights(tmp_path / "w.safetensors", tiny(), {})
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file_and_no_other(saved: Path, monkeypatch) -> None:
    before = saved.read_bytes()

    def half(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.numpy.save_file", half)
    with pytest.raises(KeyboardInterrupt):
        save_weights(saved, tiny(), random_weights(tiny(), 1, np.float32))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


# -- other number formats --------------------------------------------------------------------------


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path) -> None:
    # sign, 8 bits of exponent, 7 of mantissa; 0x7f61 is (1 + 97 / 128) * 2 ** 127
    bits = [0x3F80, 0xC020, 0x3E20, 0x7F61, 0x0000, 0x8000]
    values = [1.0, -2.5, 0.15625, 225.0 * 2.0**120, 0.0, -0.0]
    half = np.array([1.5, 2.5], np.float16)
    header = {
        "__metadata__": {"who": "by hand"},
        "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
        "h": {"dtype": "F16", "shape": [2], "data_offsets": [12, 16]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "bf16.safetensors"
    path.write_bytes(
        struct.pack("<Q", len(text)) + text + np.array(bits, "<u2").tobytes() + half.tobytes()
    )
    arrays, metadata = read_safetensors(path)
    assert metadata == {"who": "by hand"}
    assert arrays["b"].dtype == np.float32
    np.testing.assert_array_equal(arrays["b"], np.array(values).reshape(2, 3))
    assert np.signbit(arrays["b"][1, 2])
    np.testing.assert_array_equal(arrays["h"], half)


def raw_file(path: Path, header: dict, data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_tensors_are_read_from_where_the_header_says_whatever_its_order(tmp_path: Path) -> None:
    header = {
        "second": {"dtype": "I16", "shape": [3], "data_offsets": [4, 10]},
        "first": {"dtype": "I8", "shape": [2, 2], "data_offsets": [0, 4]},
        "third": {"dtype": "U8", "shape": [], "data_offsets": [10, 11]},
    }
    data = struct.pack("<4b3hB", 1, -2, 3, -4, 500, -600, 700, 255)
    tensors, metadata = read_safetensors(raw_file(tmp_path / "a.safetensors", header, data))
    assert metadata == {}
    assert tensors["first"].tolist() == [[1, -2], [3, -4]]
    assert tensors["second"].tolist() == [500, -600, 700]
    assert tensors["third"].tolist() == 255
    assert [t.dtype for t in tensors.values()] == [np.int16, np.int8, np.uint8]


def test_a_tensor_that_is_no_number_is_refused(tmp_path: Path) -> None:
    header = {"b": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}
    path = raw_file(tmp_path / "a.safetensors", header, b"\x01")
    with pytest.raises(WeightsError, match="b must be a float or an integer, got BOOL"):
        read_safetensors(path)


def test_names_that_are_missing_and_unknown_are_listed_in_order(saved: Path) -> None:
    weights = random_weights(tiny(), 0, np.float32)
    for name in ("encoder.final_norm.weight", "decoder.final_norm.weight"):
        del weights[name]
    weights |= {name: np.zeros(1, np.float32) for name in ("z", "a", "m", "b")}
    with pytest.raises(
        WeightsError,
        match=r"missing \['decoder.final_norm.weight', 'encoder.final_norm.weight'\] \(2 in all\), "
        r"unknown \['a', 'b', 'm'\] \(4 in all\)",
    ):
        load_weights(with_tensors(saved, weights))


# -- which weights there are -----------------------------------------------------------------------


def layer_by_hand(site: str, d: int, cross: int | None = None, *, dual: bool = True,
                  layer_norm: bool = False, gated: bool = False):  # fmt: skip
    """The tensors of one layer: width d, MLP 32, 4 heads and 2 kv heads of 4, no biases."""
    shapes = {}
    widths = {"self_attention": d, "cross_attention": cross, "mlp": d}  # what k and v read
    for sub, d_key in widths.items():
        if d_key is None:
            continue
        for norm in ("pre_norm", "post_norm") if dual else ("pre_norm",):
            for kind in ("weight", "bias") if layer_norm else ("weight",):
                shapes[f"{site}.{sub}.{norm}.{kind}"] = (d,)
        if sub != "mlp":
            shapes |= {
                f"{site}.{sub}.q.weight": (16, d),
                f"{site}.{sub}.k.weight": (8, d_key),
                f"{site}.{sub}.v.weight": (8, d_key),
                f"{site}.{sub}.o.weight": (d, 16),
            }
    shapes |= {f"{site}.mlp.up.weight": (32, d), f"{site}.mlp.down.weight": (d, 32)}
    return shapes | ({f"{site}.mlp.gate.weight": (32, d)} if gated else {})


def one_layer(**changes: object) -> ModelConfig:
    """Return tiny's widths with a single layer in each stack and no biases."""
    fields = {"n_layers": 1, "windowed_layers": (False,), "attention_bias": False,
              "mlp_bias": False} | changes  # fmt: skip
    config = tiny()
    return replace(
        config, encoder=replace(config.encoder, **fields), decoder=replace(config.decoder, **fields)
    )


def test_the_weights_of_two_stacks_with_tables_and_widths_of_their_own() -> None:
    config = one_layer(norm_kind="layer", norm_placement="pre", gated=True, embed_norm=True)
    narrow = {"norm_kind": "rms", "embed_norm": False, "gated": False, "d_model": 12}
    config = replace(
        config, encoder=replace(config.encoder, **narrow), shared_embedding=False,
        tied_head=False, head_bias=True, encoder_vocab_size=7,
    )  # fmt: skip
    assert weight_shapes(config) == {
        "encoder.embedding.weight": (7, 12), "decoder.embedding.weight": (61, 16),
        **layer_by_hand("encoder.0", 12, dual=False), "encoder.final_norm.weight": (12,),
        "decoder.embed_norm.weight": (16,), "decoder.embed_norm.bias": (16,),
        **layer_by_hand("decoder.0", 16, 12, dual=False, layer_norm=True, gated=True),
        "decoder.final_norm.weight": (16,), "decoder.final_norm.bias": (16,),
        "head.weight": (61, 16), "head.bias": (61,),
    }  # fmt: skip


def test_the_weights_of_one_stack_alone() -> None:
    both = replace(one_layer(), encoder_vocab_size=7, shared_embedding=False)
    assert weight_shapes(replace(both, encoder=None)) == {
        "decoder.embedding.weight": (61, 16), **layer_by_hand("decoder.0", 16),
        "decoder.final_norm.weight": (16,),
    }  # fmt: skip
    # without a decoder there is no head, and the encoder's table has vocab_size rows
    alone = replace(both, decoder=None, head_bias=True, tied_head=False)
    assert weight_shapes(alone) == {
        "encoder.embedding.weight": (61, 16), **layer_by_hand("encoder.0", 16),
        "encoder.final_norm.weight": (16,),
    }  # fmt: skip


def test_biases_stand_beside_their_matrices() -> None:
    shapes = weight_shapes(one_layer(attention_bias=True))
    sites = ("encoder.0.self_attention", "decoder.0.self_attention", "decoder.0.cross_attention")
    assert {n for n in shapes if n.endswith("bias")} == {
        f"{site}.{name}.bias" for site in sites for name in "qkvo"
    }
    assert shapes["decoder.0.cross_attention.k.bias"] == (8,)
    only = weight_shapes(one_layer(mlp_bias=True))
    assert {n for n in only if n.endswith("bias")} == {
        f"{stack}.0.mlp.{name}.bias" for stack in ("encoder", "decoder") for name in ("up", "down")
    }


# -- initial weights -------------------------------------------------------------------------------


def test_initial_weights_have_the_asked_spread_and_gains_that_do_nothing() -> None:
    for kind, gain in (("rms", 1), ("layer", 1), ("rms_plus_one", 0)):
        model = tiny(norm_kind=kind)
        weights = initial_weights(model, np.random.default_rng(0), 0.05)
        assert {n: w.shape for n, w in weights.items()} == weight_shapes(model)
        matrices = np.concatenate([w.ravel() for w in weights.values() if w.ndim == 2])
        assert matrices.std() == pytest.approx(0.05, rel=0.05)
        assert {float(w) for n in weights for w in weights[n].ravel() if "norm.weight" in n} == {
            gain
        }
        assert not any(w.any() for n, w in weights.items() if n.endswith("bias"))


def test_tables_and_norms_after_sublayers_may_start_with_another_size() -> None:
    for kind, offset in (("rms", 0), ("rms_plus_one", 1)):
        config = tiny(norm_kind=kind)
        weights = initial_weights(
            config,
            np.random.default_rng(0),
            0.05,
            np.float16,
            embedding_std=0.5,
            post_norm_gain=0.25,
        )
        assert {w.dtype for w in weights.values()} == {np.dtype(np.float16)}
        assert weights["embedding.weight"].std() == pytest.approx(0.5, rel=0.1)
        assert weights["encoder.0.mlp.up.weight"].std() == pytest.approx(0.05, rel=0.15)
        gains = {n.split(".")[-2]: set(w.tolist()) for n, w in weights.items() if "norm" in n}
        assert gains["post_norm"] == {0.25 - offset}
        assert gains["pre_norm"] == gains["final_norm"] == {1 - offset}
        plain = initial_weights(config, np.random.default_rng(0), 0.05)
        assert plain["embedding.weight"].std() == pytest.approx(0.05, rel=0.1)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    from safetensors.numpy import save

    tensors = {"b": np.arange(6, dtype=np.int8), "a": np.ones((2, 3), np.float32)}
    text = 'caf\u00e9 "x" \\ \x01\x1f\x7f\n\t\u2028'
    write_safetensors(tmp_path / "one", tensors, {"note": text})
    assert (tmp_path / "one").read_bytes() == save(tensors, {"note": text})
    notes = {f"n{i}": f"{text}{i}" for i in range(20)}
    write_safetensors(tmp_path / "b", tensors, notes)
    write_safetensors(tmp_path / "c", tensors, dict(reversed(notes.items())))
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    found, metadata = read_safetensors(tmp_path / "b")
    assert metadata == notes
    np.testing.assert_array_equal(found["b"], tensors["b"])
