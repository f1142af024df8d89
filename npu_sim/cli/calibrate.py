"""`npu-sim calibrate`: what vendors do not publish, fitted, and what the fit is worth."""

import sys
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from mu_ref.border.files import check_outputs, write_text
from mu_ref.border.text import json_text
from mu_ref.command_line import JsonOption, named_folder, plain_console
from mu_ref.errors import check_choice
from npu_sim.cli.options import PlotOption, wide_console
from npu_sim.errors import SweepError
from npu_sim.evidence.cases import BOTH, CHIPS, NEWEST, OLDEST, RELEASES, released_cases
from npu_sim.evidence.gemm import GEMM_NPUS, GemmFit, calibrate_gemms
from npu_sim.hardware.presets import npu, write_npu
from npu_sim.show.tables import print_table

if TYPE_CHECKING:
    from npu_sim.evidence.calibrate import Calibration
    from npu_sim.evidence.chips import ChipFit
    from npu_sim.evidence.structure import Judged

__all__ = ["show_calibration"]


def show_calibration(
    what: Annotated[str, typer.Argument(help="hexagon, a100 or tpu-v6e.")] = "hexagon",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=named_folder,
            help="Folder for TOML files of the chips with fitted values.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="What is left out together: model, the default, or case; of hexagon."),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(
            help=f"Calls of hexagon to fit to: {', '.join(RELEASES)}; the first by default."
        ),
    ] = None,
    structure: Annotated[
        bool,
        typer.Option(
            "--structure", help="Fit hexagon anew without each effect, and show what it is worth."
        ),
    ] = False,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit what vendors do not publish to measured latencies, and show what the fit is worth.

    Example: npu-sim calibrate hexagon --plot fit.png
    """
    check_choice("what", what, ("hexagon", *GEMM_NPUS), SweepError)
    if what in GEMM_NPUS:
        _refuse({"--by": by, "--release": release, "--structure": structure or None},
                f"come with hexagon, got {what}, of which half is held out")  # fmt: skip
    if structure:
        _refuse({"--out": out, "--plot": plot}, "come without --structure, which fits no preset")
    if by is not None:
        check_choice("--by", by, ("case", "model"), SweepError)
    if release is not None:
        check_choice("--release", release, RELEASES, SweepError)
    release = release or NEWEST
    if structure:
        _judge_structure(release, by or "model", as_json=as_json)
        return
    ending = "" if release == NEWEST else f"-{OLDEST}"
    hexagons = (*(name + ending for name in BOTH), *(CHIPS if release == NEWEST else ()))
    names = (what,) if what in GEMM_NPUS else hexagons
    presets = files("npu_sim").joinpath("presets")  # a fit reads them, should FOLDER be theirs
    read = [str(presets.joinpath(f"{name}.toml")) for name in names]
    chips = {f"--out ({name})": out and out / f"{name}.toml" for name in names}
    if what not in GEMM_NPUS and release == NEWEST:
        chips["--out (expected)"] = out and out / "expected.json"
    check_outputs(chips, read, pictures={"--plot": plot})
    if what in GEMM_NPUS:
        _calibrate_gemms(calibrate_gemms(what), out, plot, as_json=as_json)
        return
    _calibrate_hexagons(release, by or "model", out, plot, as_json=as_json)


def _refuse(given: Mapping[str, object], rule: str) -> None:
    """Refuse the options that were given: they must do what the rule says."""
    for option, value in given.items():
        if value is not None:
            raise SweepError(f"{option} must {rule}")


def _calibrate_hexagons(
    release: str, by: str, out: Path | None, plot: Path | None, *, as_json: bool
) -> None:
    from npu_sim.evidence.calibrate import calibrate, fitted_npus
    from npu_sim.evidence.chips import expected_json, fit_chips, left_out_errors

    ending = "" if release == NEWEST else f"-{OLDEST}"
    cases, models = released_cases(release)
    own = [case for case in cases if case.use == "calibration"]
    with Progress(console=plain_console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("passes over all calls", total=None)
        found = calibrate(own, models, by=by, progress=lambda _: bar.advance(task))
        more = [] if release != NEWEST else fit_chips(cases, models, found.values)
        without = left_out_errors(more, models, found.values) if more else {}
    if out is not None:
        source = RELEASES[release][0]
        fitted = {**fitted_npus(found, source, date.today(), ending)}
        fitted |= {fit.npu: fit.chip(found.values, source, date.today()) for fit in more}
        for name, chip in fitted.items():
            write_npu(chip, out / f"{name}.toml")
        if more:
            write_text(out / "expected.json", expected_json(found, more))
    if plot is not None:
        from npu_sim.evidence.plots import plot_calibration

        plot_calibration(found, plot)
    if as_json:
        ratios = {
            fit.npu: {
                "fit_mape": fit.mape, "left_out_mape": without[fit.npu], "n": len(fit.cases),
                "network_left_out_mape": float(np.abs(fit.fit.left_out).mean()),
                **fit.values,
            }
            for fit in more
        }  # fmt: skip
        typer.echo(json_text(found.to_json() | {"chips": ratios}, indent=2))
    else:
        _print_calibration(found, more, without)


def _print_calibration(
    found: "Calibration", more: "Sequence[ChipFit]", without: dict[str, float]
) -> None:
    console, data = wide_console(), found.to_json()
    table = Table(box=None, pad_edge=False)
    for header in ("constant", "fitted", "unit", "± (log)", "from data", "prior", "meaning"):
        table.add_column(header)
    for c in data["constants"]:
        table.add_row(
            c["name"], f"{c['value']:.4g}", c["unit"], f"{c['relative_sd']:.0%}",
            f"{c['informed_by_data']:.0%}", f"{c['prior']:g}", c["meaning"],
        )  # fmt: skip
    print_table(console, table)
    for fit in more:
        ratios = ", ".join(f"{name} {value:.3g}" for name, value in fit.values.items())
        console.print(
            f"{fit.npu}: {ratios} of X Elite; {fit.mape:.1%} on its {len(fit.cases)} calls, "
            f"{np.abs(fit.fit.left_out).mean():.1%} with a network left out, "
            f"{without[fit.npu]:.1%} by the other chips alone",
            soft_wrap=True,
        )
    phases = ", ".join(f"{p} {e:.1%}" for p, e in data["left_out_by_phase"].items())
    console.print(
        f"\n{data['n']} calls: mean absolute error {data['fit_mape']:.1%}; each left out "
        f"{data['left_out_mape']:.1%} ({phases})",
        soft_wrap=True,
    )


def _judge_structure(release: str, by: str, *, as_json: bool) -> None:
    from npu_sim.evidence.structure import ALTERNATIVES, judge_structure

    cases, models = released_cases(release)
    own = [case for case in cases if case.use == "calibration"]
    with Progress(console=plain_console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("structures fitted", total=len(ALTERNATIVES))
        judged = judge_structure(
            own, models, by=by, alternatives=ALTERNATIVES, progress=lambda: bar.advance(task)
        )
    if as_json:
        typer.echo(json_text([one.to_json() for one in judged], indent=2))
    else:
        _print_structure(judged, by)


def _print_structure(judged: "Sequence[Judged]", by: str) -> None:
    console, found = wide_console(), [one.to_json() for one in judged]
    phases = list(found[0]["left_out_by_phase"])
    table = Table(box=None, pad_edge=False)
    table.add_column("structure")
    for header in ("fit", f"{by} left out", *phases):
        table.add_column(header, justify="right")
    table.add_column("what is otherwise")
    for one in found:
        errors = (one["fit_mape"], one["left_out_mape"], *one["left_out_by_phase"].values())
        table.add_row(one["name"], *(f"{error:.1%}" for error in errors), one["meaning"])
    print_table(console, table)
    console.print(
        f"mean absolute errors over {found[0]['n']} calls; each structure has its own fit"
    )


def _calibrate_gemms(found: GemmFit, out: Path | None, plot: Path | None, *, as_json: bool) -> None:
    data = found.to_json()
    if out is not None:
        source = f"fitted: {found.npu} GEMMs, {data['n_fitted']} rows, {date.today().isoformat()}"
        chip = npu(found.npu).with_changes(found.changes, source)
        write_npu(chip, out / f"{found.npu}.toml")
    if plot is not None:
        from npu_sim.evidence.plots import plot_gemms

        plot_gemms(found, plot)
    if as_json:
        typer.echo(json_text(data, indent=2))
        return
    for path, value in data["values"].items():
        typer.echo(f"{path:<28} {value:,}")
    typer.echo(
        f"{found.npu}: mean absolute error {data['fit_mape']:.1%} on the {data['n_fitted']} rows "
        f"of the fit, {data['held_out_mape']:.1%} on the {data['n_held_out']} others (roofline)"
    )
