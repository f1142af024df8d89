"""Headline figures: parts that add up, inputs that are published, nothing of it in a fit."""

import json
import sys
from pathlib import Path

import pytest

from mu_ref.presets import preset
from npu_sim.evidence.headline.figures import Headline, twin_json
from npu_sim.evidence.headline.mu import CAUSES, call_causes, mu_times, twins
from npu_sim.evidence.headline.redrafter import (
    FRAMEWORK_US,
    mu_speedups,
    speedup,
    speedups,
    vicuna,
)
from npu_sim.evidence.headline.table3 import PUBLISHED, Cell, Table3, table3, tokens_per_step
from npu_sim.evidence.headline.tables import print_headline
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.program.call import call_program
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.rows import program_table
from npu_sim.speculate.drafter import Drafter
from npu_sim.tile.simulate import simulate_tiles
from npu_sim.units import ms_from_cycles

ROOT = Path(__file__).parents[2]


def test_causes_of_a_call_add_up_to_its_simulated_time():
    chip, model = npu("hexagon-x-elite"), describe(preset("mu-330m"))
    costs = call_causes(model, "decode", (1, 16, 64), chip)
    run = simulate_tiles(program_table(call_program(model, "decode", 1, 16, 64, Precision())), chip)
    assert sum(costs.values()) == pytest.approx(ms_from_cycles(run.cycles, chip.clock_hz))
    assert set(costs) == set(CAUSES)
    assert all(cost >= 0 for cost in costs.values())


def test_the_head_costs_both_twins_the_same_and_layers_cost_the_deeper_one_more():
    (twin,) = twins((64,), npu("hexagon-x-elite"))
    assert twin.mu_step["head"] == pytest.approx(twin.twin_step["head"])
    assert twin.twin_step["layers"] > 2 * twin.mu_step["layers"]
    assert twin.decode_ratio_last > 1
    data = twin_json(twin)
    published = data["unexplained_decode_ratio"] * data["decode_ratio_last"]
    assert published == pytest.approx(4.67, abs=0.01)


def test_a_settings_query_keeps_what_microsoft_published():
    times = mu_times()
    assert times["tok_per_s"] > 200
    assert times["first_token_ms"] < times["total_ms"] < 500


def test_the_vicunas_have_their_published_parameters():
    # LLaMA's, arXiv:2302.13971, Table 2, and the model cards
    published = {"7b": 6_738_415_616, "13b": 13_015_864_320, "33b": 32_528_943_616}
    assert {size: vicuna(size).n_parameters for size in published} == published


def test_a_speedup_is_tokens_per_step_times_plain_over_step():
    drafter = Drafter(beam_width=2, draft_len=3, tokens_per_step=2.0)
    ratio, plain_ms, step_ms = speedup(describe(preset("mu-nano")), npu("h100"), drafter)
    assert ratio == pytest.approx(2.0 * plain_ms / step_ms, rel=1e-3)
    assert step_ms > plain_ms


@pytest.fixture(scope="module")
def rows():
    return speedups()


def test_every_published_speedup_is_simulated_with_the_published_tokens(rows):
    assert [row.published for row in rows] == [2.8, 2.8, 2.7, 1.32, 1.52, 1.94, 2.28]
    for row in rows:
        assert 1 < row.simulated < row.tokens_per_step


def test_tokens_per_step_lie_between_those_of_table_4():
    assert tokens_per_step(4) == 2.73
    assert tokens_per_step(8) == pytest.approx((2.73 + 3.09) / 2)
    assert 3.09 < tokens_per_step(32) < 3.58


def test_drafting_pays_from_the_break_even():
    (row,) = mu_speedups({4: 2.5})
    (even,) = mu_speedups({4: row["pays_from_tokens_per_step"]})
    assert even["speedup"] == pytest.approx(1, abs=0.03)  # steps are whole


def test_the_constant_of_a_framework_is_the_one_that_the_table_gives():
    table = table3()
    assert pytest.approx(FRAMEWORK_US) == table.issue_us
    # a speed-up of the headline is in no cell, so none is in the fit
    assert len(table.cells) == 56
    assert {c.published for c in table.cells if c.graph_ms is None} <= {None}
    # what one constant explains: steps of few rows; what it does not: large batches
    assert max(table.errors[batch] for batch in (1, 2, 4, 8, 10)) < 0.25 < table.errors[40]


def test_no_published_figure_of_the_headline_is_a_source_of_a_chip():
    for name in NPUS:
        for source in npu(name).sources.values():
            assert "ReDrafter" not in source
            assert "2501.16273" not in source
    fitting = ("fit.py", "calibrate.py", "cases.py", "gemm.py")
    for file in fitting:
        assert "headline" not in (ROOT / "npu_sim/evidence" / file).read_text()


def test_the_figures_are_printed_and_are_json(capsys, rows):
    from rich.console import Console

    small = Headline(
        mu=mu_times(16, 8),
        twins=tuple(twins((64,))),
        speedups=tuple(rows[:1]),
        table3=Table3(
            cells=tuple(
                Cell(batch=b, beam_width=w, published=p, graph_ms=float(b + w), ops=9, left_out=5.0)
                for b, row in PUBLISHED.items()
                for w, p in zip((1, 2, 4, 8, 16, 32, 64), row, strict=True)
            ),
            issue_us=50.0,
        ),
        mu_speedups=tuple(mu_speedups({1: 2.35})),
    )
    json.dumps(small.to_json())
    print_headline(small, Console(file=sys.stdout, width=160, highlight=False))
    out = capsys.readouterr().out
    for text in ("Mu 330M", "4.67", "op overhead", "unexplained", "OOM", "H100"):
        assert text in out
