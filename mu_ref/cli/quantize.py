"""`mu-ref quantize`: from float weights to integers, with the losses site by site."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from mu_ref.cli.options import check_named, load_named
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
    name: Annotated[str, typer.Argument(metavar="PRESET", help="Preset name.")] = "mu-nano",
    scheme: Annotated[str, typer.Option(help="w8a16, w8a8, or w4a16 (weights only).")] = "w8a16",
    calibration: Annotated[
        Path | None,
        typer.Option(help="Labelled queries (.jsonl), or ranges from --observed (.json)."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Float weights to start from.")] = None,
    out: Annotated[Path | None, typer.Option(help="Integer weight file to write.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="Calibration queries to look at.")] = 256,
    observer: Annotated[str, typer.Option(help="minmax, percentile or mse.")] = "minmax",
    rounding: Annotated[
        str, typer.Option(help="tflite_single, tflite_double or half_even.")
    ] = "tflite_single",
    clip_weights: Annotated[
        bool, typer.Option(help="Search each channel's scale for the least squared error.")
    ] = False,
    smooth: Annotated[
        float | None, typer.Option(help="SmoothQuant strength 0..1, from norms to matrices.")
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
    aimet: Annotated[str, typer.Option(help="AIMET version: 1.0.0 or 2.0.0.")] = "1.0.0",
    worst: Annotated[int, typer.Option(min=0, help="Sites to list; 0 lists all.")] = 12,
) -> None:
    """Quantize a model; print what each site loses, and accuracy before and after."""
    from mu_ref.quantize.calibrate import Options
    from mu_ref.settings.quantize import compare
    from mu_ref.settings.queries.labelled import read_queries

    check_choice("scheme", scheme, ["w8a16", "w8a8", "w4a16"])
    check_named(name, weights)
    items = None if check is None else read_queries(check)  # a wrong path fails before the work
    console, progress = Console(highlight=False), Console(stderr=True)
    agent = load_named(name, weights)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    if scheme == "w4a16":
        ops = _quantize_int4(agent, out, clip_weights)
    else:
        options = Options(
            rounding=rounding,  # type: ignore[arg-type]  # Options checks the text
            scheme=scheme, observer=observer, clip_weights=clip_weights, smooth=smooth,
            bits=_widths(bits or []),
        )  # fmt: skip
        files = _Files(calibration, out, observed, plot, encodings, aimet)
        ops = _quantize_integers(agent, options, examples, files, worst, console, progress)
    if out is not None:
        console.print(f"wrote {out}")
    if items is not None:
        console.print(_accuracy_table(scheme, compare(agent, ops, items, progress)))


@dataclass(frozen=True, slots=True)
class _Files:
    """What to read, and what to write besides the table."""

    calibration: Path | None
    out: Path | None
    observed: Path | None
    plot: Path | None
    encodings: Path | None
    aimet: str


def _quantize_integers(
    agent: "Agent",
    options: "Options",
    examples: int,
    files: _Files,
    worst: int,
    console: Console,
    progress: Console,
) -> "Ops":
    from mu_ref.integers.store import save_integers
    from mu_ref.ops.integer import IntegerOps
    from mu_ref.quantize.report import plot_sqnr, site_reports
    from mu_ref.settings.catalog import DATA
    from mu_ref.settings.quantize import quantize_agent

    source = DATA / "train.jsonl" if files.calibration is None else files.calibration
    if files.plot is not None and source.suffix == ".json":
        raise InputError("--plot must see queries; --calibration is a file of ranges")
    if files.encodings is not None and files.encodings.suffix not in (".csv", ".json"):
        raise InputError(f"--encodings must end in .csv or .json, got {files.encodings}")
    integers, seen = quantize_agent(agent, source, examples, options, files.observed, progress)
    if files.out is not None:
        save_integers(files.out, integers)
    if files.encodings is not None:
        _write_encodings(integers, files.encodings, files.aimet)
    if seen:
        weights = agent.ops.weights  # type: ignore[attr-defined]
        rows = site_reports(agent.model, weights, integers, seen[:REPORT_EXAMPLES])
        console.print(_site_table(rows, worst))
        if files.plot is not None:
            plot_sqnr(rows, f"{agent.model.name} {options.scheme}, {source.name}", files.plot)
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

    from mu_ref.files import write_text
    from mu_ref.integers.encodings import to_aimet, to_table

    names = [name for name in integers.tensors if name.endswith(".weight")]
    scales = {name: integers.weight_scale(name.removesuffix(".weight")) for name in names}
    widths = {name: integers.tensors[name].itemsize * 8 for name in names}
    if path.suffix == ".csv":
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
