"""The data of what-if pictures, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from npu_sim.errors import SweepError
from npu_sim.whatif import plots
from npu_sim.whatif.compare import Comparison
from npu_sim.whatif.sensitivity import Swing
from npu_sim.whatif.solve import Answer


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been saved."""
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, _: figures.append(figure))
    return figures


def test_a_sweep_is_drawn_by_the_median_of_the_other_fields(drawn, tmp_path):
    lines = ["x,y,latency_ms", "1,a,10", "1,a,20", "1,a,60", "2,a,5", "1,b,7", "3,b,"]
    (tmp_path / "s.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plots.plot_sweep(tmp_path / "s.csv", ["x", "y"], tmp_path / "s.png")
    (axes,) = drawn[0].axes
    data = {line.get_label(): np.transpose(line.get_data()).tolist() for line in axes.lines}
    assert data == {"y = a": [[1, 20], [2, 5]], "y = b": [[1, 7]]}
    (tmp_path / "none.csv").write_text("x,latency_ms\n1,\n", encoding="utf-8")
    with pytest.raises(SweepError, match="must have a point that could be simulated"):
        plots.plot_sweep(tmp_path / "none.csv", ["x"], tmp_path / "s.png")


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
