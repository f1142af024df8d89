"""`mu-ref quantize`: from float weights to integers, with the losses site by site."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mu_ref.border.files import DATA, check_ending, check_outputs, write_text
from mu_ref.border.ranges import COUNT, SHARE
from mu_ref.border.text import json_text
from mu_ref.cli.options import (
    LISTED,
    check_named,
    check_unused,
    files_of_agent,
    load_named,
    report_console,
)  # fmt: skip
from mu_ref.cli.quantize_folder import is_folder, quantize_folder
from mu_ref.command_line import JsonOption, in_range, plain_console
from mu_ref.errors import InputError, check_choice

if TYPE_CHECKING:
    from mu_ref.integers.store import IntegerModel
    from mu_ref.ops import Ops
    from mu_ref.quantize.calibrate import Options
    from mu_ref.quantize.report import SiteReport
    from mu_ref.quantize.verdict import Verdict
    from mu_ref.settings.agent import Agent
    from mu_ref.settings.judge import Checked
    from mu_ref.settings.quantize import Comparison
    from mu_ref.settings.queries.labelled import LabelledQuery

__all__ = ["quantize"]

REPORT_EXAMPLES = 16  # compared site by site


@dataclass(slots=True)
class _Work:
    """What a run has found, to be shown."""

    verdict: "Verdict"
    rows: "list[SiteReport]" = field(default_factory=list)
    comparison: "Comparison | None" = None


def quantize(
    name: Annotated[str, typer.Argument(metavar="PRESET|FOLDER", help="Which.")] = "mu-nano",
    scheme: Annotated[str, typer.Option(help="w8a16, w8a8, or w4a16 (weights only).")] = "w8a16",
    calibration: Annotated[
        Path | None, typer.Option(help="Queries (.jsonl), ranges (.json); a FOLDER: ids (.npz).")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Float weights to start from.")] = None,
    out: Annotated[Path | None, typer.Option(help="Integer weight file to write.")] = None,
    examples: Annotated[
        int | None, in_range(COUNT, help="Calibration queries to look at, 256 by default.")
    ] = None,
    observer: Annotated[str | None, typer.Option(help="minmax (default), percentile, mse.")] = None,
    rounding: Annotated[
        str | None, typer.Option(help="tflite_single (default), tflite_double or half_even.")
    ] = None,
    clip_weights: Annotated[
        bool, typer.Option(help="Search each channel's scale for the least squared error.")
    ] = False,
    smooth: Annotated[
        float | None, in_range(SHARE, help="SmoothQuant strength, from norms to matrices.")
    ] = None,
    bits: Annotated[
        list[str] | None, typer.Option(help="PATTERN=8 or PATTERN=16 for sites; repeatable.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Labelled queries to compare accuracy on, and to judge by.")
    ] = None,
    observed: Annotated[Path | None, typer.Option(help="Also write observed ranges.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the SQNR of every site.")] = None,
    encodings: Annotated[
        Path | None, typer.Option(help="Also write encodings: .csv, or AIMET .json.")
    ] = None,
    aimet: Annotated[
        str | None, typer.Option(help="AIMET version: 1.0.0 (by default) or 2.0.0.")
    ] = None,
    worst: Annotated[
        int | None, in_range(LISTED, help="Sites to list, 12 by default; 0 lists all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Quantize a model; print what each site loses, accuracy before and after, and a verdict.

    Files are written at the end, when every query could be run: an error leaves none. A verdict
    against the integers is no error. It is judged by 32 queries that were not calibrated on, or
    by those of --check.
    """
    given = {
        "--calibration": calibration, "--examples": examples, "--observer": observer,
        "--rounding": rounding, "--smooth": smooth, "--bits": bits or None,
        "--observed": observed, "--plot": plot, "--encodings": encodings, "--aimet": aimet,
        "--worst": worst,
    }  # fmt: skip
    check_choice("scheme", scheme, ["w8a16", "w8a8", "w4a16"])
    if is_folder(name):
        given |= {"--weights": weights, "--check": check, "--json": as_json}
        _quantize_folder(Path(name), scheme, out, clip_weights, given)
        return
    check_named(name, weights)
    _check_given(scheme, given)
    _quantize(name, scheme, weights, out, check, clip_weights, given, as_json=as_json)


def _quantize_folder(
    folder: Path, scheme: str, out: Path | None, clip_weights: bool, given: dict[str, Any]
) -> None:
    """Quantize another project's checkpoint, which has token ids and no queries."""
    check_choice("--scheme of a folder", scheme, ["w8a16", "w8a8"])
    options = _options(scheme, clip_weights, given)
    rows, said = quantize_folder(folder, options, out, given)
    console, worst = report_console(out), given["--worst"]
    console.print(_site_table(rows, 12 if worst is None else worst))
    console.print(said, soft_wrap=True)


def _quantize(
    name: str,
    scheme: str,
    weights: Path | None,
    out: Path | None,
    check: Path | None,
    clip_weights: bool,
    given: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Do it; `given` has the options that only integers take."""
    from mu_ref.settings.queries.labelled import read_queries

    source = given["--calibration"] or DATA / "train.jsonl"
    outputs = {"--out": out, "--observed": given["--observed"], "--encodings": given["--encodings"]}
    plot = {"--plot": given["--plot"]}
    read = [*files_of_agent(weights).values(), source, check]
    check_outputs(outputs, read, pictures=plot, prints_json=as_json)
    items = None if check is None else read_queries(check)  # a wrong path fails before the work
    if scheme == "w4a16":
        work = _quantize_int4(load_named(name, weights), items, out, clip_weights)
    else:
        options = _options(scheme, clip_weights, given)
        work = _quantize_integers(load_named(name, weights), options, source, items, out, given)
    worst = 12 if given["--worst"] is None else given["--worst"]
    if as_json:
        typer.echo(json_text(_to_json(work, worst)))
        return
    console = report_console(*outputs.values(), *plot.values())
    if work.rows:
        console.print(_site_table(work.rows, worst))
    if out is not None:
        console.print(f"wrote {out}", soft_wrap=True)
    if work.comparison is not None:
        console.print(_accuracy_table(scheme, work.comparison))
    console.print(f"verdict: {work.verdict.text()}", soft_wrap=True)


def _check_given(scheme: str, given: dict[str, Any]) -> None:
    """Refuse what the scheme, the calibration or the other options leave without effect."""
    if scheme == "w4a16":
        check_unused("with --scheme w4a16, which quantizes weights alone", given)
    calibration, encodings = given["--calibration"], given["--encodings"]
    if calibration is not None and calibration.suffix == ".json":
        names = ("--examples", "--observed", "--plot", "--smooth", "--worst")
        queryless = {name: given[name] for name in names}
        check_unused("with a --calibration of ranges (.json), which has no queries", queryless)
    if encodings is not None:
        check_ending("--encodings", encodings, (".csv", ".json"))
    if encodings is None or encodings.suffix.lower() != ".json":
        check_unused("without --encodings FILE.json", {"--aimet": given["--aimet"]})
    elif given["--aimet"] is not None:
        check_choice("--aimet", given["--aimet"], ["1.0.0", "2.0.0"])


def _options(scheme: str, clip_weights: bool, given: dict[str, Any]) -> "Options":
    from mu_ref.quantize.calibrate import Options

    chosen = {name: given[f"--{name}"] for name in ("observer", "rounding", "smooth")}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    widths = _widths(given["--bits"] or [])
    return Options(scheme=scheme, clip_weights=clip_weights, bits=widths, **chosen)


def _quantize_integers(
    agent: "Agent",
    options: "Options",
    source: Path,
    items: "list[LabelledQuery] | None",
    out: Path | None,
    given: dict[str, Any],
) -> _Work:
    from mu_ref.integers.store import save_integers
    from mu_ref.ops.integer import IntegerOps
    from mu_ref.quantize.report import plot_sqnr, site_reports
    from mu_ref.settings.judge import judge
    from mu_ref.settings.quantize import quantize_agent

    progress = plain_console(stderr=True)
    made = quantize_agent(agent, source, given["--examples"] or 256, options, progress)
    integers, examples = made.integers, made.examples[:REPORT_EXAMPLES]
    rows = site_reports(agent.model, made.weights, integers, examples)
    checked = _checked(agent, IntegerOps(integers), items)
    verdict = judge(agent, made, options, rows, checked, progress)
    # nothing is written before this line: what fails above leaves nothing behind
    observed, encodings, plot = (given[name] for name in ("--observed", "--encodings", "--plot"))
    if observed is not None:
        made.observed.save(observed)
    if out is not None:
        save_integers(out, integers)
    if encodings is not None:
        _write_encodings(integers, encodings, given["--aimet"] or "1.0.0")
    if plot is not None:
        title = f"{agent.model.name} {options.scheme}, {source.name}"
        plot_sqnr(rows, title, plot)
    return _Work(verdict, rows, None if checked is None else checked.comparison)


def _quantize_int4(
    agent: "Agent", items: "list[LabelledQuery] | None", out: Path | None, clip_search: bool
) -> _Work:
    from mu_ref.config import INT4_GROUP
    from mu_ref.integers.int4 import dequantize_weights_int4, quantize_weights_int4
    from mu_ref.integers.int4_store import save_int4
    from mu_ref.ops.reference import ReferenceOps
    from mu_ref.settings.judge import judge_weights

    weights = agent.ops.weights  # type: ignore[attr-defined]
    packed = quantize_weights_int4(agent.model, weights, INT4_GROUP, clip_search=clip_search)
    ops = ReferenceOps(dequantize_weights_int4(agent.model, packed, INT4_GROUP))
    checked = _checked(agent, ops, items)
    verdict = judge_weights("w4a16", checked)
    if out is not None:
        save_int4(out, agent.model, packed, INT4_GROUP)
    return _Work(verdict, comparison=None if checked is None else checked.comparison)


def _checked(agent: "Agent", ops: "Ops", items: "list[LabelledQuery] | None") -> "Checked | None":
    from mu_ref.settings.judge import Checked
    from mu_ref.settings.quantize import compare

    if items is None:
        return None
    return Checked(items, compare(agent, ops, items, plain_console(stderr=True)))


def _write_encodings(integers: "IntegerModel", path: Path, version: str) -> None:
    from mu_ref.integers.encodings import to_aimet, to_table

    names = [name for name in integers.tensors if name.endswith(".weight")]
    scales = {name: integers.weight_scale(name.removesuffix(".weight")) for name in names}
    widths = {name: integers.tensors[name].itemsize * 8 for name in names}
    if path.suffix.lower() == ".csv":
        text = to_table(integers.activations, scales, weight_bits=widths)
    else:
        data = to_aimet(integers.activations, scales, version, weight_bits=widths)
        text = json.dumps(data, indent=1) + "\n"
    write_text(path, text)


def _widths(texts: list[str]) -> dict[str, int]:
    widths = {}
    for text in texts:
        pattern, _, bits = text.rpartition("=")
        if not pattern or bits not in ("8", "16"):
            raise InputError(f"--bits must be PATTERN=8 or PATTERN=16, got {text!r}")
        widths[pattern] = int(bits)
    return widths


def _ranked(rows: "list[SiteReport]", worst: int) -> "list[SiteReport]":
    return sorted(rows, key=lambda row: row.sqnr_db)[:worst] if worst else rows


def _to_json(work: _Work, worst: int) -> dict[str, Any]:
    """Return what is printed, as plain JSON values."""
    comparison = work.comparison
    return {
        "sites": [
            {
                "site": row.site, "bits": row.encoding.bits, "scale": row.encoding.scale,
                "zero_point": row.encoding.zero_point,
                "sqnr_db": row.sqnr_db if row.noise else None, "saturated": row.saturation,
                "became_0": row.vanished,
            }
            for row in _ranked(work.rows, worst)
        ],
        "check": None if comparison is None else {
            "float32": comparison.floats.to_json(), "quantized": comparison.quantized.to_json(),
            "same_tokens": comparison.same_tokens, "same_answers": comparison.same_answers,
        },
        "verdict": work.verdict.to_json(),
    }  # fmt: skip


def _site_table(rows: "list[SiteReport]", worst: int) -> Table:
    ranked = _ranked(rows, worst)
    title = f"{len(ranked)} of {len(rows)} sites" + (", worst first" if worst else "")
    table = Table(title=title)
    table.add_column("site", no_wrap=True)
    for heading in ("bits", "scale", "zero", "SQNR dB", "saturated"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in ranked:
        e = row.encoding
        table.add_row(
            row.site, str(e.bits), f"{e.scale:.3g}", str(e.zero_point), f"{row.sqnr_db:.1f}",
            f"{100 * row.saturation:.3f} %",
        )  # fmt: skip
    return table


def _accuracy_table(scheme: str, result: "Comparison") -> Table:
    table = Table("", "float32", scheme, title=f"{result.floats.n} queries")
    for name in ("exact", "setting_id", "parse"):
        values = (getattr(result.floats, name), getattr(result.quantized, name))
        table.add_row(name, *(f"{value:.4f}" for value in values))
    table.add_row("same tokens", "", f"{result.same_tokens:.4f}")
    table.add_row("same answers", "", f"{result.same_answers:.4f}")
    return table
