"""Every reader gives what a file says or a user's error, whatever happened to the file."""

import copy
import json
import random
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity.random_t5gemma import draw
from safetensors.numpy import load_file, save_file
from strategies import model_configs, random_weights, seeds

from mu_ref.border.arrays import read_npz, read_safetensors
from mu_ref.border.files import DATA
from mu_ref.config import ModelConfig
from mu_ref.errors import InputError, MuRefError, WeightsError
from mu_ref.executors import float_executor
from mu_ref.generate import generate
from mu_ref.golden.forward import forward_file
from mu_ref.integers.encodings import encodings_from_json, encodings_to_json
from mu_ref.integers.int4 import quantize_weights_int4
from mu_ref.integers.int4_store import load_int4, save_int4
from mu_ref.integers.store import IntegerModel, load_integers, save_integers
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import tiny
from mu_ref.quantize.calibrate import Options
from mu_ref.quantize.model import quantize_model
from mu_ref.quantize.observe import Observed
from mu_ref.readers import config_from_fields, read_checkpoint
from mu_ref.readers.apple_redrafter import read_apple_drafter
from mu_ref.readers.token_file import read_inputs
from mu_ref.redrafter.beams import Search, proposer
from mu_ref.redrafter.config import DrafterConfig, initial_drafter
from mu_ref.redrafter.generate import speculate
from mu_ref.redrafter.store import (
    IntegerDrafter,
    load_drafter,
    load_integer_drafter,
    save_drafter,
    save_integer_drafter,
)
from mu_ref.settings.calls import format_call, parse_call
from mu_ref.settings.catalog import load_catalog
from mu_ref.settings.queries.labelled import read_queries
from mu_ref.tokenizer import Tokenizer
from mu_ref.weights import load_weights, save_weights

PARITY = Path(__file__).parents[1] / "parity" / "data"
DRAFTER = DrafterConfig(d_model=16, vocab_size=61, d_exit=8, n_blocks=1, rnn=True)
CATALOG = load_catalog()
TOKENS = np.array([[1, 2, 3]])

# what stands where something else belongs
ODD = (
    [None, True, False, 0, -1, -5, 1, 3, 1.5, 0.0, -0.5, 1e-320, 1e308, 2**31, 2**63, 2**70,
     10**400, float("nan"), float("inf"), "", "0", "x", "\x1b[31m", "\ud800", "é", [], [1], [[1]],
     [1, 2], {}, {"x": 1}, [None], 10**7]
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return [path, *(p for key, v in inner for p in places(v, (*path, key)))]


@st.composite
def mutated_json(draw: Any, value: Any) -> Any:
    """A value with one or two of its parts replaced, taken away, or joined by another."""
    value, rng = copy.deepcopy(value), random.Random(draw(seeds))
    for _ in range(rng.randint(1, 2)):
        path = rng.choice(places(value))
        if not path:
            how, holder, key = "replace", [value], 0
        else:
            holder, key = value, path[-1]
            for step in path[:-1]:
                holder = holder[step]
            how = rng.choice(["replace"] * 4 + ["remove", "add"])
        if how == "replace":
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif how == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[rng.choice(["zebra", "", "bits", "type"])] = copy.deepcopy(rng.choice(ODD))
        else:
            holder.insert(key, copy.deepcopy(rng.choice(ODD)))
        if not path:
            value = holder[0]
    return value


def written(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def mutated_bytes(draw: Any, data: bytes, most: int = 4000) -> bytes:
    """Bytes that were cut, flipped, put in or taken out; mostly where formats keep their heads."""
    for _ in range(draw(st.integers(1, 3))):
        end = max(len(data) - 1, 0)
        near_end = st.integers(max(0, end - 200), end)
        at = draw(st.one_of(st.integers(0, min(end, most)), st.integers(0, end), near_end))
        how = draw(st.sampled_from(["flip", "cut", "insert", "remove", "double"]))
        more = draw(st.binary(min_size=1, max_size=9))
        if how == "flip":
            data = data[:at] + bytes([(data[at] if data else 0) ^ more[0]]) + data[at + 1 :]
        elif how == "cut":
            data = data[:at]
        elif how == "insert":
            data = data[:at] + more + data[at:]
        elif how == "remove":
            data = data[:at] + data[at + len(more) :]
        else:
            data = data[:at] + data[at : at + 20] + data[at:]
    return data


def quick(max_examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=max_examples,
        deadline=timedelta(seconds=20),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def understood(read: Callable[[], Any]) -> Any:
    """What was read, or None if a user's error of one line said why not."""
    try:
        return read()
    except MuRefError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) < 700, text
        return None


# -- texts -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """A reader, and a file that it reads."""

    name: str
    valid: bytes
    read: Callable[[Path], Any]
    check: Callable[[Any], None] = lambda read: None


def as_text(read: Callable[[str], Any]) -> Callable[[Path], Any]:
    return lambda path: read(path.read_bytes().decode("utf-8", "surrogateescape"))


def check_config(config: ModelConfig) -> None:
    assert ModelConfig.from_json(config.to_json()) == config
    assert hash(config) == hash(config)


def check_drafter(config: DrafterConfig) -> None:
    assert DrafterConfig.from_json(config.to_json()) == config


def integers_of_tiny() -> IntegerModel:
    weights = random_weights(tiny(), 0)
    examples = [(np.array([1, 2, 3, 4]), np.array([1, 5, 6]))]
    return quantize_model(tiny(), weights, examples, Options())


INTEGERS = integers_of_tiny()
SITES = list(INTEGERS.activations)
RANGES = {
    site: {"op": "linear", "low": -1.0, "high": 2.0, "reads": [SITES[0], 1.0]} for site in SITES[:3]
}
TEXTS = [
    Format(
        "configuration",
        tiny().to_json().encode(),
        as_text(ModelConfig.from_json),
        check_config,
    ),
    Format("drafter", DRAFTER.to_json().encode(), as_text(DrafterConfig.from_json), check_drafter),
    Format(
        "encodings",
        encodings_to_json({s: INTEGERS.activations[s] for s in SITES[:2]}).encode(),
        as_text(lambda text: encodings_from_json(text, "f")),
        lambda read: None if encodings_from_json(encodings_to_json(read), "f") == read else 1 / 0,
    ),
    Format(
        "catalog",
        written({"settings": json.loads((DATA / "catalog.json").read_text())["settings"][:4]}),
        load_catalog,
    ),
    Format(
        "queries",
        b'{"query": "louder", "call": "increase(sound.volume)"}',
        read_queries,
    ),
    Format("ranges", written(RANGES), lambda path: Observed.load(path, SITES[:3])),
]
BY_NAME = pytest.mark.parametrize("form", TEXTS, ids=[form.name for form in TEXTS])


@BY_NAME
def test_a_valid_text_is_read(form: Format, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(form.valid)
    form.check(form.read(path))


@BY_NAME
@quick(60)
@given(st.data())
def test_a_text_with_changed_values_is_read_or_refused(
    form: Format, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "f"
    path.write_bytes(written(data.draw(mutated_json(json.loads(form.valid)))))
    read = understood(lambda: form.read(path))
    if read is not None:
        form.check(read)


@BY_NAME
@quick(40)
@given(st.data())
def test_a_text_with_changed_bytes_is_read_or_refused(
    form: Format, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "f"
    path.write_bytes(data.draw(st.one_of(mutated_bytes(form.valid), st.binary(max_size=40))))
    read = understood(lambda: form.read(path))
    if read is not None:
        form.check(read)


TOKENIZER = (DATA / "tokenizer.json").read_bytes()
HEAD = {k: v for k, v in json.loads(TOKENIZER).items() if k != "model"}


@quick(25)
@given(mutated_json(HEAD))
def test_a_tokenizer_with_changed_settings_is_read_or_refused(tmp_path: Path, head: Any) -> None:
    if isinstance(head, dict):
        head = {**head, "model": json.loads(TOKENIZER)["model"]}
    path = tmp_path / "tokenizer.json"
    path.write_bytes(written(head))
    read = understood(lambda: Tokenizer.load(path))
    if read is not None:
        assert read.vocab_size == Tokenizer.load().vocab_size


@quick(25)
@given(mutated_bytes(TOKENIZER, 1500))
def test_a_tokenizer_with_changed_bytes_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    read = understood(lambda: Tokenizer.load(path))
    if read is not None:
        read.split_tokens(read.encode("turn on bluetooth"), 1.0, np.random.default_rng(0))


@quick(150)
@given(st.text(max_size=60) | mutated_bytes(b"set(sound.volume, 40)"))
def test_a_text_is_the_call_that_it_says_or_none(text: str | bytes) -> None:
    text = text if isinstance(text, str) else text.decode("latin1")
    call = understood(lambda: parse_call(text, CATALOG))
    assert call is None or format_call(call) == text


# -- weights ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A valid file of each kind."""
    folder, model, weights = tmp_path_factory.mktemp("valid"), tiny(), random_weights(tiny(), 0)
    weights = {name: w.astype(np.float16) for name, w in weights.items()}
    save_weights(folder / "float", model, weights)
    save_int4(folder / "int4", model, quantize_weights_int4(model, weights, 8), 8)
    save_integers(folder / "integer", INTEGERS)
    own = initial_drafter(DRAFTER, np.random.default_rng(0))
    save_drafter(folder / "drafter", DRAFTER, own, {})
    tensors: dict[str, np.ndarray] = {}
    for name, w in own.items():
        kind = np.int32 if name.endswith("bias") else np.int8
        tensors[name] = np.ones(w.shape, kind)
        if kind is np.int8:
            tensors[f"{name}_scale"] = np.ones(w.shape[:1], np.float32)
    sites = ("concat", "head", "input_proj", "0", "0.activation", "0.residual", "rnn_w", "state",
             "rnn_u", "rnn_sum")  # fmt: skip
    encodings = {f"drafter.{site}": INTEGERS.activations[SITES[0]] for site in sites}
    made = IntegerDrafter(DRAFTER, "w8a16", tensors, encodings)
    save_integer_drafter(folder / "integer-drafter", made)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header: Any, rest: bytes) -> bytes:
    text = written(header)
    return struct.pack("<Q", len(text)) + text + rest


def run_integers(path: Path) -> IntegerModel:
    """Scales that do not belong together are a user's error too, when they first meet."""
    integers = load_integers(path)
    full = np.ones(TOKENS.shape, bool)
    mu.forward(IntegerOps(integers), integers.model, TOKENS, full, TOKENS)
    return integers


LOADERS: dict[str, Callable[[Path], Any]] = {
    "float": load_weights, "int4": load_int4, "integer": run_integers, "drafter": load_drafter,
    "integer-drafter": load_integer_drafter,
}  # fmt: skip
BY_FILE = pytest.mark.parametrize("kind", list(LOADERS))


@BY_FILE
def test_a_valid_file_is_read(kind: str, files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(files[kind])
    assert LOADERS[kind](tmp_path / "f")


@BY_FILE
@quick(40)
@given(st.data())
def test_a_weight_file_with_changed_bytes_is_read_or_refused(
    kind: str, files: dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "f"
    path.write_bytes(data.draw(mutated_bytes(files[kind])))
    if understood(lambda: LOADERS[kind](path)):
        assert all(np.isfinite(a).all() for a in read_safetensors(path)[0].values())


@BY_FILE
@quick(40)
@given(st.data())
def test_a_weight_file_whose_header_lies_is_read_or_refused(
    kind: str, files: dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    header, rest = header_of(files[kind])
    few = dict(list(header.items())[:4])
    changed = data.draw(mutated_json(few))
    if isinstance(changed, dict):
        changed = {**changed, **{n: e for n, e in header.items() if n not in few}}
    path = tmp_path / "f"
    path.write_bytes(with_header(changed, rest))
    understood(lambda: LOADERS[kind](path))


@BY_FILE
@quick(60)
@given(st.data())
def test_a_weight_file_with_other_metadata_is_read_or_refused(
    kind: str, files: dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    header, rest = header_of(files[kind])
    metadata = header["__metadata__"]
    key = data.draw(st.sampled_from(sorted(metadata)))
    try:
        value = json.loads(metadata[key])
    except ValueError:
        value = metadata[key]
    text = json.dumps(data.draw(mutated_json(value)))
    path = tmp_path / "f"
    path.write_bytes(with_header({**header, "__metadata__": {**metadata, key: text}}, rest))
    understood(lambda: LOADERS[kind](path))


@quick(60)
@given(st.data())
def test_a_state_dict_of_a_drafter_is_read_or_refused(data: st.DataObject) -> None:
    shapes = {"rnn_u.weight": (4, 4), "rnn_u.bias": (4,), "rnn_w.weight": (4, 4),
              "input_proj.weight": (6, 8), "input_proj.bias": (6,),
              "lm_head.0.linear.weight": (6, 6), "lm_head.0.linear.bias": (6,),
              "lm_head.1.weight": (7, 6)}  # fmt: skip
    tensors = {name: np.ones(shape) for name, shape in shapes.items()}
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(tensors)))
        how = data.draw(st.sampled_from(["reshape", "rename", "remove", "nan", "kind"]))
        if how == "reshape":
            tensors[name] = np.ones(data.draw(st.lists(st.integers(0, 9), max_size=3)))
        elif how == "rename":
            other = data.draw(st.sampled_from(["lm_head.2.weight", "lm_head.9.linear.bias", "x"]))
            tensors[other] = tensors[name]
        elif how == "remove" and len(tensors) > 1:
            del tensors[name]
        elif how == "nan":
            tensors[name] = np.full(tensors[name].shape, np.nan)
        else:
            kind = data.draw(st.sampled_from(["?", "i4", "c8", "O"]))
            tensors[name] = np.ones(tensors[name].shape, kind)
    understood(lambda: read_apple_drafter(tensors))


# -- checkpoints of others, and arrays -------------------------------------------------------------


@pytest.mark.parametrize("name", ["microsoft-mu-a", "t5gemma-a"])
@quick(60)
@given(st.data())
def test_a_checkpoint_with_other_fields_is_run_or_refused(
    name: str, tmp_path: Path, data: st.DataObject
) -> None:
    fields = json.loads((PARITY / name / "config.json").read_text())
    if "encoder" in fields:  # most of them say nothing
        fields["encoder"] = {k: v for k, v in fields["encoder"].items() if k in fields["decoder"]}
    (tmp_path / "config.json").write_bytes(written(data.draw(mutated_json(fields))))
    weights = tmp_path / "model.safetensors"
    if not weights.exists():
        weights.write_bytes((PARITY / name / "model.safetensors").read_bytes())
    understood(lambda: read_checkpoint(tmp_path))


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("npz") / "in.npz"
    ids = np.array([[3, 4, 5], [6, 7, 0]])
    mask = (ids > 0).astype(np.int8)
    np.savez(path, encoder_input_ids=ids, decoder_input_ids=ids, encoder_attention_mask=mask)
    return path.read_bytes()


@quick(60)
@given(st.data())
def test_an_npz_file_with_changed_bytes_is_read_or_refused(
    arrays: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "in.npz"
    path.write_bytes(data.draw(st.one_of(mutated_bytes(arrays), st.binary(max_size=60))))
    understood(lambda: read_npz(path))


@quick(100)
@given(st.data())
def test_an_array_with_another_header_is_read_or_refused(
    arrays: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    descr = st.sampled_from(["'<i8'", "'|O'", "'<U4'", "'<f8'", "'?'", "'<c16'", "'<M8[s]'", "3",
                             "[('a', '<i8')]", "'|V8'", "None"])  # fmt: skip
    shape = st.sampled_from(["(2, 3)", "(3,)", "()", "(-1, 3)", "(2.0,)", "(True,)", "3",
                             "(9**99,)", "(1000000000,)", "(0, 3)", "('a',)", "(" * 5000,
                             "(1,) * 9"])  # fmt: skip
    order = st.sampled_from(["True", "False", "7"])
    head = (f"{{'descr': {data.draw(descr)}, 'fortran_order': {data.draw(order)}, "
            f"'shape': {data.draw(shape)}, }}\n").encode("latin1")  # fmt: skip
    version = data.draw(st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"]))
    size = struct.pack("<H" if version[0] == 1 else "<I", len(head))
    body = data.draw(st.binary(max_size=60))
    path = tmp_path / "in.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("encoder_input_ids.npy", b"\x93NUMPY" + version + size + head + body)
    read = understood(lambda: read_npz(path))
    if read is not None:
        assert all(array.dtype.kind in "biuf" for array in read.values())


@quick(40)
@given(st.data())
def test_token_ids_are_run_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    odd = st.sampled_from(
        [np.array([[3, 4], [5, 0]]), np.array([[3, 4]]), np.array([[3.0, 4.0]]),
         np.array([[-1, 4]]), np.array([[10**6, 4]]), np.zeros((0, 2), int),
         np.zeros((2, 0), int), np.array([3]),
         np.array(3), np.array([["a"]]), np.array([[True, False]]), np.array([[0.5, 1.0]]),
         np.array([[2**63]], np.uint64), np.array([[1, 1], [1, 1]]), np.array([[1, 7], [1, 1]]),
         np.array([[0, 0], [1, 1]]), np.array([[1 + 2j]])]
    )  # fmt: skip
    names = ["encoder_input_ids", "decoder_input_ids", "encoder_attention_mask", "logits", "zebra"]
    given_arrays = data.draw(st.dictionaries(st.sampled_from(names), odd, min_size=2))
    np.savez(tmp_path / "in.npz", **given_arrays)
    out = tmp_path / "out.npz"
    shapes = understood(
        lambda: forward_file(PARITY / "microsoft-mu-a", tmp_path / "in.npz", out, np.float32, 1)
    )
    if shapes is not None:
        assert set(given_arrays) >= {"encoder_input_ids", "decoder_input_ids"}
        assert "zebra" not in given_arrays
        assert all(np.isfinite(array).all() for array in read_npz(out).values())


# -- checkpoints in parts, their masks and end tokens ----------------------------------------------


def in_parts(folder: Path, place: dict[str, int]) -> dict[str, str]:
    """Store a checkpoint in parts, each tensor in the one that is named; return the index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    file_of = {name: f"model-{place[name]}.safetensors" for name in tensors}
    for file in set(file_of.values()):
        part = {name: tensors[name] for name in tensors if file_of[name] == file}
        save_file(part, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": file_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return file_of


@pytest.mark.parametrize("name", ["microsoft-mu-a", "t5gemma-a"])
@quick(15)
@given(st.data())
def test_a_checkpoint_in_parts_is_the_whole_one_or_its_part_is_named(
    name: str, tmp_path: Path, data: st.DataObject
) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    shutil.copytree(PARITY / name, folder)
    whole = read_checkpoint(folder)
    names = sorted(load_file(folder / "model.safetensors"))
    n_parts = data.draw(st.integers(2, 4))
    numbers = data.draw(st.lists(st.integers(1, n_parts), min_size=len(names), max_size=len(names)))
    file_of = in_parts(folder, dict(zip(names, numbers, strict=True)))
    read = read_checkpoint(folder)
    assert read[0] == whole[0]
    assert read[1].keys() == whole[1].keys()
    assert all(np.array_equal(read[1][n], w) for n, w in whole[1].items())

    tensor = data.draw(st.sampled_from(names))
    path = folder / file_of[tensor]
    how = data.draw(st.sampled_from(["missing", "moved", "taken", "twice", "unnamed", "outside"]))
    index = folder / "model.safetensors.index.json"
    named = path.name
    if how == "missing":
        path.unlink()
    elif how in ("moved", "unnamed", "outside"):
        others = sorted(set(file_of.values()) - {path.name}) or ["model-9.safetensors"]
        wrong = {"moved": others[0], "outside": f"../{folder.name}/{path.name}"}.get(how)
        text = json.loads(index.read_text())
        if wrong is None:
            del text["weight_map"][tensor]
        else:
            text["weight_map"][tensor] = wrong
        index.write_text(json.dumps(text))
        named = {"outside": index.name}.get(how, "model-")
    else:
        part = load_file(path)
        if how == "twice":
            part[next(n for n in names if n not in part) if len(part) < len(names) else "x"] = part[
                tensor
            ]
        else:
            del part[tensor]
        save_file(part, path) if part else path.unlink()
    with pytest.raises(WeightsError, match=re.escape(named)):
        read_checkpoint(folder)


@quick(25)
@given(st.data())
def test_masks_are_read_under_their_names_and_act(tmp_path: Path, data: st.DataObject) -> None:
    folder = PARITY / data.draw(st.sampled_from(["microsoft-mu-b", "t5gemma-b"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    ids = {"encoder_input_ids": rng.integers(1, 40, (2, 5)),
           "decoder_input_ids": rng.integers(1, 40, (2, 4))}  # fmt: skip
    masks = {}
    for name, n in (("attention_mask", 5), ("encoder_attention_mask", 5),
                    ("decoder_attention_mask", 4)):  # fmt: skip
        if data.draw(st.booleans()):
            masks[name] = (rng.random((2, n)) < 0.6).astype(data.draw(st.sampled_from("?bi")))
            masks[name][:, rng.integers(n)] = 1
    np.savez(tmp_path / "in.npz", **ids, **masks)
    model, weights = read_checkpoint(folder)
    both = [masks[n] for n in ("attention_mask", "encoder_attention_mask") if n in masks]
    if len(both) == 2 and (both[0] != both[1]).any():
        with pytest.raises(InputError, match="are two names of one mask"):
            read_inputs(tmp_path / "in.npz", model)
        return
    forward_file(folder, tmp_path / "in.npz", tmp_path / "out.npz", np.float64, 0)
    ops = ReferenceOps(weights, np.float64)
    source, target = ids.values()
    valid = both[0] > 0 if both else np.ones(source.shape, bool)
    seen = masks.get("decoder_attention_mask", np.ones(target.shape)) > 0
    expected = mu.forward(ops, model, source, valid, target, seen)
    np.testing.assert_array_equal(read_npz(tmp_path / "out.npz")["logits"], expected)


@quick(20)
@given(model_configs(("encoder-decoder",)), seeds, st.data())
def test_a_text_ends_at_the_first_of_its_end_tokens(model, seed: int, data) -> None:
    more = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    model = replace(model, more_eos_ids=more)
    ops = ReferenceOps(random_weights(model, seed), np.float64)
    source = np.array([[1, 2, 3]])
    endless = replace(model, eos_id=None, more_eos_ids=())
    (text,) = generate(ops, endless, source, source > 0, 8)
    ends = [i for i, token in enumerate(text) if token in model.eos_ids]
    (found,) = generate(ops, model, source, source > 0, 8)
    assert found == text[: ends[0] if ends else None]


@quick(40)
@given(seeds)
def test_drawn_checkpoints_are_understood(seed: int) -> None:
    """What `tests.parity.fuzz` asks transformers; here only that every field is read."""
    drawn = draw(np.random.default_rng(seed))
    model = config_from_fields(json.loads(json.dumps(drawn.fields)), generation=drawn.generation)
    assert ModelConfig.from_json(model.to_json()) == model
    old = str(drawn.fields.get("transformers_version", "5")).startswith("4")
    assert model.encoder.window_inclusive is not old
    for name, stack in model.stacks.items():
        text = json.dumps(drawn.fields[name])
        assert (stack.rope_factor > 1) == ('"linear"' in text)
    assert "encoder_input_ids" in drawn.inputs
    assert "drawn" not in drawn.summary


@pytest.mark.parametrize("executor", ["reference", "fast"])
@settings(max_examples=12)  # no deadline: the first call may compile kernels
@given(st.data())
def test_tokens_that_see_none_read_all_alike(executor: str, data: st.DataObject) -> None:
    """What a last token computes that sees everything, and whose query is 0."""
    one = tiny(n_layers=1, windowed_layers=(False,), rope_length="padded")
    model = replace(one, unseeing="mean", mask_decoder_pads=True)
    weights = random_weights(model, data.draw(st.integers(0, 99)), np.float32)
    ops = float_executor(weights, executor)
    n_pads, n = data.draw(st.integers(1, 3)), 5
    tokens = np.array([[model.pad_id] * n_pads + [5, 6, 7, 8, 9][: n - n_pads]])
    source = np.array([[4, 5]])
    valid = mu.decoder_valid(model, tokens)
    memory = mu.remember(ops, model, source, source > 0)
    found = ops.read(decode(ops, model, tokens, valid, memory))
    # the same, where the scores are made alike by hand: no query at all
    site = "decoder.0.self_attention.q."
    still = {n: w * 0 if n.startswith(site) else w for n, w in weights.items()}
    other = float_executor(still, executor)
    every = np.ones(tokens.shape, bool)
    memory = mu.remember(other, model, source, source > 0)
    # a last token that sees everything, with the blind token's own embedding and position
    for i in range(n_pads):
        moved = np.concatenate([np.delete(tokens, i, axis=1), tokens[:, i : i + 1]], axis=1)
        alone = other.read(decode(other, model, moved, every, memory))[:, -1]
        np.testing.assert_allclose(found[:, i], alone, rtol=2e-4, atol=2e-5)


@quick(15)
@given(seeds, st.integers(1, 3), st.booleans())
def test_drafts_change_nothing_behind_a_start_that_is_a_pad(seed: int, width: int, rnn) -> None:
    model = replace(
        tiny(rope_length="padded"), unseeing="mean", mask_decoder_pads=True, pad_id=1, bos_id=1
    )
    drafter = DrafterConfig(d_model=16, vocab_size=61, d_exit=8, n_blocks=1, rnn=rnn)
    own = initial_drafter(drafter, np.random.default_rng(seed))
    weights = random_weights(model, seed)
    # its own head often writes the pad, so that several tokens see nothing
    weights["embedding.weight"][1] *= 3
    ops = ReferenceOps(weights | own, np.float64)
    source = np.array([[3, 4], [5, 6]])
    memory = mu.remember(ops, model, source, source > 1)
    start = mu.start(model, 2)
    assert not start[1].any()
    drafts = proposer(ops, model, drafter, Search(beam_width=width, draft_len=3))
    texts: list[list[int]] = [[], []]
    for step in speculate(ops, model, drafts, memory, *start, 7):
        for text, tokens, n in zip(texts, step.tokens, step.n_tokens, strict=True):
            text.extend(tokens[:n].tolist())
    for row in range(2):
        memory = mu.remember(ops, model, source[row : row + 1], source[row : row + 1] > 1)
        ids, plain = [1], []
        for _ in range(7):  # the whole text anew for each token, as the original does
            target = np.array([ids])
            scores = mu.logits(ops, model, decode(
                ops, model, target, mu.decoder_valid(model, target), memory))  # fmt: skip
            plain.append(int(np.argmax(scores[0, -1])))
            ids.append(plain[-1])
            if plain[-1] in model.eos_ids:
                break
        assert texts[row] == plain
