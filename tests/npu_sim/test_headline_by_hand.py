"""Headline figures of calls and steps whose times are made up: sums and ratios by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from npu_sim.errors import CapacityError
from npu_sim.evidence.headline import mu as headline_mu
from npu_sim.evidence.headline import redrafter as headline_redrafter
from npu_sim.evidence.headline import table3 as headline_table3
from npu_sim.evidence.headline.figures import MEASURED_TOKENS, difference, twin_json
from npu_sim.evidence.headline.mu import CAUSES, STATIC, Twin, mu_times, twins
from npu_sim.evidence.headline.redrafter import DRAFT_LEN, mu_speedups, speedup, speedups, vicuna
from npu_sim.evidence.headline.table3 import Cell, Table3, table3, tokens_per_step
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import Op, Tensor
from npu_sim.speculate.drafter import Drafter
from npu_sim.speculate.measured import SHIPPED

CHIP = npu("teaching-npu")  # a million cycles are a millisecond


def costs(layers: float, head: float) -> dict[str, float]:
    return dict.fromkeys(CAUSES, 0.0) | {"layers": layers, "head": head}


# -- Mu and its twin -------------------------------------------------------------------------------


def test_costs_go_to_what_an_operation_is_for(monkeypatch):
    sites = {
        "decoder.0.mlp.up": ("linear", "layers"), "head": ("linear", "head"),
        "head.argmax": ("argmax", "head"),
        "decoder.0.self_attention.scores": ("matmul", "attention"),
        "decoder.0.self_attention.scale": ("scale", "attention"),
        "decoder.0.self_attention.k_cache": ("append", "attention"),
        "decoder.0.mlp.pre_norm": ("norm", "vector"), "decoder.0.mlp.residual": ("add", "vector"),
    }  # fmt: skip
    x = Tensor(name="x", shape=(1,), bits=8, role="activation")
    ops = [Op(site=s, kind=k, phase="decode", inputs=(x,), output=x) for s, (k, _) in sites.items()]
    limits = np.array([[1, 2, 3, 4]] * len(ops)) * 1_000_000  # compute, vector, memory, overhead
    monkeypatch.setattr(headline_mu, "row_limits", lambda run: limits)
    run = SimpleNamespace(overhead_cycles=7_000_000, table=SimpleNamespace(ops=ops))
    assert headline_mu._causes(run, CHIP) == {
        "layers": 6, "head": 12, "attention": 18, "vector": 12, "op overhead": 8 * 4,
        "call overhead": 7,
    }  # fmt: skip


@pytest.fixture
def calls(monkeypatch):
    """Each call takes 1,000 ms for a token, 10 for a slot of its own, 1 for one of the encoder."""

    def made_up(description, phase, lengths, chip):
        n, context, memory = lengths
        more = {"encode": 0.1, "prefill": 0.2, "decode": 0.0}[phase]
        head = n if description.lm_head == "all" else 0.5
        return costs(1000 * n + 10 * context + memory + more, head)

    monkeypatch.setattr(headline_mu, "call_causes", made_up)


def test_a_query_is_read_once_and_written_token_by_token(calls):
    found = mu_times(4, 3, CHIP)
    encode, first, last = 4040.1 + 0.5, 1014 + 0.5, 1034 + 0.5
    step = (first + last) / 2  # with the third token twenty more
    assert found == {
        "first_token_ms": pytest.approx(encode + first),
        "total_ms": pytest.approx(encode + 3 * step),
        "tok_per_s": pytest.approx(1000 / step),
    }


def test_the_twin_reads_in_one_call_and_carries_its_input_along(calls):
    (found,) = twins((8,), CHIP)
    assert (found.mu_first["layers"], found.mu_first["head"]) == (8080.1 + 1000 + 10 + 8, 1.0)
    assert found.mu_step["layers"] == 1000 + 10 * 16 + 8
    assert found.twin_first["layers"] == pytest.approx(8080.2)
    assert found.twin_step["layers"] == 1000 + 10 * (8 + 16)
    assert found.twin_head_all_ms == pytest.approx(8 - 0.5)
    padded = 11 * STATIC
    assert found.static_ms == {
        "mu_first": pytest.approx(1010 * STATIC + 0.1 + 0.5 + 1000 + padded + 0.5),
        "mu_step": pytest.approx(1000 + padded + 0.5),
        "twin_first": pytest.approx(1010 * STATIC + 0.2 + STATIC),
        "twin_step": pytest.approx(1000 + 10 * STATIC + 0.5),
    }


TWIN = Twin(
    n_input=64, mu_first=costs(30, 6), mu_step=costs(2, 1), twin_first=costs(60, 12),
    twin_step=costs(8, 4), twin_head_all_ms=18.0,
    static_ms={"mu_first": 50.0, "mu_step": 5.0, "twin_first": 125.0, "twin_step": 20.0},
)  # fmt: skip


def test_ratios_say_how_much_better_the_encoder_decoder_is():
    data = twin_json(TWIN)
    assert (data["decode_ratio_last"], data["decode_ratio_static"]) == (4, 4)
    assert (data["first_token_ratio_last"], data["first_token_ratio_all"]) == (0.5, 0.4)
    assert data["first_token_ratio_static"] == 0.4
    assert data["static_padding_ms"] == {"mu_step": 2, "twin_step": 8}
    assert data["unexplained_decode_ratio"] == pytest.approx(123.8 / 26.5 / 4)
    assert data["unexplained_first_token_ratio"] == pytest.approx(189 / 358 / 0.4)
    assert data["head_over_prompt_ms"] == 18
    assert difference(TWIN.mu_step, TWIN.twin_step)["layers"] == {
        "mu": 2, "twin": 8, "difference": 6,
    }  # fmt: skip


# -- ReDrafter -------------------------------------------------------------------------------------


def test_tokens_between_two_widths_by_the_logarithm():
    assert tokens_per_step(1) == 2.35
    assert tokens_per_step(8) == pytest.approx((2.73 + 3.09) / 2)
    assert tokens_per_step(5) == pytest.approx(2.73 + (3.09 - 2.73) * np.log(5 / 4) / np.log(4))
    assert tokens_per_step(32) == pytest.approx((3.09 + 3.58) / 2)


def test_the_order_of_cells_counts_and_not_their_size():
    pairs = [(1.0, 5.0), (3.0, 9.0), (2.0, 900.0), (7.0, 8.0), (None, 3.0), (4.0, None)]
    cells = tuple(
        Cell(batch=1, beam_width=1, published=p, graph_ms=s and 2350 / s, ops=0) for p, s in pairs
    )
    # ranks 1 3 2 4 and 1 3 4 2: 1 - 6 (0 + 0 + 4 + 4) / (4 (16 - 1))
    table = Table3(cells=cells, issue_us=7.0)
    assert table.rank_correlation == pytest.approx(1 - 6 * 8 / 60)


@pytest.fixture
def scenarios(monkeypatch):
    """Every scenario that is evaluated; with a drafter a token takes 2 ms, without 8."""
    seen = []

    def made_up(scenario, fidelity):
        assert fidelity == "roofline"
        seen.append(scenario)
        if scenario.workload.batch == 80:
            raise CapacityError("full")
        time = 2.0 if scenario.drafter.beam_width else 8.0
        return {"tpot_ms": time, "decode_tok_per_s": 1000 / time}

    for module in (headline_redrafter, headline_table3):
        monkeypatch.setattr(module, "evaluate", made_up)
    return seen


def test_a_step_takes_as_long_as_its_tokens(scenarios):
    drafter = Drafter(beam_width=2, draft_len=3, tokens_per_step=2.5)
    assert speedup(vicuna("7b"), CHIP, drafter) == (4, 8, 5)
    plain, drafted = scenarios
    assert (plain.drafter, drafted.drafter) == (Drafter(), drafter)
    assert plain.precision == Precision(
        weight_bits=16, activation_bits=16, kv_bits=16, head_weight_bits=16
    )
    assert (plain.workload.n_input, plain.workload.n_output, plain.workload.batch) == (100, 513, 1)


def test_the_published_speedups_are_simulated_with_what_was_published(scenarios):
    rows = speedups()
    given = [(row.tokens_per_step, row.published) for row in rows]
    # arXiv:2403.09919v5: Tables 1 and 2, and the MLX figures
    assert given == [(4.20, 2.8), (4.20, 2.8), (3.87, 2.7), (2.15, 1.32), (2.44, 1.52),
                     (2.82, 1.94), (2.56, 2.28)]  # fmt: skip
    drafters = [s.drafter for s in scenarios[1::2]]
    assert [(d.beam_width, d.draft_len, d.packed_share) for d in drafters] == [
        *[(16, 4, 0.5)] * 3, (1, 3, 1), (3, 3, 1), (2, 3, 1), (4, 3, 1),
    ]  # fmt: skip
    # a framework issues an operation in 47.8 us; the next row has none
    first, second = (s.npu for s in scenarios[::2][:2])
    assert first.per_op_overhead_cycles == round(47.8e-6 * first.clock_hz)
    assert second.per_op_overhead_cycles == npu("h100").per_op_overhead_cycles


def test_table_3_packs_more_where_more_beams_share(scenarios):
    cells = table3().cells
    assert [c.left_out for c in cells if c.batch == 80] == [None] * 7
    # a token takes 2 ms whatever is issued, so no constant changes that
    assert [(c.graph_ms, c.ops, c.left_out) for c in cells[:2]] == [
        (pytest.approx(2 * 2.35), 0, pytest.approx(500)),
        (pytest.approx(2 * 2.50), 0, pytest.approx(500)),
    ]
    full = [s for s in scenarios if s.workload.batch < 80]
    free, dear = full[:14:2], full[1:14:2]
    assert [s.drafter.packed_share for s in free] == [1, 0.75, 0.75, 0.5, 0.5, 0.5, 0.5]
    assert [s.drafter.beam_width for s in free] == [1, 2, 4, 8, 16, 32, 64]
    assert {s.npu.per_op_overhead_cycles for s in free} == {0}
    assert {s.npu.per_op_overhead_cycles / s.npu.clock_hz for s in dear} == {1e-3}
    assert [s.workload.batch for s in full[::14]] == [1, 2, 4, 8, 10, 20, 40]
    assert {s.precision.label() for s in scenarios} == {"W16A16, KV16, head W16"}


def test_a_batch_size_is_predicted_from_the_others(monkeypatch):
    """Steps of 4 ms and 100 operations, of 20 us but for batch 8, of 70."""

    def made_up(given, _):
        issued = given.npu.per_op_overhead_cycles / given.npu.clock_hz * 1e3  # ms
        return {"tpot_ms": (4 + 100 * issued) / given.drafter.tokens_per_step}

    def speed(width, us):
        return tokens_per_step(width) * 1e3 / (4 + 0.1 * us)

    published = {
        b: tuple(speed(w, 70 if b == 8 else 20) for w in headline_table3.WIDTHS)
        for b in headline_table3.BATCHES
    }
    monkeypatch.setattr(headline_table3, "evaluate", made_up)
    monkeypatch.setattr(headline_table3, "PUBLISHED", published)
    table = table3()
    assert table.issue_us == pytest.approx(20)  # the sum of |log| is least at the most frequent
    assert table.errors[8] == pytest.approx(speed(1, 20) / speed(1, 70) - 1)
    assert all(table.errors[b] == pytest.approx(0, abs=1e-9) for b in (1, 2, 4, 10, 20, 40, 80))


def test_the_batch_size_itself_is_no_part_of_its_prediction(monkeypatch):
    """Half of the batch sizes say 20 us, half 70: without itself each is in the minority."""

    def made_up(given, _):
        issued = given.npu.per_op_overhead_cycles / given.npu.clock_hz * 1e3  # ms
        return {"tpot_ms": (4 + 100 * issued) / given.drafter.tokens_per_step}

    def speed(width, us):
        return tokens_per_step(width) * 1e3 / (4 + 0.1 * us)

    published = {
        b: tuple(speed(w, 20 if b < 10 else 70) for w in headline_table3.WIDTHS)
        for b in headline_table3.BATCHES
    }
    monkeypatch.setattr(headline_table3, "evaluate", made_up)
    monkeypatch.setattr(headline_table3, "PUBLISHED", published)
    for cell in table3().cells:
        expected = speed(cell.beam_width, 70 if cell.batch < 10 else 20)
        assert cell.left_out == pytest.approx(expected)


def test_drafting_pays_from_as_many_tokens_as_a_step_takes_plain_ones(scenarios):
    (row,) = mu_speedups({4: 2.5})
    assert row == {"beam_width": 4, "tokens_per_step": 2.5, "speedup": 4, "plain_ms": 8,
                   "step_ms": 5, "pays_from_tokens_per_step": 5 / 8}  # fmt: skip
    assert scenarios[1].drafter.n_layers == 1


def test_the_tokens_that_were_measured_are_those_of_the_table():
    table = json.loads(SHIPPED.read_text(encoding="utf-8"))
    found = {row["beam_width"]: row["tokens_per_step"] for row in table
             if row["draft_len"] == DRAFT_LEN}  # fmt: skip
    assert {width: round(found[width], 2) for width in MEASURED_TOKENS} == MEASURED_TOKENS
