"""Acceptance by beam width: the shipped table, a user's own, and one number for all widths."""

import json
from importlib.resources import files

import pytest

from npu_sim.errors import WorkloadError
from npu_sim.speculate.measured import measured, read_drafts, shipped_drafts


def point(width=2, length=3, accepted=None, before=8.0, after=5.0, **more):
    counts = {"0": 1, "1": 0, "2": 2, "3": 5} if accepted is None else accepted
    return {"beam_width": width, "draft_len": length, "accepted": counts, "nodes_before": before,
            "nodes_after": after, **more}  # fmt: skip


def test_shares_and_nodes_of_a_measured_pair():
    table = measured([point(tokens_per_step=3.4, n_queries=9)], "a table")
    kept = table.acceptance(2, 3, 5)
    assert kept.weights == (1 / 8, 0, 2 / 8, 5 / 8)
    assert kept.tokens_per_step == 1 + (2 * 2 + 5 * 3) / 8
    # of 8 tokens of beams two are the known one; 4 of the other 6 are left when packed
    assert table.nodes(2, 3) == 1 + round(6 * 4 / 6)
    # one beam shares nothing, and steps that ended early do not make a graph smaller
    alone = measured([point(1, 3, before=2.5, after=2.5)], "a table")
    assert alone.nodes(1, 3) == 4
    # two of six nodes are left, and a whole beam of three is verified
    assert measured([point(after=4.0)], "a table").nodes(2, 3) == 1 + 3
    # no packing makes a tree larger than its beams
    assert measured([point(after=9.0)], "a table").nodes(2, 3) == 1 + 2 * 3


def test_the_shipped_table_keeps_more_with_wider_beams():
    table = shipped_drafts()
    widths, lengths = (sorted({pair[i] for pair in table.kept}) for i in range(2))
    assert {1, 2, 4} <= set(widths)
    assert {3, 4} <= set(lengths)
    for length in lengths:
        tokens = [table.acceptance(w, length, 1 + w * length).tokens_per_step for w in widths]
        assert tokens == sorted(tokens)
        assert tokens[-1] > tokens[0]
        nodes = [table.nodes(w, length) for w in widths]
        assert nodes == sorted(nodes)
        assert nodes[0] == 1 + length


def test_the_shipped_table_is_what_the_documented_command_printed():
    rows = json.loads(files("npu_sim").joinpath("data", "drafts", "mu-nano.json").read_text())
    assert all(row["same"] == row["n_queries"] for row in rows)
    said = files("npu_sim").joinpath("data", "README.md").read_text()
    for name, option in (("beam_width", "--beam-width"), ("draft_len", "--draft-len")):
        assert all(f"{option} {value}" in said for value in {row[name] for row in rows})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "must hold a list of measured points"),
        ([], "must hold a list of measured points"),
        ([3], "point 0 must hold accepted, beam_width"),
        ([point(beams=3)], "point 0 must hold accepted, beam_width"),
        ([point(width=0)], "point 0: beam_width must be"),
        ([point(length=1.5)], "point 0: draft_len must be"),
        ([point(), point()], "point 1 must be another pair, got 2 and 3 again"),
        ([point(accepted={"4": 1})], "accepted must hold steps by tokens kept, 0 to 3"),
        ([point(accepted={"0": -1})], "accepted.0 must be"),
        ([point(accepted={"0": 0})], "accepted must count at least 1 step"),
        ([point(before=float("nan"))], "nodes_before must be"),
        ([point(after=0.5)], "nodes_after must be"),
    ],
)
def test_a_wrong_table_is_refused_by_name(rows, message):
    with pytest.raises(WorkloadError, match=message):
        measured(rows, "a table")


def test_a_pair_that_nobody_measured_is_refused_with_those_that_were():
    with pytest.raises(WorkloadError, match=r"widths 2; lengths 3\), got 4 and 3; give --accept"):
        measured([point()], "a table").nodes(4, 3)


def speculated(npu_sim, *more):
    code, out, err = npu_sim("speculate", "tiny", "--draft-len", "3", "--json", *more)
    return code, json.loads(out) if code == 0 else None, err


def test_a_users_table_decides_which_width_wins(npu_sim, tmp_path):
    file = tmp_path / "drafts.json"
    rows = [point(1, accepted={"0": 1}, before=4, after=4), point(2, accepted={"3": 1})]
    file.write_text(json.dumps(rows))
    options = ("--beam-width", "1,2", "--acceptance", str(file))
    _, wide, err = speculated(npu_sim, *options)
    assert [step["tokens_per_step"] for step in wide["steps"]] == [1, 4]
    assert [step["nodes"] for step in wide["steps"]] == [4, 5]
    assert wide["steps"][1]["speedup_in_engine"] > wide["steps"][0]["speedup_in_engine"]
    assert "warning" not in err
    assert wide["acceptance"].startswith("measured by beam width")
    assert speculated(npu_sim, *options, "--nodes-saved", "0.5")[0] == 2
    file.write_text(json.dumps(rows) + "\n[]\n")
    with pytest.raises(WorkloadError, match="nothing behind its list"):
        read_drafts(file)


def test_by_default_wider_beams_keep_more_and_one_rate_for_all_is_warned_of(npu_sim):
    _, found, err = speculated(npu_sim, "--beam-width", "1,4")
    assert found["steps"][1]["tokens_per_step"] > found["steps"][0]["tokens_per_step"]
    assert "warning" not in err
    _, found, err = speculated(npu_sim, "--beam-width", "1,4", "--accept-rate", "0.7")
    assert found["steps"][1]["tokens_per_step"] == found["steps"][0]["tokens_per_step"]
    assert "one acceptance stands for all beam widths" in err
    assert found["acceptance"] == "given, the same for every beam width"
    assert "warning" not in speculated(npu_sim, "--accept-rate", "0.7")[2]
