"""Measured matrix products on an A100 and a TPU v6e against the `roofline` fidelity.

Three constants per chip are fitted on one half of the rows and judged on the other: time to launch,
share of the peak rate, bandwidth. Which half a row belongs to follows from a hash of its shape, so
nobody has chosen. Chapter: `docs/validation.md`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.ranges import SIZE
from mu_ref.border.reading import read_csv
from mu_ref.errors import check_choice
from npu_sim.errors import SweepError
from npu_sim.evidence.cases import MICROSECONDS, read_number
from npu_sim.evidence.fit import Constant, Fit, fit_constants
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import npu
from npu_sim.program.program import Gemm, Op, Tensor
from npu_sim.roofline.formula import op_cost
from npu_sim.units import GB

__all__ = ["GEMM_NPUS", "GemmFit", "GemmRow", "calibrate_gemms", "gemm_file", "gemm_rows",
           "predict_us", "read_gemms"]  # fmt: skip

GEMM_NPUS = ("a100", "tpu-v6e")
BITS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class GemmRow:
    """One measured product [m, k] x [k, n]."""

    m: int
    n: int
    k: int
    measured_us: float

    @property
    def fitted_on(self) -> bool:
        """Whether the row belongs to the half that constants are fitted on."""
        digest = hashlib.sha256(f"{self.m}x{self.k}x{self.n}".encode()).digest()
        return digest[0] % 2 == 0


def gemm_rows(name: str) -> list[GemmRow]:
    """Return the measured products of a chip.

    Args:
        name: one of `GEMM_NPUS`.

    Returns:
        The rows.

    Raises:
        SweepError: no products of such a chip are known.
    """
    check_choice("name", name, GEMM_NPUS, SweepError)
    return read_gemms(gemm_file(name))


def gemm_file(name: str) -> Path:
    """Return the file of a chip's measured products, which comes with the package."""
    return Path(str(files("npu_sim").joinpath("data", "gemm", f"{name}.csv")))


def read_gemms(path: Path) -> list[GemmRow]:
    """Read measured products.

    Args:
        path: a CSV with the columns m, n, k and measured_us.

    Returns:
        The rows, in order.

    Raises:
        SweepError: no such file, no CSV, a column is missing, or a value is wrong; names the line.
    """
    columns, rows = read_csv(path, "a CSV file of products", SweepError)
    sizes = ("m", "n", "k")
    missing = {*sizes, "measured_us"} - set(columns)
    if missing:
        raise SweepError(f"{path} must have the column {min(missing)}, got {', '.join(columns)}")
    return [
        GemmRow(
            **{name: read_number(row[name], f"{where}: {name}", SIZE) for name in sizes},
            measured_us=read_number(row["measured_us"], f"{where}: measured_us", MICROSECONDS),
        )
        for where, row in rows
    ]


def gemm_op(row: GemmRow) -> Op:
    """Return a product of 16-bit operands that all move through DRAM."""
    x = Tensor(name="x", shape=(row.m, row.k), bits=BITS, role="activation")
    w = Tensor(name="w", shape=(row.n, row.k), bits=BITS, role="weight")
    y = Tensor(name="y", shape=(row.m, row.n), bits=BITS, role="activation")
    gemm = Gemm(count=1, m=row.m, n=row.n, k=row.k)
    return Op(site="gemm", kind="linear", phase="gemm", inputs=(x, w), output=y, gemm=gemm)


def predict_us(row: GemmRow, chip: Npu) -> float:
    """Predict one product at `roofline` fidelity, launch included.

    Args:
        row: the product.
        chip: the NPU.

    Returns:
        Simulated microseconds.

    Assumes:
        All operands come from DRAM and the result goes there, whatever the cache could keep.
    """
    # activations that fit nothing: both operands and the result pass DRAM
    cold = chip.with_value("sram.capacity_bytes", 1)
    cycles = op_cost(gemm_op(row), cold).cycles
    return cycles / chip.clock_hz * 1e6 + chip.per_inference_overhead_us


@dataclass(frozen=True, kw_only=True)
class GemmFit:
    """Constants of one chip, and their errors on rows that they were not fitted on."""

    npu: str
    changes: Mapping[str, Any]  # fitted values by path
    rows: tuple[GemmRow, ...]
    errors: np.ndarray  # [n_rows] predicted / measured - 1

    def mape(self, *, fitted_on: bool) -> float:
        """Mean absolute error of one half of the rows, a fraction."""
        half = np.array([row.fitted_on is fitted_on for row in self.rows])
        return float(np.abs(self.errors[half]).mean())

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers; errors are fractions."""
        return {
            "npu": self.npu,
            "values": dict(self.changes),
            "n_fitted": sum(row.fitted_on for row in self.rows),
            "n_held_out": sum(not row.fitted_on for row in self.rows),
            "fit_mape": self.mape(fitted_on=True),
            "held_out_mape": self.mape(fitted_on=False),
        }


def calibrate_gemms(name: str) -> GemmFit:
    """Fit launch time, efficiency and bandwidth of a chip to half of its products.

    Args:
        name: one of `GEMM_NPUS`.

    Returns:
        The fit.
    """
    chip, rows = npu(name), gemm_rows(name)
    constants = (
        Constant(name="launch", unit="us", meaning="launch of a kernel, from the host and back",
                 prior=10, spread=1.5, low=0.5, high=100),
        Constant(name="efficiency", unit="share of peak", meaning="matrix engine, 16-bit floats",
                 prior=0.8, spread=0.5, low=0.3, high=1),
        Constant(name="bandwidth", unit="share of peak", meaning="DRAM",
                 prior=0.85, spread=0.3, low=0.4, high=1),
    )  # fmt: skip
    half = [row for row in rows if row.fitted_on]

    # rounded while fitting, so that the errors are those of the numbers that are printed
    def changes(values: Sequence[float]) -> dict[str, Any]:
        launch_us, efficiency, bandwidth = values
        return {
            "per_inference_overhead_us": round(launch_us, 3),
            "matrix.w16a16_efficiency": round(efficiency, 4),
            "dma.bytes_per_s": round(bandwidth * chip.dram.bytes_per_s / GB) * GB,
        }

    def predict(logarithms: np.ndarray) -> np.ndarray:
        changed = chip.with_changes(changes(np.exp(logarithms).tolist()))
        return np.log([predict_us(row, changed) for row in half])

    measured = np.array([row.measured_us for row in half])
    fit: Fit = fit_constants(constants, predict, measured, range(len(half)))
    found = changes(fit.values.tolist())
    fitted = chip.with_changes(found)
    errors = np.array([predict_us(row, fitted) / row.measured_us - 1 for row in rows])
    return GemmFit(npu=name, changes=found, rows=tuple(rows), errors=errors)
