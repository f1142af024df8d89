"""What a sweep varies: a TOML file becomes a list of numbered points.

    model = "mu-330m"            # or model_json = "FILE#name", or hf_config = "FILE"
    npu = "hexagon-x-elite"      # or FILE.toml
    fidelity = "roofline"

    [workload]                   # fields of the base, all optional; also [precision], [drafter]
    n_input = 64

    [set]                        # any field of the base by its path
    "model.decoder.n_layers" = 6

    [vary]                       # every combination
    "npu.dma.bytes_per_s" = { log = [20, 200], n = 50, unit = "GB/s" }
    "workload.n_input" = { range = [64, 512], step = 64 }
    "precision.weight_bits" = [4, 8]

    [sample]                     # and, for every combination, n random draws
    n = 10
    seed = 0
    "npu.sram.capacity_bytes" = { log = [1, 16], unit = "MiB" }
    "npu.per_inference_overhead_us" = { uniform = [30, 500] }

Chapter: `docs/whatif.md`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.ranges import COUNT, SEED
from mu_ref.border.reading import parse_toml, read_text
from mu_ref.errors import check_choice
from npu_sim.errors import NpuSimError, SweepError
from npu_sim.report.fidelity import FIDELITIES
from npu_sim.whatif.scenario import Scenario
from npu_sim.whatif.scenario_toml import (
    BASE_KEYS,
    base_files,
    base_scenario,
    check_drafter,
    table_of,
    to_toml,
)
from npu_sim.whatif.varied.axes import Axis, read_axis

__all__ = ["SweepSpec", "read_spec", "spec_from"]

TOP = (*BASE_KEYS, "fidelity", "vary", "sample")
MAX_POINTS = 10_000_000
Merge = Callable[[dict[str, Any]], tuple[dict[str, Any], str | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSpec:
    """A base scenario and what is varied around it."""

    base: Scenario
    fidelity: str
    grid: tuple[Axis, ...]
    random: tuple[Axis, ...]
    n_draws: int  # per combination of the grid
    seed: int
    text: str  # the file
    files: tuple[Path, ...] = ()  # of NPU and model, which it names
    source: Path | None = None  # its own file

    @property
    def n_points(self) -> int:
        """How many points there are."""
        return prod(len(axis.values) for axis in self.grid) * self.n_draws

    @property
    def paths(self) -> tuple[str, ...]:
        """What is varied, in the order of the file."""
        return tuple(axis.path for axis in (*self.grid, *self.random))

    def point(self, index: int) -> dict[str, Any]:
        """Return what point `index` changes; the last axis of the grid moves fastest."""
        combination, _ = divmod(index, self.n_draws)
        changes = {}
        for axis in reversed(self.grid):
            combination, at = divmod(combination, len(axis.values))
            changes[axis.path] = axis.values[at]
        changes = {axis.path: changes[axis.path] for axis in self.grid}
        if self.random:
            # a generator per point: the same draw in whatever chunk or process it is computed
            rng = np.random.default_rng([self.seed, index])
            changes |= {axis.path: axis.draw(rng) for axis in self.random}
        return changes


def read_spec(path: Path, merge: Merge | None = None) -> SweepSpec:
    """Read a sweep from a TOML file.

    Args:
        path: the file.
        merge: puts options before what the file says of its base.

    Returns:
        The sweep.

    Raises:
        SweepError: no such file, not TOML, or a key that is wrong; names it.
    """
    text = read_text(path, "a TOML file of a sweep", SweepError)
    try:
        spec = spec_from(text)
    except NpuSimError as error:
        raise SweepError(f"{path}: {error}") from error
    if merge is not None:
        data = parse_toml(text, "a sweep", "TOML", SweepError)
        merged, fidelity = merge(data)
        if fidelity is not None:
            merged["fidelity"] = fidelity
        if merged != data:  # workers and a resumed sweep read the text
            spec = spec_from(to_toml(merged))
    return replace(spec, source=path)


def spec_from(text: str) -> SweepSpec:
    """Read a sweep from the text of a TOML file.

    Args:
        text: see the module.

    Returns:
        The sweep.

    Raises:
        NpuSimError: not TOML, or a key that is wrong; names it.
    """
    data = parse_toml(text, "a sweep", "TOML", SweepError)
    for key in data:
        check_choice("key", key, TOP, SweepError)
    fidelity = check_choice("fidelity", data.get("fidelity", "roofline"), FIDELITIES, SweepError)
    sample = dict(table_of(data, "sample"))
    n_draws = COUNT.check("sample.n", sample.pop("n", 1), SweepError)
    seed = SEED.check("sample.seed", sample.pop("seed", 0), SweepError)
    told = {key: value for key, value in data.items() if key in BASE_KEYS}
    base = base_scenario(told, varied=[*table_of(data, "vary"), *sample])
    grid = tuple(read_axis(key, entry, base) for key, entry in table_of(data, "vary").items())
    drawn = tuple(read_axis(key, entry, base, drawn=True) for key, entry in sample.items())
    if not grid and not drawn:
        raise SweepError("a sweep must vary something, got neither [vary] nor [sample] entries")
    if n_draws > 1 and not drawn:
        raise SweepError(f"sample.n must come with a field to draw, got n = {n_draws} alone")
    paths = [axis.path for axis in (*grid, *drawn)]
    drafting = [path.removeprefix("drafter.") for path in paths if path.startswith("drafter.")]
    check_drafter(drafting, base.drafter.beam_width, paths)
    repeated = {a.path for a in grid} & {a.path for a in drawn}
    if repeated or len({a.path for a in grid}) < len(grid):
        twice = ", ".join(sorted(repeated)) or "a field and its alias"
        raise SweepError(f"each field must be varied once, got {twice} twice")
    named = [name for axis in (*grid, *drawn) if axis.path == "npu" for name in axis.values]
    chips = [Path(name) for name in named if name.endswith(".toml")]
    spec = SweepSpec(base=base, fidelity=fidelity, grid=grid, random=drawn, n_draws=n_draws,
                     seed=seed, text=text, files=(*base_files(told), *chips))  # fmt: skip
    if spec.n_points > MAX_POINTS:
        raise SweepError(f"a sweep must have at most {MAX_POINTS:,} points, got {spec.n_points:,}")
    return spec
