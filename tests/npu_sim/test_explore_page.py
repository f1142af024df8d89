"""The page of `npu-sim explore` in a headless Chromium: what a person does, sees and passes on."""

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from browser import Browser, browser

from npu_sim.errors import NpuSimError
from npu_sim.explore.asked import CONTROLS, scenario_of
from npu_sim.explore.server import Server
from npu_sim.whatif.compare import compare

DONE = """
const views = Object.values(window.explore?.views ?? {}).filter((view) => view.version);
return views.length && views.every((view) => view.done.tiles === view.version && view.tiles) &&
  !document.querySelector(".side:not([hidden]).old")"""
FIGURES = """
return Object.fromEntries([...document.querySelectorAll("#side-a .figures .tiles")].map(
  (place) => [place.parentNode.dataset.name, Number(place.dataset.value)]))"""
TEXTS = """
return Object.fromEntries([...document.querySelectorAll("#side-a form [id^=a-]")].filter(
  (input) => input.value !== undefined).map((input) => [input.id.slice(2), input.value]))"""
COMMAND = "return document.querySelector('#side-a .command code').textContent"


SMALL = "#a.model=mu-nano"  # quick


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def page(window: Browser, explore_server: Server, request: pytest.FixtureRequest) -> Browser:
    """The page as a link opens it, by default of a small model."""
    window.open("about:blank")
    window.open(explore_server.url + getattr(request, "param", SMALL))
    window.wait(DONE)
    return window


def choose(page: Browser, texts: dict[str, str]) -> list[dict[str, float]]:
    """Change controls of side A, one after the other; milliseconds of each redraw."""
    times = []
    for name, text in texts.items():
        page.run("Object.values(window.explore.times).forEach((list) => list.splice(0))")
        page.type(f"#a-{name}", text)
        page.wait(DONE)
        page.wait("return window.explore.times.tiles.length")
        times.append(page.run(
            "const last = (name) => window.explore.times[name].at(-1);"
            "return {roofline: last('roofline'), tiles: last('tiles')}"
        ))  # fmt: skip
    return times


def of_command(npu_sim, page: Browser) -> dict[str, float]:
    """What the command that the page shows prints, by the names of the page's figures."""
    code, out, err = npu_sim(*shlex.split(page.run(COMMAND))[1:], "--json")
    assert code == 0, err
    found = json.loads(out)
    stored = found["stored_weight_bytes"] + found["stored_kv_bytes"]
    return {
        "ttft_ms": found["ttft_ms"], "decode_tok_per_s": found["decode_tok_per_s"],
        "latency_ms": found["latency_ms"], "energy_mj": found["energy_mj"],
        "dram_bytes": found["dram_bytes"], "stored_bytes": stored,
        "budget_left_ms": found["budget"]["margin_ms"],
    }  # fmt: skip


@pytest.mark.parametrize("page", [""], indirect=True)
def test_three_controls_changed_give_the_figures_of_the_command_line(npu_sim, page, capsys):
    before = page.run(FIGURES)
    times = choose(page, {"weight_bits": "4", "bandwidth": "100", "beams": "2"})
    after = page.run(FIGURES)
    assert after == of_command(npu_sim, page)
    assert after["decode_tok_per_s"] > before["decode_tok_per_s"]
    assert all(time["roofline"] < time["tiles"] for time in times)
    medians = {kind: median(time[kind] for time in times) for kind in ("roofline", "tiles")}
    with capsys.disabled():  # they are to be seen in every run
        print(
            "\nmedian redraw of the page, mu-330m, 64 in, 32 out: "
            "roofline {roofline:.0f} ms, tiles {tiles:.0f} ms".format(**medians)
        )


def test_a_link_restores_what_it_was_copied_from(page):
    choose(page, {"weight_bits": "4", "bandwidth": "100", "beams": "2"})
    url, texts = page.run("return location.href"), page.run(TEXTS)
    figures, command = page.run(FIGURES), page.run(COMMAND)
    assert {"weight_bits": "4", "bandwidth": "100", "beams": "2"}.items() <= texts.items()
    page.open("about:blank")
    page.open(url)
    page.wait(DONE)
    assert (page.run(TEXTS), page.run(FIGURES), page.run(COMMAND)) == (texts, figures, command)
    page.click("#reset")
    page.wait(DONE)
    assert page.run("return location.hash") == ""
    assert page.run(FIGURES) != figures


def test_a_bad_input_is_shown_beside_its_control_in_the_simulators_words(page):
    for name, text in (("bandwidth", "fast"), ("input", "0"), ("sram", "-1")):
        check_bad_input(page, name, text)


def check_bad_input(page: Browser, name: str, text: str) -> None:
    before = page.run(f"return document.querySelector('#a-{name}').value")
    page.type(f"#a-{name}", text)
    said = page.wait(f"const said = document.querySelector('#a-{name}-wrong').textContent;"
                     f"return said.includes(arguments[0]) && said", text)  # fmt: skip
    with pytest.raises(NpuSimError) as refused:
        scenario_of({**page.run(TEXTS), "context": "", "kept": ""})
    assert said == str(refused.value)
    marked = page.run("return [...document.querySelectorAll('[aria-invalid=true]')].map(e => e.id)")
    assert marked == [f"a-{name}"]
    described = page.run(f"return document.querySelector('#a-{name}').getAttribute("
                         "'aria-describedby')")  # fmt: skip
    assert f"a-{name}-wrong" in described.split()
    below = page.run(f"const box = (e) => document.querySelector(e).getBoundingClientRect();"
                     f"return box('#a-{name}-wrong').top - box('#a-{name}').bottom")  # fmt: skip
    assert 0 <= below < 60
    page.type(f"#a-{name}", before)
    page.wait(DONE)
    assert not page.run("return document.querySelector('[aria-invalid=true]')")


def test_two_sides_are_explained_by_their_comparison(page):
    page.click("#two")
    page.wait(DONE)
    page.type("#b-weight_bits", "4")
    total = "return document.querySelector('#difference-sum').textContent"
    page.wait(f"{total}.startsWith('B takes')")
    base = {"model": "mu-nano", "npu": "hexagon-x-elite"}
    found = compare(scenario_of(base), scenario_of({**base, "weight_bits": "4"}))
    a, b = found.totals_ms
    assert f"({a:.3g} to {b:.3g} ms" in page.run(total)
    rows = page.run(
        "return [...document.querySelectorAll('#difference-costs tbody tr')].map("
        "(row) => [...row.cells].slice(0, 4).map((cell) => cell.textContent))"
    )
    costs = [(key, pair) for key, pair in found.costs.items() if any(pair)]
    assert rows == [[*key, f"{x:.3f}", f"{y:.3f}"] for key, (x, y) in costs]
    fields = page.run("return document.querySelector('#difference-fields tbody').textContent")
    assert fields == "precision.weight_bits84"
    said, url = page.run(total), page.run("return location.href")
    page.open("about:blank")
    page.open(url)
    page.wait(f"{total} === arguments[0]", said)


def test_the_page_fits_the_window_and_names_what_it_shows(page, tmp_path):
    # how it looks is for a person: MU_REF_SCREENSHOTS=FOLDER keeps what is seen here
    folder = Path(os.environ.get("MU_REF_SCREENSHOTS", tmp_path))
    for width in (1400, 800, 520):
        page.size(width, 1300)
        page.wait("return document.documentElement.scrollWidth <= window.innerWidth")
        page.screenshot(folder / f"explore-{width}.png")
    unnamed = page.run(
        "return [...document.querySelectorAll('#side-a input, #side-a select')].filter("
        "(e) => e.labels.length !== 1 || !e.labels[0].textContent).map((e) => e.id)"
    )
    assert unnamed == []
    drawn = page.run(
        "return [...document.querySelectorAll('#side-a .drawing > svg')].map("
        "(e) => [e.getAttribute('role'), e.getAttribute('aria-label').length > 40,"
        " e.querySelectorAll('path, rect, circle').length > 3])"
    )
    assert drawn == [["img", True, True]] * 3
    assert page.complaints() == []
    reached = page.run(
        "return [...document.querySelectorAll('#side-a [id^=a-]')].filter("
        "(e) => 'value' in e && (e.disabled || e.tabIndex === 0)).map((e) => e.id.slice(2))"
    )
    assert reached == list(CONTROLS)
