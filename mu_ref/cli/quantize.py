"""`mu-ref quantize`: from float weights to integers, with the losses site by site."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mu_ref.border.files import DATA, check_ending, check_outputs
from mu_ref.border.ranges import COUNT, SHARE
from mu_ref.cli.options import (
    LISTED,
    check_named,
    check_unused,
    files_of_agent,
    load_named,
    report_console,
)  # fmt: skip
from mu_ref.cli.quantize_folder import is_folder, quantize_folder
from mu_ref.command_line import in_range, plain_console
from mu_ref.errors import InputError, check_choice

if TYPE_CHECKING:
    from mu_ref.integers.store import IntegerModel
    from mu_ref.ops import Ops
    from mu_ref.quantize.calibrate import Options
    from mu_ref.quantize.report import SiteReport
    from mu_ref.settings.agent import Agent
    from mu_ref.settings.quantize import Comparison

__all__ = ["quantize"]

REPORT_EXAMPLES = 16  # compared site by site


def quantize(
    name: Annotated[
        str, typer.Argument(metavar="PRESET|FOLDER", help="Preset name, or a checkpoint.")
    ] = "mu-nano",
    scheme: Annotated[str, typer.Option(help="w8a16, w8a8, or w4a16 (weights only).")] = "w8a16",
    calibration: Annotated[
        Path | None,
        typer.Option(help="Queries (.jsonl), ranges (.json); of a FOLDER token ids (.npz)."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Float weights to start from.")] = None,
    out: Annotated[Path | None, typer.Option(help="Integer weight file to write.")] = None,
    examples: Annotated[
        int | None, in_range(COUNT, help="Calibration queries to look at, 256 by default.")
    ] = None,
    observer: Annotated[
        str | None, typer.Option(help="minmax, percentile or mse; minmax by default.")
    ] = None,
    rounding: Annotated[
        str | None,
        typer.Option(help="tflite_single (by default), tflite_double or half_even."),
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
        Path | None, typer.Option(help="Labelled queries to compare accuracy on.")
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
) -> None:
    """Quantize a model; print what each site loses, and accuracy before and after."""
    given = {
        "--calibration": calibration, "--examples": examples, "--observer": observer,
        "--rounding": rounding, "--smooth": smooth, "--bits": bits or None,
        "--observed": observed, "--plot": plot, "--encodings": encodings, "--aimet": aimet,
        "--worst": worst,
    }  # fmt: skip
    check_choice("scheme", scheme, ["w8a16", "w8a8", "w4a16"])
    if is_folder(name):
        check_choice("--scheme of a folder", scheme, ["w8a16", "w8a8"])
        more = {"--weights": weights, "--check": check}
        options = _options(scheme, clip_weights, given)
        rows, said = quantize_folder(Path(name), options, out, given | more)
        console = report_console(out)
        console.print(_site_table(rows, 12 if worst is None else worst))
        console.print(said, soft_wrap=True)
        return
    check_named(name, weights)
    _check_given(scheme, given)
    _quantize(name, scheme, weights, out, check, clip_weights, given)


def _quantize(
    name: str,
    scheme: str,
    weights: Path | None,
    out: Path | None,
    check: Path | None,
    clip_weights: bool,
    given: dict[str, Any],
) -> None:
    """Do it; `given` has the options that only integers take."""
    from mu_ref.settings.quantize import compare
    from mu_ref.settings.queries.labelled import read_queries

    source = given["--calibration"] or DATA / "train.jsonl"
    extras = {option: given[option] for option in ("--observed", "--encodings")}
    plot = {"--plot": given["--plot"]}
    read = [*files_of_agent(weights).values(), source, check]
    check_outputs({"--out": out, **extras}, read, pictures=plot)
    items = None if check is None else read_queries(check)  # a wrong path fails before the work
    console, progress = (
        report_console(out, *extras.values(), *plot.values()),
        plain_console(stderr=True),
    )
    if scheme == "w4a16":
        agent = load_named(name, weights)
        ops = _quantize_int4(agent, out, clip_weights)
    else:
        options = _options(scheme, clip_weights, given)
        agent = load_named(name, weights)
        ops = _quantize_integers(agent, options, source, out, given, console, progress)
    if out is not None:
        console.print(f"wrote {out}", soft_wrap=True)
    if items is not None:
        console.print(_accuracy_table(scheme, compare(agent, ops, items, progress)))


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
    out: Path | None,
    given: dict[str, Any],
    console: Console,
    progress: Console,
) -> "Ops":
    from mu_ref.integers.store import save_integers
    from mu_ref.ops.integer import IntegerOps
    from mu_ref.quantize.report import plot_sqnr, site_reports
    from mu_ref.settings.quantize import quantize_agent

    n = given["--examples"] or 256
    integers, seen = quantize_agent(agent, source, n, options, given["--observed"], progress)
    if out is not None:
        save_integers(out, integers)
    if given["--encodings"] is not None:
        _write_encodings(integers, given["--encodings"], given["--aimet"] or "1.0.0")
    if seen:
        weights = agent.ops.weights  # type: ignore[attr-defined]
        rows = site_reports(agent.model, weights, integers, seen[:REPORT_EXAMPLES])
        console.print(_site_table(rows, 12 if given["--worst"] is None else given["--worst"]))
        if given["--plot"] is not None:
            title = f"{agent.model.name} {options.scheme}, {source.name}"
            plot_sqnr(rows, title, given["--plot"])
    return IntegerOps(integers)


def _quantize_int4(agent: "Agent", out: Path | None, clip_search: bool) -> "Ops":
    from mu_ref.config import INT4_GROUP
    from mu_ref.integers.int4 import dequantize_weights_int4, quantize_weights_int4
    from mu_ref.integers.int4_store import save_int4
    from mu_ref.ops.reference import ReferenceOps

    weights = agent.ops.weights  # type: ignore[attr-defined]
    packed = quantize_weights_int4(agent.model, weights, INT4_GROUP, clip_search=clip_search)
    if out is not None:
        save_int4(out, agent.model, packed, INT4_GROUP)
    return ReferenceOps(dequantize_weights_int4(agent.model, packed, INT4_GROUP))


def _write_encodings(integers: "IntegerModel", path: Path, version: str) -> None:
    import json

    from mu_ref.border.files import write_text
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


def _site_table(rows: "list[SiteReport]", worst: int) -> Table:
    ranked = sorted(rows, key=lambda row: row.sqnr_db)[:worst] if worst else rows
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
    for field in ("exact", "setting_id", "parse"):
        values = (getattr(result.floats, field), getattr(result.quantized, field))
        table.add_row(field, *(f"{value:.4f}" for value in values))
    table.add_row("same tokens", "", f"{result.same_tokens:.4f}")
    table.add_row("same answers", "", f"{result.same_answers:.4f}")
    return table
