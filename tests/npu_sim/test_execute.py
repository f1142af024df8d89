"""The pieces of a timeline, summed, are the integers of the integer executor."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import model_configs, quantized, random_weights, rows_of, seeds

from mu_ref.generate import stream
from mu_ref.integers.store import save_integers
from mu_ref.model import mu
from mu_ref.ops.integer import IntegerOps
from mu_ref.quantize.calibrate import Options, calibrate
from mu_ref.quantize.observe import observe
from mu_ref.settings.agent import load_agent
from npu_sim.errors import CapacityError, WorkloadError
from npu_sim.hardware.presets import npu
from npu_sim.report.execute import execute

SMALL = npu("teaching-npu").with_changes(
    {"dma.transfer_bytes": 64, "matrix.tile_m": 2, "matrix.tile_n": 2, "matrix.tile_k": 2,
     "matrix.dataflow": "blocks"}
)  # fmt: skip


QUERIES = ("turn on the night light at 40 percent", "make it louder", "hide the taskbar")


def plainly(model, source, valid, n):
    ops, config = IntegerOps(model), model.model
    memory = mu.remember(ops, config, source, valid)
    start = np.full((len(source), 1), config.bos_id)
    return list(stream(ops, config, memory, start, np.ones(start.shape, bool), n))


@settings(max_examples=30, deadline=None)
@given(
    st.data(), model_configs(("encoder-decoder",)), seeds, st.sampled_from(["w8a8", "w8a16"]),
    st.sampled_from([700, 1200, 3000, 100_000]),
)  # fmt: skip
def test_pieces_give_the_integers_of_the_whole(data, config, seed, scheme, sram):
    model = quantized(config, random_weights(config, seed), seed, scheme=scheme)
    rows = data.draw(rows_of(config.encoder_vocab_size, max_len=12))
    chip = SMALL.with_value("sram.capacity_bytes", sram)
    try:
        found = execute(model, rows.tokens, rows.valid, chip, 3)
    except CapacityError:
        return
    expected = plainly(model, rows.tokens, rows.valid, 3)
    assert len(found.steps) == len(expected)
    for step, plain in zip(found.steps, expected, strict=True):
        assert (step.tokens == plain.tokens).all()
        assert step.logits.tobytes() == plain.logits.tobytes()
    assert found.n_pieces >= found.n_products > 0


def quantized_nano(scheme):
    """The shipped mu-nano in integers, calibrated on three queries, and the first of them."""
    agent = load_agent()
    rows = [agent.source_tokens(query) for query in QUERIES]
    examples = [(np.array(row), np.array([agent.model.bos_id])) for row in rows]
    weights = agent.ops.weights
    seen = observe(agent.model, weights, examples)
    return calibrate(agent.model, weights, seen, Options(scheme=scheme)), np.array(rows[:1])


@pytest.mark.parametrize("scheme", ["w8a16", "w8a8"])
@pytest.mark.parametrize("kib", [64, 8192])
def test_mu_nano_answers_on_the_npu_bit_for_bit(scheme, kib):
    model, tokens = quantized_nano(scheme)
    chip = npu("hexagon-x-elite").with_changes(
        {"sram.capacity_bytes": kib * 1024, "dma.transfer_bytes": min(kib * 64, 262_144)}
    )
    valid = np.ones(tokens.shape, bool)
    found = execute(model, tokens, valid, chip, 6)
    expected = plainly(model, tokens, valid, 6)
    for step, plain in zip(found.steps, expected, strict=True):
        assert step.logits.tobytes() == plain.logits.tobytes()
    assert found.run.table.program.n_output == len(found.steps) == len(expected)
    assert found.n_pieces > found.n_products


def test_a_model_without_an_encoder_is_refused():
    model, tokens = quantized_nano("w8a8")
    lonely = replace(model, model=replace(model.model, encoder=None))
    with pytest.raises(WorkloadError, match="must have an encoder and a decoder, mu-nano"):
        execute(lonely, tokens, np.ones(tokens.shape, bool), SMALL, 2)


def test_ask_lets_the_npu_compute_the_answer(mu_ref, tmp_path):
    model, _ = quantized_nano("w8a16")
    save_integers(tmp_path / "nano.safetensors", model)
    arguments = (
        "ask", QUERIES[0], "--npu", "hexagon-x-elite", "--scheme", "w8a16", "--execute",
        "--weights", str(tmp_path / "nano.safetensors"),
    )  # fmt: skip
    code, out, err = mu_ref(*arguments)
    assert (code, err) == (0, "")
    assert "pieces gave the same" in " ".join(out.split())
    facts = json.loads(mu_ref(*arguments, "--json")[1])
    assert facts["executed"]["pieces"] >= facts["executed"]["products"] > 0
    assert len(facts["executed"]["tokens"]) == facts["output_tokens"]


@pytest.mark.parametrize(
    "arguments", [("--npu", "hexagon-x-elite"), ("--scheme", "w8a16")], ids=["floats", "no npu"]
)
def test_ask_says_what_executing_needs(mu_ref, arguments):
    code, out, err = mu_ref("ask", "louder", "--execute", *arguments)
    assert (code, out) == (2, "")
    assert "--execute must have an --npu and --scheme w8a16 or w8a8" in err
