"""What an NPU is: engines, memories, a clock, overheads, energies, each number with a source.

Every value has a path such as `dma.bytes_per_s`, and `Npu.sources` says for each path where it
comes from: `public` (a vendor's document), `third party` (somebody's measurement), `derived`
(arithmetic on those), `assumed`, or `fitted` (to measured latencies that the source names). An
`Npu` is read from and written to TOML by `presets.py`; the files are in `npu_sim/presets/`. Not
here: how an operation uses the engines (`roofline/formula.py`, `tile/tiling.py`). Chapters:
`docs/11_machine.md`, `docs/13_tiles.md`; every number is also in `docs/hardware_sources.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Self

from mu_ref.border.text import short
from mu_ref.errors import check_choice
from mu_ref.ops import Ops
from npu_sim.errors import HardwareError
from npu_sim.hardware.engines import Dma, Dram, Energy, MatrixEngine, Sram, VectorEngine
from npu_sim.hardware.ranges import check_number
from npu_sim.program.program import RUNTIMES
from npu_sim.units import cycles_from_us

__all__ = ["Npu", "build_npu", "call_overhead_us"]


Number = int | float

FieldValue = int | float | bool | str

SWITCHES = frozenset(
    {"sram.keeps_between_calls", "sram.fuses_operations", "sram.streams_encode", "dma.runs_ahead"}
)

OPERATIONS = tuple(name for name in vars(Ops) if name[0] != "_" and name not in ("repeat", "read"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Npu:
    """A neural processing unit.

    Raises:
        HardwareError: a value is of the wrong type or out of range; names its path.
    """

    name: str
    title: str
    clock_hz: int  # all engines run on one clock
    matrix: MatrixEngine
    vector: VectorEngine
    dma: Dma
    sram: Sram
    dram: Dram
    energy: Energy
    per_op_overhead_cycles: int  # start and end of one operation
    per_inference_overhead_us: float  # one call of a graph, from the host and back
    geniex_overhead_us: (
        float  # more per call under an LLM runtime: embedding, sampling, graph parts
    )
    geniex_position_us: (
        float  # and for each position computed: embedding, mask and angles, on a CPU
    )
    unsupported_ops: str  # kinds of `mu_ref.ops.Ops` it has no engine for, separated by blanks
    sources: Mapping[str, str] = field(compare=False, repr=False)  # path -> source

    def __post_init__(self) -> None:
        """Check every value by its path."""
        for name in ("name", "title"):
            if not isinstance(getattr(self, name), str):
                raise HardwareError(f"{name} must be a text, got {short(getattr(self, name))}")
        for path, value in self.values().items():
            _check(path, value)

    @property
    def memory_bytes_per_s(self) -> int:
        """Rate at which the NPU can read DRAM: the slower of its DMA and the DRAM itself."""
        return min(self.dma.bytes_per_s, self.dram.bytes_per_s)

    @property
    def int8_tops(self) -> float:
        """Peak int8 rate in 10^12 operations per second; one MAC is two operations."""
        return 2 * self.matrix.w8a8_macs_per_cycle * self.clock_hz / 1e12

    def call_overhead_cycles(self, runtime: str, n_positions: int = 0) -> int:
        """Return the overhead of one graph call.

        Args:
            runtime: one of `RUNTIMES`.
            n_positions: that the call computes; an LLM runtime prepares each on a CPU.

        Returns:
            Cycles.

        Raises:
            HardwareError: no such runtime.
        """
        check_choice("runtime", runtime, RUNTIMES, HardwareError)
        return cycles_from_us(call_overhead_us(self.values(), runtime, n_positions), self.clock_hz)

    def values(self) -> dict[str, FieldValue]:
        """List every value by its path, in the order of the fields.

        Returns:
            {"clock_hz": ..., "matrix.rows": ..., ...}.
        """
        found: dict[str, FieldValue] = {}
        for top in fields(self):
            value = getattr(self, top.name)
            if top.name in PARTS:
                for inner in fields(value):
                    found[f"{top.name}.{inner.name}"] = getattr(value, inner.name)
            elif top.name not in ("name", "title", "sources"):
                found[top.name] = value
        return found

    def numbers(self) -> dict[str, Number]:
        """List every number by its path: `values` without texts and switches."""
        return {
            path: value
            for path, value in self.values().items()
            if not isinstance(value, str | bool)
        }

    def with_value(self, path: str, value: FieldValue, source: str = "assumed: a what-if") -> Self:
        """Return the same NPU with one value changed, and its source with it.

        Args:
            path: one of `values()`, for example "dma.bytes_per_s".
            value: the new value.
            source: where it comes from.

        Returns:
            The changed NPU.

        Raises:
            HardwareError: no such path, or the value is not allowed.
        """
        return self.with_changes({path: value}, source)

    def with_changes(
        self, changes: Mapping[str, FieldValue], source: str = "assumed: a what-if"
    ) -> Self:
        """Return the same NPU with some values changed, and their sources with them.

        Args:
            changes: {path: new value}.
            source: where the new values come from.

        Returns:
            The changed NPU.

        Raises:
            HardwareError: no such path, or a value is not allowed.
        """
        values = self.values()
        for path in changes:
            check_choice("hardware field", path, values, HardwareError)
        sources = {**self.sources, **dict.fromkeys(changes, source)}
        changed: Self = build_npu(self.name, self.title, {**values, **changes}, sources, type(self))
        return changed


PARTS: Mapping[str, type] = MappingProxyType(
    {
        "matrix": MatrixEngine, "vector": VectorEngine, "dma": Dma, "sram": Sram, "dram": Dram,
        "energy": Energy,
    }
)  # fmt: skip


def call_overhead_us(values: Mapping[str, Any], runtime: str, n_positions: Any) -> Any:
    """Return what the host adds to one graph call, in microseconds.

    Args:
        values: {path: value} of an NPU, or columns [N, 1] of many.
        runtime: one of `RUNTIMES`.
        n_positions: that the call computes, or [n_calls] of many calls.

    Returns:
        A number, or [N, n_calls].
    """
    more_us = 0 * n_positions  # of the right shape
    if runtime == "geniex":
        more_us = values["geniex_overhead_us"] + n_positions * values["geniex_position_us"]
    return values["per_inference_overhead_us"] + more_us


def build_npu(
    name: str,
    title: str,
    values: Mapping[str, FieldValue],
    sources: Mapping[str, str],
    kind: type[Any] = Npu,
) -> Any:
    """Put values where their paths say.

    Args:
        name: of the NPU.
        title: what it is, in a few words.
        values: {path: value} for every path.
        sources: {path: source} for every path.
        kind: class to make.

    Returns:
        The NPU.

    Raises:
        HardwareError: a value is not allowed.
    """
    parts: dict[str, dict[str, FieldValue]] = {part: {} for part in PARTS}
    top: dict[str, FieldValue] = {}
    for path, value in values.items():
        part, _, name_in_part = path.rpartition(".")
        (parts[part] if part else top)[name_in_part] = value
    engines = {part: PARTS[part](**inner) for part, inner in parts.items()}
    return kind(name=name, title=title, **engines, **top, sources=MappingProxyType(dict(sources)))


def _check(path: str, value: Any) -> None:
    """Check one value; what is allowed follows from the unit at the end of its name."""
    if path == "matrix.dataflow":
        check_choice(path, value, ("blocks", "os", "ws", "is"), HardwareError)
    elif path in SWITCHES:
        if not isinstance(value, bool):  # 1 and 1.0 equal True, and are none
            raise HardwareError(f"{path} must be one of True, False; got {short(value)}")
    elif path == "unsupported_ops":
        if not isinstance(value, str):
            raise HardwareError(f"{path} must be names separated by blanks, got {short(value)}")
        for kind in value.split():
            check_choice(f"each of {path}", kind, OPERATIONS, HardwareError)
    else:
        check_number(path, value)
