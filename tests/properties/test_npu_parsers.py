"""Whatever a file holds, the readers of `npu_sim` give what it means or an error of ours."""

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npu_sim.errors import NpuSimError
from npu_sim.hardware.presets import npu, npu_to_toml, read_npu
from npu_sim.models.hf_config import describe_fields, read_hf_config
from npu_sim.models.neutral_json import read_models
from npu_sim.show.trace import check_trace, read_trace
from npu_sim.speculate.acceptance import read_steps
from npu_sim.systolic.scalesim_csv import read_rows

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 100,
         "num_hidden_layers": 2, "intermediate_size": 128, "pad_token_id": 0}  # fmt: skip
SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 4,
         "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 11}  # fmt: skip
CONFIGS = (
    LLAMA,
    LLAMA | {"model_type": "vit", "patch_size": 8, "image_size": 32},
    {"model_type": "t5gemma", "encoder": SMALL, "decoder": SMALL},
    {"model_type": "gemma3", "text_config": SMALL},
    {"model_type": "t5", "d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4, "num_layers": 2,
     "vocab_size": 100, "feed_forward_proj": "gated-gelu"},
)  # fmt: skip
NEUTRAL = {"m": {"family": "decoder", "n_enc_layers": 0, "n_dec_layers": 2, "d_model": 16,
                 "d_ff": 32, "gated": True, "n_heads": 4, "n_kv_heads": 2, "d_head": 4,
                 "vocab_size": 61, "tied": True, "lm_head": "last"}}  # fmt: skip
TRACE = [
    {"ph": "M", "name": "thread_name", "tid": 0, "args": {"name": "calls"}},
    {"ph": "X", "name": "a", "ts": 0, "dur": 1, "tid": 0, "args": {"start_cycles": 0}},
    {"ph": "C", "name": "n", "ts": 0, "args": {"bytes": 1}},
]
STEPS = '{"n_accepted": 1, "nodes": 3}\n{"n_accepted": 0, "nodes": 1}\n'
ROWS = "array_rows,array_cols,dataflow,M,N,K\n8,8,ws,7,13,29\n"
READERS = {
    "chip": (read_npu, npu_to_toml(npu("teaching-npu"))),
    "config": (read_hf_config, json.dumps(LLAMA)),
    "models": (read_models, json.dumps(NEUTRAL)),
    "trace": (lambda path: check_trace(read_trace(path)), json.dumps(TRACE)),
    "steps": (read_steps, STEPS),
    "rows": (lambda path: [row.counts for row in read_rows(path)], ROWS),
}
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(2**52, 2**80), st.floats(), st.text(),
    st.sampled_from([0, -1, 1, 10**8, 10**400, [], {}, [1], [[]], [True], {"a": 1}]),
)  # fmt: skip
QUICK = settings(
    max_examples=40, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def understood_or_refused(read, *arguments):
    with suppress(NpuSimError):
        read(*arguments)


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(data=st.binary(max_size=200))
def test_any_bytes(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    understood_or_refused(READERS[name][0], tmp_path / name)


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(data=st.data())
def test_a_valid_file_with_a_part_replaced(tmp_path, name, data):
    read, text = READERS[name]
    good = text.encode()
    start = data.draw(st.integers(0, len(good)))
    length = data.draw(st.integers(0, 12))
    more = data.draw(st.one_of(
        st.binary(max_size=6),
        st.sampled_from([b"-", b"nan", b"[[", b'"', b"1e999", b"9" * 5000, b"\xef\xbb\xbf", b"\r\n",
                         b"null", b"true", b"\\ud800", b"0.5", b"[" * 3000]),
    ))  # fmt: skip
    (tmp_path / name).write_bytes(good[:start] + more + good[start + length :])
    understood_or_refused(read, tmp_path / name)


def changed(draw, value):
    """The value with one of its parts, at any depth, replaced by something odd."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return value | {key: changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], changed(draw, value[at]), *value[at + 1 :]]
    if isinstance(value, dict) and draw(st.booleans()):
        return value | {draw(st.text(max_size=5)): draw(ODD)}
    return draw(ODD)


@QUICK
@given(data=st.data(), config=st.sampled_from(CONFIGS))
def test_a_config_with_an_odd_field(data, config):
    understood_or_refused(
        lambda fields: describe_fields(fields, "m").n_parameters, changed(data.draw, config)
    )


@pytest.mark.parametrize(("name", "value"), [("models", NEUTRAL), ("trace", TRACE)])
@QUICK
@given(data=st.data())
def test_a_json_file_with_an_odd_value(tmp_path, name, value, data):
    (tmp_path / name).write_text(json.dumps(changed(data.draw, value)))
    understood_or_refused(READERS[name][0], tmp_path / name)


@QUICK
@given(name=st.text(min_size=1), title=st.text(min_size=1), source=st.text())
def test_an_npu_that_is_written_reads_back(tmp_path, name, title, source):
    chip = npu("teaching-npu").with_value("clock_hz", 5, source)
    renamed = type(chip)(**{f: getattr(chip, f) for f in chip.__slots__} | {
        "name": name, "title": title})  # fmt: skip
    (tmp_path / "chip.toml").write_text(npu_to_toml(renamed), encoding="utf-8", newline="")
    again = read_npu(tmp_path / "chip.toml")
    assert (again, dict(again.sources)) == (renamed, dict(renamed.sources))
