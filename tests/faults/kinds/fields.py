"""JSON and JSON lines, field by field: wrong kinds, numbers without end, keys that stand twice."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from faults.case import REFUSED, SANE, Case
from faults.files import Input
from faults.kinds.damaged import reads, rewritten
from faults.mutate import (
    NEVER,
    PERHAPS,
    UNREADABLE,
    changed_json,
    drawn,
    fields_of,
    is_number,
    with_pair,
    without,
    wrong_kinds,
)
from faults.samples import ACCEPTANCE, LLAMA, MODELS, PARITY, QUERIES

__all__ = ["cases", "field_changes"]

# not read, or any text
FREE = ("note", "source", "name", "_name_or_path", "args", "displayTimeUnit", "pid", "tid")
T5GEMMA = (  # a config.json of transformers holds many more fields, for other programs
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_activation", "max_position_embeddings",
    "rms_norm_eps", "pad_token_id", "eos_token_id", "bos_token_id", "attention_bias",
    "query_pre_attn_scalar", "sliding_window", "layer_types", "final_logit_softcapping",
    "attn_logit_softcapping", "rope_theta", "encoder", "decoder", "tie_word_embeddings",
)  # fmt: skip
PROBABILITIES = '{"probabilities": [0.25, 0.5, 0.25]}\n'


@dataclass(frozen=True, slots=True)
class _File:
    """A JSON file, who reads it, and how many of its values are tried."""

    read: Input
    data: Any
    most: int
    unknown_keys: str = REFUSED  # what must come of a key that nobody knows
    read_keys: tuple[str, ...] = ()  # those that mean something, if not all do
    file: str = ""  # where it stands, if not where `read` says


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for file in _files():
        for note, text, expect in field_changes(
            file.data, rng, file.most, file.unknown_keys, file.read_keys
        ):
            name = file.file or file.read.sample
            yield reads(
                file.read, file.read.sample, "fields", note=f"{name}: {note}", expect=expect,
                prepare=rewritten(name, partial(_replaced, text.encode())),
            )  # fmt: skip
    yield from _lines(rng)


def _replaced(new: bytes, _: bytes) -> bytes:
    return new


def _files() -> list[_File]:
    models, llama = Input("npu-sim run", "--model-json", "models.json", "{}#small"), LLAMA
    mu, t5gemma = (
        json.loads((PARITY / name / "config.json").read_text())
        for name in ("microsoft-mu-mha", "t5gemma-plain")
    )
    folder = [Input("mu-ref forward", "folder", name) for name in ("mu", "t5gemma")]
    trace = json.loads(
        '{"displayTimeUnit": "ns", "traceEvents": ['
        '{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "a"}},'
        '{"ph": "M", "pid": 1, "tid": 0, "name": "thread_name", "args": {"name": "calls"}},'
        '{"ph": "X", "pid": 1, "tid": 0, "name": "a", "ts": 0, "dur": 1.5, "args": {}},'
        '{"ph": "C", "pid": 1, "name": "SRAM", "ts": 0.5, "args": {"bytes": 7}}]}'
    )
    return [
        _File(models, MODELS, 160),
        _File(Input("npu-sim validate", "--models", "models.json"), MODELS, 40),
        _File(Input("npu-sim run", "--hf-config", "hf/config.json"), llama, 160, SANE),
        _File(folder[0], mu, 120, SANE, file="mu/config.json"),
        _File(folder[1], t5gemma, 140, SANE, file="t5gemma/config.json", read_keys=T5GEMMA),
        _File(Input("npu-sim check-trace", "file", "trace.json"), trace, 120, SANE),
    ]


def field_changes(
    data: Any,
    rng: random.Random,
    most: int,
    unknown: str = REFUSED,
    read_keys: tuple[str, ...] = (),
) -> list[tuple[str, str, str]]:
    """Draw changes of a JSON value: (what is done, the JSON, what must come of it)."""
    found = []
    for path, value in fields_of(data):
        where = ".".join(map(str, path))
        free = any(key in FREE for key in path) or (is_number(path[-1]) and isinstance(value, str))
        free = free or bool(read_keys and path[-1] not in read_keys)
        for what, text in UNREADABLE:
            found.append((f"{where} is {what}", changed_json(data, path, text), REFUSED))
        for what, text in NEVER:
            found.append((f"{where} is {what}", changed_json(data, path, text),
                          SANE if free else REFUSED))  # fmt: skip
        for what, text in PERHAPS:
            wrong = not free and text in wrong_kinds(value)
            found.append((f"{where} is {what}", changed_json(data, path, text),
                          REFUSED if wrong else SANE))  # fmt: skip
        found.append((f"{where} is not there", without(data, path), SANE))
        if isinstance(path[-1], str):
            pair = f"{json.dumps(path[-1])}: {json.dumps(value)}"
            found.append((f"{where} stands twice", with_pair(data, path, pair), REFUSED))
            found.append((f"an unknown key beside {where}", with_pair(data, path, '"zzz": 1'),
                          SANE if free else unknown))  # fmt: skip
    return drawn(rng, found, most)


def _lines(rng: random.Random) -> Iterator[Case]:
    """JSON lines: one line is changed."""
    query = {"query": QUERIES[0][0], "call": QUERIES[0][1]}
    for command, option, sample, data in (
        ("mu-ref settings eval", "file", "two.jsonl", query),
        ("mu-ref train", "--queries", "two.jsonl", query),
        ("mu-ref train-drafter", "--queries", "queries.jsonl", query),
        ("mu-ref draft-sweep", "file", "queries.jsonl", query),
        ("mu-ref quantize", "--calibration", "queries.jsonl", query),
        ("npu-sim speculate", "--acceptance", "acceptance.jsonl",
         json.loads(ACCEPTANCE.splitlines()[0])),
        ("npu-sim speculate", "--acceptance", "acceptance.jsonl", json.loads(PROBABILITIES)),
    ):  # fmt: skip
        read = Input(command, option, sample)
        most = 50 if command in ("npu-sim speculate", "mu-ref settings eval") else 12
        for note, text, expect in field_changes(data, rng, most, SANE):
            yield reads(
                read, sample, "fields", expect=expect, note=f"line 1 of {sample}: {note}",
                prepare=rewritten(sample, partial(_first_line, text)),
            )  # fmt: skip


def _first_line(text: str, data: bytes) -> bytes:
    return text.encode() + b"\n" + data.split(b"\n", 1)[1]
