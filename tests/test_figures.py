"""Pictures are outputs: each is drawn again, shows what its file shows, and can be read."""

import re
from pathlib import Path

import numpy as np
import pytest

from docs.figures import FIGURES, FOLDER, draw, picture
from docs.figures.drawn import differences, drawn, read, write
from docs.figures.eyes import hard_to_read, lightness, overlaps
from docs.figures.growth import law_of, laws, with_table

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
# A fit; 56 calls and five answers at tile fidelity. `.ci/run`: `python -m docs.figures --check`.
LONG = {"validation", "gemms", "latency"}


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in LONG])
def test_a_picture_shows_what_its_figure_draws_now_and_can_be_read(name: str) -> None:
    figure = draw(name)
    there, pixels = read(picture(name))
    assert differences(there, drawn(figure)) == []
    assert pixels == tuple(there["size"])
    assert hard_to_read(figure) == []


@pytest.mark.parametrize("name", sorted(LONG))
def test_a_picture_made_elsewhere_is_whole(name: str) -> None:
    there, pixels = read(picture(name))
    assert pixels == tuple(there["size"])
    assert there["axes"]


def test_every_picture_has_a_figure_and_every_figure_stands_on_a_page() -> None:
    shown = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == {picture(name).resolve() for name in FIGURES}
    assert set(FOLDER.glob("*.png")) == {picture(name) for name in FIGURES}
    endings = (".svg", ".jpg", ".png")
    assert [p for p in (ROOT / "docs").glob("*") if p.suffix in endings] == []


def test_the_gantt_picture_shows_the_time_that_the_report_has() -> None:
    from npu_sim.hardware.presets import npu
    from npu_sim.report.fidelity import simulate

    whole = draw("gantt").axes[0]
    decode = simulate("mu-330m", "hexagon-x-elite", 64, 2).phases[-1]  # two calls, the second drawn
    clock_mhz, call_us = 1373.291016, npu("hexagon-x-elite").per_inference_overhead_us
    starts = sum(
        path.vertices[:, 0].max() - path.vertices[:, 0].min()
        for path in whole.collections[0].get_paths()  # the row of `control`
    )
    assert starts + call_us == pytest.approx(decode.limit_cycles["overhead"] / 2 / clock_mhz)
    assert whole.get_xlim()[1] + call_us == pytest.approx(500 * decode.time_ms, rel=1e-3)


def test_the_law_of_a_growth_by_hand() -> None:
    n = np.array([1.0, 2.0, 4.0, 10.0])
    exponent, shares = law_of(n, 100 + 10 * n + 2 * n**2)  # 400 at the end: 100, 100 and 200
    assert exponent == pytest.approx(np.log(400 / 172) / np.log(2.5))
    assert shares == pytest.approx([0.25, 0.25, 0.5])
    exponent, shares = law_of(n, 3 * n)
    assert (exponent, *shares) == pytest.approx((1, 0, 1, 0), abs=1e-9)


def test_the_table_of_laws_is_renewed_where_it_stands() -> None:
    page = "a\n```python\nprint(laws())\n```\n```text output\nold\n```\nb\n"
    renewed = with_table(page)
    assert renewed == page.replace("old", laws())
    assert with_table(renewed) == renewed


def _figure(**changes):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(changes.get("width", 8), 3))
    axes = figure.subplots()
    axes.plot([1, 2, changes.get("last", 3)], color="#1854ff", label="a: one")
    second = changes.get("second", "#c58d1f")
    axes.plot([3, 2, 1], color=second, label="a: two")
    axes.imshow(np.eye(3))
    axes.legend(loc="upper left")
    axes.text(0.5, 0.5, "here", fontsize=changes.get("points", 9))
    return figure


def test_a_written_picture_carries_what_it_shows(tmp_path: Path) -> None:
    write(_figure(), tmp_path / "a.png")
    there, pixels = read(tmp_path / "a.png")
    assert pixels == (1200, 450)
    assert differences(there, drawn(_figure())) == []
    assert differences(there, drawn(_figure(last=3.0001))) == []
    found = differences(there, drawn(_figure(last=4)))
    assert found
    assert all(".axes[0].lines[0]" in line for line in found)
    assert "'here'" in str(drawn(_figure())["axes"][0]["texts"])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"width": 12}, "is 12 inches wide, not 8"),
        ({"points": 6}, "'here' has 6 points"),
        ({"second": "#ffa500"}, "'a: two' is no colour of the palette"),
        ({"second": "#bf2b1e"}, "'a: one' and 'a: two' are one grey (44, 43)"),
    ],
)
def test_what_is_hard_to_read_is_named(changes, fault: str) -> None:
    assert hard_to_read(_figure(**changes)) == ([fault] if fault else [])


def test_lightness_by_hand() -> None:
    # black, white, and the grey of half the light: 116 (1/2)^(1/3) - 16
    greys = [lightness((c, c, c)) for c in (0, 1, 0.735357)]
    assert np.allclose(greys, [0, 100, 76.07], atol=0.01)


def test_texts_on_each_other_and_outside_are_found() -> None:
    figure = _figure()
    assert overlaps(figure) == []
    figure.axes[0].text(0.5, 0.5, "there", fontsize=9)
    figure.text(0.99, 0.5, "too far to the right")
    assert overlaps(figure) == [
        "'here' lies on 'there'",
        "'too far to the right' leaves the picture",
    ]
