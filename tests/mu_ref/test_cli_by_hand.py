"""Options of `mu-ref` reach the work: each command against the functions that it stands for."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mu_ref.cli.ask import _execute
from mu_ref.cli.options import check_unused
from mu_ref.cli.quantize import _check_given
from mu_ref.errors import InputError
from mu_ref.presets import preset, tiny
from mu_ref.redrafter.beams import Search
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.train import DrafterTraining
from mu_ref.settings.agent import load_agent
from mu_ref.settings.calls import Call
from mu_ref.settings.catalog import DATA
from mu_ref.settings.evaluate import evaluate
from mu_ref.settings.valid.decide import Decider, Decision
from mu_ref.settings.valid.score import Doubt
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.trainer import TrainConfig
from mu_ref.weights import initial_weights, save_weights
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program
from npu_sim.speculate.searched import record_search

GIVEN = ("--calibration", "--examples", "--observer", "--rounding", "--smooth", "--bits",
         "--observed", "--plot", "--encodings", "--aimet", "--worst")  # fmt: skip
BLUETOOTH_ON = Call(verb="set", setting_id="bluetooth", value="on")
TOKENIZER = Tokenizer.load(DATA / "tokenizer.json")


@pytest.fixture
def mu_ref(mu_ref):
    """Run the command line; returns (exit code, stdout)."""
    return lambda *arguments: mu_ref(*arguments)[:2]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A tiny model of random weights with the shipped tokenizer's vocabulary."""
    size = TOKENIZER.vocab_size
    config = replace(tiny(), name="stand-in", vocab_size=size, encoder_vocab_size=size, max_len=64)
    path = tmp_path_factory.mktemp("weights") / "stand-in.safetensors"
    save_weights(path, config, initial_weights(config, np.random.default_rng(0), 0.2))
    return path


# -- info ------------------------------------------------------------------------------------------


def test_parameters_of_tiny_and_their_shares(mu_ref):
    # d 16, d_ff 32, 4 query heads and 2 kv heads of 4, 61 tokens, norms on both sides, biases
    attention = 2 * (16 * 16 + 16) + 2 * (8 * 16 + 8) + 2 * 16
    mlp = (32 * 16 + 32) + (16 * 32 + 16) + 2 * 16
    encoder, decoder = 2 * (attention + mlp) + 16, 2 * (2 * attention + mlp) + 16
    total = encoder + decoder + 61 * 16
    data = json.loads(mu_ref("info", "tiny", "--json")[1])
    assert (data["parameters"], data["by_stack"]) == (
        total,
        {"encoder": encoder, "decoder": decoder},
    )
    assert data["share"]["encoder"] == pytest.approx(encoder / (encoder + decoder))
    _, out = mu_ref("info", "tiny")
    assert f"tiny: {total:,} parameters" in out
    assert (
        f"encoder: {encoder:,} ({100 * encoder / (encoder + decoder):.1f} % of the layers)" in out
    )
    assert f"embeddings and head: {61 * 16}" in out
    assert "float32 0.0 MB" in out
    total = 331_835_904
    texts = (f"float32 {total * 4 / 1e6:,.1f} MB", f"float16 {total * 2 / 1e6:,.1f} MB",
             f"int8 {total / 1e6:,.1f} MB", f"int4 {total / 2e6:,.1f} MB")  # fmt: skip
    assert ", ".join(texts) in " ".join(mu_ref("info", "mu-330m")[1].split())


# -- ask -------------------------------------------------------------------------------------------


def test_an_answer_is_priced_with_its_own_lengths_and_budget(mu_ref, stand_in):
    ask = ["ask", "turn on bluetooth", "--weights", stand_in]
    greedy = [*ask, "--decode", "greedy"]
    _, out = mu_ref(*greedy, "--npu", "teaching-npu", "--npu-model", "tiny", "--budget-ms", "2.5",
                    "--json")  # fmt: skip
    data = json.loads(out)
    n_input = len(TOKENIZER.encode(" turn on bluetooth")) + 1
    n_output = len(TOKENIZER.encode(data["call"])) + 1
    assert (data["input_tokens"], data["output_tokens"]) == (n_input, n_output)
    program = record_request(tiny(), n_input, n_output, Precision())
    expected = simulate_program(program, npu("teaching-npu"), 2.5)
    assert data["npu"] == json.loads(json.dumps(expected.to_json()))
    searched = json.loads(mu_ref(*ask, "--decode", "search", "--npu", "teaching-npu",
                                 "--npu-model", "tiny", "--json")[1])  # fmt: skip
    assert searched["search_passes"][0] == 1  # the start token
    assert len(searched["search_passes"]) > 1
    program = record_search(tiny(), n_input, 0, searched["search_passes"], Precision())
    priced = simulate_program(program, npu("teaching-npu"), 500.0)
    assert searched["npu"]["latency_ms"] == priced.latency_ms
    unread = json.loads(mu_ref("ask", "?!", "--weights", stand_in, "--npu", "teaching-npu",
                               "--json")[1])  # fmt: skip
    assert unread["npu"] is None
    assert unread["tokens_per_s"] is None


@pytest.fixture
def answered(monkeypatch):
    """The agent answers what it is told to: 8 tokens, 0.02 s of reading and 0.08 s of writing."""
    found = Decision(
        query="x", text="set(bluetooth, on)", call=BLUETOOTH_ON,
        complaint=None, n_input=5, n_output=8, tokens=(3,) * 8, encode_s=0.02, decode_s=0.08,
        probability=0.75, doubtful=False,
    )  # fmt: skip
    loaded = load_agent()
    asked = []

    def load(*arguments, tokenized):
        assert tokenized
        asked.append(arguments)
        return loaded

    monkeypatch.setattr(Decider, "decide", lambda self, queries: [found])
    monkeypatch.setattr("mu_ref.settings.agent.load_agent", load)
    return asked, loaded.catalog.lookup("bluetooth"), found


def test_speed_counts_reading_and_writing(mu_ref, answered):
    _, setting, _ = answered
    data = json.loads(mu_ref("ask", "x", "--json")[1])
    assert data == {
        "call": "set(bluetooth, on)", "title": setting.title, "uri": setting.uri,
        "input_tokens": 5, "output_tokens": 8, "tokens_per_s": pytest.approx(80),
        "complaint": None, "probability": 0.75, "doubtful": False, "others": [], "found": [],
        "search_passes": [],
    }  # fmt: skip
    _, out = mu_ref("ask", "x")
    assert f"{setting.title}   {setting.uri}" in out
    assert "5 tokens in, 8 out, 80 tokens/s (mu-nano, reference float32, 100 ms)" in out


def test_complaints_may_hold_brackets(mu_ref, answered, monkeypatch):
    _, _, found = answered
    text = "the model wrote '[/x] [bold]y', which is no call"
    monkeypatch.setattr(type(found), "complaint", text)
    assert text in mu_ref("ask", "x")[1]


def test_no_terminal_acts_on_a_complaint(mu_ref, answered, monkeypatch):
    _, _, found = answered
    monkeypatch.setattr(type(found), "complaint", "the model wrote \x1b[31m\n, which is no call")
    assert r"the model wrote \x1b[31m\n, which is no call" in mu_ref("ask", "x")[1]


def test_an_npu_that_computes_is_timed_and_compared(monkeypatch):
    run = SimpleNamespace(cycles=2 * npu("teaching-npu").clock_hz)
    found = SimpleNamespace(n_products=5, n_pieces=7, tokens=[3, 4, 2], run=run)
    monkeypatch.setattr("npu_sim.report.execute.execute", lambda *given: found)
    agent = SimpleNamespace(source_tokens=lambda query: [9, 2], ops=SimpleNamespace(model=None))
    decider = SimpleNamespace(agent=agent, guide=lambda queries: None)
    for tokens, same in (((3, 4, 2), True), ((3, 4), False)):
        answer = SimpleNamespace(tokens=tokens, n_steps=3)
        assert _execute(decider, "x", answer, "teaching-npu") == {
            "products": 5, "pieces": 7, "tokens": [3, 4, 2], "same": same, "latency_ms": 2000,
        }  # fmt: skip


def test_encodings_of_another_kind_are_refused():
    with pytest.raises(InputError, match=r"--encodings must end in one of \.csv, \.json"):
        _check_given("w8a16", dict.fromkeys(GIVEN) | {"--encodings": Path("e.toml")})


def test_an_option_of_zero_is_given():
    check_unused("without --npu", {"--a": None, "--b": False})
    with pytest.raises(InputError, match="--c, --d must not be given without --npu"):
        check_unused("without --npu", {"--a": None, "--c": 0, "--d": ""})


def test_width_and_length_of_drafts_reach_the_search(mu_ref, answered, tmp_path):
    asked, *_ = answered
    path = tmp_path / "d.safetensors"
    mu_ref("ask", "x", "--drafter", path, "--beam-width", "3", "--draft-len", "5")
    assert asked[-1][3:] == (path, Search(beam_width=3, draft_len=5))


# -- training --------------------------------------------------------------------------------------


def test_every_option_of_training_reaches_the_run(mu_ref, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("mu_ref.settings.train.train_agent", lambda *a, **k: seen.append((a, k)))
    mu_ref("train", "mu-nano", "--out", tmp_path / "w", "--queries", tmp_path / "q", "--epochs",
           "3", "--batch-size", "7", "--rate", "0.5", "--seed", "11", "--start", tmp_path / "s",
           "--resume")  # fmt: skip
    (name, queries, config, out), options = seen[0][0][:4], seen[0][1]
    assert (name, queries, out) == ("mu-nano", tmp_path / "q", tmp_path / "w")
    wanted = TrainConfig(epochs=3, batch_size=7, peak_rate=0.5, seed=11)
    assert (config.epochs, config.batch_size, config.peak_rate, config.seed) == (
        wanted.epochs, wanted.batch_size, wanted.peak_rate, wanted.seed,
    )  # fmt: skip
    assert (options["start"], options["resume"]) == (tmp_path / "s", True)


def test_every_option_of_training_a_drafter_reaches_the_run(mu_ref, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        "mu_ref.settings.train_drafter.train_agent_drafter", lambda *a, **k: seen.append((a, k))
    )
    model = SimpleNamespace(model=preset("mu-nano"), catalog="a catalog")
    monkeypatch.setattr("mu_ref.settings.agent.load_agent", lambda *a: model)
    monkeypatch.setattr(
        "mu_ref.settings.queries.training_data.drafter_queries",
        lambda items, *more: [*(item.query for item in items), more],
    )
    lines = "".join(f'{{"query": "q{i}", "call": "none()"}}\n' for i in range(6))
    (tmp_path / "q.jsonl").write_text(lines, encoding="utf-8")
    options = ["--queries", tmp_path / "q.jsonl", "--limit", "3", "--epochs", "2", "--draft-len",
               "5", "--rewordings", "2", "--later-share", "0.5", "--blocks", "3", "--no-rnn",
               "--batch-size", "9", "--rate", "0.25", "--seed", "4",
               "--out", tmp_path / "d"]  # fmt: skip
    for width, d_exit in (([], 192), (["--d-exit", "24"], 24)):
        mu_ref("train-drafter", "mu-nano", *options, *width)
        _, drafter, texts, training, out = seen[-1][0]
        assert drafter == DrafterConfig(
            d_model=192, vocab_size=1536, d_exit=d_exit, n_blocks=3, rnn=False
        )
        assert (len(texts[:-1]), out) == (3, tmp_path / "d")
        assert texts[-1] == ("a catalog", 2, 4)
        assert seen[-1][1]["notes"] == {"rewordings": "2"}
        assert training == DrafterTraining(
            epochs=2, draft_len=5, batch_size=9, peak_rate=0.25, seed=4, later_share=0.5
        )


def test_only_mu_nano_ships_trained(mu_ref, monkeypatch, tmp_path):
    monkeypatch.setattr("mu_ref.settings.agent.load_agent", lambda *a: 1 / 0)
    assert mu_ref("quantize", "tiny")[0] == 2
    with pytest.raises(ZeroDivisionError):
        mu_ref("quantize", "mu-nano")
    with pytest.raises(ZeroDivisionError):
        mu_ref("quantize", "tiny", "--weights", tmp_path / "w")


# -- scores ----------------------------------------------------------------------------------------


def test_as_many_confusions_are_listed_as_asked_for(mu_ref, monkeypatch, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"query": "a", "call": "none()"}\n', encoding="utf-8")
    wanted = ["open(wifi)"] * 3 + ["open(bluetooth)"] * 2 + ["none()"]
    said = ["none()"] * 5 + ["open(wifi)"]
    found = evaluate(wanted, said, load_agent().catalog)
    doubt = Doubt(0.0, 1.0, 1.0, 0.0, ())
    monkeypatch.setattr("mu_ref.settings.valid.score.decide_all", lambda *a: [])
    monkeypatch.setattr("mu_ref.settings.valid.score.score_decisions", lambda *a: found)
    monkeypatch.setattr("mu_ref.settings.valid.score.doubt_of", lambda *a: doubt)
    _, out = mu_ref("settings", "eval", tmp_path / "q.jsonl", "--worst", "2")
    assert out.count(" -> ") == 1 + 2  # the heading, and two of three
    assert mu_ref("settings", "eval", tmp_path / "q.jsonl", "--worst", "0")[1].count("->") == 0
