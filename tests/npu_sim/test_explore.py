"""The server behind the what-if page: answers of `npu-sim run`, and no questions of strangers."""

import http.client
import json
import shlex
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu_ref.errors import MuRefError
from npu_sim.errors import NpuSimError
from npu_sim.explore import answers as answers_of_the_page
from npu_sim.explore import drawings
from npu_sim.explore.answers import Answers, page_facts
from npu_sim.explore.asked import CONTROLS, DEFAULTS, blamed, command_of, scenario_of
from npu_sim.explore.server import LARGEST, open_server
from npu_sim.hardware.presets import npu

SMALL = {"model": "tiny", "npu": "teaching-npu", "input": "6", "output": "5"}
JSON = {"Content-Type": "application/json"}


def ask(server, path, data, method="POST", **headers):
    """Status and answer of a request."""
    line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=300)
    body = data if isinstance(data, bytes | None) else json.dumps(data)
    line.request(method, path, body, {**JSON, **headers})
    answer = line.getresponse()
    text = answer.read()
    line.close()
    kind = answer.headers["Content-Type"]
    return answer.status, json.loads(text) if kind == "application/json" else text.decode()


def test_the_loopback_address_alone_is_listened_on(explore_server):
    assert explore_server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("name", ["", "page.css", "page.js", "?x=1"])
def test_the_page_is_three_files_that_need_no_others(explore_server, name):
    status, text = ask(explore_server, f"/{name}", None, "GET")
    assert status == 200
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")


QUESTIONS = [
    {}, {"weight_bits": "4", "kv_bits": "8"}, {"context": "32", "bandwidth": "3.5"},
    {"tops": "1", "sram": "2"}, {"beams": "2", "draft_len": "3"},
    {"beams": "1", "draft_len": "7", "kept": "2.5"}, {"output": "1"}, {"bandwidth": "2 GB/s"},
    {"npu": "hexagon-x-elite", "activation_bits": "8", "tops": "90"}, {"model": "decoder-only-330m",
     "npu": "h100", "output": "2"},
]  # fmt: skip


@pytest.mark.parametrize("more", QUESTIONS, ids=str)
def test_answers_are_those_of_the_command_that_is_shown(npu_sim, explore_server, more):
    asked = {**SMALL, **more}
    status, found = ask(explore_server, "/api/tiles", asked)
    assert status == 200, found
    code, out, err = npu_sim(*shlex.split(found["command"])[1:], "--json")
    assert code == 0, err
    run = json.loads(out)
    assert {name: run[name] for name in found["run"]} == found["run"]
    figures = {figure["name"]: figure["value"] for figure in found["figures"]}
    for name in ("ttft_ms", "decode_tok_per_s", "latency_ms", "dram_bytes", "energy_mj"):
        assert figures[name] == run[name]
    assert figures["budget_left_ms"] == run["budget"]["margin_ms"]
    status, bound = ask(explore_server, "/api/roofline", asked)
    code, out, _ = npu_sim(*shlex.split(bound["command"])[1:], "--fidelity", "roofline", "--json")
    assert (status, code) == (200, 0)
    figures = {figure["name"]: figure["value"] for figure in bound["figures"]}
    for name in ("ttft_ms", "decode_tok_per_s", "latency_ms", "dram_bytes", "energy_mj"):
        assert figures[name] == (None if json.loads(out)[name] is None
                                 else pytest.approx(json.loads(out)[name]))  # fmt: skip


def test_more_compute_is_every_rate_in_proportion_at_the_same_clock():
    chip, twice = npu("hexagon-x-elite"), {"model": "tiny", "npu": "hexagon-x-elite", "tops": "90"}
    found = scenario_of(twice).npu
    assert found.int8_tops == pytest.approx(90, rel=1e-4)
    assert found.clock_hz == chip.clock_hz
    assert found.matrix.w8a16_macs_per_cycle == 2 * chip.matrix.w8a16_macs_per_cycle
    small = scenario_of({"model": "tiny", "npu": "teaching-npu", "tops": "4.096"}).npu
    assert small.matrix.w8a8_macs_per_cycle == 2 * npu("teaching-npu").matrix.w8a8_macs_per_cycle
    none = scenario_of({"model": "tiny", "npu": "ethos-u85", "tops": "0.001"}).npu
    assert (none.matrix.w16a16_macs_per_cycle, none.matrix.w8a16_macs_per_cycle) == (0, 1)


def test_what_beams_keep_is_what_was_measured_unless_somebody_says_it():
    drafter = scenario_of({**SMALL, "beams": "2"}).drafter
    assert (drafter.beam_width, drafter.draft_len) == (2, 4)
    assert drafter.tokens_per_step == pytest.approx(1 + 2013 / 646)
    assert drafter.n_nodes == 8
    assert scenario_of({**SMALL, "beams": "2", "kept": "1.5"}).drafter.tokens_per_step == 1.5
    assert scenario_of({**SMALL, "draft_len": "9"}).drafter.beam_width == 0


@pytest.mark.parametrize(("more", "control", "said"), [
    ({"model": "mu-331m"}, "model", "model must be one of"),
    ({"npu": "abacus"}, "npu", "npu must be one of"),
    ({"npu": "/etc/passwd.toml"}, "npu", "npu must be one of"),
    ({"weight_bits": "5"}, "weight_bits", "weight_bits must be one of 4, 8, 16; got 5"),
    ({"input": "many"}, "input", "workload.n_input must be a whole number from 1"),
    ({"output": "1e9"}, "output", "workload.n_output must be a whole number"),
    ({"output": "3000"}, "output", "n_output must be at most 2048"),
    ({"input": "9", "context": "8"}, "context", "static_context for 9 tokens must be"),
    ({"tops": "0"}, "tops", "tops must be a number above 0"),
    ({"tops": "nan"}, "tops", "tops must be a number above 0"),
    ({"bandwidth": "3 GHz"}, "bandwidth", "must be one of B/s"),
    ({"bandwidth": "-1"}, "bandwidth", "dma.bytes_per_s must be a whole number from 1"),
    ({"sram": "8 MiB; ls"}, "sram", "sram.capacity_bytes must be a whole number"),
    ({"sram": "1 B"}, "sram", "must"),
    ({"beams": "2", "draft_len": "0"}, "draft_len", "drafter.draft_len must be"),
    ({"beams": "2", "draft_len": "7"}, "draft_len", "tokens kept per step must be given"),
    ({"beams": "2", "kept": "9"}, "kept", "drafter.tokens_per_step must be"),
    ({"beams": "true"}, "beams", "drafter.beam_width must be"),
    ({"npu": "ethos-u85"}, "npu", "must multiply widths that ethos-u85 supports"),
    ({"input": "x" * 61}, "input", "at most 60 characters"),
])  # fmt: skip
def test_a_refusal_names_its_control_and_keeps_the_simulators_words(
    explore_server, more, control, said
):
    status, found = ask(explore_server, "/api/tiles", {**SMALL, **more})
    assert (status, found["control"]) == (422, control)
    assert said in found["error"]


def test_no_control_opens_a_file(explore_server):
    for name in CONTROLS:
        for text in ("/etc/passwd", "x.toml"):
            asked = {**SMALL, "beams": "2", name: text}
            status, found = ask(explore_server, "/api/roofline", asked)
            assert (status, found["control"]) == (422, name), (name, text)
    for key in ("model_json", "hf_config", "set", "fidelity"):
        status, found = ask(explore_server, "/api/roofline", {**SMALL, key: "x"})
        assert (status, found["error"][:12]) == (422, "control must")


@pytest.mark.parametrize("path", ["/../server.py", "/page.html", "/%2e%2e/server.py", "/api/tiles",
                                  "//etc/passwd", "/page.css/", "/x"])  # fmt: skip
def test_nothing_else_is_served(explore_server, path):
    assert ask(explore_server, path, None, "GET")[0] == 404


@pytest.mark.parametrize(("headers", "status"), [
    ({"Host": "evil.example"}, 403), ({"Host": "evil.example:{port}"}, 403),
    ({"Host": "127.0.0.1"}, 403),
    ({"Host": "127.0.0.1.evil.example:{port}"}, 403), ({"Host": "localhost:{port}"}, 200),
    ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
    ({"Origin": "http://127.0.0.1:{port}"}, 200), ({"Content-Type": "text/plain"}, 415),
    ({"Content-Length": str(LARGEST + 1)}, 413), ({"Content-Length": "9" * 40}, 413),
    ({"Content-Length": "-1"}, 411),
])  # fmt: skip
def test_other_hosts_other_pages_and_other_bodies_are_refused(explore_server, headers, status):
    port = str(explore_server.server_port)
    sent = {name: text.replace("{port}", port) for name, text in headers.items()}
    found = ask(explore_server, "/api/roofline", SMALL, **sent)
    assert found[0] == status, found
    if "Host" in headers:
        assert ask(explore_server, "/", None, "GET", **sent)[0] == status


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"model": 3}', b'{"a": {}}', b"null",
                                  b"[" * 5000, b'{"model":"tiny","model":"tiny"}'])  # fmt: skip
@pytest.mark.parametrize("path", ["roofline", "compare"])
def test_a_question_that_is_none_is_one_line(explore_server, path, body):
    status, found = ask(explore_server, f"/api/{path}", body)
    assert status == 400
    assert found["error"]
    assert "\n" not in found["error"]


def test_sides_are_compared_as_the_command_compares(explore_server):
    status, found = ask(explore_server, "/api/compare", {"a": SMALL, "b": {**SMALL, "sram": "2"}})
    assert status == 200
    (field,) = found["fields"]
    assert field == {"field": "npu.sram.capacity_bytes", "a": "512 KiB", "b": "2 MiB"}
    latency = {
        side: ask(explore_server, "/api/tiles", asked)[1]["run"]["latency_ms"]
        for side, asked in {"a": SMALL, "b": {**SMALL, "sram": "2"}}.items()
    }
    assert (found["a_ms"], found["b_ms"]) == pytest.approx((latency["a"], latency["b"]))


def test_pictures_lose_no_time_where_bars_are_merged(explore_server):
    found = ask(explore_server, "/api/tiles", SMALL)[1]
    whole, layer = found["pictures"]["gantt"]["spans"]
    assert 0 < layer["us"] < whole["us"]
    for span in (whole, layer):
        assert all(at >= 0 and at + wide <= span["us"] * 1.001 for _, _, at, wide in span["bars"])
    kinds = found["pictures"]["breakdown"]["kinds"]
    assert sum(sum(kind["ms"]) for kind in kinds) == pytest.approx(found["run"]["latency_ms"])
    roofline = found["pictures"]["roofline"]
    points = sum(count for phase in roofline["phases"] for *_, count in phase["points"])
    nowhere = sum(phase["without_traffic"] for phase in roofline["phases"])
    assert points > 0
    assert nowhere >= 0


def test_bars_with_less_than_a_dot_between_them_are_one():
    bars = np.array([[10, 5], [0, 10], [16, 2], [40, 3], [41, 1], [60, 0]])
    assert drawings._merged(bars, 10 * drawings.WIDE) == [(0, 18), (40, 3), (60, 0)]
    assert drawings._merged(bars[:0], 10) == []


def test_the_page_begins_with_the_simulators_own_defaults():
    facts = page_facts()
    assert [control["name"] for control in facts["controls"]] == list(CONTROLS)
    begins = scenario_of(DEFAULTS)
    bare = scenario_of({"model": "mu-330m", "npu": "hexagon-x-elite"})
    assert begins == bare
    assert facts["own"]["hexagon-x-elite"] == {"tops": "45", "bandwidth": "61.7", "sram": "8"}


def test_long_simulations_are_kept_alone(monkeypatch):
    monkeypatch.setattr(answers_of_the_page, "KEPT_CALLS", 20)
    answers = Answers()
    first = answers.simulated({**SMALL, "output": "12"})
    assert answers.simulated({**SMALL, "output": "12"}) is first
    answers.simulated({**SMALL, "output": "9"})
    assert answers.simulated({**SMALL, "output": "12"}) is not first


def test_the_last_simulations_are_kept_and_no_more():
    answers = Answers()
    first = answers.simulated(SMALL)
    assert answers.simulated(dict(reversed(SMALL.items()))) is first
    for n_output in "123468":
        answers.simulated({**SMALL, "output": n_output})
    assert answers.simulated(SMALL) is not first


TEXTS = st.sampled_from(["", "0", "1", "7", "-3", "2.5", "1e3", "1_0", "nan", "inf", "true", "none",
                         "x", "8 MiB", "2 GB/s", "'", "\x00", "\uff19"])  # fmt: skip


@settings(max_examples=12)
@given(st.dictionaries(st.sampled_from(sorted(set(CONTROLS) - {"model", "npu"})), TEXTS))
def test_whatever_is_typed_is_a_scenario_or_a_refusal_with_a_control(texts):
    asked = {"model": "tiny", "npu": "teaching-npu", **texts}
    try:
        scenario_of(asked)
    except MuRefError:
        assert blamed(asked, scenario_of) in CONTROLS
    else:
        assert command_of(asked)[:2] == ["npu-sim", "run"]


def test_a_port_that_is_taken_is_one_line(npu_sim):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(NpuSimError, match=f"free, got {port}"):
            open_server(port)
        code, _, err = npu_sim("explore", "--no-browser", "--port", str(port))
        assert (code, err.count("\n")) == (2, 1)


def test_ctrl_c_ends_the_server_with_its_code():
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code = f"{start} from npu_sim.cli import main; main()"
    arguments = [sys.executable, "-c", code, "explore", "--no-browser", "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True) as p:
        said = p.stdout.readline()
        assert "http://127.0.0.1:" in said
        p.send_signal(signal.SIGINT)
        assert p.wait(20) == 130
        assert p.stderr.read() == "error: interrupted\n"


def test_products_above_the_roofs_are_counted():
    # its DMA runs ahead: weights come during earlier operations
    asked = {"model": "mu-nano", "npu": "teaching-npu", "input": "16", "output": "1"}
    scenario, report = Answers().simulated(asked)
    found = drawings._roofline(report.tiles)
    memory, peak = scenario.npu.memory_bytes_per_s, 1e12 * scenario.npu.int8_tops
    above = sum(
        count for phase in found["phases"] for x, y, count in phase["points"]
        if y > 1.01 * min(2 * x * memory, peak)
    )  # fmt: skip
    assert found["above"] == above > 0
