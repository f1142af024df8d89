"""Families of `config.json`: counts that transformers printed, and fields that cannot be.

`data/hf_counts.jsonl` was written by `python -m tests.parity.hf_counts` (transformers 5.24); each
model stands there as its file on the hub says it, in a few fields, and as transformers saves it.
"""

import json
import random
from math import ceil
from pathlib import Path

import pytest

from npu_sim.errors import WorkloadError
from npu_sim.models.families import FAMILIES
from npu_sim.models.hf_config import describe_fields
from npu_sim.program.call import call_program
from npu_sim.program.counts import macs_per_token
from npu_sim.program.description import Description
from npu_sim.program.experts import expected_experts
from npu_sim.program.precision import Precision
from npu_sim.program.request import described_program, input_tokens

FILE = Path(__file__).parent / "data" / "hf_counts.jsonl"
COUNTED = {line["name"]: line for line in map(json.loads, FILE.read_text().splitlines())}
FORMS = ("sparse", "saved")


def described(name: str, form: str = "sparse") -> Description:
    return describe_fields(COUNTED[name][form], name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", COUNTED)
def test_parameters_are_as_many_as_transformers_counts(name: str, form: str) -> None:
    assert described(name, form).n_parameters == COUNTED[name]["n_parameters"]


@pytest.mark.parametrize("name", COUNTED)
def test_a_token_passes_as_many_macs_as_in_transformers(name: str) -> None:
    assert macs_per_token(described(name)) == COUNTED[name]["macs_per_token"]


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [
        ("electra-small.hub", 13_483_008),  # embeddings of half the width, and a projection
        ("gemma-3-4b-it.hub", 3_880_263_168),  # five fields; the text part
        ("vit-base.hub", 86_389_248), ("whisper-base.hub", 72_593_920),
        ("t5gemma-2b.v5", 2_952_563_712),
    ],
)  # fmt: skip
def test_cases_that_were_counted_wrong_before(name: str, n_parameters: int) -> None:
    assert described(name).n_parameters == n_parameters


def test_every_family_was_counted_from_its_defaults_alone() -> None:
    empty = {line["sparse"]["model_type"] for line in COUNTED.values() if len(line["sparse"]) == 1}
    # transformers 5.24 cannot build a Ministral from its own defaults
    assert set(FAMILIES) - empty == {"ministral"}
    assert "ministral-8b" in COUNTED


@pytest.mark.parametrize("kind", FAMILIES)
def test_both_forms_of_a_family_record_the_same_calls(kind: str) -> None:
    name = next(n for n, line in COUNTED.items() if line["sparse"]["model_type"] == kind)
    sparse, saved = (described(name, form) for form in FORMS)
    if sparse.model.encoder is not None:
        calls = [call_program(d, "encode", 3, 3, 0, Precision(), 2).calls for d in (sparse, saved)]
        assert calls[0] == calls[1]
    if sparse.model.decoder is not None:
        n_memory = 0 if sparse.model.encoder is None else 3
        calls = [call_program(d, "decode", 1, 5, n_memory, Precision(), 2).calls
                 for d in (sparse, saved)]  # fmt: skip
        assert calls[0] == calls[1]


# -- windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "window", "layers"),
    [
        ("gemma-2-2b", 4096, [i % 2 == 0 for i in range(26)]),
        ("gemma-3-1b", 512, [i % 6 != 5 for i in range(26)]),
        ("gemma-3-4b-it", 1024, [i % 6 != 5 for i in range(34)]),
        ("mistral-7b-v0.1", 4096, [True] * 32),
        ("mistral-7b-v0.3", None, [False] * 32),
        ("ministral-8b", 32768, [i % 4 != 0 for i in range(36)]),
        ("phi-3-mini-4k", 2047, [True] * 32),
        ("qwen2-0.5b", 32768, [False] * 24),  # a window that is switched off
        ("mixtral-8x7b", None, [False] * 32),
        ("t5gemma-s-s", 4096, [i % 2 == 0 for i in range(8)]),
        ("t5gemma2-270m", 512, [i % 6 != 5 for i in range(18)]),
        ("modernbert-base", 64, [i % 3 != 0 for i in range(22)]),  # to each side
        ("gpt-oss-20b", 128, [i % 2 == 0 for i in range(24)]),
        ("starcoder2-3b", 4096, [True] * 30),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_layers_have_the_windows_of_their_file(name, window, layers, form) -> None:
    for stack in described(name, form).model.stacks.values():
        assert list(stack.windowed_layers) == layers
        assert stack.window == window or not any(layers)


# -- mixtures of experts ---------------------------------------------------------------------------


def routed(batch: int, n_tokens: int = 1) -> tuple[int, int]:
    """(bytes of experts, their MACs) that one call of Mixtral's layers reads and computes."""
    program = call_program(described("mixtral-8x7b"), "prefill", n_tokens, n_tokens, 0,
                           Precision(), batch)  # fmt: skip
    ops = [op for op in program.ops if op.site.endswith((".mlp.up", ".mlp.gate", ".mlp.down"))]
    return sum(op.weight_bytes for op in ops), sum(op.macs for op in ops)


def test_a_step_reads_the_experts_that_some_row_is_expected_to_choose() -> None:
    one = 32 * 3 * 4096 * 14336  # weights of one expert in all layers, a byte each
    assert routed(1) == (2 * one, 2 * one)
    for batch, n_tokens in ((2, 1), (8, 1), (3, 5), (1, 64)):
        rows = batch * n_tokens
        n_bytes, macs = routed(batch, n_tokens)
        assert n_bytes == pytest.approx(8 * (1 - 0.75**rows) * one, rel=1e-4)
        experts = 8 * (1 - 0.75**rows)
        assert macs == pytest.approx(ceil(rows * 2 / experts - 1e-6) * experts * one, rel=1e-4)
    assert expected_experts(8, 2, 1) == pytest.approx(2)
    assert expected_experts(8, 2, 1000) == pytest.approx(8)


def test_a_router_chooses_and_what_experts_make_is_weighed_and_added() -> None:
    """GPT-OSS: 4 of 32 experts, whose matrices have biases; 3 rows choose 4 each."""
    program = call_program(described("gpt-oss-20b"), "decode", 1, 1, 0, Precision(), 3)
    ops = {op.site.removeprefix("decoder.0.mlp."): op for op in program.ops
           if op.site.startswith("decoder.0.mlp.")}  # fmt: skip
    assert ops["router"].output.shape == ops["router_softmax"].output.shape == (3, 1, 32)
    assert ops["router_top_k"].output.shape == (3, 1, 4)
    assert ops["router_top_k"].vector_elements == 4 * 3 * 32  # compares each four times
    columns = round(2880 * 32 * (1 - (28 / 32) ** 3))  # of the experts that some row chooses
    weight, bias = ops["down"].inputs[1:]
    assert (weight.shape, bias.shape) == ((columns, 2880), (columns,))
    assert ops["down"].output.shape == (3, 4, 2880)
    assert ops["mixture_weights"].output.shape == (3, 4, 2880)  # each of four by its weight
    assert ops["mixture_weights"].vector_elements == 3 * 4 * 2880
    assert ops["mixture"].output.shape == (3, 1, 2880)


def test_all_experts_are_stored() -> None:
    program = described_program(described("mixtral-8x7b"), 3, 2, Precision())
    assert program.stored_weight_bytes == pytest.approx(46_702_792_704, rel=1e-4)


# -- inputs of a fixed length ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "slots"),
    [("whisper-base", 1500), ("vit-base-patch16-224", 197), ("vit-large-patch32-384", 145),
     ("bert-base-uncased", 512), ("roberta-base", 512), ("clip-text-base", 77)],
)  # fmt: skip
def test_a_fixed_length_is_the_default_and_the_limit(name: str, slots: int) -> None:
    model = described(name)
    assert input_tokens(model, None) == slots
    assert input_tokens(model, slots - 1) == slots - 1
    with pytest.raises(WorkloadError, match=f"n_input must be at most the {slots} positions of"):
        input_tokens(model, slots + 1)


def test_other_models_read_64_tokens_by_default_and_as_many_as_asked() -> None:
    model = described("gemma-3-1b")
    assert (input_tokens(model, None), input_tokens(model, 5000)) == (64, 5000)
    assert input_tokens(model, None, 16) == 16
    assert input_tokens(described("bert-base-uncased"), None, 128) == 128


def test_the_context_of_whisper_is_its_decoder_s() -> None:
    program = described_program(described("whisper-tiny"), None, 2, Precision(), static_context=200)
    scores = {op.gemm.n for op in program.calls[1].ops if op.site.endswith("attention.scores")}
    assert (program.n_input, scores) == (1500, {200, 1500})


def test_a_pooler_reads_one_token_of_each_text() -> None:
    program = call_program(described("bert-base-uncased"), "encode", 7, 7, 0, Precision(), 3)
    assert [op.gemm.m for op in program.ops if op.site == "pooler"] == [3]


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "nearest"),
    [("gemma3n", "gemma3"), ("deepseek_v2", "mixtral"), ("deberta-v2", "bert"), ("longt5", "t5"),
     ("qwen3_5", "qwen3"), ("bloom", "gpt2"), ("gptj", "gpt_neox"), ("camembert", "bert"),
     ("olmo4", "olmo"), ("qwen2_moe", "qwen3_moe")],
)  # fmt: skip
def test_a_family_that_is_not_supported_is_refused_with_its_nearest_relative(kind, nearest) -> None:
    with pytest.raises(WorkloadError) as caught:
        describe_fields({"model_type": kind}, "m")
    message = str(caught.value)
    assert f"got {kind!r}; the nearest to it is {nearest}" in message
    assert "--model-json" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", [None, 3, "", "zzz", ["llama"], {"a": 1}])
def test_no_family_at_all_is_refused(kind) -> None:
    with pytest.raises(WorkloadError, match=r"^config\.json: model_type must|^model_type of"):
        describe_fields({"model_type": kind}, "m")


ODD = (None, "x", -1, 2**70, 0, 1.5, True, [], {}, [None], float("nan"), "gated-", 10**400)


def replaced(fields: dict, place: tuple[str, ...], value: object) -> dict:
    """The fields with one of them, at any depth, replaced."""
    key, *rest = place
    inner = replaced(fields[key], tuple(rest), value) if rest else value
    return fields | {key: inner}


def places(fields: dict) -> list[tuple[str, ...]]:
    """Keys of all fields, of tables too."""
    return [(k, *rest) for k, v in fields.items()
            for rest in ([()] + (places(v) if isinstance(v, dict) else []))]  # fmt: skip


def refusal(fields: dict) -> str:
    """What is said of the fields; empty if they can be."""
    try:
        assert describe_fields(fields, "m").n_parameters > 0
    except WorkloadError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_field_that_cannot_be_is_refused_in_one_line(kind: str) -> None:
    """Each field of a family, replaced by each of the odd values: 16 of them, drawn anew."""
    line = next(line for line in COUNTED.values() if line["sparse"]["model_type"] == kind)
    fields = {**FAMILIES[kind].defaults, **line["saved"]} if "text" not in kind else line["saved"]
    chosen = random.Random(kind)
    for place in chosen.sample(places(fields), 16):
        value = chosen.choice(ODD)
        message = refusal(replaced(fields, place, value))
        assert "\n" not in message, (place, value)
        assert len(message) < 1000, (place, value)
