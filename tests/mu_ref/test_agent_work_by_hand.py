"""Around the agent: drafts, sweeps, comparisons and training runs, with everything else made up."""

import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from mu_ref.errors import InputError
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import preset
from mu_ref.redrafter.beams import Beams, Search
from mu_ref.redrafter.config import DrafterConfig, initial_drafter
from mu_ref.redrafter.store import save_drafter
from mu_ref.redrafter.train import Distilled, DrafterTraining, TrainingStep
from mu_ref.settings import draft_sweep, drafts, train, train_drafter
from mu_ref.settings import quantize as comparing
from mu_ref.settings.agent import Agent
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.draft_sweep import Point, sweep
from mu_ref.settings.quantize import compare, examples_of, token_agreement
from mu_ref.settings.queries import training_data
from mu_ref.settings.queries.labelled import LabelledQuery
from mu_ref.settings.training_run import plan_run, run_to_end
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.checkpoint import State
from mu_ref.training.trainer import Progress, TrainConfig
from mu_ref.weights import initial_weights, read_safetensors

MODEL = preset("mu-nano")
TOKENIZER = Tokenizer.load(DATA / "tokenizer.json")
QUIET = Console(file=io.StringIO())
NANO = DrafterConfig(d_model=192, vocab_size=1536, d_exit=8, n_blocks=0, rnn=False)


def agent(**more) -> Agent:
    return Agent(MODEL, ReferenceOps({}), TOKENIZER, load_catalog(), **more)


# -- drafts ----------------------------------------------------------------------------------------


def test_speedups_of_writing_and_of_the_whole_request() -> None:
    known = dict.fromkeys(
        ("n_queries", "same", "tokens_per_step", "cap", "mean_accepted", "nodes_before",
         "nodes_after", "draft_share"), 1,
    )  # fmt: skip
    point = Point(beam_width=1, draft_len=2, accepted={}, encode_ms=2.0, plain_ms=10.0,
                  speculative_ms=4.0, **known)  # fmt: skip
    assert (point.speedup, point.request_speedup) == (2.5, 2.0)
    assert point.to_json()["speedup"] == 2.5


def test_a_sweep_counts_and_times_each_way_of_writing(monkeypatch) -> None:
    """Answers of 6 and 3 tokens; two drafted tokens are kept, or one query is written wrongly."""
    now = [0.0]
    texts = {3: [5, 6, 7, 8, 9, 2], 4: [5, 6, 2]}  # by length of the query

    def spend(seconds):
        now[0] += seconds

    def write(self, memory, n_rows, statistics=None):
        text = texts[memory.n]
        if self.search is None:
            spend(0.1 * len(text))
            return [text]
        statistics.n_steps += 2
        statistics.n_tokens += len(text) - 1
        statistics.nodes_before += 14
        statistics.nodes_after += 10
        spend(0.02 * len(text))
        return [text if self.search.beam_width == 1 else text[:-1]]

    def encode(ops, model, source, valid):
        spend(0.04)
        return SimpleNamespace(n=source.shape[1], hidden=None)

    monkeypatch.setattr(draft_sweep.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(draft_sweep, "encode_step", encode)
    monkeypatch.setattr(Agent, "write", write)
    monkeypatch.setattr(Agent, "ask", lambda self, queries: [])
    monkeypatch.setattr(Agent, "source_tokens", lambda self, query: [1] * (len(query) + 1))
    monkeypatch.setattr(ReferenceOps, "read", lambda self, x: spend(0.01))
    searches = [Search(beam_width=w, draft_len=2) for w in (1, 3)]
    right, wrong = sweep(agent(drafter=NANO), ["ab", "abc"], searches, QUIET)
    assert (right.n_queries, right.same, wrong.same) == (2, 2, 0)
    # 5 and 2 tokens after the first: at three a step at least 2 + 1 steps
    assert right.cap == pytest.approx(7 / 3)
    assert right.tokens_per_step == pytest.approx(7 / 4)
    assert (right.nodes_before, right.nodes_after) == (7, 5)
    assert right.encode_ms == pytest.approx(50)
    assert right.plain_ms == pytest.approx(1000 * 0.1 * 9 / 2)
    assert right.speculative_ms == pytest.approx(1000 * 0.02 * 9 / 2)


def test_answers_are_distilled_in_the_order_of_their_lengths(monkeypatch) -> None:
    drawn = []

    def made_up(ops, model, source, valid, limit, draft_len, *, later_share, rng):
        drawn.append((later_share, None if rng is None else int(rng.integers(2**62))))
        n = source.shape[1]
        return Distilled(np.full((1, 2), n), np.full((1, draft_len + 1), n), np.array([n]))

    monkeypatch.setattr(drafts, "distill", made_up)
    queries = ["louder and then much brighter", "wifi", "turn it up"]
    lengths = sorted(len(agent().source_tokens(query)) for query in queries)
    data = drafts.distill_queries(agent(), queries, 3, QUIET, batch_size=1)
    for array in (data.hidden[:, 0], data.following[:, 0], data.n_targets):
        assert array.tolist() == lengths
    assert drawn == 3 * [(1.0, None)]  # all positions
    for seed in (5, 5, 6):
        drafts.distill_queries(agent(), queries[:1], 3, QUIET, later_share=0.5, seed=seed)
    (_, one), (_, again), (share, other) = drawn[3:]
    assert one == again != other
    assert share == 0.5


@pytest.mark.parametrize(
    ("beams", "path"),
    [
        ([[5, 6, 9, 8], [5, 6, 7, 2]], [0, 1, 4, 5]),  # the second beam is right to the end
        ([[5, 9, 7, 2], [5, 6, 1, 2]], [0, 4]),  # what is right behind a mistake does not count
        ([[5, 9, 9, 9], [5, 8, 8, 8]], [0]),
    ],
)
def test_the_accepted_path_of_a_tree(monkeypatch, beams, path) -> None:
    """The model writes 5, and then 6, 7 and its end."""

    def speculate(ops, model, noted, memory, start, valid, limit):
        yield SimpleNamespace(tokens=np.array([[5]]), n_tokens=np.array([1]))
        noted(None, np.array([5]), 9)
        yield SimpleNamespace(tokens=np.array([[6, 7, 2, 0]]), n_tokens=np.array([3]))

    monkeypatch.setattr(drafts, "speculate", speculate)
    monkeypatch.setattr(
        drafts, "proposer", lambda *_: lambda hidden, tokens, longest: Beams(np.array([beams]))
    )
    monkeypatch.setattr(Agent, "remember", lambda self, query: None)
    _, found, kept = drafts.first_tree(agent(drafter=NANO, search=Search()), "x")
    assert found.tolist() == [beams]
    assert kept == path
    with pytest.raises(InputError, match="a tree must be drafted"):
        drafts.first_tree(agent(), "x")


def test_a_drafter_is_calibrated_on_what_the_model_reads(monkeypatch, tmp_path) -> None:
    save_drafter(tmp_path / "d", NANO, initial_drafter(NANO, np.random.default_rng(0)), {})
    monkeypatch.setattr(drafts, "decode", lambda ops, model, read, valid, memory: read[..., None])
    monkeypatch.setattr(Agent, "remember", lambda self, query: None)
    monkeypatch.setattr(Agent, "write", lambda self, memory, n_rows: [[30, 31, 2]])
    seen = {}

    def quantize(model, weights, drafter, own, integers, hidden, tokens, draft_len):
        seen.update(hidden=hidden, tokens=tokens, draft_len=draft_len)
        return drafts.IntegerDrafter(drafter, "w8a16", {}, {})

    monkeypatch.setattr(drafts, "quantize_drafter", quantize)
    made = drafts.quantize_agent_drafter(agent(), tmp_path / "d", None, ["a", "b"], 4)
    assert [t.tolist() for t in seen["tokens"]] == [[1, 30, 31, 2]] * 2  # from bos to eos
    assert [h[:, 0].tolist() for h in seen["hidden"]] == [[1, 30, 31, 2]] * 2
    assert (seen["draft_len"], made.notes["calibration"]) == (4, "2 queries")


# -- quantized beside float ------------------------------------------------------------------------


def answer(text: str, tokens: tuple[int, ...]) -> SimpleNamespace:
    return SimpleNamespace(text=text, tokens=tokens, call=None)


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ([(1, 2, 3), (4, 5)], [(1, 9, 3), (4, 5)], 4 / 5),
        ([(1, 2, 3, 4)], [(1, 2)], 2 / 4),
        ([(1, 2)], [(1, 2, 3, 4)], 1),
        ([()], [(1,)], 1),
    ],
)
def test_tokens_agree_place_by_place(before, after, share) -> None:
    answers = ([answer("", tokens) for tokens in side] for side in (before, after))
    assert token_agreement(*answers) == pytest.approx(share)


def test_both_ways_are_scored_and_texts_compared(monkeypatch) -> None:
    items = [LabelledQuery(query=q, call="none()") for q in "abcd"]
    other = ReferenceOps({})
    said = {True: ["none()", "x", "none()", "none()"], False: ["none()", "x", "y", "open(a)"]}

    def answer_all(asked, queries, console):
        return [answer(text, ()) for text in said[asked.ops is not other]]

    monkeypatch.setattr(comparing, "answer_all", answer_all)
    found = compare(agent(), other, items, QUIET)
    assert (found.floats.exact, found.quantized.exact, found.same_answers) == (0.75, 0.25, 0.5)


def test_examples_are_spread_over_all_queries_and_start_with_bos() -> None:
    items = [LabelledQuery(query=f"wifi {i}", call=f"set(x, {i})") for i in range(10)]
    found = examples_of(agent(), items, 2)
    assert len(found) == 2
    sources = [agent().source_tokens(item.query) for item in items]
    places = [sources.index(source.tolist()) for source, _ in found]
    assert places[1] - places[0] >= 4
    for (_, target), place in zip(found, places, strict=True):
        assert target.tolist() == [1, *TOKENIZER.encode(items[place].call)]


def test_a_drafter_hears_each_query_in_other_words_once(monkeypatch) -> None:
    """Both written queries, then those of two rounds with draws of their own, without repeats."""
    first, second = (LabelledQuery(query=query, call="none()") for query in "ab")
    drawn = []

    def made_up(items, catalog, rng):
        assert items == [first, second, first]
        drawn.append(int(rng.integers(2**62)))
        new = LabelledQuery(query=f"round {len(drawn)}", call="none()")
        return [second, new, new]

    monkeypatch.setattr(training_data, "reworded", made_up)
    items = [first, second, first]
    assert training_data.drafter_queries(items, load_catalog(), 0, 5) == ["a", "b", "a"]
    assert training_data.drafter_queries(items, load_catalog(), 2, 5) == [
        "a",
        "b",
        "round 1",
        "round 2",
    ]
    training_data.drafter_queries(items, load_catalog(), 2, 5)
    training_data.drafter_queries(items, load_catalog(), 1, 6)
    assert drawn[:2] == drawn[2:4]  # those of a seed come again
    assert len(set(drawn)) == 3


# -- training runs ---------------------------------------------------------------------------------


def test_the_drafter_s_file_says_how_it_was_trained(monkeypatch, tmp_path) -> None:
    start = initial_drafter(NANO, np.random.default_rng(0))
    save_drafter(tmp_path / "start", NANO, start, {"loss": "5"})
    data = Distilled(np.zeros((5, 192)), np.zeros((5, 3), int), np.ones(5, int))
    weights = {name: w + 1 for name, w in start.items()}
    given = {}

    def made_up(drafter, table, positions, training, before):
        given.update(drafter=drafter, before=before)
        for step, mean in enumerate((4.0, 3.9, 3.755), start=1):
            yield TrainingStep(weights, 1.0, step, 3, State(weights, {}, step, mean))

    saved_at = []
    asked = {}
    monkeypatch.setattr(
        train_drafter, "distill_queries", lambda *_, **more: asked.update(more) or data
    )
    monkeypatch.setattr(train_drafter, "token_embeddings", lambda *_: None)
    monkeypatch.setattr(train_drafter, "train_drafter", made_up)
    monkeypatch.setattr(
        train_drafter, "write_checkpoint", lambda path, run, state: saved_at.append(state.step)
    )
    training, other = (
        DrafterTraining(epochs=2, batch_size=4, seed=3, later_share=0.25),
        replace(NANO, d_exit=16),
    )
    train_drafter.train_agent_drafter(
        agent(), other, ["a", "b"], training, tmp_path / "d", inputs={}, start=tmp_path / "start",
        checkpoint_steps=2, notes={"rewordings": "7"}, console=QUIET,
    )  # fmt: skip
    assert given["drafter"] == NANO  # that of the start
    np.testing.assert_allclose(
        given["before"].weights["drafter.head.weight"], start["drafter.head.weight"], atol=1e-3
    )
    assert saved_at == [2, 3]  # every second step, and the last
    saved, notes = read_safetensors(tmp_path / "d")
    assert saved["drafter.head.weight"].dtype == np.float16
    assert (notes["queries"], notes["positions"], notes["loss"]) == ("2", "5", "3.7550")
    assert notes["rewordings"] == "7"
    assert json.loads(notes["start"])["loss"] == "5"
    assert asked == {"later_share": 0.25, "seed": 3}
    assert json.loads(notes["train"])["seed"] == 3


def test_the_agent_s_file_says_how_it_was_trained(monkeypatch, tmp_path) -> None:
    weights = initial_weights(MODEL, np.random.default_rng(0))

    class MadeUp:
        """A trainer of three steps."""

        def __init__(self, model, config, data, inputs, arithmetic):
            self.weights, self.step, self.mean_loss, self.inputs = weights, 0, 0.0, inputs

        def run(self, checkpoint):
            for mean in (4.0, 3.9, 3.755):
                self.step, self.mean_loss = self.step + 1, mean
                checkpoint.touch()
                yield Progress(self.step, 3, 0, 1.0, mean, 0.1, 0.0)

    monkeypatch.setattr(train, "Trainer", MadeUp)
    queries, folder = tmp_path / "q.jsonl", tmp_path / "new"
    queries.write_text('{"query": "a", "call": "none()"}\n' * 5, encoding="utf-8")
    folder.mkdir()
    out = folder / "w.safetensors"
    config = TrainConfig(epochs=1)
    train.train_agent("mu-nano", queries, config, out, resume=False, console=QUIET)
    assert [path.name for path in folder.iterdir()] == [out.name]  # no checkpoint is left
    saved, notes = read_safetensors(out)
    assert {w.dtype for w in saved.values()} == {np.dtype(np.float16)}
    assert (notes["steps"], notes["queries"], notes["loss"]) == ("3", "5", "3.7550")


def test_a_run_goes_on_only_where_there_is_something_to_go_on_from(tmp_path) -> None:
    out = tmp_path / "w.safetensors"
    checkpoint = tmp_path / "w.checkpoint.safetensors"
    assert plan_run(out, [], resume=False) == checkpoint
    with pytest.raises(InputError, match="there is none"):
        plan_run(out, [], resume=True)
    (tmp_path / "w.checkpoint.1.safetensors").touch()  # the older one alone will do
    assert plan_run(out, [], resume=True) == checkpoint
    with pytest.raises(InputError, match="give --resume to go on"):
        plan_run(out, [], resume=False)
    with pytest.raises(InputError, match="must not be a file that is read"):
        plan_run(out, [checkpoint.with_name("w.checkpoint.1.safetensors")], resume=True)


@pytest.mark.parametrize(("n_steps", "said"), [(0, ""), (2, "step 2/5")])
def test_a_run_that_fails_has_said_the_steps_that_it_has_done(n_steps: int, said: str) -> None:
    def steps():
        yield from (SimpleNamespace(step=n + 1, total_steps=5) for n in range(n_steps))
        raise OSError(28, "No space left on device")

    text = io.StringIO()
    with pytest.raises(OSError, match="No space left"):
        run_to_end(steps(), lambda _: "", print, None, Console(file=text, width=80))
    assert said in text.getvalue()
    assert "None" not in text.getvalue()


def test_an_interrupt_at_the_last_step_is_too_late() -> None:
    """The run ends as if nothing had come; one step earlier it stops, and saves."""

    def steps(interrupted_at):
        for step in (1, 2, 3):
            if step == interrupted_at:
                os.kill(os.getpid(), signal.SIGINT)
            yield SimpleNamespace(step=step, total_steps=3)

    saved = []
    for at, end in ((3, 3), (2, None)):
        try:
            last = run_to_end(steps(at), str, saved.append, Path("x"), QUIET)
            assert last.step == end
        except KeyboardInterrupt:
            assert end is None
    assert [step.step for step in saved] == [2]
