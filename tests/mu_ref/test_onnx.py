"""ONNX graphs: every operation and every configuration in ONNX Runtime, files, and the command."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import strategies as random
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.onnx import Written, run, session

from mu_ref.cli.app import main
from mu_ref.errors import InputError, MuRefError, WeightsError
from mu_ref.executors import Loaded, shipped_drafter, shipped_weights
from mu_ref.golden import onnx as onnx_graphs
from mu_ref.golden.onnx import export_onnx, graphs_of
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.store import IntegerModel, load_integers
from mu_ref.model import mu
from mu_ref.model.cache import Cache
from mu_ref.model.decoder import decode
from mu_ref.model.encoder import encode
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.onnx import graph as graph_module
from mu_ref.ops.onnx.graph import OPSET, Graph, Tensor
from mu_ref.ops.onnx.numbers import FloatParts, IntegerParts
from mu_ref.ops.onnx.ops import OnnxOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.rotation import Rotation
from mu_ref.presets import tiny
from mu_ref.redrafter.config import DrafterConfig, initial_drafter
from mu_ref.redrafter.store import load_integer_drafter

ROOT = Path(__file__).parents[2]
STEP = 1 / 512
RNG = np.random.default_rng(5)


# -- operations ------------------------------------------------------------------------------------

W = {
    "l.weight": np.array([[64, -32, 16, 8], [-127, 5, 0, 100]]) / 64,
    "l.bias": np.array([0.5, -1.25]),
    "g.weight": np.array([1.0, -0.5, 2.0, 0.25]),
    "g.bias": np.array([0.5, 0.0, -1.0, 0.25]),
    "t.weight": np.arange(-10, 10).reshape(5, 4) / 8,
}
TENSORS = {
    "l.weight": (W["l.weight"] * 64).astype(np.int8),
    "l.weight_scale": np.full(2, 1 / 64, np.float32),
    "l.bias": np.round(W["l.bias"] * 64 / STEP).astype(np.int32),
    "g.weight": (W["g.weight"] * 8192).astype(np.int16),
    "g.weight_scale": np.array([1 / 8192], np.float32),
    "g.bias": (W["g.bias"] / STEP * 256).astype(np.int32),
    "t.weight": (W["t.weight"] * 8).astype(np.int8),
    "t.weight_scale": np.full(5, 1 / 8, np.float32),
}
TOKENS = np.array([[4, 0, 2], [1, 1, 3]])
INDEX = np.array([[2, 0], [1, 1]])
TURN = Rotation(np.array([[0, 1, 2], [3, 4, 9]]), np.array([100.0, 30.0]), 4)
MASK = np.array([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)

# Shapes without two equal axes next to each other, so that a wrong axis is noticed.
OPERATIONS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "embed": (lambda ops: ops.embed(TOKENS, "t"), []),
    "linear": (lambda ops, x: ops.linear(x, "l"), [(2, 3, 4)]),
    "tied head": (lambda ops, x: ops.linear(x, "h", "t"), [(2, 3, 4)]),
    "rms": (lambda ops, x: ops.norm(x, "g", "rms", 0.25), [(2, 3, 4)]),
    "rms_plus_one": (lambda ops, x: ops.norm(x, "g", "rms_plus_one", 1e-6), [(2, 3, 4)]),
    "layer": (lambda ops, x: ops.norm(x, "g", "layer", 1e-3), [(2, 3, 4)]),
    "rope": (lambda ops, x: ops.rope(x, TURN, "y"), [(2, 5, 3, 4)]),
    "matmul": (lambda ops, a, b: ops.matmul(a, b, "y"), [(2, 1, 3, 4), (2, 1, 4, 5)]),
    "matmul of a transpose": (
        lambda ops, a, b: ops.matmul(a, b, "y", transpose_b=True), [(2, 1, 3, 4), (2, 1, 5, 4)],
    ),
    "softmax": (lambda ops, x: ops.softmax(x, MASK, "p"), [(2, 1, 3, 4)]),
    "gelu_tanh": (lambda ops, x: ops.activation(x, "gelu_tanh", "y"), [(2, 3, 4)]),
    "gelu": (lambda ops, x: ops.activation(x, "gelu", "y"), [(2, 3, 4)]),
    "silu": (lambda ops, x: ops.activation(x, "silu", "y"), [(2, 3, 4)]),
    "relu": (lambda ops, x: ops.activation(x, "relu", "y"), [(2, 3, 4)]),
    "add": (lambda ops, x, y: ops.add(x, y, "y"), [(2, 3, 4), (2, 3, 4)]),
    "mul": (lambda ops, x, y: ops.mul(x, y, "y"), [(2, 3, 4), (2, 3, 4)]),
    "scale": (lambda ops, x: ops.add(ops.scale(x, 0.3, "s"), x, "y"), [(2, 3, 4)]),
    "softcap": (lambda ops, x: ops.softcap(x, 1.5, "y"), [(2, 3, 4)]),
    "concat": (lambda ops, x, y: ops.concat(x, y, "y"), [(2, 3, 4), (2, 3, 5)]),
    "split_heads": (lambda ops, x: ops.split_heads(x, 3, "y"), [(2, 5, 12)]),
    "merge_heads": (lambda ops, x: ops.merge_heads(x, "y"), [(2, 3, 5, 4)]),
    "share_heads": (lambda ops, x: ops.share_heads(x, (0, 0, 1, 1), "y"), [(3, 2, 5, 4)]),
    "append": (lambda ops, x, y: ops.append(x, y, "y"), [(2, 3, 4, 5), (2, 3, 1, 5)]),
    "take_tokens": (lambda ops, x: ops.take_tokens(x, INDEX, "y"), [(2, 3, 4)]),
    "keep_slots": (lambda ops, x: ops.keep_slots(x, 1, INDEX, "y"), [(2, 5, 3, 4)]),
}  # fmt: skip


def integer_model(bits: int) -> IntegerModel:
    """8 bits hold -8..8, and 16 bits -64..64; the zero point of results is not 0."""
    step = STEP if bits == 16 else 1 / 16
    tensors = TENSORS | {"l.bias": np.round(W["l.bias"] * 64 / step).astype(np.int32)}
    tensors |= {"g.bias": (W["g.bias"] / step * 256).astype(np.int32)}
    sites = dict.fromkeys(("l", "g", "t", "h", "y"), Encoding(bits, step, 3))
    sites |= {"x0": Encoding(bits, step), "x1": Encoding(bits, step * 1.3)}
    sites["p"] = Encoding(16, 2**-15) if bits == 16 else Encoding(8, 2**-8, -128)
    return IntegerModel(tiny(), "w8a16", "tflite_single", tensors, sites)


def graph_of(parts: Any, build: Callable[..., Any], shapes: list, path: Path) -> Any:
    ops = OnnxOps(parts)
    ops.give(build(ops, *(parts.given(f"x{i}", s, f"x{i}") for i, s in enumerate(shapes))), "out")
    ops.graph.save(path, {})
    return session(path, optimized=False)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_in_floats_is_that_of_the_reference(name: str, tmp_path: Path) -> None:
    build, shapes = OPERATIONS[name]
    inputs = [2 * RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    expected = build(ReferenceOps(W), *inputs)
    found = graph_of(FloatParts(Graph("g"), W), build, shapes, tmp_path / "g.onnx")
    got = run(found, {f"x{i}": x for i, x in enumerate(inputs)})["out"]
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_in_integers_is_within_a_step_or_two(name: str, bits: int, tmp_path) -> None:
    """One step for a rounding; 16 bits have multipliers of 15 bits: two at the ends."""
    build, shapes = OPERATIONS[name]
    model = integer_model(bits)
    inputs = [
        Quantized(RNG.integers(-60, 60, shape).astype(f"i{bits // 8}"), model.encoding(f"x{i}"))
        if bits == 8
        else Quantized(RNG.integers(-2000, 2000, shape).astype("i2"), model.encoding(f"x{i}"))
        for i, shape in enumerate(shapes)
    ]
    if name == "append":  # both come from one site
        inputs[1] = Quantized(inputs[1].q, inputs[0].encoding)
    expected = build(IntegerOps(model), *inputs)
    found = graph_of(IntegerParts(Graph("g"), model), build, shapes, tmp_path / "g.onnx")
    got = run(found, {f"x{i}": x.q for i, x in enumerate(inputs)})["out"]
    assert got.dtype == expected.q.dtype
    assert got.shape == expected.shape
    moved = name in ("split_heads", "merge_heads", "share_heads", "append", "take_tokens",
                     "keep_slots")  # fmt: skip
    off = np.abs(got.astype(int) - expected.q)
    assert off.max() <= (0 if moved else bits // 8)


def test_decisions_take_the_lowest_index(tmp_path: Path) -> None:
    x = np.array([[[1, 3, 3, 2, 3]], [[5, 5, 0, 5, -1]]], np.float32)
    parts = FloatParts(Graph("g"), {})
    ops = OnnxOps(parts)
    given_x = parts.given("x", x.shape, "x")
    ops.give(ops.argmax(given_x, "best"), "best")
    ops.give(ops.top_k(given_x, 3, "three"), "three")
    ops.graph.save(tmp_path / "g.onnx", {})
    found = run(session(tmp_path / "g.onnx"), {"x": x})
    assert found["best"].tolist() == [[1], [0]]
    assert found["three"].tolist() == [[[1, 2, 4]], [[0, 1, 3]]]


def test_a_missing_weight_is_named() -> None:
    with pytest.raises(WeightsError, match=r"must contain 'nowhere\.weight'"):
        OnnxOps(FloatParts(Graph("g"), {})).linear(Tensor("x", (1, 2)), "nowhere")


# -- whole models ----------------------------------------------------------------------------------


def written(model: Any, ops: Any, folder: Path) -> Written:
    notes = {"config": model.to_json()}
    for graph in graphs_of(Loaded(model, ops)):
        graph.save(folder / f"{graph.name}.onnx", notes)
    return Written.open(folder)


@settings(max_examples=12)
@given(data=st.data(), model=random.model_configs(("encoder-decoder", "decoder-only")))
def test_any_configuration_gives_the_reference_logits(data, model, tmp_path_factory) -> None:
    """In two calls, the second with the cache of the first."""
    folder = tmp_path_factory.mktemp("g")
    ops = ReferenceOps(random.random_weights(model, data.draw(random.seeds), np.float32))
    target = data.draw(random.rows_of(model.vocab_size, min_len=2)).tokens
    source = data.draw(random.rows_of(model.encoder_vocab_size, len(target)))
    graphs = written(model, ops, folder)
    memory, theirs = None, {}
    if model.encoder is not None:
        memory = mu.remember(ops, model, source.tokens, source.valid)
        theirs = graphs.remember(source.tokens, source.valid)
        hidden = encode(ops, model, source.tokens, source.valid)
        np.testing.assert_allclose(
            theirs["hidden"][source.valid], hidden[source.valid], rtol=1e-3, atol=1e-4
        )
    cache, their_cache = (Cache.empty(len(target), model.decoder.n_layers) for _ in range(2))
    for part in (target[:, :1], target[:, 1:]):
        valid = mu.decoder_valid(model, part)
        logits = mu.logits(ops, model, decode(ops, model, part, valid, memory, cache))
        got = graphs.decode(part, theirs, their_cache)
        np.testing.assert_allclose(got, logits, rtol=1e-3, atol=1e-4)


@settings(max_examples=6)
@given(
    model=random.model_configs(("encoder-decoder",)), seed=random.seeds,
    scheme=st.sampled_from(["w8a8", "w8a16"]),
)  # fmt: skip
def test_any_configuration_in_integers_runs(model, seed, scheme, tmp_path_factory) -> None:
    """How close it comes is the matter of each operation, above, and of the shipped model."""
    weights = random.random_weights(model, seed, np.float32)
    integers = random.quantized(model, weights, seed, scheme=scheme)
    graphs = written(model, IntegerOps(integers), tmp_path_factory.mktemp("g"))
    source = np.array([[1, 2, 3, 4]])
    memory = graphs.remember(source, np.ones(source.shape, bool))
    bits = {"int8": 8, "int16": 16}
    for name, array in memory.items():
        site = {"hidden": "encoder.final_norm"}.get(name, name.removesuffix("_split"))
        if name != "memory_mask":
            assert bits[str(array.dtype)] == integers.encoding(site).bits
    cache = Cache.empty(1, model.decoder.n_layers)
    for part in (source[:, :1], source[:, 1:3]):
        assert np.isfinite(graphs.decode(part, memory, cache)).all()
    assert cache.layers[0].k.shape[2] == 3


def test_an_encoder_alone_and_a_drafter_without_a_cell(tmp_path: Path) -> None:
    model = replace(tiny(), decoder=None, tied_head=False)
    weights = random.random_weights(model, 0, np.float32)
    (graph,) = graphs_of(Loaded(model, ReferenceOps(weights)))
    assert (graph.name, list(graph.outputs)) == ("encoder", ["hidden"])
    whole = tiny()
    drafter = DrafterConfig(
        d_model=whole.stacks["decoder"].d_model, vocab_size=whole.vocab_size, d_exit=6,
        n_blocks=1, rnn=False,
    )  # fmt: skip
    own = initial_drafter(drafter, np.random.default_rng(0))
    ops = ReferenceOps(random.random_weights(whole, 0, np.float32) | own)
    graph = graphs_of(Loaded(whole, ops, drafter))[2]
    graph.save(tmp_path / "drafter.onnx", {})
    assert {node.name for node in graph.nodes} >= {"drafter.state_sum", "drafter.0.residual"}


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "w8a16"
    export_onnx(folder, None, "w8a16", shipped_drafter("w8a16"))
    return folder


def test_files_say_what_they_are(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "decoder.onnx", "drafter.onnx", "encoder.onnx",
    ]  # fmt: skip
    for path in exported.iterdir():
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
        assert (model.ir_version, model.producer_name) == (11, "mu-ref")
        notes = {prop.key: prop.value for prop in model.metadata_props}
        assert set(notes) == {"scheme", "config", "drafter", "encodings"}
        assert notes["scheme"] == "w8a16"
        assert json.loads(notes["config"])["name"] == "mu-nano"
    # What a host needs to begin with a state of 0.
    drafter = load_integer_drafter(shipped_drafter("w8a16"))
    props = onnx.load(exported / "drafter.onnx").metadata_props
    (encodings,) = [json.loads(prop.value) for prop in props if prop.key == "encodings"]
    assert encodings["state"] == asdict(drafter.activations["drafter.state"])


def test_weights_are_int8_for_each_channel_and_sites_have_their_scales(exported: Path) -> None:
    integers = load_integers(shipped_weights("w8a16"))
    graph = onnx.load(exported / "decoder.onnx").graph
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    site = "decoder.1.mlp.up"
    np.testing.assert_array_equal(arrays[f"{site}.weight"], integers.weight(site).T)
    np.testing.assert_array_equal(arrays[f"{site}.weight_scale"], integers.weight_scale(site))
    encoding = integers.encoding(site)
    assert arrays[f"{site}.scale"] == np.float32(encoding.scale)
    assert arrays[f"{site}.zero_point"] == encoding.zero_point
    assert arrays[f"{site}.zero_point"].dtype == np.int16
    (quantize,) = [n for n in graph.node if list(n.output) == [site]]
    assert (quantize.op_type, list(quantize.input)) == (
        "QuantizeLinear", [f"{site}/float", f"{site}.scale", f"{site}.zero_point"],
    )  # fmt: skip


def test_the_same_model_gives_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    export_onnx(tmp_path / "again", None, "w8a16", shipped_drafter("w8a16"))
    for path in exported.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_large_constants_lie_beside_the_graph(tmp_path: Path, monkeypatch) -> None:
    weights = random.random_weights(tiny(), 3, np.float32)
    loaded = Loaded(tiny(), ReferenceOps(weights))
    source, valid = np.array([[1, 2, 3]]), np.ones((1, 3), bool)
    expected = written(loaded.model, loaded.ops, tmp_path).remember(source, valid)
    monkeypatch.setattr(graph_module, "INLINE_BYTES", 100)
    (tmp_path / "large").mkdir()
    graphs = written(loaded.model, loaded.ops, tmp_path / "large")
    n_bytes = sum(weights[name].nbytes for name in weights if name.startswith("encoder."))
    beside = (tmp_path / "large" / "encoder.onnx.data").stat().st_size
    assert 0.9 * n_bytes < beside  # biases and shapes stay in the graph
    onnx.checker.check_model(str(tmp_path / "large" / "encoder.onnx"), full_check=True)
    for name, array in graphs.remember(source, valid).items():
        np.testing.assert_array_equal(array, expected[name])


def test_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    export_onnx(tmp_path / "g", None, "float32", shipped_drafter("float32"))
    assert (tmp_path / "g" / "drafter.onnx").exists()
    export_onnx(tmp_path / "g", None, "w8a8")
    assert sorted(p.name for p in (tmp_path / "g").iterdir()) == ["decoder.onnx", "encoder.onnx"]


def foreign_graph(producer: str) -> bytes:
    graph = onnx.helper.make_graph([], "mine", [], [])
    return onnx.helper.make_model(graph, producer_name=producer).SerializeToString()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("encoder.onnx", foreign_graph("pytorch")),
        ("decoder.onnx", foreign_graph("")),
        ("drafter.onnx", b"no graph"),
        ("encoder.onnx", b""),
        ("encoder.onnx.data", b"years of training"),
    ],
)
def test_graphs_of_somebody_else_are_left_as_they_are(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"hold exported graphs only, got .* with '{name}'"):
        export_onnx(tmp_path, None, "float32")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: content}


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mu-ref", "export", "onnx", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


def test_the_command_writes_a_checkpoint(command, tmp_path: Path) -> None:
    folder = ROOT / "tests/parity/data/t5gemma-unequal"
    code, out, err = command(tmp_path / "g", "--model", folder)
    assert (code, err) == (0, "")
    assert [line.split(",")[0] for line in out.splitlines()] == [
        f"wrote {tmp_path / 'g' / name}.onnx" for name in ("encoder", "decoder")
    ]


def test_mistakes_are_one_line_and_nothing_is_written(command, tmp_path: Path) -> None:
    new, full, file = tmp_path / "new", tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "keep.txt").write_text("mine")
    file.write_text("mine")
    int8 = shipped_drafter("w8a8")
    for arguments, text in [
        ((full,), "DIR must be new or hold exported graphs only"),
        ((file,), "DIR must be a folder, got the file"),
        ((tmp_path / "no" / "deeper",), "must lie in a folder that exists"),
        ((new, "--scheme", "w4a16"), "--scheme must be one of float32, w8a16, w8a8; got 'w4a16'"),
        ((new, "--scheme", "w8a16", "--drafter", int8), "must have the model's scheme w8a16"),
        ((new, "--model", full, "--scheme", "w8a8"), "folder must be exported in float32"),
        ((new, "--model", tmp_path / "nothing"), "there is no such file"),
        ((new, "--drafter", tmp_path / "nothing"), "there is no such file"),
    ]:
        code, out, err = command(*arguments)
        assert (code, out) == (2, ""), arguments
        assert text in err
        assert len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    assert [path.name for path in full.iterdir()] == ["keep.txt"]


def test_without_onnx_the_extra_is_named_before_any_work(command, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, out, err = command(tmp_path / "g")
    assert (code, out) == (2, "")
    assert "pip install 'mu-ref[onnx]'" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "g").exists()
    with pytest.raises(MuRefError, match="must have the package onnx"):
        export_onnx(tmp_path / "g", None, "float32")


def test_cached_keys_and_values_and_a_state_take_the_scales_of_what_they_are() -> None:
    parts = SimpleNamespace(given=lambda name, shape, like: (name, shape, like))
    ops, stack = SimpleNamespace(parts=parts), tiny().decoder
    past = onnx_graphs._past(ops, stack, "decoder.0.self_attention")
    assert past.k[2] == "decoder.0.self_attention.k_rope"
    assert past.v[2] == "decoder.0.self_attention.v"
    assert past.k[1] == past.v[1] == ("batch", stack.n_kv_heads, "n_past", stack.d_head)
    drafter = DrafterConfig(d_model=4, vocab_size=9, d_exit=4, n_blocks=1, rnn=True)
    assert onnx_graphs._state_site(drafter) == "drafter.state"
    assert onnx_graphs._state_site(replace(drafter, rnn=False)) == "drafter.state_sum"
