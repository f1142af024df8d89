"""What `mu-ref quantize` says of its own integers, by numbers that were found in other ways."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_lines import Run
from faults.samples import small_model

from mu_ref.command_line import plain_console
from mu_ref.errors import QuantizationError
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.store import load_integers
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.traced import TracedOps
from mu_ref.quantize.calibrate import Options
from mu_ref.quantize.observe import Observed, SiteRange, run_unpadded
from mu_ref.quantize.report import SiteReport, site_reports
from mu_ref.quantize.verdict import Remedy, Verdict, left_range, ruined
from mu_ref.settings import judge as judging
from mu_ref.settings.agent import load_agent
from mu_ref.settings.catalog import DATA
from mu_ref.settings.judge import Checked, judge, judge_weights
from mu_ref.settings.quantize import compare, examples_of, others, quantize_agent
from mu_ref.settings.queries.labelled import LabelledQuery, read_queries, write_queries
from mu_ref.weights import initial_weights, load_weights, save_weights

QUIET = plain_console(stderr=True)
SMALL = ("--worst", 0, "--json")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with twelve queries and a small model of random weights."""
    monkeypatch.chdir(tmp_path)
    write_queries(Path("q.jsonl"), read_queries(DATA / "train.jsonl")[::1100])
    model = small_model()
    weights = initial_weights(model, np.random.default_rng(0), 0.3)
    save_weights(Path("nano.safetensors"), model, weights, {})
    return tmp_path


def quantized(mu_ref: Run, *options: object) -> tuple[int, str, str]:
    given = ("--weights", "nano.safetensors", "--calibration", "q.jsonl")
    return mu_ref("quantize", "mu-nano", *given, *options)


# -- the report ------------------------------------------------------------------------------------


def test_smoothed_integers_are_compared_with_smoothed_floats(mu_ref: Run, here: Path) -> None:
    """Smoothing divides a norm's output by s of (5.8) and nothing else: divide it by hand."""
    code, out, _ = quantized(mu_ref, "--scheme", "w8a8", "--examples", 4, "--smooth", 0.5,
                             "--out", "w.safetensors", *SMALL)  # fmt: skip
    assert code == 0
    rows = {row["site"]: row for row in json.loads(out)["sites"]}
    model, weights = load_weights(Path("nano.safetensors"))
    weights = {name: np.array(w, np.float32) for name, w in weights.items()}
    examples = examples_of(replace(load_agent(), model=model), read_queries(Path("q.jsonl")), 4)
    values: dict[str, list[np.ndarray]] = {}

    def keep(site, op, inputs, value):
        values.setdefault(site, []).append(value)

    for ops in (ReferenceOps(weights), IntegerOps(load_integers(Path("w.safetensors")))):
        for source, target in examples:
            run_unpadded(TracedOps(ops, keep), model, source[None], target[None])
    compared = 0
    for site, found in values.items():
        x, y = found[: len(found) // 2], found[len(found) // 2 :]
        s = np.ones(1)
        if site.endswith("pre_norm"):
            part = site.removesuffix(".pre_norm")
            names = {"mlp": ["up"], "self_attention": ["q", "k", "v"], "cross_attention": ["q"]}
            readers = [weights[f"{part}.{name}.weight"] for name in names[part.split(".")[-1]]]
            largest = np.max([np.abs(one[0]).max(axis=0) for one in x], axis=0)
            columns = np.max([np.abs(w).max(axis=0) for w in readers], axis=0)
            s = np.sqrt(largest) / np.sqrt(columns)
            s /= np.exp(np.log(s).mean())
            compared += 1
        elif site == "encoder.final_norm":
            continue  # smoothed too: keys and values of every layer read it
        encoding = y[0].encoding
        signal = noise = zeros = 0.0
        for one, other in zip(x, y, strict=True):
            q = other.q.astype(np.float64) - encoding.zero_point
            signal += ((one / s) ** 2).sum()
            noise += ((one / s - encoding.scale * q) ** 2).sum()
            zeros += ((q == 0) & (one != 0)).sum()
        assert rows[site]["sqnr_db"] == pytest.approx(10 * np.log10(signal / noise), abs=0.01)
        assert rows[site]["became_0"] == pytest.approx(zeros / sum(one.size for one in x))
    assert compared == 5
    assert min(row["sqnr_db"] for row in rows.values()) > 15


def test_the_first_site_that_rounds_most_of_its_values_to_0_is_named() -> None:
    def row(site: str, n_zero: int, op: str = "linear") -> SiteReport:
        return SiteReport(site, Encoding(8, 1.0), n=10, op=op, n_zero=n_zero)

    rows = [row("a", 5), row("b", 9, "softmax"), row("c", 6), row("d", 10)]
    assert ruined(rows) == ("c", 0.6)
    assert ruined(rows[:2]) is None
    assert SiteReport("a", Encoding(8, 1.0)).vanished == 0


def test_sites_that_leave_their_range_are_counted() -> None:
    def observed(**ends: tuple[float, float]) -> Observed:
        ranges = {site: SiteRange("linear", *pair) for site, pair in ends.items()}
        return Observed({**ranges, "s": SiteRange("softmax", 0.0, ends["a"][1])})

    ours = observed(a=(-1, 2), b=(-4, 1), c=(0, 1), d=(0, 0))
    theirs = observed(a=(-2.1, 2), b=(-4.5, 4.5), c=(-1.2, 0), d=(0, 0))
    assert left_range(ours, theirs) == 2 / 4  # b by 12 %, c by 20 %; a by 5 % at its larger end


# -- the verdict in words --------------------------------------------------------------------------

MEASURED = Verdict(scheme="w8a8", n_queries=10, n_same=9, unseen=True, n_calibrated=4, left=0.05)


@pytest.mark.parametrize(
    ("changes", "trusted", "text"),
    [
        ({}, True, ("trust w8a8: 9 of 10 answers are those of float32, on queries that were not "
         "calibrated on")),
        ({"n_same": 8}, False, ("do not trust w8a8: 8 of 10 answers are those of float32, on "
         "queries that were not calibrated on")),
        ({"unseen": False, "left": None}, None, ("not known for w8a8: 9 of 10 answers are those of "
         "float32, on queries that were calibrated on; no others were left to judge by; give "
         "--check FILE")),
        ({"unseen": None}, None, ("not known for w8a8: 9 of 10 answers are those of float32, on "
         "queries that may have been calibrated on")),
        ({"n_queries": 0}, None, "w8a8 not judged: no queries to judge by; give --check FILE"),
        ({"left": 0.051}, False, ("do not trust w8a8: 9 of 10 answers are those of float32, on "
         "queries that were not calibrated on; too few queries were calibrated on (4): others "
         "drive 5 % of the sites out of their range; give more (--examples, --calibration)")),
        ({"n_same": 0, "ruined": ("a.b", 0.976), "remedies": (
            Remedy("--smooth 0.5", 8, 7), Remedy("--scheme w8a16", 10, 9))}, False,
         ("do not trust w8a8: 0 of 10 answers are those of float32, on queries that were not "
         "calibrated on; a.b rounds 98 % of its values to 0; use --scheme w8a16 (9 of 10)")),
        ({"n_same": 0, "remedies": (Remedy("--smooth 0.5", 10, 8), Remedy("--x", 10, 0))}, False,
         ("do not trust w8a8: 0 of 10 answers are those of float32, on queries that were not "
         "calibrated on; no help: --smooth 0.5 (8 of 10), --x (0 of 10); use float32")),
        ({"n_same": 0, "left": 0.4, "remedies": (Remedy("--x", 10, 0),)}, False,
         ("do not trust w8a8: 0 of 10 answers are those of float32, on queries that were not "
         "calibrated on; too few queries were calibrated on (4): others drive 40 % of the sites "
         "out of their range; give more (--examples, --calibration); no help: --x (0 of 10)")),
    ],
)  # fmt: skip
def test_a_verdict_says_what_follows(changes: dict, trusted: bool | None, text: str) -> None:
    verdict = replace(MEASURED, **changes)
    assert (verdict.trusted, verdict.text()) == (trusted, text)
    data = verdict.to_json()
    assert (data["trusted"], data["text"]) == (trusted, text)
    assert [r["helps"] for r in data["remedies"]] == [
        10 * r.n_same >= 9 * r.n_queries for r in verdict.remedies
    ]


# -- who is asked ----------------------------------------------------------------------------------


def test_others_are_other_texts_not_other_spellings() -> None:
    a, b, c = (LabelledQuery(query=q, call="none()") for q in ("Wi-fi on!", "wi fi ON", "wifi off"))
    assert others([b, c], [a]) == [c]


@pytest.mark.parametrize("spoiled", [False, True])
def test_one_huge_feature_is_found_and_a_remedy_measured(
    spoiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gain of 1000 before weights of 1/1000 is the same function, and the end of 8 bits."""
    n = 2 if spoiled else 4
    monkeypatch.setattr(judging, "JUDGES", n)
    agent = load_agent()
    weights = {n: np.array(w, np.float32) for n, w in agent.ops.weights.items()}
    gains = [n for n in weights if n.endswith("pre_norm.weight")] if spoiled else []
    for name in gains:
        weights[name][7] *= 1000
        for reader in ("up", "q", "k", "v"):
            matrix = weights.get(name.replace("pre_norm", reader))
            if matrix is not None and (reader, "cross" in name) not in (("k", True), ("v", True)):
                matrix[:, 7] /= 1000
    agent = replace(agent, ops=ReferenceOps(weights))
    items = read_queries(DATA / "train.jsonl")[::2000]
    write_queries(tmp_path / "q.jsonl", items)
    options = Options(scheme="w8a8")
    made = quantize_agent(agent, tmp_path / "q.jsonl", 3, options, QUIET)
    assert len(made.spare) == len(items) - 3
    rows = site_reports(agent.model, made.weights, made.integers, made.examples[:1])
    verdict = judge(agent, made, options, rows, None, QUIET)
    assert (verdict.n_queries, verdict.unseen, verdict.n_calibrated) == (n, True, 3)
    if not spoiled:
        assert verdict.too_few  # three queries cannot show every range
        assert (verdict.n_same, verdict.remedies, verdict.ruined) == (n, (), None)
        return
    assert verdict.n_same == 0
    assert verdict.ruined is not None
    assert verdict.ruined[0] == "encoder.0.self_attention.pre_norm"
    assert [(r.options, r.helps) for r in verdict.remedies] == [
        ("--smooth 0.5", True), ("--scheme w8a16", True),
    ]  # fmt: skip


def test_quantized_weights_are_judged_by_what_was_compared() -> None:
    items = [LabelledQuery(query=q, call="none()") for q in "abc"]
    agent = load_agent()
    comparison = replace(compare(agent, agent.ops, items, QUIET), same=(True, False, True))
    assert comparison.same_answers == pytest.approx(2 / 3)
    checked = Checked(items, comparison)
    assert checked.n_same(items[:2]) == 1
    assert judge_weights("w4a16", checked).trusted is False
    assert judge_weights("w4a16", None).trusted is None


# -- the command -----------------------------------------------------------------------------------


def test_the_queries_that_were_calibrated_on_do_not_judge(mu_ref: Run, here: Path) -> None:
    """Of twelve queries five are calibrated on: the rest of the file, or of --check, judges."""
    code, out, _ = quantized(mu_ref, "--examples", 5, *SMALL)
    found = json.loads(out)
    assert (code, found["check"], len(found["sites"])) == (0, None, 50)
    verdict = found["verdict"]
    assert (verdict["queries"], verdict["calibrated_on"]) == (7, 5)
    assert verdict["not_calibrated_on"] is True
    code, out, _ = quantized(mu_ref, "--examples", 5, "--check", "q.jsonl", "--json")
    found = json.loads(out)
    assert (found["check"]["float32"]["n"], found["verdict"]["queries"]) == (12, 7)
    # all were looked at: these can condemn, but not acquit
    code, out, _ = quantized(mu_ref, "--json")
    verdict = json.loads(out)["verdict"]
    assert (verdict["queries"], verdict["not_calibrated_on"]) == (12, False)
    assert verdict["trusted"] in (None, False)
    assert verdict["sites_that_leave_their_range"] is None


def test_ranges_of_a_file_have_no_queries_to_judge_by(mu_ref: Run, here: Path) -> None:
    code, out, _ = quantized(mu_ref, "--examples", 2, "--observed", "r.json", "--worst", 1)
    assert code == 0
    assert out.splitlines()[-1].startswith("verdict: ")
    given = ("--weights", "nano.safetensors", "--calibration", "r.json")
    code, out, _ = mu_ref("quantize", "mu-nano", *given)
    assert out == "verdict: w8a16 not judged: no queries to judge by; give --check FILE\n"
    code, out, _ = mu_ref("quantize", "mu-nano", *given, "--check", "q.jsonl", "--json")
    verdict = json.loads(out)["verdict"]
    assert (verdict["queries"], verdict["not_calibrated_on"]) == (12, None)
    assert verdict["sites_that_leave_their_range"] > 0.05


@pytest.mark.parametrize("scheme", ["w8a16", "w4a16"])
def test_nothing_is_written_if_the_check_cannot_be_run(
    mu_ref: Run, here: Path, scheme: str
) -> None:
    items = [LabelledQuery(query="wifi " * 500, call="none()")]
    write_queries(Path("long.jsonl"), items)
    before = sorted(here.iterdir())
    more = ("--out", "w.safetensors", "--check", "long.jsonl", "--scheme", scheme)
    if scheme == "w8a16":
        more = (*more, "--calibration", "q.jsonl", "--examples", "2", "--observed", "o.json",
                "--encodings", "e.csv", "--plot", "p.png")  # fmt: skip
    code, out, err = mu_ref("quantize", "mu-nano", "--weights", "nano.safetensors", *more)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "at most 256 tokens" in err
    assert sorted(here.iterdir()) == before


def test_a_query_that_cannot_be_read_does_not_judge(mu_ref: Run, here: Path) -> None:
    """It did not stop a quantization before there were verdicts."""
    path = Path("q.jsonl")
    items = read_queries(path)
    odd = [("wifi " * 500, "none()"), ("???", "none()"), ("wifi", "x" * 3000)]
    items[1:1] = [LabelledQuery(query=query, call=call) for query, call in odd]
    write_queries(path, [items[0], *items[1:]])
    code, out, _ = quantized(mu_ref, "--examples", 1, "--json")
    assert (code, json.loads(out)["verdict"]["queries"]) == (0, 11)


def test_a_remedy_that_cannot_be_computed_is_none(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise QuantizationError("no")

    monkeypatch.setattr(judging, "smooth", refuse)
    model, weights = load_weights(Path("nano.safetensors"))
    floats = ReferenceOps({n: np.array(w, np.float32) for n, w in weights.items()})
    agent = replace(load_agent(), model=model, ops=floats)
    options = Options(scheme="w8a8")
    made = quantize_agent(agent, Path("q.jsonl"), 2, options, QUIET)
    comparison = compare(agent, agent.ops, made.spare, QUIET)
    none = replace(comparison, same=(False,) * len(made.spare))
    verdict = judge(agent, made, options, [], Checked(made.spare, none), QUIET)
    assert [remedy.options for remedy in verdict.remedies] == ["--scheme w8a16"]
