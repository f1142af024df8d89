"""`npu-sim systolic`: one matrix product on a systolic array, or a file of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mu_ref.border.files import check_outputs
from mu_ref.border.ranges import SEED
from mu_ref.border.text import json_text, printable
from mu_ref.command_line import DIFFERENCE, JsonOption, in_range, plain_console
from mu_ref.errors import check_choice
from npu_sim.errors import WorkloadError
from npu_sim.systolic.closed_form import SIDE, SystolicArray, systolic_counts
from npu_sim.systolic.scalesim_csv import SystolicRow, read_rows, write_rows

__all__ = ["systolic"]

METHODS = ("closed-form", "cycle")
COUNTED = (  # by the cells too
    "folds", "cycles_per_fold", "cycles", "sram_ifmap_reads", "sram_filter_reads",
    "sram_ofmap_writes",
)  # fmt: skip


def systolic(
    m: Annotated[int | None, in_range(SIDE, "--m", help="Rows of the activations.")] = None,
    n: Annotated[int | None, in_range(SIDE, "--n", help="Columns of the weights.")] = None,
    k: Annotated[int | None, in_range(SIDE, "--k", help="Length of each sum.")] = None,
    rows: Annotated[int | None, in_range(SIDE, "--rows", help="Rows of the array.")] = None,
    cols: Annotated[int | None, in_range(SIDE, "--cols", help="Columns of the array.")] = None,
    dataflow: Annotated[
        str | None, typer.Option(help="What stays in the cells: os, ws or is.")
    ] = None,
    fidelity: Annotated[
        str, typer.Option(help="closed-form, or cycle: cell by cell, with values.")
    ] = METHODS[0],
    seed: Annotated[
        int | None, in_range(SEED, "--seed", help="Of the values, 0 by default; only with cycle.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Many products, one a row.", metavar="IN.csv")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write them with results.", metavar="OUT.csv")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count cycles and SRAM traffic of an m x k by k x n matrix product on a systolic array.

    With --csv IN.csv --out OUT.csv do so for every row of a file with the columns array_rows,
    array_cols, dataflow, M, N, K. Exits with 1 where the file reports other numbers.

    Example: npu-sim systolic --m 64 --n 64 --k 64 --rows 32 --cols 32 --dataflow ws
    """
    check_choice("fidelity", fidelity, METHODS, WorkloadError)
    if seed is not None and fidelity != "cycle":
        raise WorkloadError("--seed must come with --fidelity cycle; nothing else has values")
    check_outputs({"--out": out}, [csv], prints_json=as_json)
    shape = {"m": m, "n": n, "k": k, "rows": rows, "cols": cols, "dataflow": dataflow}
    if csv is not None or out is not None:
        if csv is None or out is None:
            raise WorkloadError("--csv and --out must be given together; add the missing one")
        extra = [f"--{name}" for name, value in shape.items() if value is not None]
        if extra:
            raise WorkloadError(f"--csv must stand without {', '.join(extra)}; the file has them")
        _run_file(csv, out, fidelity, seed or 0, as_json)
        return
    if (
        m is None or n is None or k is None or rows is None or cols is None or dataflow is None
    ):  # fmt: skip
        missing = ", ".join(f"--{name}" for name, value in shape.items() if value is None)
        raise WorkloadError(f"a product needs {missing} too; or give --csv and --out")
    array = SystolicArray(rows=rows, cols=cols, dataflow=dataflow)
    counts = systolic_counts(m, n, k, array)
    result = {"m": m, "n": n, "k": k, **asdict(array), "fidelity": fidelity, **counts.to_json()}
    if fidelity == "cycle":
        result |= _run_with_values(m, n, k, array, seed or 0)
    if as_json:
        typer.echo(json_text(result, indent=2))
    else:
        _show(result)
    if not result.get("product_equals_matmul", True):
        raise typer.Exit(DIFFERENCE)


def _run_with_values(
    m: int, n: int, k: int, array: SystolicArray, seed: int
) -> dict[str, int | bool]:
    """Multiply random 8-bit integers on the array; return what it counted and found."""
    import numpy as np

    from npu_sim.systolic.array import check_can_run, run_systolic

    check_can_run(m, n, k, array)
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-128, 128, shape, np.int8) for shape in ((m, k), (k, n)))
    run = run_systolic(a, b, array)
    product = a.astype(np.float64) @ b.astype(np.float64)  # exact: sums stay below 2**53
    return {name: getattr(run, name) for name in COUNTED} | {
        "scalesim_cycles": run.cycles - 1,
        "product_equals_matmul": bool(np.array_equal(run.product, product)),
    }


def _show(result: dict[str, Any]) -> None:
    console = plain_console()
    console.print(
        "[{m} x {k}] @ [{k} x {n}] on {rows} x {cols} cells, {dataflow}; {fidelity}\n".format(
            **result
        ),
        soft_wrap=True,
    )
    for name in (*COUNTED[:3], "scalesim_cycles", "utilization", *COUNTED[3:]):
        value = result[name]
        text = f"{100 * value:.2f} %" if name == "utilization" else f"{value:,}"
        console.print(f"{name:<20} {text:>16}", soft_wrap=True)
    if "product_equals_matmul" in result:
        equal = "equals" if result["product_equals_matmul"] else "DIFFERS FROM"
        console.print(f"\nThe product that left the array {equal} the matrix product.")


def _run_file(source: Path, target: Path, fidelity: str, seed: int, as_json: bool) -> None:
    """Do a whole file; say where it reports something else."""
    rows = read_rows(source)
    if fidelity == "cycle":
        _check_work(source, rows)
        for row in rows:
            _check_with_values(source, row, seed)
    write_rows(target, rows)
    differing = {row.number: columns for row in rows if (columns := row.differing())}
    if as_json:
        summary = {"rows": len(rows), "fidelity": fidelity, "out": str(target)}
        typer.echo(json_text(summary | {"differing": differing}, indent=2))
    else:
        typer.echo(printable(f"{len(rows)} rows written to {target} ({fidelity})"))
        for number, columns in differing.items():
            found = f"row {number} of {source} reports another {', '.join(columns)}"
            typer.echo(printable(found))
    if differing:
        raise typer.Exit(DIFFERENCE)


def _check_work(source: Path, rows: list[SystolicRow]) -> None:
    """Refuse a file whose rows together would run for minutes."""
    from npu_sim.systolic.array import MOST_WORK, work_of

    work = 0
    for row in rows:
        work += work_of(row.m, row.n, row.k, row.array)
        if work > MOST_WORK:
            raise WorkloadError(
                f"{source}, row {row.number}: cells x cycles (and 10,000 per fold) of all rows "
                f"together must be at most {MOST_WORK}, got {work}; count them in closed form"
            )


def _check_with_values(source: Path, row: SystolicRow, seed: int) -> None:
    """Run a row cell by cell; raise if anything came out otherwise than in closed form."""
    try:
        found = _run_with_values(row.m, row.n, row.k, row.array, seed)
    except WorkloadError as error:
        raise WorkloadError(f"{source}, row {row.number}: {error}") from error
    expected = row.counts.to_json() | {"product_equals_matmul": True}
    assert found == {name: expected[name] for name in found}, f"row {row.number}: {found}"
