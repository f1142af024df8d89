"""The data of what-if pictures, by hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from npu_sim.errors import SweepError
from npu_sim.evidence import plots as evidence
from npu_sim.evidence.headline.mu import CAUSES, Twin
from npu_sim.whatif import plots
from npu_sim.whatif.compare import Comparison
from npu_sim.whatif.pictures import sweep_plot
from npu_sim.whatif.sensitivity import Swing
from npu_sim.whatif.solve import Answer
from npu_sim.whatif.varied.sweep_toml import spec_from


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been saved."""
    figures = []
    for room in (plots, sweep_plot):
        monkeypatch.setattr(room, "save", lambda figure, _: figures.append(figure))
    return figures


SWEEP = """
model = "tiny"
npu = "teaching-npu"
[vary]
"workload.n_output" = [2, 4]
weight_bits = [4, 8]
"npu.matrix.dataflow" = ["os", "ws", "is"]
"""


def look(text=SWEEP, table=Path("s.csv"), **options):
    return sweep_plot.check_sweep_plot(spec_from(text), table, **options)


def write(tmp_path, header, *lines):
    (tmp_path / "s.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return tmp_path / "s.csv"


def lines_of(panel):
    return {line.get_label(): np.transpose(line.get_data()).tolist() for line in panel.lines}


def test_a_third_axis_becomes_panels_and_nothing_is_averaged(drawn, tmp_path):
    header = "workload.n_output,precision.weight_bits,npu.matrix.dataflow,latency_ms"
    table = write(tmp_path, header, "2,4,os,10", "4,4,os,20", "2,8,os,30", "4,8,os,40", "2,4,ws,1",
                  "4,4,ws,", "2,8,ws,3", "4,8,ws,4")  # fmt: skip
    sweep_plot.plot_sweep(
        table, look(), tmp_path / "s.png", "tiny on teaching-npu, simulated (roofline)"
    )
    (figure,) = drawn
    assert figure.get_suptitle() == "tiny on teaching-npu, simulated (roofline)"
    first, second = figure.axes
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "dataflow = os", "dataflow = ws",
    ]  # fmt: skip
    assert lines_of(first) == {"4 bits": [[2, 10], [4, 20]], "8 bits": [[2, 30], [4, 40]]}
    assert lines_of(second) == {"4 bits": [[2, 1]], "8 bits": [[2, 3], [4, 4]]}
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[1] > 40
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["4 bits", "8 bits"]
    assert legend.get_title().get_text() == "weight_bits"


def test_axes_can_be_chosen_by_their_last_words():
    assert look()[:4] == (
        "workload.n_output", "precision.weight_bits", ("npu.matrix.dataflow",), "latency_ms",
    )  # fmt: skip
    chosen = look(x="weight_bits", colour="dataflow", metric="ttft_ms")
    assert chosen[:4] == (
        "precision.weight_bits", "npu.matrix.dataflow", ("workload.n_output",), "ttft_ms",
    )  # fmt: skip
    assert look(panels="n_output")[:3] == (
        "precision.weight_bits", "npu.matrix.dataflow", ("workload.n_output",),
    )  # fmt: skip
    # a text is never along the axis, though it comes first
    text = SWEEP.replace("[vary]", "[vary]\n'model.lm_head' = ['last', 'all']")
    assert look(text).x == "workload.n_output"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "dataflow"}, "must have numbers along its axis, got npu.matrix.dataflow"),
        ({"x": "n_input"}, "--x must be a field that the sweep varies"),
        ({"colour": "n_output", "x": "n_output"}, "must be different fields"),
        ({"metric": "latency"}, "--y must be one of"),
        ({"text": SWEEP.replace("[2, 4]", str(list(range(1, 15)))), "panels": "n_output"},
         "at most 12 panels"),
    ],
)  # fmt: skip
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_sweep(options, message):
    with pytest.raises(SweepError, match=message):
        look(**options)


def test_drawn_fields_make_points_and_no_lines(drawn, tmp_path):
    text = SWEEP.replace('"workload.n_output" = [2, 4]\n', "").replace(
        '"npu.matrix.dataflow" = ["os", "ws", "is"]\n',
        '[sample]\nn = 2\ndma_bandwidth = { range = [1, 2], unit = "GB/s" }\n',
    )
    seen = look(text, x="bytes_per_s")
    header = "npu.dma.bytes_per_s,precision.weight_bits,latency_ms"
    table = write(tmp_path, header, "1.5e9,4,10", "1.2e9,4,20", "1.1e9,8,30", "1.9e9,8,40")
    sweep_plot.plot_sweep(table, seen, tmp_path / "s.png")
    (panel,) = drawn[0].axes
    assert {line.get_linestyle() for line in panel.lines} == {"None"}
    assert panel.xaxis.get_major_formatter()(1.5e9, 0) == "1.5 GB/s"
    assert panel.yaxis.get_major_formatter()(1500, 0) == "1.5 s"


def test_more_values_than_colours_are_said(drawn, tmp_path):
    text = SWEEP.replace("[4, 8]", "[4, 8]\n'workload.n_input' = " + str(list(range(1, 13))))
    seen = look(text, colour="n_input")
    header = (
        "workload.n_output,workload.n_input,npu.matrix.dataflow,precision.weight_bits,latency_ms"
    )
    rows = [f"{x},{n},os,4,{n}" for x in (2, 4) for n in range(1, 13)]
    sweep_plot.plot_sweep(write(tmp_path, header, *rows), seen, tmp_path / "s.png")
    (legend,) = drawn[0].legends
    assert legend.get_title().get_text() == "n_input\n9 of 12 values"
    assert len(legend.get_texts()) == 9


def test_a_sweep_without_a_point_has_no_picture(tmp_path):
    header = "workload.n_output,precision.weight_bits,npu.matrix.dataflow,latency_ms"
    table = write(tmp_path, header, "1,4,os,")
    with pytest.raises(SweepError, match="must have a point that could be simulated"):
        sweep_plot.plot_sweep(table, look(), tmp_path / "s.png")


def test_bars_of_a_tornado_start_at_the_base(drawn, tmp_path):
    swings = [Swing(path="a", low=14.0, high=7.0, low_value=1, high_value=2),
              Swing(path="b", low=None, high=12.0, low_value=1, high_value=2)]  # fmt: skip
    plots.plot_tornado(10.0, swings, "latency_ms", tmp_path / "t.png")
    (axes,) = drawn[0].axes
    bars = [(round(b.get_y() + b.get_height() / 2), b.get_x(), b.get_width()) for b in axes.patches]
    assert bars == [(0, 10, 2), (1, 10, 4), (1, 10, -3)]  # the first field on top
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]


def test_bars_of_a_comparison_stand_side_by_side(drawn, tmp_path):
    costs = {("encode", "memory"): (1.0, 2.0), ("decode", "vector"): (0.0, 0.0),
             ("decode", "memory"): (3.0, 5.0)}  # fmt: skip
    plots.plot_comparison(Comparison(fields={}, costs=costs), ("A", "B"), tmp_path / "c.png")
    (axes,) = drawn[0].axes
    assert [bar.get_height() for bar in axes.patches] == [1, 3, 2, 5]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "encode\nmemory", "decode\nmemory",
    ]  # fmt: skip


def test_a_search_is_drawn_around_its_answer(drawn, monkeypatch, tmp_path):
    monkeypatch.setattr(plots, "evaluate_changed", lambda scenario, c, *_: 2 * c["npu.x"])
    scenario = SimpleNamespace(paths=lambda: {"npu.x": 10})
    answer = Answer(path="npu.x", metric="ttft_ms", target=70.0, now=10.0, now_metric=20.0,
                    needed=40.0, best_metric=70.0, limit="")  # fmt: skip
    plots.plot_solution(scenario, answer, tmp_path / "s.png")
    (axes,) = drawn[0].axes
    x, y = axes.lines[0].get_data()
    assert (min(x), max(x), list(y)) == (2, 160, [2 * v for v in x])  # whole, at least 1
    assert list(axes.lines[1].get_ydata()) == [70, 70]


def test_a_headline_draws_ratios_that_there_are(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(evidence, "save", lambda figure, _: figures.append(figure))
    costs = dict.fromkeys(CAUSES, 1.0)
    static = {"mu_first": 30.0, "mu_step": 5.0, "twin_first": 60.0, "twin_step": 20.0}
    twin = Twin(n_input=64, mu_first=costs, mu_step=costs, twin_first=costs, twin_step=costs,
                twin_head_all_ms=6.0, static_ms=static)  # fmt: skip
    evidence.plot_headline(SimpleNamespace(twins=(twin,)), tmp_path / "h.png")
    left, right = ([line.get_ydata()[0] for line in axes.lines] for axes in figures[0].axes)
    assert left == [1, 4, 4.67]  # as fast with exact lengths, four times with padded graphs
    assert right == pytest.approx([1, 0.5, 0.5, 189 / 358])
