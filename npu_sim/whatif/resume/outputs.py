"""The files of a sweep: checked before it runs, and the JSON file beside its table.

Chapter: `docs/whatif.md`.
"""

import json
import os
from pathlib import Path

from mu_ref.border.files import check_outputs, is_stream, write_text
from mu_ref.border.reading import read_json
from mu_ref.errors import InputError
from npu_sim.errors import SweepError
from npu_sim.hardware.presets import npu
from npu_sim.whatif.metrics import METRICS
from npu_sim.whatif.resume.parts import check_parts_folder, parts_folder, versions
from npu_sim.whatif.varied.sweep_toml import SweepSpec

__all__ = ["check_sweep_outputs", "write_sidecar"]


def sidecar_path(out: Path) -> Path | None:
    """Return where the JSON file of a table goes; None for a stream."""
    return None if is_stream(out) else out.with_suffix(".json")


def check_sweep_outputs(spec: SweepSpec, out: Path, plot: Path | None = None) -> None:
    """Refuse, before any work, outputs of a sweep that would destroy something.

    Args:
        spec: the sweep, with the files that it reads.
        out: the table; a JSON file and, for a while, a folder of parts stand beside it.
        plot: a picture, or None.

    Raises:
        MuRefError: see `check_outputs`; a JSON file that no sweep has written; something else in
            the folder of parts.
    """
    check_outputs({"--out": out})  # a folder has no file beside it
    sidecar, read = sidecar_path(out), (spec.source, *spec.files)
    beside = f"the JSON file beside --out ({sidecar and sidecar.name})"
    check_outputs({"--out": out, beside: sidecar, "--plot": plot}, read)
    if sidecar is None:
        return
    folder = parts_folder(out)
    for path in (*read, plot):
        if path is not None and folder in Path(os.path.realpath(path)).parents:
            raise SweepError(
                f"{folder} is removed when a sweep ends, so it must not hold {path}; move it or "
                f"choose another --out"
            )
    check_parts_folder(out)
    if sidecar.exists() and _table_ending(sidecar) != out.suffix:
        raise SweepError(
            f"{beside} must not replace a file that no sweep of this name has written, got "
            f"{sidecar}; choose another --out"
        )


def _table_ending(sidecar: Path) -> str | None:
    """Read the ending of the table that a JSON file belongs to; None if it is of no sweep."""
    try:
        data = read_json(sidecar, "of a sweep")
    except InputError:
        return None
    if not isinstance(data, dict) or data.get("simulated") is not True:
        return None
    if not {"spec", "n_points", "varied", "versions"} <= data.keys():
        return None
    ending: str = data.get("table_ending", ".csv")  # before this was written, mostly
    return ending


def write_sidecar(spec: SweepSpec, out: Path) -> None:
    """Write the JSON file beside a table: the specification, the NPUs, and the versions.

    Args:
        spec: the sweep.
        out: the table; a stream has none.
    """
    path = sidecar_path(out)
    if path is None:
        return
    varied = [v for axis in (*spec.grid, *spec.random) if axis.path == "npu" for v in axis.values]
    chips = [npu(name) for name in varied] or [spec.base.npu]
    described = [
        {"name": chip.name, "values": chip.values(), "sources": dict(chip.sources)}
        for chip in chips
    ]  # fmt: skip
    sidecar = {
        "simulated": True,
        "table_ending": out.suffix,
        "fidelity": spec.fidelity,
        "n_points": spec.n_points,
        "varied": list(spec.paths),
        "metrics": list(METRICS),
        "versions": versions(),
        **({"npus": described} if varied else {"npu": described[0]}),
        "spec": spec.text,
    }
    write_text(path, json.dumps(sidecar, indent=1) + "\n")
